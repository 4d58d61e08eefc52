//! `sql dynamodb`: the printed SQL creates a table that has the items of a DynamoDB table, from its
//! changes and its exports.

mod exports;
mod functions;
mod items;
mod keys;
mod names;
mod options;
mod refusals;
mod rerun;
mod snapshots;

use std::process::{Command, Output};
use std::time::Duration;

use chrono::Utc;
use stack::Bridge;

use crate::common::wait_until;
use crate::dynamodb::events::{Change, Precision};
use crate::dynamodb::items::{Item, KeySchema, key_of};
use crate::dynamodb::{Table, client, compare, create_table, enable_streaming, environment};
use crate::engines::{PerEngine, engine, on};
use crate::world::{self, binary, sql, stack};

/// Far longer than anything takes.
const DEADLINE: Duration = Duration::from_secs(90);

/// The bridge that the pipes of these tests pull from.
fn bridge() -> &'static Bridge {
    static BRIDGE: PerEngine<Bridge> = PerEngine::new();
    BRIDGE.get_or_init(|| world::bridge("sql_dynamodb", &[]))
}

/// A table whose changes go to a stream with one shard; both have this name.
pub fn captured(name: &str, keys: KeySchema) -> Table {
    let table = create_table(name, keys);
    world::create_stream(name, 1);
    enable_streaming(name, name, true);
    table
}

/// Runs `sql dynamodb` for the table and the stream with this name, with the address of the bridge.
fn run(name: &str, flags: &[&str]) -> Output {
    run_in(&[], &[&["--listen", bridge().address(), "--table", name, "--stream", name], flags].concat())
}

/// Runs `sql dynamodb` with variables that replace those of the stack.
fn run_in(changes: &[(&str, &str)], flags: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("KINESIS_BRIDGE_") {
            command.env_remove(&name);
        }
    }
    command.args(["sql", "dynamodb"]).args(flags).envs(environment(changes)).output().expect("an end")
}

/// The printed statements.
#[track_caller]
pub fn printed(name: &str, flags: &[&str]) -> String {
    succeeded(run(name, flags))
}

#[track_caller]
fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The error message, without the beginning that all have.
#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    text.strip_prefix("error: ").and_then(|text| text.strip_suffix('\n')).expect("one error").to_owned()
}

/// Now, in microseconds since 1970, and in whole milliseconds.
pub fn now() -> i64 {
    Utc::now().timestamp_millis() * 1_000
}

/// The event of a put.
pub fn put_event(table: &Table, item: &Item, micros: i64) -> String {
    change(table, None, Some(item), micros)
}

/// The event of a change.
fn change(table: &Table, old: Option<&Item>, new: Option<&Item>, micros: i64) -> String {
    let precision = Precision::Microsecond;
    Change { table: &table.name, keys: table.keys, old, new, micros, precision, ttl: false }.event()
}

/// Puts events into the stream of a table.
pub fn send(stream: &str, events: impl IntoIterator<Item = String>) {
    world::put(stream, events.into_iter().map(|event| ("key".to_owned(), event.into_bytes())));
}

/// Waits until a query returns this.
#[track_caller]
pub fn answers(query: &str, expected: &str) {
    let refreshes =
        || sql("SELECT view, status, exception FROM system.view_refreshes WHERE exception != '' FORMAT Vertical");
    wait_until(
        DEADLINE,
        || sql(query) == expected,
        || format!("{query} gives\n{}\nand not\n{expected}\n{}", sql(query), refreshes()),
    );
}

/// Waits until the copy has exactly these items, compared item by item without the product's code.
#[track_caller]
pub fn equals(table: &str, target: &str, items: usize) {
    let expected = (true, format!("{items} items, 0 missing, 0 extra, 0 different, 0 twice\n"));
    wait_until(DEADLINE, || compare(table, target) == expected, || compare(table, target).1);
}

/// Deletes an item from its table.
fn delete(table: &Table, item: &Item) {
    let key = key_of(table.keys, item).into_iter().collect();
    world::block_on(client().delete_item().table_name(&table.name).set_key(Some(key)).send()).expect("a deletion");
}

/// Runs printed SQL unchanged.
#[track_caller]
fn run_script(script: &str) {
    stack().clickhouse.run_script(script).unwrap_or_else(|error| panic!("{error}\nin\n{script}"));
}

/// Drops the pipes of targets, all concurrently: each waits for the end of its pull.
fn drop_pipes(targets: &[&str]) {
    let engine = engine();
    std::thread::scope(|scope| {
        for target in targets {
            scope.spawn(move || on(engine, || sql(&format!("DROP TABLE {target}_pipe"))));
        }
    });
}
