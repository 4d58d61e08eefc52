//! Rows that ClickHouse refuses, on real components: with `on_failure=isolate` they end up in the
//! quarantine and everything else in the table; with `stop` the pipe stops and says why.

mod not;
mod replay;

use std::time::Duration;

use stack::Bridge;

use crate::common::seed;
use crate::engines::on_each_engine;
use crate::world::{self, *};

on_each_engine!(
    seven_bad_rows_among_a_hundred_thousand,
    killed_in_the_middle_of_isolating,
    wherever_the_bad_rows_are,
    all_bad_rows_in_one_of_several_shards,
);

/// A row in the quarantine, or in Kinesis: shard, sequence number, payload.
type Row = (String, String, String);

/// A bridge whose state tables and quarantine exist.
fn bridge(database: &str, flags: &[(&str, &str)]) -> Bridge {
    let bridge = world::bridge(database, flags);
    wait_until("the bridge to be ready", || get(&bridge, "/readyz").status == 200);
    wait_until("the quarantine", || sql(&format!("EXISTS TABLE {database}.quarantine")).trim() == "1");
    bridge
}

/// Creates a table of numbers, and the view that fills it and refuses anything that is not a
/// number. `columns` are added to those of the table.
fn create(bridge: &Bridge, pipe: &str, columns: &str, parameters: &str) {
    sql(&format!(
        "CREATE TABLE {pipe} (n UInt64, _shard_id String, _sequence_number String{columns}) ENGINE = MergeTree ORDER BY n \
         SETTINGS non_replicated_deduplication_window = 1000"
    ));
    create_view(bridge, pipe, parameters);
}

fn create_view(bridge: &Bridge, pipe: &str, parameters: &str) {
    let url =
        format!("{}/v1/pipes/{pipe}/next?stream={pipe}&view=default.{pipe}_view&poll_ms=20{parameters}", bridge.url());
    sql(&format!(
        "CREATE MATERIALIZED VIEW {pipe}_view REFRESH AFTER 2 SECOND \
         SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000 \
         APPEND TO {pipe} AS SELECT toUInt64(_raw_message) AS n, _shard_id, _sequence_number \
         FROM url('{url}', 'ArrowStream', '{NEXT}') ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
    ));
}

/// Writes the numbers up to `count`; those listed in `bad` are written as text that is not a
/// number. Keys spread over the shards.
fn put_numbers(stream: &str, count: usize, bad: &[usize]) {
    put(
        stream,
        (0..count).map(|n| {
            let payload = if bad.contains(&n) { format!("bad-{n}") } else { n.to_string() };
            (format!("key-{n}"), payload.into_bytes())
        }),
    );
}

fn number(statement: &str) -> u64 {
    sql(statement).trim().parse().expect(statement)
}

/// The bad rows as they are in Kinesis.
fn bad_rows(bridge: &Bridge, stream: &str) -> Vec<Row> {
    let answer = get(bridge, &format!("/v1/streams/{stream}/records?format=JSONEachRow"));
    let text = |row: &serde_json::Value, column: &str| row[column].as_str().expect("text").to_string();
    let all = answer.rows().into_iter().map(|row| {
        let place = (text(&row, "_shard_id"), text(&row, "_sequence_number"));
        (place.0, place.1, text(&row, "_raw_message"))
    });
    let mut bad: Vec<Row> = all.filter(|row| row.2.starts_with("bad")).collect();
    bad.sort();
    bad
}

/// The quarantined rows of a pipe.
fn quarantined(database: &str, pipe: &str) -> Vec<Row> {
    let rows = sql(&format!(
        "SELECT DISTINCT _shard_id, _sequence_number, _raw_message FROM {database}.quarantine WHERE pipe = '{pipe}' FORMAT TSVRaw"
    ));
    let row = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        (columns[0].to_string(), columns[1].to_string(), columns[2].to_string())
    };
    let mut rows: Vec<Row> = rows.lines().map(row).collect();
    rows.sort();
    rows
}

/// Waits until everything is committed, and compares the table and the quarantine with what was
/// written.
fn complete(bridge: &Bridge, database: &str, pipe: &str, count: usize, bad: usize) {
    let settled =
        format!("SELECT sum(committed_rows) FROM {database}.leases WHERE pipe = '{pipe}' AND offered_batch = ''");
    wait_for_long(&format!("all of {pipe} committed"), bridge, || number(&settled) == count as u64);
    let table = format!("SELECT (count(), uniqExact(n)) FROM {pipe}");
    assert_eq!(sql(&table).trim(), format!("({},{})", count - bad, count - bad));
    let expected = bad_rows(bridge, pipe);
    assert_eq!(expected.len(), bad);
    assert_eq!(quarantined(database, pipe), expected);
}

/// Like [`wait_until`], for something that takes many refreshes while other tests run.
fn wait_for_long(what: &str, bridge: &Bridge, mut holds: impl FnMut() -> bool) {
    let tail = || bridge.log_tail();
    crate::common::wait_until(Duration::from_secs(240), &mut holds, || format!("{what} did not come\n{}", tail()));
}

fn counted(bridge: &Bridge, pipe: &str, outcome: &str) -> u64 {
    let name = format!("kinesis_bridge_batches_total{{outcome=\"{outcome}\",pipe=\"{pipe}\"}}");
    metric(bridge, &name).unwrap_or(0.0) as u64
}

