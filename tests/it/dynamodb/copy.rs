//! A copy of a table in ClickHouse, created and checked by the product's own commands.

use stack::Bridge;

use super::{compare, run};
use crate::world;

/// A bridge that this test may kill, with its state in `database`.
pub fn bridge(database: &str) -> Bridge {
    world::bridge_in(database, &[], &[])
}

/// Creates the copy `target` of a table, and its pipe from a stream. Returns what the command
/// prints.
pub fn apply(bridge: &Bridge, table: &str, stream: &str, target: &str, more: &[&str]) -> String {
    apply_in(&[], bridge, table, stream, target, more)
}

/// The same with variables changed as in [`world::environment_with`].
pub fn apply_in(
    changes: &[(&str, &str)],
    bridge: &Bridge,
    table: &str,
    stream: &str,
    target: &str,
    more: &[&str],
) -> String {
    let arguments = ["sql", "dynamodb", "--listen", bridge.address(), "--table", table, "--stream", stream];
    let output = run(changes, &[&arguments[..], &["--target", target, "--apply"], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Whether the copy is equal according to `dynamodb verify`, and what that prints. It waits for the
/// pipe.
pub fn verify(table: &str, target: &str, timeout: &str) -> (bool, String) {
    let arguments = ["dynamodb", "verify", "--table", table, "--target", target, "--timeout", timeout];
    let output = run(&[], &[&arguments[..], &["--rcu", "100000"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Checks that neither the product nor `compare.py` finds a difference, and that no record was
/// refused.
pub fn assert_equal(table: &str, target: &str) {
    let (equal, said) = verify(table, target, "160s");
    assert!(
        equal,
        "{said}\n{}",
        world::sql("SELECT view, status, exception FROM system.view_refreshes FORMAT Vertical")
    );
    println!("{said}");
    let (equal, said) = compare(table, target);
    assert!(equal, "{said}");
    println!("{said}");
    let errors = format!("SELECT * FROM {target}_errors LIMIT 3 FORMAT Vertical");
    assert_eq!(world::sql(&errors), "");
}

/// Stops the bridge of some copies and drops their pipes, so that they do not keep working while
/// other tests run. Without the bridge there is no running refresh, for which the statement would
/// wait.
pub fn end(bridge: &Bridge, targets: &[&str]) {
    bridge.kill();
    for target in targets {
        world::sql(&format!("DROP VIEW {target}_pipe"));
    }
}
