mod compressed;
mod json;

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use testkit::aggregate::{aggregate, sealed};

use super::*;
use domain::limits::MAX_LOG_EVENTS;

/// A row as returned: key, sequence number, number within the record, payload.
type Given = (String, String, u32, Vec<u8>);

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

fn page(payloads: &[Vec<u8>], first: usize) -> Chunk {
    let mut page = Chunk::default();
    for (n, payload) in payloads.iter().enumerate() {
        let sequence_number = (first + n).to_string();
        assert!(page.push(RecordRef {
            key: "whole",
            timestamp_ms: 7,
            sequence_number: &sequence_number,
            sub_sequence: 0,
            payload
        }));
    }
    page
}

fn unpacked(page: Chunk, rules: &Rules) -> (Vec<Given>, Counts) {
    let (mut unpacker, mut rows) = (Unpacker::new(page, 0, rules.clone()), Vec::new());
    while let Some(chunk) = unpacker.next_chunk() {
        assert!(!chunk.is_empty());
        let own = |r: RecordRef<'_>| (r.key.into(), r.sequence_number.into(), r.sub_sequence, r.payload.to_vec());
        rows.extend(chunk.records().map(own));
    }
    assert!(unpacker.is_done() && unpacker.next_chunk().is_none());
    (rows, unpacker.counts())
}

fn by(decompress: Decompress, split: Split) -> Rules {
    Rules { unpacking: Unpacking { decompress, split, ..Unpacking::default() }, begun: None }
}

fn one(payload: &[u8], split: Split) -> (Vec<String>, Counts) {
    let (rows, counts) = unpacked(page(&[payload.to_vec()], 0), &by(Decompress::Auto, split));
    assert!(rows.iter().enumerate().all(|(n, row)| row.2 as usize == n));
    (rows.into_iter().map(|(_, _, _, payload)| String::from_utf8_lossy(&payload).into_owned()).collect(), counts)
}

fn user_records() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    prop::collection::vec(("[a-cé]{0,3}", prop::collection::vec(any::<u8>(), 0..40)), 1..20)
}

