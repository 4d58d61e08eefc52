//! Each engine, with what it is used for.

use stack::{ClickHouse, ClickHouseOptions, Cluster, Engine, ZooKeeper};

#[test]
fn each_engine_is_its_release_and_keeps_keeper_map() {
    let dir = crate::folder();
    let zookeeper = ZooKeeper::start(&dir.path().join("zookeeper")).expect("ZooKeeper");
    for (engine, release) in [(Engine::V25_8, "25.8."), (Engine::V26_7, "26.7.")] {
        let folder = dir.path().join(release);
        let clickhouse = ClickHouse::start(engine, &folder, Some(zookeeper.port()), &ClickHouseOptions::default())
            .unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        let ask = |sql: &str| clickhouse.query(sql).unwrap_or_else(|error| panic!("{engine:?}: {sql}: {error}"));
        if !Engine::is_users_own() {
            assert!(ask("SELECT version()").starts_with(release), "{engine:?}: {}", ask("SELECT version()"));
        }
        ask("CREATE TABLE IF NOT EXISTS seen (engine String) ENGINE = KeeperMap('/seen') PRIMARY KEY engine");
        ask(&format!("INSERT INTO seen VALUES ('{release}')"));
        clickhouse.restart().expect("a restart after SIGKILL");
        assert_eq!(ask(&format!("SELECT engine FROM seen WHERE engine = '{release}'")), format!("{release}\n"));
    }
}

#[test]
fn servers_of_25_8_replicate_tables_and_databases() {
    let cluster = Cluster::start(Engine::V25_8, 2).expect("two servers");
    let [one, two] = &cluster.servers[..] else { panic!("two servers") };
    let ask = |server: &ClickHouse, sql: &str| server.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    ask(one, "CREATE TABLE numbers ON CLUSTER '{cluster}' (n UInt64) ENGINE = ReplicatedMergeTree ORDER BY n");
    ask(one, "INSERT INTO numbers SELECT number FROM numbers(1000)");
    ask(two, "SYSTEM SYNC REPLICA numbers");
    assert_eq!(ask(two, "SELECT sum(n) FROM numbers"), "499500\n");

    two.kill();
    ask(one, "INSERT INTO numbers VALUES (1000)");
    two.start_again().expect("a start after SIGKILL");
    ask(two, "SYSTEM SYNC REPLICA numbers");
    assert_eq!(ask(two, "SELECT sum(n) FROM numbers"), "500500\n");

    ask(one, "CREATE DATABASE shared ON CLUSTER '{cluster}' ENGINE = Replicated('/shared', '{shard}', '{replica}')");
    ask(one, "CREATE TABLE shared.t (n UInt64) ENGINE = ReplicatedMergeTree ORDER BY n");
    ask(two, "SYSTEM SYNC DATABASE REPLICA shared");
    ask(two, "INSERT INTO shared.t VALUES (7)");
    ask(one, "SYSTEM SYNC REPLICA shared.t");
    assert_eq!(ask(one, "SELECT n FROM shared.t"), "7\n");
}

#[test]
fn a_server_of_25_8_keeps_users_that_sql_created() {
    let dir = crate::folder();
    let clickhouse =
        ClickHouse::start(Engine::V25_8, dir.path(), None, &ClickHouseOptions::default()).expect("ClickHouse");
    for statement in [
        "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n",
        "CREATE ROLE readers",
        "GRANT SELECT ON default.t TO readers",
        "CREATE USER anna IDENTIFIED BY 'secret'",
        "GRANT readers TO anna",
        "CREATE NAMED COLLECTION c AS url = 'http://h/'",
    ] {
        clickhouse.query(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    clickhouse.restart().expect("a restart");
    let as_anna = |sql| clickhouse.query_as("anna", "secret", sql);
    assert_eq!(as_anna("SELECT count() FROM t").as_deref(), Ok("0\n"));
    let error = as_anna("INSERT INTO t VALUES (1)").expect_err("a right that she lacks");
    assert!(error.contains("ACCESS_DENIED"), "{error}");
    assert_eq!(clickhouse.query("SELECT name FROM system.named_collections").as_deref(), Ok("c\n"));
}
