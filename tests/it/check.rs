//! What `check` and the log of `serve` report about a ClickHouse server and its user, on real
//! servers.

mod running;

use std::collections::BTreeSet;

use adapters::clickhouse::{ClickHouse, Wanted};
use domain::finding::{Finding, Verdict};
use stack::{Engine, TEST_PASSWORD};

use crate::engines::{engine, on, on_each_engine};
use crate::errors::command_line::{run, stderr, token_file};
use crate::world::{block_on, bridge_in, create_stream, sql, stack, wait_until};

on_each_engine!(check_finds_that_all_is_well, serve_says_what_check_says);

const DEPENDENT_VIEWS: &str = "deduplicate_blocks_in_dependent_materialized_views";

/// The findings about the shared ClickHouse and its user, who has all grants in this database.
fn of_clickhouse(user: &str) -> Vec<String> {
    let (server, version) = (stack().clickhouse.url(), sql("SELECT version()"));
    let dependent = match sql(&format!("SELECT value FROM system.settings WHERE name = '{DEPENDENT_VIEWS}'")).trim() {
        "1" => format!("ok    {DEPENDENT_VIEWS}: 1: views below a pipe's table get each row only once"),
        _ => format!(
            "note  {DEPENDENT_VIEWS}: 0 for this user, the default before 26.2: rows may be duplicated or missing below a pipe's table unless the SELECT of the pipe's view sets it to 1, as the README's SQL and `sql pipe` do"
        ),
    };
    vec![
        format!(
            "ok    ClickHouse {} at {server}: has APPEND, SYSTEM WAIT VIEW and everything else that pipes need",
            version.trim()
        ),
        format!("ok    grants of ClickHouse user '{user}': all that docs/deploy.md lists"),
        "ok    background_schedule_pool_size: 64: up to this many views can wait for records at a time; ".into(),
        dependent,
    ]
}

fn check_finds_that_all_is_well() {
    create_stream("err-check", 2);
    let token = token_file("check-token-0123");
    // As shipped: the user of docker/clickhouse/users.d/bridge.xml.
    let flags = ["check", "--stream", "err-check", "--clickhouse-user", "bridge", "--token-file", token.1.as_str()];
    let output = run(&flags, &[("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", TEST_PASSWORD)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{said}");
    let mut expected = vec![
        "ok    AWS in region us-east-1: ".to_owned(),
        "ok    stream 'err-check': ACTIVE, PROVISIONED, 2 open shards, 24 h of retention, readable".into(),
    ];
    expected.extend(of_clickhouse("bridge"));
    expected.push("ok    state tables in database 'kinesis': ".into());
    expected.push("note  views of sql setup in database 'kinesis': there are none".into());
    expected.push("note  bridge at http://127.0.0.1:9020: is not running (".into());
    expected.push("ok    clock of ClickHouse: agrees with this machine's".into());
    expected.push("ok    token: requests need the token in --token-file".into());
    // Kinesis emulators may send no date, and other tests have bridges and views.
    let varies = ["clock of AWS", "workers: ", "other views of pipes: "];
    let lines: Vec<&str> = said.lines().filter(|line| varies.iter().all(|varies| !line.contains(varies))).collect();
    assert_eq!(lines.len(), expected.len(), "{said}");
    // Other tests create streams, views and leases of their own.
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(expected), "{line}\nis not\n{expected}");
    }
}

fn serve_says_what_check_says() {
    let bridge = bridge_in("err_serve", &[], &[]);
    for line in of_clickhouse("default") {
        let said = &line[6..];
        wait_until(said, || bridge.log().contains(said));
    }
}

/// The flags of the bridge for a server with users of its own.
fn abilities(user: &str, database: &str) -> Vec<Finding> {
    let clickhouse = ClickHouse::new(&stack().clickhouse.url(), user, TEST_PASSWORD);
    let wanted = Wanted { user, database, keeper_map: true };
    block_on(clickhouse.abilities(&wanted)).expect("answers")
}

/// The verdict about the user's grants, and the message.
fn grants(user: &str, database: &str) -> (Verdict, String) {
    let found = abilities(user, database).into_iter().find(|finding| finding.what.starts_with("grants of "));
    found.map(|finding| (finding.verdict, finding.says)).expect("a finding")
}

