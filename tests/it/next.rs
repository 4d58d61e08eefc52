//! When real refreshes start: the bridge starts the one after a batch, and leaves alone a view that
//! must not run.

use crate::world::{bridge, create_pipe, create_stream, drop_pipe, put_numbered, sql, wait_until};

/// `SYSTEM REFRESH VIEW` statements for a view that have finished.
fn started(view: &str) -> u64 {
    sql("SYSTEM FLUSH LOGS");
    let count = format!(
        "SELECT count() FROM system.query_log WHERE type = 'QueryFinish' AND query LIKE 'SYSTEM REFRESH VIEW%{view}%'"
    );
    sql(&count).trim().parse().expect("a number")
}

fn status(view: &str) -> String {
    sql(&format!("SELECT status FROM system.view_refreshes WHERE view = '{view}'")).trim().into()
}

fn succeeded(view: &str) -> String {
    sql(&format!("SELECT last_success_time FROM system.view_refreshes WHERE view = '{view}'"))
}

#[test]
fn the_bridge_starts_the_next_refresh() {
    create_stream("started", 1);
    let bridge = bridge("started_db", &[]);
    create_pipe(&bridge, "started", "stream=started&view=default.started_view&linger_ms=0&wait_ms=1000");
    for batch in 1..=5 {
        put_numbered("started", &format!("b{batch}-"), 3);
        wait_until("its rows", || sql("SELECT count() FROM started").trim() == (3 * batch).to_string());
    }
    // After batches, and after a pull that found nothing.
    wait_until("refreshes that the bridge started", || started("started_view") >= 5);
    sql("SYSTEM STOP VIEW started_view");
    wait_until("the end of the refresh", || status("started_view") == "Disabled");
    put_numbered("started", "late-", 3);
    let before = started("started_view");
    // Longer than the schedule's second, and than the bridge keeps trying.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((started("started_view"), status("started_view")), (before, "Disabled".into()), "it stays stopped");
    assert_eq!(sql("SELECT count() FROM started").trim(), "15");
    // Not even on request.
    sql("SYSTEM REFRESH VIEW started_view");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(status("started_view"), "Disabled");
    sql("SYSTEM START VIEW started_view");
    wait_until("the rest", || sql("SELECT count() FROM started").trim() == "18");
    drop_pipe("started");
}

#[test]
fn a_slow_schedule_is_kept() {
    create_stream("slowly", 1);
    let bridge = bridge("slowly_db", &[]);
    create_pipe(&bridge, "slowly", "stream=slowly&view=default.slowly_view&linger_ms=0&wait_ms=1000");
    put_numbered("slowly", "a", 3);
    wait_until("its rows", || sql("SELECT count() FROM slowly").trim() == "3");
    // The bridge looks at the schedule beside the commit, and starts the next refresh after it.
    wait_until("their commit", || sql("SELECT sum(committed_rows) FROM slowly_db.leases").trim() == "3");
    let last = succeeded("slowly_view");
    wait_until("the end of the next refresh", || succeeded("slowly_view") != last);
    sql("ALTER TABLE slowly_view MODIFY REFRESH EVERY 1 YEAR APPEND");
    wait_until("the end of the last quick one", || status("slowly_view") == "Scheduled");
    let before = started("slowly_view");
    sql("SYSTEM REFRESH VIEW slowly_view");
    wait_until("its end", || status("slowly_view") == "Scheduled" && started("slowly_view") > before);
    put_numbered("slowly", "b", 3);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(started("slowly_view"), before + 1, "only by hand");
    assert_eq!(sql("SELECT count() FROM slowly").trim(), "3");
    sql("SYSTEM REFRESH VIEW slowly_view");
    wait_until("the rest", || sql("SELECT count() FROM slowly").trim() == "6");
    drop_pipe("slowly");
}
