//! GetRecords responses and events of SubscribeToShard: what ours makes of a body is what the SDK
//! makes of it. Where ours makes nothing of it, the SDK decides.

use adapters::kinesis::wire::decode_json;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::SubscribeToShardEvent;
use aws_smithy_json::protocol::aws_json_rpc::AwsJsonRpcProtocol;
use aws_smithy_schema::protocol::ClientProtocol;
use proptest::prelude::*;

use super::input::{Checked, JSON, fuzz};

const WORDS: &[&[u8]] = &[
    b"\"Records\":",
    b"\"Data\":",
    b"\"YWJj\"",
    b"\"SequenceNumber\":\"1\"",
    b"\"PartitionKey\":\"k\"",
    b"\"ApproximateArrivalTimestamp\":1719347890.251",
    b"\"NextShardIterator\":\"n\"",
    b"\"ContinuationSequenceNumber\":\"2\"",
    b"\"MillisBehindLatest\":1",
    b"\"ChildShards\":[]",
    b"null",
    b"true",
    b"1e5",
    b"-1",
    b"\\u0041",
    b"\\ud83d\\ude00",
    b"=",
    b"==",
];

/// As the SDK decodes it.
fn by_the_sdk(body: &[u8]) -> (Option<GetRecordsOutput>, Option<SubscribeToShardEvent>) {
    let protocol = AwsJsonRpcProtocol::aws_json_1_1();
    let codec = protocol.payload_codec().expect("JSON");
    let page = GetRecordsOutput::deserialize(&mut *codec.create_deserializer(body));
    (page.ok(), SubscribeToShardEvent::deserialize(&mut *codec.create_deserializer(body)).ok())
}

fn check(body: &[u8]) -> Checked {
    let Some(ours) = decode_json(body) else { return Ok(()) };
    let (Some(sdk), event) = by_the_sdk(body) else {
        return Err(TestCaseError::fail(format!("the SDK refuses it: {ours:?}")));
    };
    prop_assert_eq!(ours.records.len(), sdk.records.len());
    for (ours, sdk) in ours.records.records().zip(&sdk.records) {
        let time = sdk.approximate_arrival_timestamp.and_then(|time| time.to_millis().ok()).unwrap_or(0);
        prop_assert_eq!(ours.key, sdk.partition_key.as_deref().unwrap_or_default());
        prop_assert_eq!(ours.sequence_number, &sdk.sequence_number);
        prop_assert_eq!(ours.timestamp_ms, time);
        prop_assert_eq!(ours.payload, sdk.data.as_ref());
    }
    if let Some(event) = event.filter(|_| sdk.next_shard_iterator.is_none()) {
        prop_assert_eq!(ours.resume.unwrap_or_default(), event.continuation_sequence_number);
    } else {
        prop_assert_eq!(&ours.resume, &sdk.next_shard_iterator);
    }
    prop_assert_eq!(ours.millis_behind_latest, sdk.millis_behind_latest.unwrap_or(0));
    let children = sdk.child_shards.unwrap_or_default();
    prop_assert_eq!(ours.children.len(), children.len());
    for (ours, sdk) in ours.children.iter().zip(&children) {
        let range = sdk.hash_key_range.as_ref();
        prop_assert_eq!(ours.id.as_str(), &sdk.shard_id);
        prop_assert_eq!(Some(&ours.starting_hash_key), range.map(|r| &r.starting_hash_key));
        prop_assert_eq!(Some(&ours.ending_hash_key), range.map(|r| &r.ending_hash_key));
        let mut parents = sdk.parent_shards.iter().map(String::as_str).chain(["", ""]);
        prop_assert_eq!(Some(ours.parent.as_str()), parents.next());
        prop_assert_eq!(Some(ours.adjacent_parent.as_str()), parents.next());
    }
    Ok(())
}

#[test]
fn a_response_is_decoded_as_the_sdk_does() {
    fuzz("get_records", &[JSON, WORDS].concat(), 50_000, check);
}

/// The shortcut is taken for what Kinesis and its emulators send.
#[test]
fn ours_decodes_what_is_usual() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/get_records");
    for usual in
        ["two_records", "as_an_emulator_writes_them", "nothing", "the_end_of_a_shard", "spaces", "escapes", "an_event"]
    {
        let body = std::fs::read(folder.join(usual)).unwrap();
        assert!(decode_json(&body).is_some(), "{usual}");
    }
}
