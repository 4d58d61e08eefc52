//! What `--definer` adds to the statements, and that it changes nothing else.

use stack::Engine;

use super::run;
use crate::engines::on;
use crate::sql_pipe::{stream_of, succeeded};

const NOTE: &str = "-- The views run as ClickHouse user \"shop_pipe\", with only its privileges.\n";
const STATEMENTS: &str = "
-- The views run as this user. Nobody can log in as it.
CREATE USER IF NOT EXISTS `shop_pipe` IDENTIFIED WITH no_authentication HOST NONE;

-- The destination, and the table through which records reach it.
GRANT INSERT ON `default`.`shop_orders`, INSERT ON `default`.`shop_orders_errors`, SELECT, INSERT ON `default`.`shop_orders_landing` TO `shop_pipe`;

-- The pipe's view stops while one of these is missing, so it must see them.
GRANT SHOW TABLES ON `default`.`shop_orders_mv`, SHOW TABLES ON `default`.`shop_orders_errors_mv` TO `shop_pipe`;

-- ClickHouse requires both for url(). The second allows temporary tables only.
GRANT READ ON URL, CREATE TEMPORARY TABLE ON *.* TO `shop_pipe`;

-- The bridge's address and token.
GRANT NAMED COLLECTION ON definer_state_bridge TO `shop_pipe`;
";
const CLAUSE: &str = "\nDEFINER = `shop_pipe` SQL SECURITY DEFINER AS\n";

#[test]
fn a_definer_adds_its_statements_and_a_clause_to_each_view() {
    on(Engine::V25_8, || {
        stream_of("definer-shown", &[r#"{"id": "o-1", "price": 9.5}"#]);
        let without = succeeded(run("definer-shown", "shop_orders", &[]));
        let with = succeeded(run("definer-shown", "shop_orders", &["--definer", "shop_pipe"]));
        for (part, times) in [(NOTE, 1), (STATEMENTS, 1), (CLAUSE, 3)] {
            assert_eq!(with.matches(part).count(), times, "{part}\nin\n{with}");
        }
        assert_eq!(with.replace(NOTE, "").replace(STATEMENTS, "").replace(CLAUSE, " AS\n"), without);
    });
}
