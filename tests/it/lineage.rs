//! Pipes over streams that were split and merged before, while and after they were read, and over
//! one that was recreated.

use std::collections::HashMap;

use stack::Bridge;

use crate::records::reshard::{merge, shard_id, split};
use crate::world::{self, *};

/// A bridge whose state tables exist. New shards are found as soon as their parents end, so nothing
/// here waits for the next listing.
fn bridge(database: &str) -> Bridge {
    let bridge = world::bridge(database, &[]);
    wait_until("the bridge to be ready", || get(&bridge, "/readyz").status == 200);
    bridge
}

/// Writes `<key>-<n>` for 20 keys and the next `count` numbers, so that the order of each key can
/// be checked.
fn put_rounds(stream: &str, from: usize, count: usize) {
    let records = (from..from + count)
        .flat_map(|n| (0..20).map(move |key| (format!("key-{key}"), format!("key-{key} {n}").into_bytes())));
    put(stream, records);
}

/// Pulls and acknowledges until all numbers below `rounds` have arrived for each of the 20 keys;
/// every record once, in the order of its key.
fn read_in_order(bridge: &Bridge, pipe: &str, next: &mut HashMap<String, usize>, rounds: usize) {
    wait_until(&format!("{rounds} records of each key"), || {
        let answer = get(
            bridge,
            &format!(
                "/v1/pipes/{pipe}/next?stream={pipe}&ack=explicit&format=JSONEachRow&linger_ms=0&poll_ms=20&wait_ms=2000"
            ),
        );
        let rows = answer.rows();
        for row in &rows {
            let (key, n) =
                row["_raw_message"].as_str().and_then(|text| text.split_once(' ')).expect("a key and a number");
            let expected = next.entry(key.into()).or_default();
            assert_eq!(n.parse(), Ok(*expected), "the next record of {key}");
            *expected += 1;
        }
        if let Some(batch) = rows.first().and_then(|row| row["_batch"].as_str()) {
            assert_eq!(
                post(bridge, &format!("/v1/pipes/{pipe}/ack"), &format!("{{\"batch\": \"{batch}\"}}\n")).status,
                200
            );
        }
        next.len() == 20 && next.values().all(|n| *n == rounds)
    });
}

/// Shards of the pipe that are committed to their end.
fn finished(database: &str) -> Vec<String> {
    let rows =
        sql(&format!("SELECT shard_id FROM {database}.leases WHERE sequence_number = 'SHARD_END' ORDER BY shard_id"));
    rows.lines().map(String::from).collect()
}

#[test]
fn a_history_of_reshards_is_read_in_order() {
    create_stream("history", 2);
    put_rounds("history", 0, 10);
    split("history", &shard_id(0));
    put_rounds("history", 10, 10);
    merge("history", &shard_id(3), &shard_id(1));
    put_rounds("history", 20, 10);
    split("history", &shard_id(4));
    put_rounds("history", 30, 10);
    let bridge = bridge("history_db");
    let mut next = HashMap::new();
    read_in_order(&bridge, "history", &mut next, 40);
    wait_until("all parents to be finished", || finished("history_db") == [0, 1, 3, 4].map(shard_id));
}

#[test]
fn a_pipe_that_slept_reads_the_tails_of_closed_shards_first() {
    create_stream("slept", 2);
    put_rounds("slept", 0, 5);
    let bridge = bridge("slept_db");
    let mut next = HashMap::new();
    read_in_order(&bridge, "slept", &mut next, 5);
    bridge.kill();
    put_rounds("slept", 5, 5);
    split("slept", &shard_id(0));
    put_rounds("slept", 10, 5);
    split("slept", &shard_id(1));
    merge("slept", &shard_id(3), &shard_id(4));
    put_rounds("slept", 15, 5);
    bridge.start_again().expect("the bridge comes back");
    read_in_order(&bridge, "slept", &mut next, 20);
    wait_until("all parents to be finished", || finished("slept_db") == [0, 1, 3, 4].map(shard_id));
    // And while it is read.
    split("slept", &shard_id(6));
    put_rounds("slept", 20, 5);
    merge("slept", &shard_id(7), &shard_id(8));
    put_rounds("slept", 25, 5);
    read_in_order(&bridge, "slept", &mut next, 30);
}

/// The new shards of this emulator name no parents, so the order of a key is undefined; every
/// record must arrive nevertheless.
#[test]
fn update_shard_count_is_followed() {
    create_stream("doubled", 2);
    put_numbered("doubled", "a", 100);
    let bridge = bridge("doubled_db");
    create_pipe(&bridge, "doubled", "stream=doubled&view=default.doubled_view&linger_ms=0&poll_ms=20&wait_ms=1000");
    let count = || sql("SELECT count(), uniqExact(_key) FROM doubled").trim().to_string();
    wait_until("the first records", || count() == "100\t100");
    let call = kinesis().update_shard_count().stream_name("doubled").target_shard_count(4);
    block_on(call.scaling_type(aws_sdk_kinesis::types::ScalingType::UniformScaling).send()).expect("four shards");
    block_on(stack::load::wait_active(kinesis(), "doubled")).expect("an active stream");
    put_numbered("doubled", "b", 100);
    wait_until("all records", || count() == "200\t200");
    drop_pipe("doubled");
}

