//! What `check` finds about a bridge that runs, its pipes and their views: each fault is caused.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;

use sql::{SetupParams, setup};
use stack::Bridge;
use tempfile::NamedTempFile;

use crate::engines::{engine, on_each_engine};
use crate::errors::command_line::{run, stderr, token_file};
use crate::world::{block_on, create_stream, kinesis, now_ms, put_numbered, sql, stack, wait_until};

on_each_engine!(check_names_each_fault_of_what_is_running,);

const TOKEN: &str = "check-running-0123456789";
const DATABASE: &str = "check_running";
/// Stream, pipe and table.
const NAME: &str = "check_running_rows";

/// What `check --json` found, by what it was about, and the exit code.
struct Found {
    code: Option<i32>,
    findings: BTreeMap<String, (String, String)>,
}

impl Found {
    /// Asserts a verdict, and what the finding says.
    fn has(&self, what: &str, verdict: &str, says: &str) {
        let found = self.findings.iter().find(|(name, _)| name.starts_with(what));
        let (_, (found, said)) = found.unwrap_or_else(|| panic!("no {what} in {:?}", self.findings));
        println!("{found:<5} {what}: {said}");
        assert!(found == verdict && said.contains(says), "{what}: {found} {said}");
    }
}

struct World {
    bridge: Bridge,
    token: NamedTempFile,
    path: String,
}

impl World {
    fn start() -> World {
        let (token, path) = token_file(TOKEN);
        let bridge = crate::world::bridge(DATABASE, &[("--token-file", &path)]);
        wait_until("the tables", || bridge.log().contains("the state tables are ready"));
        let world = World { bridge, token, path };
        world.set_up(&world.bridge.url(), TOKEN);
        world
    }

    fn set_up(&self, bridge: &str, token: &str) {
        let clickhouse = stack().clickhouse.url();
        let params = SetupParams {
            database: DATABASE,
            bridge_url: bridge,
            clickhouse_url: &clickhouse,
            token: Some(token),
            state_tables: engine().has_keeper(),
        };
        stack().clickhouse.run_script(&setup(&params)).expect("the printed setup");
    }

    fn check(&self, more: &[&str]) -> Found {
        let flags = ["check", "--json", "--listen", self.bridge.address(), "--clickhouse-database", DATABASE];
        let flags = [&flags[..], &["--token-file", &self.path], more].concat();
        let output = run(&flags, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let findings = text.lines().map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect(line);
            let text = |name: &str| row[name].as_str().expect(name).to_owned();
            (text("what"), (text("verdict"), text("says")))
        });
        Found { code: output.status.code(), findings: findings.collect() }
    }

    /// Creates a view `<name>_view` that pulls pipe `name` into table `name`.
    fn pipe(&self, name: &str, query: &str, schedule: &str, table_settings: &str, settings: &str) {
        sql(&format!(
            "CREATE TABLE {name} (_shard_id String, _sequence_number String) ENGINE = MergeTree ORDER BY _shard_id {table_settings}"
        ));
        sql(&format!(
            "CREATE MATERIALIZED VIEW {name}_view {schedule} AS SELECT _shard_id, _sequence_number \
             FROM url({DATABASE}_bridge, url = '{}/v1/pipes/{name}/next?{query}') ORDER BY ALL {settings}",
            self.bridge.url()
        ));
    }
}

fn check_names_each_fault_of_what_is_running() {
    create_stream(NAME, 2);
    put_numbered(NAME, "a", 5);
    let world = World::start();
    let here = format!("stream={NAME}&view=default.{NAME}_view");
    let schedule = format!(
        "REFRESH AFTER 2 SECOND SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 500 \
         APPEND TO {NAME}"
    );
    let window = "SETTINGS non_replicated_deduplication_window = 1000";
    world.pipe(NAME, &here, &schedule, window, "SETTINGS http_max_tries = 1, max_threads = 1");
    wait_until("the rows", || sql(&format!("SELECT count() FROM {NAME}")) == "5\n");
    all_is_well(&world);
    views(&world);
    set_up(&world);
    tokens(&world);
    broken(&world);
    dead(&world);
    usage();
    sql(&format!("DROP TABLE {NAME}_view SYNC"));
}

