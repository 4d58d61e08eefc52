//! A stream that was split and merged: parents before children, so that the records of a key arrive
//! in the order in which they were written; and large records in a small memory.

use std::collections::HashMap;

use super::{assert_each_once, pull, pull_all};
use crate::records::reshard::{merge, shard_id, split};
use crate::world::{bridge, create_stream, get, metric, put, put_numbered, wait_until};

const KEYS: usize = 40;

/// A round of records: one for each key, with the number of the round in the payload.
fn put_round(stream: &str, round: usize) {
    put(stream, (0..KEYS).map(|key| (format!("key-{key}"), format!("{round:03}/key-{key}").into_bytes())));
}

#[test]
fn the_records_of_a_key_keep_their_order_over_splits_and_merges() {
    over_splits_and_merges("read-reshard");
}

/// For the stream `name`, with a bridge of that name.
pub fn over_splits_and_merges(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 2);
    let mut round = 0;
    let mut rounds = |count: usize| {
        for _ in 0..count {
            put_round(name, round);
            round += 1;
        }
        round
    };
    rounds(5);
    split(name, &shard_id(0));
    rounds(5);
    merge(name, &shard_id(3), &shard_id(1));
    rounds(5);
    split(name, &shard_id(4));
    let put = rounds(5) * KEYS;

    let bridge = bridge(id, &[]);
    // Small batches, so that shards change in the middle of many.
    let query = &format!("stream={name}&max_rows=37");
    let mut rows = pull_all(&bridge, id, query, put);
    assert_eq!(rows.len(), put);
    // And a reshard while the pipe is running.
    split(name, &shard_id(5));
    merge(name, &shard_id(2), &shard_id(7));
    let all = rounds(5) * KEYS;
    // What is closed now is noticed when its shards end.
    rows.extend(pull_all(&bridge, id, query, all - put));

    let mut last: HashMap<&str, &str> = HashMap::new();
    for row in &rows {
        let (key, payload) = (row["_key"].as_str().expect("a key"), row["_raw_message"].as_str().expect("a payload"));
        let before = last.insert(key, payload);
        assert!(before.is_none_or(|before| before < payload), "{key}: {payload} came after {before:?}");
    }
    assert_eq!((rows.len(), last.len()), (all, KEYS));
    assert_eq!(pull(&bridge, id, query).len(), 0);
    wait_until("all parents finished", || {
        let pipes = get(&bridge, "/v1/pipes").rows();
        let finished = |row: &&serde_json::Value| row["state"] == "finished";
        pipes.iter().filter(finished).count() == pipes.len() - 3
    });
}

#[test]
fn the_first_look_at_many_shards_stays_within_the_memory() {
    create_stream("read-memory", 16);
    let payload = "x".repeat(10_000);
    for from in (0..16_000).step_by(400) {
        put("read-memory", (from..from + 400).map(|n| (format!("k-{n}"), format!("{n}-{payload}").into_bytes())));
    }
    let bridge = bridge("read_memory", &[("--memory", "32MiB")]);
    let (mut rows, mut most) = (0, 0.0_f64);
    wait_until("all rows", || {
        rows += pull(&bridge, "read_memory", "stream=read-memory").len();
        most = most.max(metric(&bridge, "kinesis_bridge_memory_used_bytes").expect("the metric"));
        rows == 16_000
    });
    // Of 24 MiB for pipes; a page that is larger than expected may exceed it.
    assert!(most <= f64::from(48 << 20), "{} MiB held", most / f64::from(1 << 20));
}

#[test]
fn pipes_on_one_stream_do_not_disturb_each_other() {
    create_stream("read-pipes", 2);
    put_numbered("read-pipes", "a", 500);
    let bridge = bridge("read_pipes", &[]);
    std::thread::scope(|scope| {
        for pipe in 0..4 {
            let bridge = &bridge;
            scope.spawn(move || {
                let rows = pull_all(bridge, &format!("read_pipes_{pipe}"), "stream=read-pipes&max_rows=90", 500);
                assert_each_once(&rows, &[("a", 500)]);
            });
        }
    });
}
