//! The operator's grants.

use super::{PASSWORD, World, printed, privileges};
use crate::common::orders_sql;
use crate::world::wait_until;

#[test]
fn the_operator_needs_each_grant() {
    let world = World::start();
    world.create_user("bridge", &printed("docs/deploy.md", "GRANT"));
    let bridge = world.start_bridge();
    let setup = sql::setup(&sql::SetupParams {
        database: "kinesis",
        bridge_url: &bridge.url(),
        token: None,
        state_tables: true,
    });
    world.stack.clickhouse.run_script(&setup).expect("the printed setup");
    let grants = printed("docs/operations.md", "GRANT");
    world.create_user("operator", &grants);
    let window = "SETTINGS non_replicated_deduplication_window = 1000";
    let create = || {
        world.stack.clickhouse.run_script(&orders_sql(&bridge.url(), "orders", "", window)).expect("the pipe");
        wait_until("the orders", || world.ask("SELECT count() FROM orders") == "4\n");
        world.ask("SYSTEM FLUSH LOGS");
    };
    create();
    let ask = |sql: &str| world.stack.clickhouse.query_as("operator", PASSWORD, sql);
    let seek = "INSERT INTO kinesis.seek (pipe, position) VALUES ('orders', 'latest')";
    let cases = [
        ("SELECT ON kinesis.*", "SELECT gaps FROM kinesis.lag", ") ON kinesis.lag"),
        ("CREATE TEMPORARY TABLE ON *.*", "SELECT gaps FROM kinesis.lag", "the grant CREATE TEMPORARY TABLE ON *.*"),
        ("READ ON URL", "SELECT gaps FROM kinesis.lag", "the grant READ ON URL"),
        (
            "NAMED COLLECTION ON kinesis_bridge",
            "SELECT gaps FROM kinesis.lag",
            "the grant NAMED COLLECTION ON kinesis_bridge",
        ),
        ("SELECT ON system.view_refreshes", "SELECT view FROM kinesis.refreshes", ") ON system.view_refreshes"),
        ("SELECT ON system.query_log", "SELECT count() FROM system.query_log", "system.query_log"),
        ("SYSTEM VIEWS ON default.*", "SYSTEM STOP VIEW orders_pipe", "the grant SYSTEM VIEWS ON default.orders_pipe"),
        ("INSERT ON kinesis.seek", seek, ") ON kinesis.seek"),
        ("TRUNCATE ON default.*", "TRUNCATE TABLE orders", "the grant TRUNCATE ON default.orders"),
        ("DROP VIEW ON default.*", "DROP VIEW orders_pipe", "the grant DROP VIEW ON default.orders_pipe"),
        ("INSERT ON kinesis.end", "INSERT INTO kinesis.end VALUES ('orders')", ") ON kinesis.end"),
    ];
    let mut left = privileges(&grants, "operator");
    // The first six are enough for read-only access. Without SHOW TABLES there is no message, but
    // there are no rows either. Every privilege to change a table or view implies it.
    let shown = "SHOW TABLES ON default.*";
    left.retain(|grant| grant != shown);
    let looking: Vec<String> = grants[..6].iter().map(|grant| grant.replace(" TO operator", " TO looker")).collect();
    world.create_user("looker", &looking);
    let views = || world.stack.clickhouse.query_as("looker", PASSWORD, "SELECT view FROM kinesis.refreshes");
    assert_eq!(views().as_deref(), Ok("orders_pipe\n"));
    world.ask(&format!("REVOKE {shown} FROM looker"));
    assert_eq!(views().as_deref(), Ok(""));
    for (grant, statement, named) in cases {
        left.retain(|left| left != grant);
        world.ask(&format!("REVOKE {grant} FROM operator"));
        let refused = ask(statement).expect_err(statement);
        assert!(refused.contains("Not enough privileges") && refused.contains(named), "{grant}: {refused}");
        world.ask(&format!("GRANT {grant} TO operator"));
        let allowed =
            || ask(statement).map_err(|error| assert!(!error.contains("Not enough privileges"), "{grant}: {error}"));
        wait_until(statement, || allowed().is_ok());
    }
    assert_eq!(left, Vec::<String>::new(), "nothing shows that these are needed");
}
