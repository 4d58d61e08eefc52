//! GetRecords responses in CBOR: what ours makes of a body is what an independent decoder makes of
//! it. Where ours makes nothing of it, records are read in JSON.

use adapters::kinesis::wire::decode_cbor;
use aws_smithy_types::base64;
use ciborium::Value;
use proptest::prelude::*;

use super::input::{Checked, fuzz};

const WORDS: &[&[u8]] = &[
    b"\xbf",
    b"\xff",
    b"\x9f",
    b"\xa1",
    b"\x81",
    b"\x80",
    b"\xf6",
    b"\xf7",
    b"\xf9\x3c\x00",
    b"\xfb\x41\xd9\x9e\xac\x3c\x90\x00\x00",
    b"\xc1\x1b\x00\x00\x01\x90\x4f\x64\x1c\xab",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x3b\x00\x00\x00\x00\x00\x00\x00\x05",
    b"\x5f\x41a\xff",
    b"\x78\x01k",
    b"\x67Records",
    b"\x64Data",
    b"\x43abc",
    b"\x6eSequenceNumber",
    b"\x6cPartitionKey",
    b"\x78\x1bApproximateArrivalTimestamp",
    b"\x71NextShardIterator",
    b"\x72MillisBehindLatest",
    b"\x6bChildShards",
];

/// The last member of this name; ours refuses a body with two.
fn member<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    map.as_map()?.iter().rev().find(|(member, _)| member.as_text() == Some(name)).map(|(_, value)| value)
}

fn text<'a>(map: &'a Value, name: &str) -> Option<&'a str> {
    member(map, name)?.as_text()
}

fn check(body: &[u8]) -> Checked {
    let Some(ours) = decode_cbor(body) else { return Ok(()) };
    let Ok(theirs) = ciborium::from_reader::<Value, _>(body) else {
        return Err(TestCaseError::fail(format!("it is not CBOR: {ours:?}")));
    };
    let records = member(&theirs, "Records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    prop_assert_eq!(ours.records.len(), records.len());
    for (ours, theirs) in ours.records.records().zip(records) {
        prop_assert_eq!(ours.key, text(theirs, "PartitionKey").unwrap_or_default());
        prop_assert_eq!(Some(ours.sequence_number), text(theirs, "SequenceNumber"));
        let data = member(theirs, "Data");
        let decoded = data.and_then(Value::as_text).and_then(|text| base64::decode(text).ok());
        prop_assert_eq!(Some(ours.payload), decoded.as_deref().or(data.and_then(Value::as_bytes).map(Vec::as_slice)));
    }
    let resume = text(&theirs, "NextShardIterator").or(text(&theirs, "ContinuationSequenceNumber"));
    prop_assert_eq!(ours.resume.as_deref(), resume);
    let behind = member(&theirs, "MillisBehindLatest").and_then(Value::as_integer).map_or(0, i128::from);
    prop_assert_eq!(i128::from(ours.millis_behind_latest), behind);
    let children = member(&theirs, "ChildShards").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    prop_assert_eq!(ours.children.len(), children.len());
    for (ours, theirs) in ours.children.iter().zip(children) {
        prop_assert_eq!(Some(ours.id.as_str()), text(theirs, "ShardId"));
    }
    Ok(())
}

#[test]
fn a_response_is_decoded_as_another_decoder_does() {
    fuzz("get_records_cbor", WORDS, 50_000, check);
}

/// What Kinesis and its emulators send is decoded.
#[test]
fn ours_decodes_what_is_usual() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/get_records_cbor");
    for usual in ["two_records", "as_an_emulator_writes_them", "payloads_in_base64", "nothing", "the_end_of_a_shard"] {
        let body = std::fs::read(folder.join(usual)).unwrap();
        assert!(decode_cbor(&body).is_some(), "{usual}");
    }
}
