//! Streams that were split and merged.

use aws_sdk_kinesis::types::Shard;

use super::{keys, records};
use crate::engines::on_each_engine;
use crate::world::{block_on, bridge, create_stream, get, kinesis, put_numbered, sql};

on_each_engine!(closed_shards_are_read_too,);

fn shards(stream: &str) -> Vec<Shard> {
    block_on(kinesis().list_shards().stream_name(stream).send()).expect("shards").shards.unwrap_or_default()
}

/// Splits the shard in the middle of its hash keys.
pub fn split(stream: &str, shard_id: &str) {
    let all = shards(stream);
    let shard = all.iter().find(|s| s.shard_id == shard_id).expect("the shard");
    let range = shard.hash_key_range.as_ref().expect("its range");
    let key = |text: &str| text.parse::<u128>().expect("a hash key");
    let (low, high) = (key(&range.starting_hash_key), key(&range.ending_hash_key));
    let middle = (low + (high - low) / 2 + 1).to_string();
    let call = kinesis().split_shard().stream_name(stream).shard_to_split(shard_id).new_starting_hash_key(middle);
    block_on(call.send()).expect("a split");
    block_on(stack::load::wait_active(kinesis(), stream)).expect("an active stream");
}

/// Merges two neighbours.
pub fn merge(stream: &str, first: &str, second: &str) {
    let call = kinesis().merge_shards().stream_name(stream).shard_to_merge(first).adjacent_shard_to_merge(second);
    block_on(call.send()).expect("a merge");
    block_on(stack::load::wait_active(kinesis(), stream)).expect("an active stream");
}

/// `shardId-` and twelve digits.
pub fn shard_id(number: usize) -> String {
    format!("shardId-{number:012}")
}

fn closed_shards_are_read_too() {
    closed_shards("rec-reshard");
}

/// For the stream `name`, with a bridge of that name.
pub fn closed_shards(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 2);
    put_numbered(name, "a", 40);
    split(name, &shard_id(0));
    put_numbered(name, "b", 40);
    merge(name, &shard_id(3), &shard_id(1));
    put_numbered(name, "c", 40);
    let bridge = bridge(id, &[]);
    let all = records(&bridge, name, "");
    assert_eq!(sql(&format!("SELECT count(), uniqExact(_key) FROM {all}")), "120\t120\n");
    // Parents: 0 and 1; children of the split: 2 and 3; of the merge: 4.
    let by_shard = sql(&format!("SELECT DISTINCT _shard_id FROM {all} ORDER BY _shard_id"));
    assert_eq!(by_shard.lines().collect::<Vec<_>>(), (0..5).map(shard_id).collect::<Vec<_>>());
    let parent = keys(&bridge, name, &format!("shard={}", shard_id(0)));
    assert!(!parent.is_empty() && parent.iter().all(|key| key.starts_with("a-")), "{parent:?}");
    let child = keys(&bridge, name, &format!("shard={}", shard_id(4)));
    assert!(!child.is_empty() && child.iter().all(|key| key.starts_with("c-")), "{child:?}");
    let slices = records(&bridge, name, "slice={0..3}%2F4");
    assert_eq!(sql(&format!("SELECT count(), uniqExact(_key) FROM {slices}")), "120\t120\n");

    let rows = get(&bridge, &format!("/v1/streams/{name}/shards")).rows();
    let lineage: Vec<[&str; 3]> = rows
        .iter()
        .map(|r| ["shard_id", "parent_shard_id", "adjacent_parent_shard_id"].map(|c| r[c].as_str().unwrap_or_default()))
        .collect();
    let ids: Vec<String> = (0..5).map(shard_id).collect();
    let [zero, one, two, three, four] = [0, 1, 2, 3, 4].map(|n| ids[n].as_str());
    assert_eq!(lineage, [[zero, "", ""], [one, "", ""], [two, zero, ""], [three, zero, ""], [four, three, one]]);
    let closed = |row: &serde_json::Value| row["ending_sequence_number"] != "";
    assert_eq!(rows.iter().map(closed).collect::<Vec<_>>(), [true, true, false, true, false]);
}