/// Records of every kind.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::collection::vec(any::<u8>(), 0..60);
    let lines = "[a-c \r\n]{0,20}".prop_map(String::into_bytes);
    let event = |n: u32| format!("{{\"id\":\"{n}\",\"timestamp\":{n},\"message\":\"m{n}\"}}");
    let logs = prop::collection::vec(any::<u32>(), 0..6).prop_map(move |ids| {
        let events: Vec<String> = ids.into_iter().map(event).collect();
        let kind = if events.len() == 5 { "CONTROL_MESSAGE" } else { "DATA_MESSAGE" };
        format!(
            "{{\"messageType\":\"{kind}\",\"owner\":\"1\",\"logGroup\":\"g\",\"logStream\":\"s\",\"logEvents\":[{}]}}",
            events.join(",")
        )
        .into_bytes()
    });
    let items = "([{]([\"]a[\"]:[1-9])?[}]|[\\[\\], 1]){0,12}".prop_map(String::into_bytes);
    let text = prop_oneof![plain, lines, items, logs];
    let packed = (text, 0..8).prop_map(|(text, how)| match how {
        0 => gzip(&text),
        1 => zstd(&text),
        2 => gzip(&text)[..5].to_vec(),
        3 => zlib(&text),
        4 => [gzip(&text), b"\n".to_vec()].concat(),
        _ => text,
    });
    let aggregated = prop::collection::vec(("[ab]{0,2}", packed.clone()), 1..6).prop_map(|r| aggregate(&r));
    prop_oneof![2 => packed, 1 => aggregated]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_aggregate_gives_its_records(records in user_records()) {
        let (rows, counts) = unpacked(page(&[aggregate(&records)], 41), &Rules::default());
        let expected: Vec<Given> =
            records.into_iter().zip(0..).map(|((key, data), sub)| (key, "41".into(), sub, data)).collect();
        prop_assert_eq!(rows, expected);
        prop_assert_eq!(counts, Counts { aggregates: 1, ..Counts::default() });
    }

    /// A flipped bit anywhere makes it a plain record, unchanged.
    #[test]
    fn a_broken_aggregate_is_a_plain_record(records in user_records(), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = aggregate(&records);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let (rows, _) = unpacked(page(std::slice::from_ref(&bytes), 0), &Rules::default());
        prop_assert_eq!(rows, vec![("whole".into(), "0".into(), 0, bytes)]);
    }

    /// Any message with a valid digest: it gives rows, or is one.
    #[test]
    fn any_message_is_rows(message in prop::collection::vec(prop_oneof![3 => 0..32u8, 1 => any::<u8>()], 0..60)) {
        let bytes = sealed(&message);
        let (rows, counts) = unpacked(page(std::slice::from_ref(&bytes), 0), &Rules::default());
        match counts.aggregates {
            0 => prop_assert_eq!(rows, vec![("whole".into(), "0".into(), 0, bytes)]),
            _ => prop_assert!(!rows.is_empty()),
        }
    }

    /// The rows of a record depend only on the record: neither its page nor the place where reading
    /// starts changes them.
    #[test]
    fn rows_do_not_depend_on_the_page(payloads in prop::collection::vec(payload(), 1..12), cut: prop::sample::Index, split in 0..Split::ALL.len(), plain: bool) {
        let decompress = if plain { Decompress::None } else { Decompress::Auto };
        let rules = by(decompress, Split::ALL[split]);
        let (whole, counts) = unpacked(page(&payloads, 0), &rules);
        let cut = cut.index(payloads.len() + 1);
        let (mut parts, _) = unpacked(page(&payloads[..cut], 0), &rules);
        parts.extend(unpacked(page(&payloads[cut..], cut), &rules).0);
        prop_assert_eq!(&whole, &parts);
        // Each record gives at least one row, numbered from 0, except for control messages.
        let without = (0..payloads.len()).filter(|n| !whole.iter().any(|row| row.1 == n.to_string())).count();
        prop_assert!(without as u64 <= counts.control_messages);
        for rows in whole.chunk_by(|a, b| a.1 == b.1) {
            prop_assert!(rows.iter().zip(0..).all(|(row, sub)| row.2 == sub));
        }
        // A record started with other options continues with those, and no other record does.
        let begun = SequenceNumber::parse("0").map(|first| (first, rules.unpacking));
        let (mixed, _) = unpacked(page(&payloads, 0), &Rules { unpacking: Unpacking::default(), begun });
        let of = |rows: &[Given], first: bool| rows.iter().filter(|r| (r.1 == "0") == first).cloned().collect::<Vec<_>>();
        let (default, _) = unpacked(page(&payloads, 0), &Rules::default());
        prop_assert_eq!((of(&mixed, true), of(&mixed, false)), (of(&whole, true), of(&default, false)));
    }

    #[test]
    fn what_was_compressed_comes_back(text in prop::collection::vec(any::<u8>(), 0..2_000), cut: prop::sample::Index) {
        for packed in [gzip(&text), zstd(&text), [gzip(&text), gzip(b"")].concat(), [zstd(&text), zstd(b"")].concat()] {
            let (rows, counts) = unpacked(page(std::slice::from_ref(&packed), 0), &Rules::default());
            prop_assert_eq!(&rows[0].3, &text);
            prop_assert_eq!((rows.len(), counts.decompressed), (1, 1));
            let (rows, counts) = unpacked(page(std::slice::from_ref(&packed), 0), &by(Decompress::None, Split::None));
            prop_assert_eq!((&rows[0].3, counts), (&packed, Counts::default()));
        }
        // Truncated, it is delivered unchanged.
        let packed = gzip(&text);
        let cut = packed[..3 + cut.index(packed.len() - 3)].to_vec();
        let (rows, counts) = unpacked(page(std::slice::from_ref(&cut), 0), &Rules::default());
        prop_assert_eq!((&rows[0].3, counts.not_decompressed), (&cut, 1));
    }
}

#[test]
fn lines_without_blank_ones() {
    assert_eq!(one(b"a\r\n\n  \nb b\nc", Split::Lines).0, ["a", "b b", "c"]);
    assert_eq!(one(b"a\n", Split::Lines).0, ["a"]);
    // A record without a line is a row, so that it is accounted for.
    assert_eq!(one(b"", Split::Lines).0, [""]);
    assert_eq!(one(b" \n\n", Split::Lines).0, [" \n\n"]);
    assert_eq!(one(&gzip(b"a\nb"), Split::Lines).0, ["a", "b"]);
}

