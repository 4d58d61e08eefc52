//! `sql dynamodb --definer`, also for an existing target.

use std::cell::Cell;

use aws_sdk_dynamodb::types::AttributeValue;
use stack::Engine;

use super::{definer, each_grant_is_needed, grants, nobody_can_log_in_as};
use crate::dynamodb::items::{Item, Key};
use crate::dynamodb::put_items;
use crate::engines::on;
use crate::sql_dynamodb::{answers, captured, equals, now, printed, put_event, send};
use crate::world::sql;

const VIEWS: [&str; 3] = ["definer_users_pipe", "definer_users_mv", "definer_users_errors_mv"];

fn item(id: usize, more: &[&str]) -> Item {
    let text = |text: String| AttributeValue::S(text);
    let own = ("id".to_owned(), text(format!("u-{id}")));
    more.iter().map(|name| ((*name).to_owned(), text(format!("{name} of {id}")))).chain([own]).collect()
}

#[test]
fn a_target_keeps_its_definer_and_may_get_another() {
    on(Engine::V25_8, || {
        let table = captured("definer_users", &[("id", Key::S)]);
        let (began, items) = (now(), Cell::new(0));
        let put = |more: &[&str]| {
            items.set(items.get() + 1);
            let item = item(items.get(), more);
            put_items("definer_users", [&item]);
            send("definer_users", [put_event(&table, &item, began)]);
        };
        let arrived = || equals("definer_users", "default.definer_users", items.get());
        let come = |more: &[&str]| {
            put(more);
            arrived();
        };
        put(&["name"]);
        printed("definer_users", &["--definer", "users_pipe", "--apply"]);
        come(&["name"]);
        nobody_can_log_in_as("users_pipe");
        VIEWS.iter().for_each(|view| assert_eq!(definer(view), "users_pipe"));
        assert_eq!(definer("definer_users_final"), "", "readers read with their own rights");
        assert_eq!(
            grants("users_pipe"),
            [
                "GRANT CREATE TEMPORARY TABLE ON *.*",
                "GRANT URL ON *.*",
                "GRANT INSERT ON default.definer_users",
                "GRANT INSERT ON default.definer_users_errors",
                "GRANT SHOW TABLES ON default.definer_users_errors_mv",
                "GRANT SELECT, INSERT ON default.definer_users_landing",
                "GRANT SHOW TABLES ON default.definer_users_mv",
            ]
        );
        let missing_view = "must both exist (and this user must see them)";
        let needed = [
            ("INSERT ON default.definer_users", ") ON default.definer_users. (ACCESS_DENIED)"),
            ("INSERT ON default.definer_users_errors", ") ON default.definer_users_errors. (ACCESS_DENIED)"),
            ("SELECT ON default.definer_users_landing", "the grant SELECT("),
            ("INSERT ON default.definer_users_landing", "the grant INSERT("),
            ("SHOW TABLES ON default.definer_users_mv", missing_view),
            ("READ ON URL", "the grant READ ON URL"),
            ("SHOW TABLES ON default.definer_users_errors_mv", missing_view),
            ("CREATE TEMPORARY TABLE ON *.*", "the grant CREATE TEMPORARY TABLE ON *.*"),
        ];
        each_grant_is_needed("users_pipe", "definer_users_pipe", &needed, || put(&["name"]), arrived);

        // Again without the flag, with an attribute that needs a column: the definer stays the
        // same.
        come(&["name", "city"]);
        printed("definer_users", &["--apply"]);
        VIEWS.iter().for_each(|view| assert_eq!(definer(view), "users_pipe"));
        come(&["name", "city"]);
        // And with another user, while the pipe is running.
        let script = printed("definer_users", &["--definer", "users_pipe_2", "--apply"]);
        assert!(
            script.contains(
                "ALTER TABLE `default`.`definer_users_pipe` MODIFY DEFINER = `users_pipe_2` SQL SECURITY DEFINER;"
            ),
            "{script}"
        );
        VIEWS.iter().for_each(|view| assert_eq!(definer(view), "users_pipe_2"));
        sql("DROP USER users_pipe");
        (0..3).for_each(|_| come(&["name", "city"]));
        answers("SELECT countIf(city != '') FROM definer_users_final", "5\n");
        assert_eq!(sql("SELECT count() FROM definer_users_errors"), "0\n");
        sql("DROP TABLE definer_users_pipe");
    });
}
