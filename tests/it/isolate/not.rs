//! What is not isolated, with a reason: errors that rows do not cause, views below the table, and
//! pipes that did not request it.

use stack::Bridge;

use super::{bridge, complete, counted, create, create_view, number, put_numbers, quarantined, wait_for_long};
use crate::engines::on_each_engine;
use crate::world::*;

on_each_engine!(
    stop_keeps_trying_and_says_which_batch_and_why,
    what_rows_do_not_cause_isolates_nothing,
    a_view_below_the_table_isolates_nothing,
    the_codes_are_those_of_the_engine,
);

/// What `kinesis.pipes` shows about a pipe: failed attempts, and the last error.
fn status(bridge: &Bridge, pipe: &str) -> (u64, String) {
    let rows = get(bridge, "/v1/pipes").rows();
    let row = rows.iter().find(|row| row["pipe"] == pipe);
    row.map_or((0, String::new()), |row| {
        (row["failed_attempts"].as_u64().expect("a number"), row["last_error"].as_str().expect("text").to_string())
    })
}

/// Waits until the pipe has failed more often than a search for bad rows takes, and returns the
/// reported error.
fn fails(bridge: &Bridge, pipe: &str) -> String {
    wait_for_long(&format!("five failures of {pipe}"), bridge, || status(bridge, pipe).0 >= 5);
    status(bridge, pipe).1
}

fn stop_keeps_trying_and_says_which_batch_and_why() {
    let (pipe, db) = ("stops", "stops_db");
    create_stream(pipe, 2);
    put_numbers(pipe, 500, &[77]);
    let bridge = bridge(db, &[]);
    create(&bridge, pipe, "", "");
    let said = fails(&bridge, pipe);
    let open = sql(&format!("SELECT any(offered_batch) FROM {db}.leases WHERE offered_batch != ''"));
    for part in [&format!("batch {}", open.trim()), "view default.stops_view", "CANNOT_PARSE_TEXT", "'bad-77'"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(bridge.log().contains(&said), "the log does not say: {said}");
    assert!(metric(&bridge, "kinesis_bridge_failed_attempts{pipe=\"stops\"}").is_some_and(|n| n >= 5.0));
    assert!(counted(&bridge, pipe, "failed") >= 5);
    assert_eq!((number("SELECT count() FROM stops"), quarantined(db, pipe).len()), (0, 0));
    // The view is changed, and the batch goes in except for its bad row.
    sql("DROP VIEW stops_view SYNC");
    create_view(&bridge, pipe, "&on_failure=isolate");
    complete(&bridge, db, pipe, 500, 1);
    drop_pipe(pipe);
}

fn what_rows_do_not_cause_isolates_nothing() {
    let (pipe, db) = ("mended", "mended_db");
    create_stream(pipe, 2);
    let bridge = bridge(db, &[]);
    create(&bridge, pipe, "", "&on_failure=isolate&linger_ms=100");
    let mut count = 0u64;
    // The refresh fails before or after it has read the batch; in neither case is anything halved.
    for (broken, mended) in [
        ("RENAME TABLE mended TO mended_away", "RENAME TABLE mended_away TO mended"),
        ("ALTER TABLE mended DROP COLUMN _sequence_number", "ALTER TABLE mended ADD COLUMN _sequence_number String"),
        (
            "ALTER TABLE mended MODIFY SETTING parts_to_throw_insert = 1, max_avg_part_size_for_too_many_parts = 0",
            "ALTER TABLE mended RESET SETTING parts_to_throw_insert, max_avg_part_size_for_too_many_parts",
        ),
        (
            "ALTER TABLE mended_view MODIFY SQL SECURITY DEFINER DEFINER = weak",
            "ALTER TABLE mended_view MODIFY SQL SECURITY DEFINER DEFINER = default",
        ),
    ] {
        sql(broken);
        put(pipe, (count..count + 100).map(|n| (format!("key-{n}"), n.to_string().into_bytes())));
        count += 100;
        wait_for_long(broken, &bridge, || {
            number("SELECT max(retry) FROM system.view_refreshes WHERE view = 'mended_view'") >= 5
        });
        assert_eq!((quarantined(db, pipe).len(), counted(&bridge, pipe, "quarantined")), (0, 0));
        assert_eq!(metric(&bridge, "kinesis_bridge_halvings_total{pipe=\"mended\"}"), None, "{broken}");
        sql(mended);
        let settled = format!("SELECT sum(committed_rows) FROM {db}.leases WHERE offered_batch = ''");
        wait_for_long(mended, &bridge, || number(&settled) == count);
    }
    drop_pipe(pipe);
}

fn a_view_below_the_table_isolates_nothing() {
    let (pipe, db) = ("below", "below_db");
    create_stream(pipe, 2);
    put_numbers(pipe, 300, &[]);
    let bridge = bridge(db, &[]);
    sql("CREATE TABLE below_sink (n UInt64, CONSTRAINT small CHECK n < 299) ENGINE = MergeTree ORDER BY n \
         SETTINGS non_replicated_deduplication_window = 1000");
    create(&bridge, pipe, "", "&on_failure=isolate");
    sql("SYSTEM STOP VIEW below_view");
    sql("CREATE MATERIALIZED VIEW below_mv TO below_sink AS SELECT n FROM below");
    sql("SYSTEM START VIEW below_view");
    let said = fails(&bridge, pipe);
    assert!(said.contains("its rows are not isolated: a materialized view below the table failed"), "{said}");
    assert!(said.contains("VIOLATED_CONSTRAINT") || said.contains("violated"), "{said}");
    // The reason: the rows are in the table, and halves of the batch would be other blocks.
    assert_eq!((number("SELECT count() FROM below"), quarantined(db, pipe).len()), (300, 0));
    sql("DROP VIEW below_mv SYNC");
    complete(&bridge, db, pipe, 300, 0);
    drop_pipe(pipe);
    sql("DROP TABLE below_sink");
}

fn the_codes_are_those_of_the_engine() {
    let source = include_str!("../../../crates/adapters/src/clickhouse/cause.rs");
    let entries: Vec<(u32, &str)> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix('(')?.strip_suffix("\"),")?.split_once(", \""))
        .filter_map(|(code, name)| Some((code.parse().ok()?, name)))
        .collect();
    assert!(entries.len() > 30, "{entries:?}");
    for (code, name) in entries {
        assert_eq!(sql(&format!("SELECT errorCodeToName({code})")).trim(), name, "{code}");
    }
}