#[test]
fn hundreds_of_shards_are_all_read() {
    create_stream("wide", 900);
    put_numbered("wide", "a", 3_000);
    let bridge = bridge("wide_db");
    assert_eq!(get(&bridge, "/v1/streams/wide/shards").rows().len(), 900);
    let next = || {
        get(
            &bridge,
            "/v1/pipes/wide/next?stream=wide&ack=explicit&format=JSONEachRow&linger_ms=5000&wait_ms=10000&poll_ms=5000",
        )
    };
    let mut keys = std::collections::BTreeSet::new();
    wait_until("the records of all shards", || {
        let rows = next().rows();
        keys.extend(rows.iter().map(|row| row["_key"].as_str().expect("a key").to_string()));
        if let Some(batch) = rows.first().and_then(|row| row["_batch"].as_str()) {
            let ack = format!("{{\"batch\": \"{batch}\"}}\n");
            assert_eq!(post(&bridge, "/v1/pipes/wide/ack", &ack).status, 200);
        }
        keys.len() == 3_000
    });
    assert_eq!(sql("SELECT count(), sum(committed_rows) FROM wide_db.leases"), "900\t3000\n");
}

#[test]
fn a_stream_created_anew_is_a_gap_until_somebody_seeks() {
    create_stream("anew", 2);
    split("anew", &shard_id(0));
    put_rounds("anew", 0, 5);
    let bridge = bridge("anew_db");
    read_in_order(&bridge, "anew", &mut HashMap::new(), 5);
    wait_until("the parent to be finished", || finished("anew_db") == [shard_id(0)]);
    block_on(kinesis().delete_stream().stream_name("anew").enforce_consumer_deletion(true).send()).expect("deleted");
    wait_until("the stream to be gone", || {
        block_on(kinesis().describe_stream_summary().stream_name("anew").send()).is_err()
    });
    // With four shards, which have the ids of those that were being read and of the finished one,
    // and one more.
    create_stream("anew", 5);
    put_rounds("anew", 0, 5);
    let states = || -> HashMap<String, (String, String)> {
        let rows = get(&bridge, "/v1/pipes").rows();
        let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or_default().to_string();
        rows.iter().map(|row| (text(row, "shard_id"), (text(row, "state"), text(row, "last_error")))).collect()
    };
    wait_until("the gaps to be told", || {
        let url = "/v1/pipes/anew/next?stream=anew&ack=explicit&format=JSONEachRow&linger_ms=0&wait_ms=1000";
        let answer = get(&bridge, url);
        // Meanwhile the shard that had no lease continues, and no other.
        let rows = if answer.status == 200 { answer.rows() } else { Vec::new() };
        if let Some(row) = rows.first() {
            assert!(rows.iter().all(|row| row["_shard_id"] == shard_id(4).as_str()), "{rows:?}");
            let batch = row["_batch"].as_str().expect("a batch");
            let ack = format!("{{\"batch\": \"{batch}\"}}\n");
            assert_eq!(post(&bridge, "/v1/pipes/anew/ack", &ack).status, 200);
        }
        let states = states();
        [0, 1, 2, 3].map(shard_id).iter().all(|id| states.get(id).is_some_and(|(state, _)| state == "gap"))
    });
    for id in [0, 1, 2, 3].map(shard_id) {
        let (_, told) = &states()[&id];
        for part in ["'anew'", id.as_str(), "position", "recreated", "/seek"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    assert_eq!(metric(&bridge, "kinesis_bridge_gaps{pipe=\"anew\"}"), Some(4.0));
    let all = "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}\n";
    assert_eq!(post(&bridge, "/v1/pipes/anew/seek", all).status, 200);
    read_in_order(&bridge, "anew", &mut HashMap::new(), 5);
}

/// `seek` to where a closed shard ends: there is nothing left to read after it, and nothing is
/// missing.
pub fn the_end_of_a_shard_is_no_gap(stream: &str) {
    create_stream(stream, 1);
    put_rounds(stream, 0, 2);
    let database = format!("{}_db", stream.replace('-', "_"));
    let bridge = bridge(&database);
    let mut next = HashMap::new();
    read_in_order(&bridge, stream, &mut next, 2);
    let last = sql(&format!("SELECT sequence_number FROM {database}.leases")).trim().to_string();
    split(stream, &shard_id(0));
    put_rounds(stream, 2, 2);
    read_in_order(&bridge, stream, &mut next, 4);
    wait_until("the parent to be finished", || finished(&database) == [shard_id(0)]);
    let shards = get(&bridge, &format!("/v1/streams/{stream}/shards")).rows();
    let ending = shards[0]["ending_sequence_number"].as_str().expect("text").to_string();
    // An emulator may report an end that is before all records; then the last record counts.
    let plausible = ending.len() >= last.trim_start_matches('0').len();
    for position in [last, ending].into_iter().take(if plausible { 2 } else { 1 }) {
        let to = format!("{{\"shard_id\": \"{}\", \"position\": \"{position}\"}}\n", shard_id(0));
        assert_eq!(post(&bridge, &format!("/v1/pipes/{stream}/seek"), &to).status, 200);
        let url =
            format!("/v1/pipes/{stream}/next?stream={stream}&ack=explicit&format=JSONEachRow&linger_ms=0&wait_ms=200");
        wait_until("the parent to be finished again", || {
            assert_eq!(get(&bridge, &url).rows(), Vec::<serde_json::Value>::new(), "{position}");
            let states = get(&bridge, "/v1/pipes").rows();
            assert!(states.iter().all(|row| row["state"] != "gap"), "{position}: {states:?}");
            finished(&database) == [shard_id(0)]
        });
    }
}

#[test]
fn seek_to_the_end_of_a_shard_is_no_gap() {
    the_end_of_a_shard_is_no_gap("shard-ends");
}
