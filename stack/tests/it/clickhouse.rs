use std::time::Instant;

use stack::{ClickHouse, ClickHouseOptions, Engine, PASSWORD_USER, TEST_PASSWORD, User, WEAK_USER, ZooKeeper};

const MAP: &str = "CREATE TABLE leases (key String, owner String) ENGINE = KeeperMap('/leases') PRIMARY KEY key";

#[test]
fn tables_and_keeper_map_survive_every_kind_of_end() {
    let dir = crate::folder();
    let zookeeper = ZooKeeper::start(&dir.path().join("zookeeper")).expect("ZooKeeper");
    let options = ClickHouseOptions::default();
    let clickhouse =
        ClickHouse::start(Engine::V26_7, &dir.path().join("a"), Some(zookeeper.port()), &options).expect("ClickHouse");
    let ask = |sql: &str| clickhouse.query(sql).expect(sql);
    ask("CREATE TABLE numbers (n UInt64) ENGINE = MergeTree ORDER BY n");
    ask("INSERT INTO numbers SELECT number FROM numbers(1000)");
    ask(MAP);
    ask("INSERT INTO leases VALUES ('shard-0', 'a')");
    let (url, pid) = (clickhouse.url(), clickhouse.pid());

    clickhouse.restart().expect("a restart after SIGKILL");
    assert_eq!(clickhouse.url(), url);
    assert_ne!(clickhouse.pid(), pid);
    assert_eq!(ask("SELECT count() FROM numbers"), "1000\n");

    let started = Instant::now();
    clickhouse.stop().expect("an end on SIGTERM");
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    clickhouse.start_again().expect("a start after SIGTERM");
    assert_eq!(ask("SELECT sum(n) FROM numbers"), "499500\n");

    zookeeper.restart().expect("a restart of ZooKeeper");
    assert_eq!(ask("SELECT owner FROM leases WHERE key = 'shard-0'"), "a\n");

    let second = ClickHouse::start(Engine::V26_7, &dir.path().join("b"), Some(zookeeper.port()), &options)
        .expect("a second ClickHouse");
    second.query(MAP).expect("the same table");
    assert_eq!(second.query("SELECT key, owner FROM leases").expect("rows"), "shard-0\ta\n");
}

#[test]
fn users_rights_and_errors_are_as_configured() {
    let dir = crate::folder();
    let options = ClickHouseOptions {
        keeper_map: false,
        users: vec![User {
            name: "auditor".to_owned(),
            password: "s<cret & more".to_owned(),
            grants: vec!["GRANT SELECT ON system.*".to_owned()],
        }],
        ..ClickHouseOptions::default()
    };
    let clickhouse = ClickHouse::start(Engine::V26_7, dir.path(), None, &options).expect("ClickHouse");
    let as_user = |user, password, sql| clickhouse.query_as(user, password, sql);

    let error = clickhouse.query(MAP).expect_err("KeeperMap is not configured");
    assert!(error.contains("keeper_map_path_prefix"), "{error}");
    let error = as_user(PASSWORD_USER, "wrong", "SELECT 1").expect_err("a wrong password");
    assert!(error.contains("AUTHENTICATION_FAILED"), "{error}");
    as_user(PASSWORD_USER, TEST_PASSWORD, "CREATE DATABASE kinesis").expect("every right");
    as_user(PASSWORD_USER, TEST_PASSWORD, "CREATE NAMED COLLECTION c AS url = 'http://h/'").expect("named collections");
    let error = as_user(WEAK_USER, TEST_PASSWORD, "CREATE TABLE kinesis.t (n Int8) ENGINE = Memory")
        .expect_err("no right to the database");
    assert!(error.contains("ACCESS_DENIED"), "{error}");
    as_user("auditor", "s<cret & more", "SELECT * FROM system.view_refreshes").expect("a granted right");

    clickhouse.query("SELECT 'found me'").expect("a query");
    clickhouse.query("SYSTEM FLUSH LOGS").expect("a flush");
    let logged = clickhouse
        .query("SELECT count() FROM system.query_log WHERE type = 'QueryFinish' AND query = 'SELECT \\'found me\\''")
        .expect("the query log");
    assert_eq!(logged, "1\n");
}

#[test]
fn the_bridges_own_account_may_do_what_the_bridge_does_and_no_more() {
    let dir = crate::folder();
    let zookeeper = ZooKeeper::start(&dir.path().join("zookeeper")).expect("ZooKeeper");
    let clickhouse = ClickHouse::start(
        Engine::V26_7,
        &dir.path().join("clickhouse"),
        Some(zookeeper.port()),
        &ClickHouseOptions::default(),
    )
    .expect("ClickHouse");
    clickhouse
        .run_script(
            "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n;
             CREATE MATERIALIZED VIEW pipe REFRESH EVERY 1 DAY APPEND TO t AS SELECT 1 AS n;",
        )
        .expect("a user's table and view");
    for statement in [
        "CREATE DATABASE IF NOT EXISTS kinesis",
        "CREATE TABLE kinesis.leases (key String, epoch UInt64) ENGINE = KeeperMap('/leases') PRIMARY KEY key",
        "CREATE VIEW kinesis.checkpoints AS SELECT key FROM kinesis.leases",
        "INSERT INTO kinesis.leases SETTINGS keeper_map_strict_mode = 1 VALUES ('a', 1)",
        "ALTER TABLE kinesis.leases UPDATE epoch = 2 WHERE key = 'a' SETTINGS keeper_map_strict_mode = 1",
        "ALTER TABLE kinesis.leases DELETE WHERE key = 'a'",
        "SELECT key, epoch, _version FROM kinesis.leases",
        "SYSTEM WAIT VIEW default.pipe",
        "SELECT status, exception FROM system.view_refreshes WHERE view = 'pipe'",
    ] {
        clickhouse.query_as("bridge", TEST_PASSWORD, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    for statement in ["SELECT * FROM default.t", "DROP TABLE default.t", "CREATE USER u"] {
        let error = clickhouse.query_as("bridge", TEST_PASSWORD, statement).expect_err(statement);
        assert!(error.contains("ACCESS_DENIED"), "{statement}: {error}");
    }
}
