//! Payloads of Kinesis records: aggregates, compressed data, several rows in one.

use std::io::Write;

use domain::limits::{MAX_INFLATED, MAX_JSON_DEPTH, UNPACKED_CHUNK};
use domain::record::{Chunk, RecordRef};
use domain::unpacking::{Decompress, Edition, Split, Unpacking};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use formats::unpack::{Counts, Rules, Unpacker};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use testkit::aggregate::{aggregate, sealed};

use super::input::{Checked, fuzz};

const WORDS: &[&[u8]] = &[
    b"\xF3\x89\x9A\xC2",
    b"\x0a\x01a",
    b"\x1a\x05\x08\x00\x1a\x01x",
    b"\x08\x00",
    b"\x1a",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x1F\x8B\x08\x00\x00\x00\x00\x00\x00\x03",
    b"\x1F\x8B\x08",
    b"\x28\xB5\x2F\xFD",
    b"\x50\x2A\x4D\x18\x04\x00\x00\x00skip",
    b"\x78\x9C",
    b"\x78\x01",
    b"\x78\xDA",
    b"\x01\x00\x00\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xEF\xBB\xBF",
    b"\n",
    b"\r\n",
    b" ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"{}",
    b"[]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\"a\":1",
    b"1e999",
    b"null",
    b"\"\\ud800\"",
    b"\xff",
    b",]",
    b",}",
    b"[1,]",
    b"{}7",
    b"\"messageType\":\"DATA_MESSAGE\"",
    b"\"messageType\":\"CONTROL_MESSAGE\"",
    b"\"owner\":\"1\"",
    b"\"logGroup\":\"g\"",
    b"\"logStream\":\"s\"",
    b"\"logEvents\":[{\"id\":\"1\"}]",
];

/// A row: partition key, number within its record, payload.
type Row = (String, u32, Vec<u8>);

/// As it is, and as a payload that passes the checks on its way into the depth: with the right
/// digest, compressed, within an aggregate.
fn check(input: &[u8]) -> Checked {
    let mut payloads = vec![input.to_vec()];
    if input.starts_with(b"\xF3\x89\x9A\xC2") {
        payloads.push(sealed(&input[4..input.len().saturating_sub(16).max(4)]));
    }
    let gzip = gzip(input);
    payloads.push(aggregate(&[("a".into(), input.to_vec()), ("é".into(), gzip.clone())]));
    for (payload, edition) in [
        (gzip, Edition::First),
        (zlib(input), Edition::Second),
        (compress_to_vec(input, CompressionLevel::Fastest), Edition::First),
    ] {
        let unpacking = Unpacking { edition, ..Unpacking::default() };
        let (rows, counts) = unpacked(&[&payload], 0, unpacking)?;
        prop_assert_eq!((rows, counts.decompressed), (vec![whole(input)], 1), "compressed data comes back");
        payloads.push(payload);
    }
    for payload in payloads {
        for decompress in Decompress::ALL {
            for split in Split::ALL {
                for edition in [Edition::First, Edition::Second] {
                    promises(&payload, Unpacking { decompress, split, edition })?;
                }
            }
        }
    }
    Ok(())
}

fn whole(payload: &[u8]) -> Row {
    ("whole".into(), 0, payload.to_vec())
}

