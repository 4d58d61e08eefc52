//! A ClickHouse that refuses, is not configured, or is unavailable.

use stack::{Bridge, ClickHouse, ClickHouseOptions, PASSWORD_USER, TEST_PASSWORD, WEAK_USER};

use crate::engines::{engine, on_each_engine};
use crate::proxy::Relay;
use crate::world::{
    NEXT, binary, bridge_in, create_pipe, create_stream, drop_pipe, environment_with, get, message, put_numbered,
    refresh_exception, sql, stack, wait_until,
};

on_each_engine!(
    users_without_password_or_rights_are_told,
    a_server_without_keeper_map_is_told_what_it_lacks,
    a_clickhouse_that_comes_later_finds_a_working_bridge,
);

const WRONG_PASSWORD: &str = "not-the-password-of-anybody";

fn users_without_password_or_rights_are_told() {
    create_stream("err-user", 1);
    let server = stack().clickhouse.url();
    let table = [
        (
            PASSWORD_USER,
            WRONG_PASSWORD,
            format!(
                "ClickHouse at {server} refuses user '{PASSWORD_USER}': check --clickhouse-user and --clickhouse-password (or \
                 --clickhouse-password-file)"
            ),
        ),
        (
            WEAK_USER,
            TEST_PASSWORD,
            format!(
                "ClickHouse user '{WEAK_USER}' lacks a required privilege: weak: Not enough privileges. To execute this query, it's necessary to \
                 have the grant SELECT ON system.view_refreshes. (ACCESS_DENIED); grant it, or name \
                 another user with --clickhouse-user"
            ),
        ),
    ];
    for (user, password, sentence) in table {
        let bridge = bridge_in(
            "err_user",
            &[("--clickhouse-user", user), ("--log-level", "trace")],
            &[("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", password)],
        );
        create_pipe(&bridge, "err_user", "stream=err-user&view=default.err_user_view");
        let exception = refresh_exception("err_user_view");
        let mut said = message(&exception).to_owned();
        // 25.8 names the columns, later releases the table.
        if let (Some(from), Some(to)) = (said.find("(uuid"), said.find(") ON")) {
            said.replace_range(from..=to, "");
        }
        assert_eq!(said, sentence);
        drop_pipe("err_user");
        let pull = get(&bridge, "/v1/pipes/err_user/next?stream=err-user&view=default.err_user_view");
        assert!(pull.status == 400 && pull.text().contains("\"error\":\"misconfigured\""), "{}", pull.text());
        let not_ready = get(&bridge, "/readyz");
        assert_eq!(not_ready.status, 503);
        assert!(!not_ready.text().contains(user), "{}", not_ready.text());
        let line = "the state tables are not usable yet: ClickHouse";
        wait_until("the log line", || bridge.log().contains(line));
        for secret in [WRONG_PASSWORD, TEST_PASSWORD] {
            assert!(!bridge.log().contains(secret), "{}", bridge.log());
        }
    }
}

fn a_server_without_keeper_map_is_told_what_it_lacks() {
    let table = [
        (
            false,
            Some(stack().zookeeper.port()),
            "KeeperMap is disabled because 'keeper_map_path_prefix' config is not defined. (BAD_ARGUMENTS)",
        ),
        (true, None, "There is no Zookeeper configuration in server config. (NO_ELEMENTS_IN_CONFIG)"),
    ];
    create_stream("err-keeper", 1);
    for (keeper_map, zookeeper, said) in table {
        let dir = tempfile::Builder::new().prefix("errors-").tempdir().expect("a folder");
        let options = ClickHouseOptions { keeper_map, ..ClickHouseOptions::default() };
        let clickhouse =
            ClickHouse::start(engine(), &dir.path().join("clickhouse"), zookeeper, &options).expect("ClickHouse");
        let server = clickhouse.url();
        let environment = environment_with(&[("KINESIS_BRIDGE_CLICKHOUSE_URL", &server)]);
        let bridge = Bridge::start(binary(), &[], &environment).expect("a bridge");
        let sentence = format!(
            "ClickHouse at {server} has no KeeperMap ({said}): add <keeper_map_path_prefix>/keeper_map</keeper_map_path_prefix> and a Keeper \
             (<zookeeper>) to the server's configuration, or run the bridge with --state file:DIR"
        );
        let line = format!("the state tables are not usable yet: {sentence}");
        wait_until("the log line", || bridge.log().contains(&line));
        let url = format!("{}/v1/pipes/p/next?stream=err-keeper&ack=explicit", bridge.url());
        let query = format!("SELECT * FROM url('{url}', 'ArrowStream', '_key String') SETTINGS http_max_tries = 1");
        let exception = clickhouse.query(&query).expect_err("no KeeperMap");
        assert_eq!(message(&exception), sentence);
    }
}

