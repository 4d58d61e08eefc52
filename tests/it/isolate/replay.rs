//! Quarantined rows are inserted with SQL, whatever they are and wherever the state is.

use super::{bridge, complete, create, number, put_numbers, quarantined, wait_for_long};
use crate::engines::on_each_engine;
use crate::world::*;

on_each_engine!(
    the_quarantine_is_put_in_with_sql,
    payloads_of_any_bytes_are_kept_up_to_a_size,
    with_the_state_in_a_file_the_quarantine_is_a_merge_tree,
    a_quarantine_that_was_dropped_is_created_again,
);

fn the_quarantine_is_put_in_with_sql() {
    let (pipe, db) = ("replayed", "replayed_db");
    create_stream(pipe, 2);
    put_numbers(pipe, 1_000, &[3, 500, 501]);
    let bridge = bridge(db, &[]);
    create(&bridge, pipe, "", "&on_failure=isolate&linger_ms=200");
    complete(&bridge, db, pipe, 1_000, 3);
    // As in docs/sql.md: a SELECT inserts them, and then they are deleted.
    sql(&format!(
        "INSERT INTO replayed SELECT toUInt64(replaceOne(_raw_message, 'bad-', '')) AS n, _shard_id, _sequence_number \
         FROM {db}.quarantine WHERE pipe = 'replayed'"
    ));
    sql(&format!("ALTER TABLE {db}.quarantine DELETE WHERE pipe = 'replayed'"));
    assert_eq!(sql("SELECT (count(), uniqExact(n), max(n)) FROM replayed").trim(), "(1000,1000,999)");
    assert_eq!(quarantined(db, pipe), []);
    drop_pipe(pipe);
}

fn payloads_of_any_bytes_are_kept_up_to_a_size() {
    let (pipe, db) = ("payloads", "payloads_db");
    let bytes: Vec<u8> = (0..=255).chain(*b"'\"\\\n\0{}").collect();
    // The largest that is stored, one byte more, and the limit that Kinesis had for years.
    let (most, more, huge) = (vec![0xFF; 256 << 10], vec![b'x'; (256 << 10) + 1], vec![0; 1_000_000]);
    create_stream(pipe, 1);
    let payloads = [bytes.clone(), b"1".to_vec(), most.clone(), more.clone(), huge.clone(), Vec::new()];
    put(pipe, payloads.iter().enumerate().filter(|(_, p)| !p.is_empty()).map(|(n, p)| (format!("k{n}"), p.clone())));
    let bridge = bridge(db, &[]);
    create(&bridge, pipe, "", "&on_failure=isolate&linger_ms=500");
    let kept = format!("SELECT count() FROM {db}.quarantine");
    wait_for_long("four rows in the quarantine", &bridge, || number(&kept) == 4);
    let row = |n: usize| {
        let of = format!("SELECT hex(_raw_message) = '', raw_message_bytes FROM {db}.quarantine WHERE _key = 'k{n}'");
        sql(&of).trim().to_string()
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02X}")).collect::<String>();
    let stored = |n: usize| sql(&format!("SELECT hex(_raw_message) FROM {db}.quarantine WHERE _key = 'k{n}'"));
    assert!(stored(0).trim() == hex(&bytes) && stored(2).trim() == hex(&most));
    assert_eq!((row(3), row(4)), ("1\t262145".into(), "1\t1000000".into()));
    // The others are still in Kinesis, and their row says where.
    let place = sql(&format!("SELECT _shard_id, _sequence_number FROM {db}.quarantine WHERE _key = 'k3'"));
    let (shard, sequence) = place.trim().split_once('\t').expect("two columns");
    let path = format!("/v1/streams/{pipe}/records?shard={shard}&from={sequence}&to={sequence}&format=JSONEachRow");
    assert_eq!(get(&bridge, &path).rows()[0]["_raw_message"].as_str().expect("text").as_bytes(), more);
    wait_for_long("the good row", &bridge, || number("SELECT count() FROM payloads") == 1);
    drop_pipe(pipe);
}

fn with_the_state_in_a_file_the_quarantine_is_a_merge_tree() {
    let (pipe, db) = ("in_file", "in_file_db");
    create_stream(pipe, 2);
    put_numbers(pipe, 2_000, &[5, 1_900]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bridge = bridge(db, &[("--state", &format!("file:{}", dir.path().display()))]);
    let engine = sql(&format!("SELECT engine FROM system.tables WHERE database = '{db}' AND name = 'quarantine'"));
    assert_eq!(engine.trim(), "ReplacingMergeTree");
    create(&bridge, pipe, "", "&on_failure=isolate&linger_ms=200");
    wait_for_long("both bad rows", &bridge, || quarantined(db, pipe).len() == 2);
    wait_for_long("all others", &bridge, || number("SELECT uniqExact(n) FROM in_file") == 1_998);
    assert_eq!(quarantined(db, pipe), super::bad_rows(&bridge, pipe));
    assert_eq!(number("SELECT count() FROM in_file"), 1_998);
    drop_pipe(pipe);
}

fn a_quarantine_that_was_dropped_is_created_again() {
    let (pipe, db) = ("dropped_q", "dropped_q_db");
    create_stream(pipe, 1);
    let bridge = bridge(db, &[]);
    sql(&format!("DROP TABLE {db}.quarantine SYNC"));
    put_numbers(pipe, 20, &[9]);
    create(&bridge, pipe, "", "&on_failure=isolate&linger_ms=100");
    complete(&bridge, db, pipe, 20, 1);
    drop_pipe(pipe);
}
