//! A new password for the bridge's user, without an interruption.

use rustix::process::Signal;

use super::{PASSWORD, World, printed};
use crate::common::orders_sql;
use crate::world::{get, metric, wait_until};

/// The new password in docs/operations.md.
const NEXT: &str = "the new password";

#[test]
fn the_password_changes_while_a_pipe_runs() {
    let world = World::start();
    world.create_user("bridge", &printed("docs/deploy.md", "GRANT"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |password: &str| std::fs::write(file.path(), format!("{password}\n")).expect("a password");
    write(PASSWORD);
    let path = file.path().to_str().expect("a path");
    let flags = [("--clickhouse-user", "bridge"), ("--clickhouse-password-file", path), ("--lease-duration", "1s")];
    let bridge = world.stack.start_bridge(crate::common::bridge_binary(), &flags).expect("a bridge");
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let window = "SETTINGS non_replicated_deduplication_window = 1000";
    world.stack.clickhouse.run_script(&orders_sql(&bridge.url(), "orders", "&poll_ms=20", window)).expect("the pipe");
    let mut count = 4;
    let mut more = || {
        world.put(1);
        count += 1;
        wait_until("the row", || world.ask("SELECT count() FROM orders").trim() == count.to_string());
    };
    more();
    // As docs/operations.md says: both passwords are valid until the bridge has the new one.
    let [add, keep] = &printed("docs/operations.md", "ALTER USER")[..] else { panic!("two statements") };
    assert!(add.contains(&format!("'{NEXT}'")), "{add}");
    world.ask(add);
    more();
    write(NEXT);
    let read_again = "SIGHUP: --clickhouse-password-file was read again";
    bridge.signal(Signal::HUP);
    wait_until("the file is read", || bridge.log().contains(read_again));
    more();
    world.ask(keep);
    more();
    assert_eq!(metric(&bridge, "kinesis_bridge_batches_total{pipe=\"orders\",outcome=\"failed\"}"), None);
    assert!(!bridge.log().contains("refuses user"), "{}", bridge.log());
    // A file that cannot be used changes nothing.
    write("two\nlines");
    bridge.signal(Signal::HUP);
    wait_until("the complaint", || {
        bridge.log().contains("must contain exactly one line; the bridge keeps what it read before")
    });
    more();
    assert!(!bridge.log().contains(NEXT), "{}", bridge.log());
}