/// The privileges that docs/deploy.md lists, each with its object.
fn documented() -> Vec<(String, String)> {
    let deploy = std::fs::read_to_string(stack::checkout().join("docs/deploy.md")).expect("deploy.md");
    let block = deploy.split("```").find(|block| block.contains("\nGRANT ")).expect("the grants");
    let statements = block.lines().filter_map(|line| line.strip_prefix("GRANT ")?.strip_suffix(" TO bridge;"));
    let each = statements.flat_map(|statement| {
        let (rights, on) = statement.split_once(" ON ").expect("ON");
        rights.split(", ").map(|right| (right.to_owned(), on.to_owned())).collect::<Vec<_>>()
    });
    each.collect()
}

/// Only 25.8 has SQL-managed users.
#[test]
fn each_grant_that_is_taken_away_is_named() {
    on(Engine::V25_8, || {
        let (user, database) = ("check_grants", "check_grants");
        assert_eq!(engine(), Engine::V25_8);
        sql(&format!("CREATE USER {user} IDENTIFIED BY '{TEST_PASSWORD}'"));
        let all: BTreeSet<_> = documented().into_iter().collect();
        let statement = |(right, on): &(String, String), word: &str, to: &str| {
            sql(&format!("{word} {right} ON {} {to} {user}", on.replace("kinesis.", &format!("{database}."))))
        };
        for grant in &all {
            statement(grant, "GRANT", "TO");
        }
        assert_eq!(grants(user, database), (Verdict::Fine, "all that docs/deploy.md lists".into()));
        for grant in &all {
            let (right, on) = grant;
            statement(grant, "REVOKE", "FROM");
            let (verdict, says) = grants(user, database);
            let named = match &**on {
                "kinesis.*" => format!("GRANT {right} ON `{database}`.* TO `{user}`"),
                "default.*" => format!("GRANT {right} ON `default`.* TO `{user}`"),
                on => format!("GRANT {right} ON {on} TO `{user}`"),
            };
            assert!(verdict != Verdict::Fine && says.contains(&named), "{named} is not in {says}");
            statement(grant, "GRANT", "TO");
        }
        sql(&format!("DROP USER {user}"));
    });
}

/// A missing privilege that is only needed for something already done stops nothing.
#[test]
fn a_user_who_finds_the_tables_need_not_create_them() {
    on(Engine::V25_8, || {
        let (user, database) = ("check_tables", "check_tables");
        sql(&format!("CREATE USER {user} IDENTIFIED BY '{TEST_PASSWORD}'"));
        sql(&format!("GRANT SELECT, INSERT, ALTER UPDATE, ALTER DELETE ON {database}.* TO {user}"));
        sql(&format!("GRANT SELECT ON system.view_refreshes TO {user}"));
        let (verdict, says) = grants(user, database);
        let create = format!("GRANT CREATE DATABASE, CREATE TABLE ON `{database}`.* TO `{user}`");
        assert!(verdict == Verdict::Bad && says.contains(&create), "{says}");
        for create in sql::state(database).iter().chain(&sql::quarantine(database, true)) {
            sql(create);
        }
        let (verdict, says) = grants(user, database);
        let named = format!("{create} (only to create its tables, which already exist)");
        assert!(verdict == Verdict::Note && says.contains(&named), "{says}");
        // A view of a pipe that the user can see but may not wait for.
        sql(&format!("CREATE DATABASE {database}_views"));
        sql(&format!("CREATE TABLE {database}_views.rows (n UInt64) ENGINE = MergeTree ORDER BY n"));
        sql(&format!(
            "CREATE MATERIALIZED VIEW {database}_views.pipe REFRESH EVERY 1 YEAR APPEND TO {database}_views.rows EMPTY AS SELECT n FROM \
             url('http://localhost:9020/v1/pipes/check/next?stream=s&view={database}_views.pipe', 'ArrowStream', 'n UInt64')"
        ));
        sql(&format!("GRANT SHOW ON {database}_views.* TO {user}"));
        let (verdict, says) = grants(user, database);
        let wait = format!("GRANT SYSTEM VIEWS ON `{database}_views`.* TO `{user}`");
        assert!(verdict == Verdict::Bad && says.contains(&wait), "{says}");
        sql(&format!("DROP VIEW {database}_views.pipe"));
        sql(&format!("DROP USER {user}"));
    });
}