/// What holds for any payload.
fn promises(payload: &[u8], unpacking: Unpacking) -> Checked {
    let (rows, counts) = unpacked(&[payload], 0, unpacking)?;
    prop_assert!(unpacked(&[payload], 0, unpacking)? == (rows.clone(), counts), "another time, other rows");
    // Nothing else in its page matters, nor where reading begins.
    let (among, _) = unpacked(&[b"before", payload, b"after"], 1, unpacking)?;
    prop_assert!(among.split_last().is_some_and(|(last, first)| *last == whole(b"after") && first == rows));

    prop_assert!(!rows.is_empty() || counts.control_messages > 0 && unpacking.split == Split::CloudWatch);
    prop_assert!(rows.iter().zip(0..).all(|(row, number)| row.1 == number), "{:?}", rows);
    prop_assert_eq!(counts.aggregates + counts.broken_aggregates, u64::from(payload.starts_with(b"\xF3\x89\x9A\xC2")));
    let broken = counts.broken_aggregates + counts.not_decompressed + counts.too_large;
    // What is broken, or is not taken apart, is one row as it is.
    let untouched = counts.decompressed == 0 && (counts.not_split > 0 || unpacking.split == Split::None);
    if counts.aggregates == 0 && (broken > 0 || untouched) {
        prop_assert!(rows == [whole(payload)], "{:?}", counts);
    }
    if unpacking.decompress == Decompress::None {
        prop_assert_eq!((counts.decompressed, counts.not_decompressed, counts.too_large), (0, 0, 0));
        if unpacking.split == Split::Lines && counts.aggregates + broken == 0 {
            prop_assert_eq!(rows.iter().map(|row| &*row.2).collect::<Vec<_>>(), lines(payload));
        }
        let brackets = payload.iter().filter(|byte| b"[{".contains(byte)).count();
        if unpacking.split == Split::Json && counts.aggregates + broken == 0 && brackets <= MAX_JSON_DEPTH {
            let found = std::str::from_utf8(payload).ok().map(items);
            let found = found.map(|items| items.unwrap_or_else(|| vec![payload]));
            let given: Vec<&[u8]> = rows.iter().map(|row| &*row.2).collect();
            prop_assert!(found.is_none_or(|found| found == given), "{:?}", rows);
        }
    }
    // The rows of CloudWatch's envelope repeat what stands before the events.
    let repeats = unpacking.split == Split::CloudWatch;
    let most = MAX_INFLATED.max(payload.len()) + if repeats { 64 } else { 0 };
    prop_assert!(rows.iter().all(|row| row.2.len() <= most), "a row is larger than all there is");
    let size: usize = rows.iter().map(|row| row.2.len()).sum();
    prop_assert!(repeats || size <= MAX_INFLATED + payload.len(), "rows of {} bytes", size);
    if matches!(unpacking.split, Split::Json | Split::CloudWatch) && broken + counts.not_split == 0 {
        for row in &rows {
            prop_assert!(serde_json::from_slice::<IgnoredAny>(&row.2).is_ok(), "{}", row.2.escape_ascii());
        }
    }
    Ok(())
}

/// The rows of a page from the record at `first` on, taken in chunks that are as small as they
/// should be.
fn unpacked(payloads: &[&[u8]], first: usize, unpacking: Unpacking) -> Result<(Vec<Row>, Counts), TestCaseError> {
    let mut page = Chunk::default();
    for payload in payloads {
        let (sequence_number, timestamp_ms) = ("49590338271490256608559692538361571095921575989136588898", 7);
        assert!(page.push(RecordRef { key: "whole", timestamp_ms, sequence_number, sub_sequence: 0, payload }));
    }
    let size = page.size();
    let mut unpacker = Unpacker::new(page, first, Rules { unpacking, begun: None });
    let mut rows = Vec::new();
    while let Some(chunk) = unpacker.next_chunk() {
        let Some(last) = chunk.last() else { return Err(TestCaseError::fail("a chunk without a row")) };
        let most = size.max(UNPACKED_CHUNK + last.size() + 64);
        prop_assert!(chunk.size() <= most, "a chunk of {} bytes", chunk.size());
        prop_assert!(unpacker.memory() <= 2 * MAX_INFLATED + UNPACKED_CHUNK, "it holds {} bytes", unpacker.memory());
        rows.extend(chunk.records().map(|row| (row.key.to_owned(), row.sub_sequence, row.payload.to_vec())));
    }
    prop_assert!(unpacker.is_done() && unpacker.next_chunk().is_none());
    Ok((rows, unpacker.counts()))
}

/// Lines that are not blank, found in another way; a text without any is one.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines: Vec<&[u8]> = lines.filter(|line| !line.iter().all(u8::is_ascii_whitespace)).collect();
    if lines.is_empty() { vec![text] } else { lines }
}

/// Objects in sequence and elements of arrays, found in another way; none in any other text.
fn items(text: &str) -> Option<Vec<&[u8]>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut items: Vec<&RawValue> = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        match document.ok()? {
            array if array.get().starts_with('[') => {
                items.extend(serde_json::from_str::<Vec<&RawValue>>(array.get()).ok()?);
            }
            object if object.get().starts_with('{') => items.push(object),
            _ => return None,
        }
    }
    Some(items.into_iter().map(|item| item.get().as_bytes()).collect()).filter(|items: &Vec<_>| !items.is_empty())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("written");
    encoder.finish().expect("written")
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("written");
    encoder.finish().expect("written")
}

#[test]
fn any_payload_gives_its_rows() {
    fuzz("unpack", WORDS, 5_000, check);
}
