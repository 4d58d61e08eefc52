//! What the connected user or the server does not allow is reported in one sentence, and nothing is
//! left half done.

use std::time::Duration;

use stack::{ClickHouse, ClickHouseOptions, Engine, User};

use super::{refused, run};
use crate::engines::on;
use crate::sql_pipe::{put, run_in, stream_of, succeeded, wait_for_rows};
use crate::world::{bridge_in, sql, stack};

/// What `sql pipe --apply` needs for these tables, apart from the definer.
const MAKER: [&str; 6] = [
    "SELECT, INSERT, CREATE TABLE, CREATE VIEW ON default.*",
    "TABLE ENGINE ON MergeTree",
    "TABLE ENGINE ON Null",
    "READ ON URL",
    "CREATE TEMPORARY TABLE ON *.*",
    "NAMED COLLECTION ON definer_state_bridge",
];

fn tables(like: &str) -> String {
    sql(&format!("SELECT count() FROM system.tables WHERE name LIKE '{like}%'"))
}

#[test]
fn what_the_connected_user_lacks_is_named() {
    on(Engine::V25_8, || {
        stream_of("definer-maker", &[r#"{"id": 1}"#]);
        sql("CREATE USER maker IDENTIFIED BY 'secret'");
        MAKER.iter().for_each(|grant| drop(sql(&format!("GRANT {grant} TO maker"))));
        let flags = ["--clickhouse-user", "maker", "--clickhouse-password", "secret"];
        let run = |flags: &[&str]| run("definer-maker", "definer_maker", flags);
        let apply = || run(&[&flags[..], &["--definer", "made_pipe", "--apply"]].concat());
        assert_eq!(
            refused(&apply()),
            "error: ClickHouse user \"maker\" may not create views that run as user \"made_pipe\", so nothing was changed: run GRANT SET DEFINER ON \
             `made_pipe` TO `maker` as an administrator, or name another user with --clickhouse-user\n"
        );
        sql("GRANT SET DEFINER ON made_pipe TO maker");
        let denied = |what: &str| {
            let said = refused(&apply());
            assert!(said.starts_with("error: ClickHouse user 'maker' lacks a required privilege:"), "{said}");
            assert!(said.contains(&format!("the grant {what}")), "{what}: {said}");
            assert_eq!(tables("definer_maker"), "0\n", "{said}");
        };
        denied("CREATE USER ON made_pipe");
        sql("GRANT CREATE USER ON made_pipe TO maker");
        denied("INSERT ON default.definer_maker WITH GRANT OPTION");
        sql("GRANT SELECT, INSERT ON default.* TO maker WITH GRANT OPTION");
        denied("READ ON URL WITH GRANT OPTION");
        sql(
            "GRANT READ ON URL, CREATE TEMPORARY TABLE ON *.*, NAMED COLLECTION ON definer_state_bridge TO maker WITH GRANT OPTION",
        );
        succeeded(apply());
        wait_for_rows("definer_maker", 1);
        sql("DROP TABLE definer_maker_pipe");
    });
}

#[test]
fn a_user_of_users_xml_is_not_changed() {
    on(Engine::V25_8, || {
        stream_of("definer-xml", &[r#"{"id": 1}"#]);
        let script = succeeded(run("definer-xml", "definer_xml", &["--definer", "default", "--apply"]));
        for line in [
            "-- The views run as ClickHouse user \"default\", with only its privileges.\n",
            "-- SQL cannot change that user (it is in users.xml, or in LDAP). It needs these grants there:\n",
            "-- GRANT READ ON URL, CREATE TEMPORARY TABLE ON *.*\n",
        ] {
            assert!(script.contains(line), "{script}");
        }
        assert!(!script.contains("\nGRANT") && !script.contains("CREATE USER"), "{script}");
        wait_for_rows("definer_xml", 1);
        sql("DROP TABLE definer_xml_pipe");
    });
}

/// 26.7 here has users only from users.xml: following the message is enough.
#[test]
fn a_server_without_users_of_sql_says_what_to_write_into_users_xml() {
    on(Engine::V26_7, || {
        stream_of("definer-file", &[r#"{"id": 1}"#]);
        let start = |users: Vec<User>| {
            let dir = tempfile::tempdir().expect("a folder");
            let options = ClickHouseOptions { users, ..ClickHouseOptions::default() };
            let clickhouse = ClickHouse::start(Engine::V26_7, dir.path(), Some(stack().zookeeper.port()), &options)
                .expect("ClickHouse");
            (clickhouse, dir)
        };
        let (without, _dir) = start(Vec::new());
        let own = [("KINESIS_BRIDGE_CLICKHOUSE_URL", &*without.url())];
        let bridge = bridge_in("definer_file", &[], &own);
        let flags = ["--listen", bridge.address(), "--stream", "definer-file", "--table", "orders"];
        let flags = [&flags[..], &["--definer", "orders_pipe", "--apply"]].concat();
        let said = refused(&run_in(&own, &flags));
        let (_, grants) = said.split_once("a <query> for each of: ").expect("the grants");
        let (grants, then) = grants.split_once(". Then ").expect("an end");
        assert_eq!(then, "run this again\n");
        let begin = format!(
            "error: ClickHouse at {} has no user \"orders_pipe\", and CREATE USER does not work there: ",
            without.url()
        );
        assert!(said.starts_with(&begin), "{said}");
        assert_eq!(without.query("SHOW TABLES").as_deref(), Ok(""));

        let grants = grants.split("; ").map(String::from).collect();
        let (with, _dir) = start(vec![User { name: "orders_pipe".into(), password: String::new(), grants }]);
        let own = [("KINESIS_BRIDGE_CLICKHOUSE_URL", &*with.url())];
        let bridge = bridge_in("definer_file_again", &[], &own);
        let flags = [&flags[2..], &["--listen", bridge.address()]].concat();
        succeeded(run_in(&own, &flags));
        // Every second refresh fails after the rows are inserted.
        let bomb = "CREATE TABLE sink (n UInt64) ENGINE = Null;\n\
                    CREATE MATERIALIZED VIEW bomb TO sink DEFINER = CURRENT_USER SQL SECURITY DEFINER AS SELECT throwIf(randConstant() % 2 = 0, 'the bomb went off') + 0 AS n FROM orders;\n";
        with.run_script(bomb).expect("a view that throws");
        let records = |from: usize| (from..from + 20).map(|n| format!(r#"{{"id": {n}}}"#).into_bytes());
        let count =
            || with.query("SELECT count() FROM orders").expect("a count").trim().parse::<usize>().expect("a number");
        let mut put_in_all = 1;
        while !bridge.log().contains("the bomb went off") || put_in_all < 200 {
            put("definer-file", records(put_in_all + 1));
            put_in_all += 20;
            let refreshes =
                || with.query("SELECT * FROM system.view_refreshes FORMAT Vertical").unwrap_or_else(|error| error);
            let report = || format!("{} of {put_in_all} records: {}\n{}", count(), refreshes(), bridge.log_tail());
            crate::common::wait_until(Duration::from_secs(90), || count() >= put_in_all, report);
        }
        assert_eq!(count(), put_in_all);
        with.query("DROP TABLE orders_pipe").expect("dropped");
    });
}
