//! Bodies as Kinesis sends them, and some that it does not. That all others come out as the SDK
//! makes them is held by the fuzz target `get_records`.

use super::*;

/// Key, time, sequence number and payload of each record.
fn records(decoded: &Decoded) -> Vec<(&str, i64, &str, &[u8])> {
    decoded.records.records().map(|r| (r.key, r.timestamp_ms, r.sequence_number, r.payload)).collect()
}

#[test]
fn a_response_is_decoded() {
    let body = br#" { "Records" : [
        {"SequenceNumber":"495","ApproximateArrivalTimestamp":1719347890.5,"Data":"eyJhIjoxfQ==","PartitionKey":"caf\u00e9 \ud83d\ude00"},
        {"Data":"","EncryptionType":"KMS","SequenceNumber":"496","ApproximateArrivalTimestamp":1.719347890251E9} ],
        "NextShardIterator" : "AAA+/=", "Later" : {"a":[null]}, "MillisBehindLatest" : 12 } "#;
    let decoded = decode(body).unwrap();
    // The SDK, too, drops the last millisecond where the nearest binary fraction lies below it.
    let second = ("", DateTime::from_secs_f64(1_719_347_890.251).to_millis().unwrap(), "496", &b""[..]);
    assert_eq!(records(&decoded), [("caf\u{e9} \u{1f600}", 1_719_347_890_500, "495", &b"{\"a\":1}"[..]), second]);
    assert_eq!((decoded.resume.as_deref(), decoded.millis_behind_latest), (Some("AAA+/="), 12));
    assert!(decoded.children.is_empty());
}

#[test]
fn the_end_of_a_shard_names_its_children() {
    let body = br#"{"Records":[],"NextShardIterator":null,"ChildShards":[{"ShardId":"shardId-2",
        "ParentShards":["shardId-0","shardId-1"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}]}"#;
    let decoded = decode(body).unwrap();
    assert_eq!((decoded.records.len(), decoded.resume), (0, None));
    let child = &decoded.children[0];
    let names = [&child.id, &child.parent, &child.adjacent_parent].map(|id| id.as_str());
    assert_eq!(names, ["shardId-2", "shardId-0", "shardId-1"]);
    assert_eq!((child.starting_hash_key.as_str(), child.ending_hash_key.as_str()), ("0", "9"));
}

#[test]
fn an_event_is_decoded() {
    let body = br#"{"Records":[{"SequenceNumber":"7","Data":"YQ=="}],"ContinuationSequenceNumber":"8","MillisBehindLatest":0}"#;
    let decoded = decode(body).unwrap();
    assert_eq!(records(&decoded), [("", 0, "7", &b"a"[..])]);
    assert_eq!(decoded.resume.as_deref(), Some("8"));
}

#[test]
fn what_is_unusual_is_left_to_the_sdk() {
    for body in [
        "",
        "{}",
        r#"{"message":"Rate exceeded"}"#,
        r#"{"Records":null}"#,
        r#"{"Records":[],"Records":[]}"#,
        r#"{"Records":[{"Data":"YQ=="}]}"#,
        r#"{"Records":[{"SequenceNumber":"1"}]}"#,
        r#"{"Records":[{"SequenceNumber":"1","Data":"YQ"}]}"#,
        r#"{"Records":[{"SequenceNumber":"1","Data":"YQ==","Data":"YQ=="}]}"#,
        r#"{"Records":[{"SequenceNumber":"1","Data":"","PartitionKey":"\ud800"}]}"#,
        r#"{"Records":[{"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":"2024-06-25T20:38:10Z"}]}"#,
        r#"{"Records":[{"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":01}]}"#,
        r#"{"Records":[],}"#,
        r#"{"Records":[]} x"#,
        r#"{"Records":["#,
    ] {
        assert!(decode(body.as_bytes()).is_none(), "{body}");
    }
}
