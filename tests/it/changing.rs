//! The view of a pipe is changed while records are flowing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::world::*;

/// How often the view is changed.
const CHANGES: usize = 5;

/// Ends the load, even if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_view_is_changed_between_two_refreshes() {
    create_stream("changing", 2);
    let bridge = bridge("changing_db", &[]);
    create_pipe(&bridge, "changing", "stream=changing&view=default.changing_view&linger_ms=50&wait_ms=500");
    let select = sql("SELECT as_select FROM system.tables WHERE name = 'changing_view' FORMAT TSVRaw");
    let (put, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                put_numbered("changing", &format!("p{}", put.load(Ordering::Relaxed)), 50);
                put.fetch_add(50, Ordering::Relaxed);
            }
        });
        let _over = Over(&over);
        for change in 0..CHANGES {
            let arrives = || sql(&format!("SELECT countIf(endsWith(_raw_message, '/{change}')) > 0 FROM changing"));
            let changed =
                select.replace("_raw_message FROM", &format!("concat(_raw_message, '/{change}') AS _raw_message FROM"));
            let changed = changed
                .replace("_raw_message\nFROM", &format!("concat(_raw_message, '/{change}') AS _raw_message\nFROM"));
            assert_ne!(changed, select);
            sql(&format!("ALTER TABLE changing_view MODIFY QUERY {changed}"));
            wait_until("rows of the changed view", || arrives() == "1\n");
        }
    });
    let all = put.into_inner();
    wait_until("all records", || sql("SELECT uniqExact(_key) FROM changing") == format!("{all}\n"));
    assert_eq!(sql("SELECT count() FROM changing"), format!("{all}\n"), "none comes twice");
    drop_pipe("changing");
}
