//! `stack demo`, which is all that `make demo` runs once everything is built.

use std::process::Command;

use crate::common::bridge_binary;

const RECORDS: u64 = 20_000;

#[test]
fn the_demo_brings_every_record_through_once() {
    let stack = stack::service::stack_binary().expect("the program `stack`");
    let output = Command::new(stack)
        .args(["demo", "--records", &RECORDS.to_string(), "--bridge"])
        .arg(bridge_binary())
        .output()
        .expect("the demo runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{errors}");
    let last = told.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("== {RECORDS} records came through, each once (")), "{last}");
}