fn all_is_well(world: &World) {
    let found = world.check(&["--pipe", NAME]);
    assert_eq!(found.code, Some(0), "{:?}", found.findings);
    found.has(&format!("stream '{NAME}'"), "ok", "2 open shards");
    found.has("views of sql setup", "ok", "ClickHouse gets in and sees 2 shards");
    found.has("bridge at ", "ok", "is running");
    found.has("workers", "ok", "1 alive");
    found.has(&format!("pipe '{NAME}'"), "ok", "2 shards");
    found.has(&format!("view default.{NAME}_view"), "ok", &format!("pulls pipe '{NAME}' into default.{NAME}"));
    found.has("clock of ClickHouse", "ok", "agrees");
    // Without the name the same, and a word about views of other bridges.
    let all = world.check(&[]);
    all.has(&format!("view default.{NAME}_view"), "ok", "pulls pipe");
    let absent = world.check(&["--pipe", "absent"]);
    absent.has("view of pipe 'absent'", "fail", "check the name");
    assert_eq!(absent.code, Some(1));
}

/// Views that work less well than those of the README, are stopped, or name another one.
fn views(world: &World) {
    let other = "check_running_other";
    let schedule = format!("REFRESH EVERY 1 YEAR APPEND TO {other} EMPTY");
    world.pipe(other, &format!("stream={NAME}&view=default.{NAME}_view&mode=efo"), &schedule, "", "");
    let found = world.check(&["--pipe", other]);
    assert_eq!(found.code, Some(1));
    let view = format!("view default.{other}_view");
    let named = format!("view=default.{NAME}_view, which is another view: write view=default.{other}_view");
    for says in [
        &*named,
        "without refresh_retries = -1",
        "without http_max_tries = 1",
        "without max_threads = 1",
        "default.check_running_other keeps no deduplication window",
    ] {
        found.has(&view, "fail", says);
    }
    found.has(&format!("enhanced fan-out of pipe '{other}'"), "ok", "is not registered");
    sql(&format!("DROP TABLE {other}_view SYNC"));

    sql(&format!("SYSTEM STOP VIEW {NAME}_view"));
    let stopped =
        || sql(&format!("SELECT status FROM system.view_refreshes WHERE view = '{NAME}_view'")) == "Disabled\n";
    wait_until("a stopped view", stopped);
    let found = world.check(&["--pipe", NAME]);
    found.has(&format!("view default.{NAME}_view"), "note", &format!("SYSTEM START VIEW `default`.`{NAME}_view`"));
    assert_eq!(found.code, Some(0), "{:?}", found.findings);
    sql(&format!("SYSTEM START VIEW {NAME}_view"));
}

/// Views of an earlier program, of an unfinished run, and of another bridge.
fn set_up(world: &World) {
    let what = "views of sql setup";
    sql(&format!(
        "ALTER TABLE {DATABASE}.bridge MODIFY COMMENT 'sql setup of clickhouse-kinesis-bridge 0.0.9 (00000000)'"
    ));
    world.check(&["--pipe", NAME]).has(what, "note", "they are of sql setup of clickhouse-kinesis-bridge 0.0.9");
    sql(&format!("ALTER TABLE {DATABASE}.bridge MODIFY COMMENT ''"));
    world.check(&["--pipe", NAME]).has(what, "note", "an unfinished run");
    world.set_up("http://localhost:1", TOKEN);
    world.check(&["--pipe", NAME]).has(what, "fail", "they ask the bridge at http://localhost:1, not the one at");
    sql(&format!("DROP VIEW {DATABASE}.bridge"));
    world.check(&["--pipe", NAME]).has(what, "note", "there are none");
    world.set_up(&world.bridge.url(), TOKEN);
    world.check(&["--pipe", NAME]).has(what, "ok", "are this program's");
}

