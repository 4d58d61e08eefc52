//! Bodies as Kinesis and its emulators send them. That others are read as an independent decoder
//! reads them is held by the fuzz target `get_records_cbor`.

use proptest::prelude::*;
use serde_json::json;

use super::super::decode_json;
use super::*;

/// A record: key, time in ms, sequence number, payload.
type Row = (String, i64, String, Vec<u8>);

/// How a body is written.
#[derive(Clone, Copy, Debug)]
struct Style {
    /// Maps and lists without their sizes, as AWS writes them.
    open: bool,
    /// Times as tagged milliseconds, as AWS writes them; otherwise as seconds.
    tagged: bool,
}

const AWS: Style = Style { open: true, tagged: true };
const EMULATOR: Style = Style { open: false, tagged: false };

impl Style {
    fn begin(self, major: u8, count: usize, to: &mut Vec<u8>) {
        match self.open {
            true => to.push(major << 5 | 31),
            false => head(major, count as u64, to),
        }
    }

    fn end(self, to: &mut Vec<u8>) {
        to.extend(self.open.then_some(BREAK));
    }

    fn record(self, (key, ms, sequence, payload): &Row, to: &mut Vec<u8>) {
        self.begin(MAP, 4, to);
        text("SequenceNumber", to);
        text(sequence, to);
        text("ApproximateArrivalTimestamp", to);
        match self.tagged {
            true => {
                to.push(0xc1);
                head(0, *ms as u64, to);
            }
            false => {
                to.push(0xfb);
                to.extend((*ms as f64 / 1_000.0).to_be_bytes());
            }
        }
        text("Data", to);
        head(2, payload.len() as u64, to);
        to.extend(payload);
        text("PartitionKey", to);
        text(key, to);
        self.end(to);
    }

    fn page(self, rows: &[Row]) -> Vec<u8> {
        let mut to = Vec::new();
        self.begin(MAP, 4, &mut to);
        text("MillisBehindLatest", &mut to);
        head(0, 12, &mut to);
        // Unknown to this version.
        text("Later", &mut to);
        self.begin(LIST, 2, &mut to);
        text("and", &mut to);
        to.push(0xf5);
        self.end(&mut to);
        text("NextShardIterator", &mut to);
        text("AAA+/=", &mut to);
        text("Records", &mut to);
        self.begin(LIST, rows.len(), &mut to);
        rows.iter().for_each(|row| self.record(row, &mut to));
        self.end(&mut to);
        self.end(&mut to);
        to
    }
}

fn in_json(rows: &[Row]) -> Vec<u8> {
    let record = |(key, ms, sequence, payload): &Row| {
        let data = base64_simd::STANDARD.encode_to_string(payload);
        json!({"PartitionKey": key, "SequenceNumber": sequence, "Data": data, "ApproximateArrivalTimestamp": *ms as f64 / 1_000.0})
    };
    let records: Vec<_> = rows.iter().map(record).collect();
    json!({"Records": records, "MillisBehindLatest": 12, "NextShardIterator": "AAA+/="}).to_string().into_bytes()
}

fn rows(decoded: &Decoded) -> Vec<Row> {
    let row = |r: domain::record::RecordRef<'_>| {
        (r.key.to_owned(), r.timestamp_ms, r.sequence_number.to_owned(), r.payload.to_vec())
    };
    decoded.records.records().map(row).collect()
}

proptest! {
    /// A record is the same, to the millisecond, however it came: a batch that is read again in the
    /// other form must be the same bytes.
    #[test]
    fn both_forms_bring_the_same(
        wanted in prop::collection::vec((".{0,20}", 1_300_000_000_000..4_000_000_000_000i64, "[0-9]{1,56}", prop::collection::vec(any::<u8>(), 0..300)), 0..20)
    ) {
        let json = decode_json(&in_json(&wanted)).unwrap();
        for style in [AWS, EMULATOR] {
            let cbor = decode(&style.page(&wanted)).unwrap();
            prop_assert_eq!(rows(&cbor), rows(&json));
            prop_assert_eq!((&cbor.resume, cbor.millis_behind_latest), (&json.resume, json.millis_behind_latest));
        }
    }
}

#[test]
fn the_end_of_a_shard_names_its_children() {
    let mut body = Vec::new();
    AWS.begin(MAP, 0, &mut body);
    text("Records", &mut body);
    body.extend([0x80]);
    text("NextShardIterator", &mut body);
    body.push(NULL);
    text("ChildShards", &mut body);
    body.push(0x81);
    AWS.begin(MAP, 0, &mut body);
    text("ShardId", &mut body);
    text("shardId-2", &mut body);
    text("ParentShards", &mut body);
    body.push(0x82);
    text("shardId-0", &mut body);
    text("shardId-1", &mut body);
    text("HashKeyRange", &mut body);
    body.push(0xa2);
    for (name, key) in [("StartingHashKey", "0"), ("EndingHashKey", "9")] {
        text(name, &mut body);
        text(key, &mut body);
    }
    body.extend([BREAK, BREAK]);
    let decoded = decode(&body).unwrap();
    assert_eq!((decoded.records.len(), decoded.resume), (0, None));
    let child = &decoded.children[0];
    assert_eq!(
        [&child.id, &child.parent, &child.adjacent_parent].map(|id| id.as_str()),
        ["shardId-2", "shardId-0", "shardId-1"]
    );
    assert_eq!((child.starting_hash_key.as_str(), child.ending_hash_key.as_str()), ("0", "9"));
}

#[test]
fn what_is_broken_or_unusual_is_not_decoded() {
    let usual = AWS.page(&[("k".into(), 1_719_347_890_251, "7".into(), b"abc".to_vec())]);
    assert!(decode(&usual).is_some());
    for end in 0..usual.len() {
        assert!(decode(&usual[..end]).is_none(), "{end}");
    }
    assert!(decode(&[&usual[..], b"\0"].concat()).is_none());
    // Nested more deeply than anything that AWS sends.
    let mut nested = vec![MAP << 5 | 31];
    text("Later", &mut nested);
    nested.extend([0x81].repeat(100_000));
    assert!(decode(&nested).is_none());
    // Sizes that no body has.
    assert!(decode(b"\xbf\x67Records\x9b\xff\xff\xff\xff\xff\xff\xff\xff").is_none());
    assert!(decode(b"\xbf\x67Records\x9f\xbf\x64Data\x5b\xff\xff\xff\xff\xff\xff\xff\xff").is_none());
}

#[test]
fn a_request_and_an_error_are_translated() {
    let body = from_json(br#"{"ShardIterator":"AAA","Limit":10000}"#).unwrap();
    let mut items = Items { bytes: &body, at: 0 };
    let mut found = Vec::new();
    items
        .map(|items, member| {
            let value = if member == "Limit" { items.integer()?.to_string() } else { items.text()?.to_owned() };
            found.push(format!("{member}={value}"));
            Some(())
        })
        .unwrap();
    found.sort();
    assert_eq!(found, ["Limit=10000", "ShardIterator=AAA"]);
    let mut error = Vec::new();
    AWS.begin(MAP, 0, &mut error);
    for (name, value) in [("__type", "ExpiredIteratorException"), ("message", "it is too old")] {
        text(name, &mut error);
        text(value, &mut error);
    }
    text("Reason", &mut error);
    error.extend([0x01, BREAK]);
    let told: Value = serde_json::from_slice(&error_as_json(&error).unwrap()).unwrap();
    assert_eq!(told, json!({"__type": "ExpiredIteratorException", "message": "it is too old"}));
}