fn seven_bad_rows_among_a_hundred_thousand() {
    let (pipe, db, count) = ("seven", "seven_db", 100_000);
    let bad = [0, 1, 2, 31_415, 50_000, 77_777, 99_999];
    create_stream(pipe, 4);
    put_numbers(pipe, count, &bad);
    let bridge = bridge(db, &[]);
    create(&bridge, pipe, "", "&on_failure=isolate");
    complete(&bridge, db, pipe, count, bad.len());
    // Finding a bad row takes as many refusals as the batch can be halved, plus that of the row
    // itself; after a success, three before the first halving.
    let refusals = bad.len() as u64 * (count.next_power_of_two().ilog2() as u64 + 1 + 2);
    let (failed, committed) = (counted(&bridge, pipe, "failed"), counted(&bridge, pipe, "committed"));
    println!("{failed} refusals (at most {refusals}), {committed} batches went in");
    assert!((bad.len() as u64..=refusals).contains(&failed), "{failed} refusals");
    assert_eq!(counted(&bridge, pipe, "quarantined"), bad.len() as u64);
    assert_eq!(metric(&bridge, "kinesis_bridge_quarantined_rows_total{pipe=\"seven\"}"), Some(bad.len() as f64));
    assert!(metric(&bridge, "kinesis_bridge_halvings_total{pipe=\"seven\"}").is_some_and(|n| n > 0.0));
    // The quarantine says which row it is, what is wrong with it and which view reported it; so
    // does the log.
    let (_, sequence, _) = bad_rows(&bridge, pipe).remove(0);
    let told = sql(&format!(
        "SELECT pipe, _stream, view, error, raw_message_bytes = length(_raw_message), _key != '', quarantined_at > _timestamp \
         FROM {db}.quarantine WHERE _sequence_number = '{sequence}'"
    ));
    let told: Vec<&str> = told.trim().split('\t').collect();
    assert_eq!((&told[..3], &told[4..]), (&[pipe, pipe, "default.seven_view"][..], &["1", "1", "1"][..]));
    assert!(told[3].contains("CANNOT_PARSE_TEXT"), "{told:?}");
    let log = bridge.log();
    let line = log.lines().find(|l| l.contains("put into the quarantine") && l.contains(&sequence)).expect("a line");
    for part in ["pipe=\"seven\"", "shard=\"shardId-", "batch=\"", "CANNOT_PARSE_TEXT"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    drop_pipe(pipe);
}

fn killed_in_the_middle_of_isolating() {
    let (pipe, db, count) = ("killed", "killed_db", 20_000);
    let mut random = fastrand::Rng::with_seed(seed("killed_in_the_middle_of_isolating"));
    let bad: Vec<usize> = (0..5).map(|part| part * 4_000 + random.usize(0..4_000)).collect();
    create_stream(pipe, 3);
    put_numbers(pipe, count, &bad);
    let bridge = bridge(db, &[]);
    create(&bridge, pipe, "", "&on_failure=isolate&max_rows=15000");
    let (mut open, mut found) = (0, Vec::new());
    let settled = format!("SELECT sum(committed_rows) FROM {db}.leases WHERE offered_batch = ''");
    for _ in 0..8 {
        // While a bad row is being searched for; a process without any memory starts over.
        let halvings = random.u64(1..16) as f64;
        let name = "kinesis_bridge_halvings_total{pipe=\"killed\"}";
        wait_for_long("some halvings", &bridge, || {
            metric(&bridge, name).is_some_and(|n| n >= halvings) || number(&settled) == count as u64
        });
        let shards = number(&format!("SELECT count() FROM {db}.leases WHERE offered_batch != ''"));
        bridge.restart().expect("the bridge comes back");
        open += u64::from(shards > 0);
        found.push(quarantined(db, pipe).len());
    }
    println!("killed 8 times, {open} times while a batch was open; bad rows found by then: {found:?}");
    assert!(open > 0, "no kill hit an open batch");
    complete(&bridge, db, pipe, count, bad.len());
    drop_pipe(pipe);
}

fn wherever_the_bad_rows_are() {
    // First, last, adjacent; one shard, so that the order is that of the writes.
    let all: Vec<usize> = (0..12).collect();
    let cases: [(&str, usize, &[usize]); 4] = [
        ("bad_first", 3_000, &[0, 1]),
        ("bad_last", 3_000, &[2_998, 2_999]),
        ("bad_together", 3_000, &[1_499, 1_500, 1_501, 1_502, 1_503]),
        ("bad_all", 12, &all),
    ];
    let bridge = bridge("wherever_db", &[]);
    for (pipe, count, bad) in cases {
        create_stream(pipe, 1);
        put_numbers(pipe, count, bad);
        create(&bridge, pipe, "", "&on_failure=isolate&linger_ms=200");
    }
    for (pipe, count, bad) in cases {
        complete(&bridge, "wherever_db", pipe, count, bad.len());
        drop_pipe(pipe);
    }
}

fn all_bad_rows_in_one_of_several_shards() {
    let (pipe, db) = ("one_shard", "one_shard_db");
    create_stream(pipe, 4);
    put_numbers(pipe, 4_000, &[]);
    // One key, so one shard.
    put(pipe, (4_000..4_010).map(|n| ("same".to_string(), format!("bad-{n}").into_bytes())));
    put(pipe, (4_010..4_200).map(|n| (format!("key-{n}"), n.to_string().into_bytes())));
    let bridge = bridge(db, &[]);
    create(&bridge, pipe, "", "&on_failure=isolate&linger_ms=200");
    complete(&bridge, db, pipe, 4_200, 10);
    let shards = quarantined(db, pipe).into_iter().map(|row| row.0).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(shards.len(), 1, "{shards:?}");
    drop_pipe(pipe);
}