/// Another token in the named collection, and in the file.
fn tokens(world: &World) {
    world.set_up(&world.bridge.url(), "check-running-9876543210");
    let found = world.check(&["--pipe", NAME]);
    found.has("views of sql setup", "fail", "the bearer token is not this bridge's");
    found.has("bridge at ", "ok", "is running");
    world.set_up(&world.bridge.url(), TOKEN);
    std::fs::write(world.token.path(), "check-running-9876543210\n").expect("another token");
    let found = world.check(&["--pipe", NAME]);
    found.has("bridge at ", "fail", "does not accept the token of --token-file");
    assert!(!format!("{:?}", found.findings).contains("9876543210"), "{:?}", found.findings);
    std::fs::write(world.token.path(), format!("{TOKEN}\n")).expect("the token");
}

/// A table that is gone, and a stream that is gone.
fn broken(world: &World) {
    let what = format!("view default.{NAME}_view");
    sql(&format!("RENAME TABLE {NAME} TO {NAME}_away"));
    put_numbered(NAME, "b", 5);
    let failing =
        || sql(&format!("SELECT exception != '' FROM system.view_refreshes WHERE view = '{NAME}_view'")) == "1\n";
    wait_until("a failing view", failing);
    let found = world.check(&["--pipe", NAME]);
    found.has(&what, "fail", &format!("its table default.{NAME} does not exist"));
    found.has(&what, "fail", "its refreshes fail (");
    sql(&format!("RENAME TABLE {NAME}_away TO {NAME}"));
    wait_until("the rows", || sql(&format!("SELECT count() FROM {NAME}")) == "10\n");

    block_on(kinesis().delete_stream().stream_name(NAME).send()).expect("no stream");
    wait_until("the error of the pipe", || {
        let rows = crate::world::get_with_token(&world.bridge, "/v1/pipes", TOKEN);
        rows.text().contains("does not exist")
    });
    let found = world.check(&["--pipe", NAME]);
    found.has(&format!("stream '{NAME}'"), "fail", "does not exist");
    found.has(&format!("pipe '{NAME}'"), "fail", "does not exist");
    assert_eq!(found.code, Some(1));
}

/// A bridge that was killed.
fn dead(world: &World) {
    world.bridge.kill();
    let found = world.check(&["--pipe", NAME]);
    found.has("bridge at ", "fail", "and views pull from it: start it");
    found.has("workers", "fail", "is dead and has 2 leases");
    found.has("views of sql setup", "note", "ClickHouse does not get in: the bridge at");
    assert_eq!(found.code, Some(1));
}

fn usage() {
    for flags in [&["check", "--jsn"][..], &["check", "--listen", "nowhere"], &["check", "--pipe"]] {
        let output = run(flags, &[]);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", stderr(&output));
    }
}

/// Kinesis answers with a date that is eight minutes ahead.
#[test]
fn a_clock_that_is_wrong_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            let mut buffer = [0; 8_192];
            let _ = connection.read(&mut buffer);
            let date = chrono::DateTime::from_timestamp_millis(now_ms() + 8 * 60_000).expect("a date");
            let date = date.format("%a, %d %b %Y %H:%M:%S GMT");
            let body = r#"{"StreamNames":[],"HasMoreStreams":false}"#;
            // The client may be gone.
            let _ = connection.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            );
        }
    });
    let output = run(&["check"], &[("AWS_ENDPOINT_URL", &endpoint), ("AWS_ENDPOINT_URL_KINESIS", &endpoint)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|line| line.contains("clock of AWS")).expect(&said);
    assert!(
        line.starts_with("FAIL  clock of AWS: this machine's clock is 4") && line.contains(" s behind that of AWS"),
        "{line}"
    );
}