fn a_clickhouse_that_comes_later_finds_a_working_bridge() {
    create_stream("err-late", 1);
    put_numbered("err-late", "a", 5);
    let relay = Relay::new(&stack().clickhouse.url());
    let server = relay.url();
    let bridge = bridge_in("err_late", &[], &[("KINESIS_BRIDGE_CLICKHOUSE_URL", &server)]);
    let sentence = format!(
        "ClickHouse at {server} does not answer: connection refused; is it running, and is --clickhouse-url its HTTP port?"
    );
    wait_until("the log line", || bridge.log().contains(&format!("not usable yet: {sentence}")));
    assert_eq!(get(&bridge, "/readyz").status, 503);
    assert_eq!(get(&bridge, "/healthz").status, 200);
    create_pipe(&bridge, "err_late", "stream=err-late&view=default.err_late_view&linger_ms=0");
    assert_eq!(message(&refresh_exception("err_late_view")), sentence);
    relay.open();
    wait_until("the rows", || sql("SELECT count() FROM err_late") == "5\n");
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    // And unavailable once more, while the pipe is working.
    relay.close();
    put_numbered("err-late", "b", 5);
    wait_until("a failing view", || refresh_exception("err_late_view").contains(&sentence));
    relay.open();
    wait_until("the rows", || sql("SELECT count() FROM err_late") == "10\n");
    assert_eq!(sql("SELECT uniqExact(_key) FROM err_late"), "10\n");
    drop_pipe("err_late");
}

/// Each refresh would leave the rows of only one batch in the table, while all of them would count
/// as inserted.
#[test]
fn a_view_that_replaces_its_table_is_given_nothing() {
    create_stream("err-append", 1);
    put_numbered("err-append", "a", 5);
    let bridge = bridge_in("err_append", &[], &[]);
    let url =
        format!("{}/v1/pipes/err_append/next?stream=err-append&view=err_replacing.pipe&wait_ms=1000", bridge.url());
    sql("CREATE DATABASE err_replacing ENGINE = Atomic");
    sql("CREATE TABLE err_replacing.rows (_key String) ENGINE = MergeTree ORDER BY _key");
    sql(&format!(
        "CREATE MATERIALIZED VIEW err_replacing.pipe REFRESH AFTER 2 SECOND \
         SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 1000 \
         TO err_replacing.rows COMMENT 'to APPEND TO' AS SELECT _key FROM url('{url}', 'ArrowStream', '{NEXT}') \
         WHERE _key != ' APPEND TO ' SETTINGS http_max_tries = 1"
    ));
    let sentence = "view err_replacing.pipe replaces the rows of err_replacing.rows with each refresh, so the rows of every batch but the last would \
                    be lost: drop it, and create it with APPEND behind REFRESH";
    wait_until("the sentence", || message(&refresh_exception("pipe")) == sentence);
    assert_eq!(sql("SELECT sum(committed_rows) FROM err_append.leases"), "0\n");
    sql("DROP VIEW err_replacing.pipe");
}
