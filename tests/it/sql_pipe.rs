//! `sql pipe`: the printed SQL loads every field of every record of a real stream into a real
//! table.

mod arrivals;
mod contents;
mod errors;
mod exact;
mod messages;
mod misfits;
mod names;
mod neighbours;
mod numbers;
mod options;
mod refusals;
mod rest;
mod samples;
mod several;

use std::process::{Command, Output};
use std::time::Duration;

use stack::Bridge;

use crate::common::wait_until;
use crate::engines::PerEngine;
use crate::world::{self, binary, environment_with, sql, stack};

/// Far longer than anything takes.
const DEADLINE: Duration = Duration::from_secs(240);

/// The bridge that the pipes of these tests pull from.
fn bridge() -> &'static Bridge {
    static BRIDGE: PerEngine<Bridge> = PerEngine::new();
    BRIDGE.get_or_init(|| world::bridge("sql_pipe", &[]))
}

/// Runs `sql pipe` for a stream and a table, with the address of the bridge.
fn run(stream: &str, table: &str, flags: &[&str]) -> Output {
    run_in(&[], &[&["--listen", bridge().address(), "--stream", stream, "--table", table], flags].concat())
}

/// Runs `sql pipe` with variables that replace those of the stack.
pub fn run_in(environment: &[(&str, &str)], flags: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("KINESIS_BRIDGE_") {
            command.env_remove(&name);
        }
    }
    command.args(["sql", "pipe"]).args(flags).envs(environment_with(environment)).output().expect("an end")
}

/// The output of `sql pipe`.
fn printed(stream: &str, table: &str, flags: &[&str]) -> String {
    succeeded(run(stream, table, flags))
}

pub fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The error message.
pub fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Creates a stream with one shard, so that records keep their order, and writes payloads to it.
fn stream(name: &str, payloads: impl IntoIterator<Item = Vec<u8>>) {
    world::create_stream(name, 1);
    put(name, payloads);
}

/// The same with text.
pub fn stream_of(name: &str, payloads: &[&str]) {
    stream(name, payloads.iter().map(|payload| payload.as_bytes().to_vec()));
}

pub fn put(stream: &str, payloads: impl IntoIterator<Item = Vec<u8>>) {
    world::put(stream, payloads.into_iter().enumerate().map(|(n, payload)| (format!("key-{n}"), payload)));
}

/// Runs printed SQL unchanged.
fn run_script(script: &str) {
    stack().clickhouse.run_script(script).unwrap_or_else(|error| panic!("{error}\nin\n{script}"));
}

/// Waits until a table has exactly this many rows; more are as wrong as fewer.
pub fn wait_for_rows(table: &str, rows: usize) {
    let count = || sql(&format!("SELECT count() FROM {table}"));
    let refreshes = || sql("SELECT view, status, exception FROM system.view_refreshes FORMAT Vertical");
    let enough = || count().trim().parse::<usize>().is_ok_and(|n| n >= rows);
    wait_until(DEADLINE, enough, || format!("{} of {rows} rows in {table}: {}", count(), refreshes()));
    assert_eq!(count(), format!("{rows}\n"), "{table}");
}