#[test]
fn log_events_are_rows() {
    let envelope = br#" {"messageType":"DATA_MESSAGE","owner":"123","logGroup":"/aws/\"x\"","logStream":"s\u00e9","subscriptionFilters":["f"],
        "logEvents":[{"id":"1","timestamp":1,"message":"{\"a\":1}"}, { } ,{"id":"2","extractedFields":{"k":"v"}}]}"#;
    let head = r#"{"owner":"123","logGroup":"/aws/\"x\"","logStream":"s\u00e9""#;
    let expected = [
        format!(r#"{head},"id":"1","timestamp":1,"message":"{{\"a\":1}}"}}"#),
        format!("{head}}}"),
        format!(r#"{head},"id":"2","extractedFields":{{"k":"v"}}}}"#),
    ];
    for payload in [envelope.to_vec(), gzip(envelope)] {
        let (rows, counts) = one(&payload, Split::CloudWatch);
        assert_eq!(rows, expected);
        assert_eq!(counts.not_split, 0);
        assert!(rows.iter().all(|row| serde_json::from_str::<serde_json::Value>(row).is_ok()));
    }
    let control = br#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],"logEvents":[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE"}]}"#;
    let marked = format!("\u{feff}{}", String::from_utf8_lossy(envelope));
    assert_eq!(one(marked.as_bytes(), Split::CloudWatch).0, expected);
    let unpacking = Unpacking { split: Split::CloudWatch, edition: Edition::First, ..Unpacking::default() };
    let (before, counts) = unpacked(page(&[marked.into_bytes()], 0), &Rules { unpacking, begun: None });
    assert_eq!((before.len(), counts.not_split), (1, 1));
    let (rows, counts) = one(&gzip(control), Split::CloudWatch);
    assert_eq!((rows.len(), counts.control_messages), (0, 1));
    // Without `split` it is a row like any other.
    assert_eq!(one(control, Split::None).0.len(), 1);
}

#[test]
fn what_is_no_envelope_is_a_row() {
    let many = vec!["{}"; MAX_LOG_EVENTS + 1].join(",");
    let with = |events: &str| {
        format!(r#"{{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logStream":"s","logEvents":[{events}]}}"#)
    };
    for text in [
        String::new(),
        "{}".into(),
        "[1]".into(),
        with(""),
        with("1"),
        with("{},2"),
        with(&many),
        with("{}").replace("DATA_", ""),
    ] {
        let (rows, counts) = one(text.as_bytes(), Split::CloudWatch);
        assert_eq!((rows.as_slice(), counts.not_split), (std::slice::from_ref(&text), 1));
    }
}

#[test]
fn a_bomb_stays_as_it_is() {
    let zeros = vec![0u8; MAX_INFLATED + 1];
    for bomb in [gzip(&zeros), zstd(&zeros)] {
        let (rows, counts) = unpacked(page(std::slice::from_ref(&bomb), 0), &Rules::default());
        assert_eq!((&rows[0].3, counts.too_large), (&bomb, 1));
    }
    let most = gzip(&zeros[1..]);
    let (rows, counts) = unpacked(page(&[most.clone(), most.clone()], 0), &Rules::default());
    assert_eq!((rows.len(), rows[1].3.len(), counts.decompressed), (2, MAX_INFLATED, 2));
    // The limit applies to a Kinesis record with everything in it.
    let inside = aggregate(&[("a".into(), most.clone()), ("a".into(), most.clone()), ("a".into(), gzip(b""))]);
    let (rows, counts) = unpacked(page(&[inside], 0), &Rules::default());
    assert_eq!(rows.iter().map(|r| r.3.len()).collect::<Vec<_>>(), [MAX_INFLATED, most.len(), 0]);
    assert_eq!((counts.decompressed, counts.too_large), (2, 1));
}

/// What starts like something else contains lines only by accident.
#[test]
fn what_is_broken_is_not_split() {
    let bomb = gzip(&vec![b'\n'; MAX_INFLATED + 1]);
    let records: Vec<_> = (0..20u8).map(|n| (n.to_string(), vec![b'\n', n])).collect();
    let mut flipped = aggregate(&records);
    flipped[7] ^= 1;
    for broken in [b"\x1F\x8B\x08a\nb\n".to_vec(), b"\x28\xB5\x2F\xFDa\nb\n".to_vec(), flipped, bomb] {
        for split in Split::ALL {
            let (rows, counts) = unpacked(page(std::slice::from_ref(&broken), 0), &by(Decompress::Auto, split));
            assert_eq!((rows.len(), &rows[0].3, counts.not_split), (1, &broken, 0));
        }
    }
    // Without decompression, anything is split into lines.
    let (rows, _) = unpacked(page(&[b"\x1F\x8B\x08a\nb".to_vec()], 0), &by(Decompress::None, Split::Lines));
    assert_eq!(rows.len(), 2);
}

#[test]
fn many_rows_come_in_pieces() {
    let text = "x\n".repeat(1 << 20);
    let mut unpacker = Unpacker::new(page(&[gzip(text.as_bytes())], 0), 0, by(Decompress::Auto, Split::Lines));
    let mut next = 0;
    while let Some(rows) = unpacker.next_chunk() {
        assert!(rows.memory() < 2 * UNPACKED_CHUNK, "{} bytes", rows.memory());
        assert!(rows.records().zip(next..).all(|(row, sub)| row.sub_sequence == sub && row.payload == b"x"));
        next += rows.len() as u32;
    }
    assert_eq!(next, 1 << 20);
}

#[test]
fn a_page_of_plain_records_is_its_own_rows() {
    let mut plain = page(&[b"a".to_vec(), b"".to_vec(), b"\x1F\x8B".to_vec()], 0);
    plain.hold("the reader's hold");
    let mut unpacker = Unpacker::new(plain, 0, Rules::default());
    let rows = unpacker.next_chunk().unwrap();
    assert!(rows.is_held() && rows.len() == 3 && unpacker.is_done());
    assert!(unpacker.next_chunk().is_none());
}

#[test]
fn reading_may_begin_within_a_page() {
    let mut unpacker = Unpacker::new(page(&[b"a".to_vec(), b"b".to_vec()], 0), 1, Rules::default());
    assert_eq!(unpacker.next_chunk().unwrap().get(0).payload, b"b");
    assert!(unpacker.next_chunk().is_none());
}
