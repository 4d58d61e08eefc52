//! `dynamodb verify` on a real ClickHouse and a DynamoDB over the network. The tables in ClickHouse
//! are created by hand, in the layout of `sql dynamodb`.

mod differences;
mod equal;
mod layout;
mod moving;
mod recreated;
mod refusals;
mod scripted;

use std::process::{Command, Output};

use crate::dynamodb::environment;
use crate::world::binary;

/// `dynamodb verify` for a table, ready to start, with variables that replace those of the stack.
fn command(changes: &[(&str, &str)], table: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("KINESIS_BRIDGE_") {
            command.env_remove(&name);
        }
    }
    command.args(["dynamodb", "verify", "--table", table]).args(flags).envs(environment(changes));
    command
}

fn run(table: &str, flags: &[&str]) -> Output {
    command(&[], table, flags).output().expect("an end")
}

/// Its output if all is equal.
#[track_caller]
fn equal(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert!(
        output.status.success() && text.ends_with("\nequal\n"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Its output if something is not equal, without the two lines of statistics.
#[track_caller]
fn unequal(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(1), ""), "{text}");
    text.splitn(3, '\n').nth(2).expect("a list").to_owned()
}

/// The message if it cannot compare.
#[track_caller]
fn refused(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{text}");
    text
}
