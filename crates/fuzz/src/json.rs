//! Payloads in rows of `JSONEachRow`, above all those whose own fields become part of the row.

use std::fmt;

use chrono::DateTime;
use domain::record::RecordRef;
use formats::encode::{Columns, Encoder, Form, Format, Payload};
use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::input::{Checked, JSON, fuzz};
use domain::names::BatchId;

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\t",
    b"\0",
    b"\x1f",
    b"\x7f",
    b"\xff",
    b"\xEF\xBB\xBF",
    b"\xe2\x80\xa8",
    b"\"a\":1",
    b"\"A\":2",
    b"\"\\u0061\":3",
    b"\"_key\":",
    b"\"_Batch\":",
    b"\"_error\":\"\"",
    b"\"_raw_message\":",
    b"\"\":",
    b",\"A\":2",
    b",\"a\":3",
    b",]",
    b"null",
    b"true",
    b"1e308",
    b"1e999",
    b"-0",
    b"1.10",
    b"01",
    b"123456789012345678901234567890",
    b"\"\\ud83d\\ude00\"",
    b"\"\\ud800\"",
    b"\\u0000",
    b"{}",
    b"[]",
    b"}{",
    b"/**/",
    b"\"eventName\":\"REMOVE\",\"tableName\":\"t\",\"dynamodb\":{\"ApproximateCreationDateTime\":1795255200000,",
    b"\"Keys\":{\"id\":{\"S\":\"a\"}}",
];

/// One row that is known, this payload, and one more.
fn check(payload: &[u8]) -> Checked {
    let columns = Columns {
        batch: Some("0123456789abcdef".into()),
        stream: "it's \"a\"\nstream".into(),
        shards: vec!["shardId-000000000000".into()],
    };
    // The key and the time are from outside, too.
    let key = String::from_utf8_lossy(&payload[..payload.len().min(24)]).into_owned();
    let timestamp_ms = payload.first_chunk().map_or(i64::MIN, |bytes| i64::from_le_bytes(*bytes));
    for kind in [Payload::Raw, Payload::Inline, Payload::DynamoDb] {
        let form = Form::new(Format::JsonEachRow, kind).expect("all can be JSON");
        let mut encoder = Encoder::new(form, &columns).expect("an encoder");
        let record = |payload, sub_sequence| RecordRef {
            key: &key,
            timestamp_ms,
            sequence_number: "49590338271490256608559692538361571095921575989136588898",
            sub_sequence,
            payload,
        };
        let mut bytes = Vec::new();
        for (payload, sub_sequence) in [(&b"{\"a\":1}"[..], 0), (payload, u32::MAX), (b"[", 1)] {
            encoder.push(record(payload, sub_sequence), 0).expect("written");
            bytes.extend(std::iter::from_fn(|| encoder.take()).flatten());
        }
        let (rest, tail) = encoder.finish().expect("written");
        bytes.extend(rest.into_iter().chain([tail]).flatten());
        // Bytes that are no UTF-8 are passed on, and ClickHouse reads them.
        let text = String::from_utf8_lossy(&bytes);
        let rows: Result<Vec<Pairs>, _> = serde_json::Deserializer::from_str(&text).into_iter::<Pairs>().collect();
        let rows = rows.map_err(|why| TestCaseError::fail(format!("{why}: {text}")))?;
        prop_assert!(bytes.ends_with(b"\n"), "without an end");
        let subs: Vec<_> = rows.iter().map(|row| row.get("_sub_sequence_number")).collect();
        prop_assert_eq!(subs, [Some("0"), Some("4294967295"), Some("1")]);
        for row in &rows {
            prop_assert_eq!(row.text("_key"), Some(key.clone()));
            prop_assert_eq!(row.text("_stream"), Some(columns.stream.to_string()));
            prop_assert_eq!(row.text("_batch"), columns.batch.as_ref().map(BatchId::to_string));
            let time = row.text("_timestamp").unwrap_or_default();
            prop_assert!(DateTime::parse_from_rfc3339(&time).is_ok() || time.len() > 24, "{}", time);
        }
        row(&rows[1], payload, kind)?;
    }
    Ok(())
}

/// The row of the payload itself.
fn row(row: &Pairs, payload: &[u8], kind: Payload) -> Checked {
    let (message, error) = (row.text("_raw_message").unwrap_or_default(), row.text("_error").unwrap_or_default());
    let mut lower: Vec<String> = row.0.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    lower.sort();
    prop_assert!(lower.windows(2).all(|pair| pair[0] != pair[1]), "ClickHouse sees a column twice: {:?}", lower);
    if kind == Payload::Raw || !error.is_empty() {
        prop_assert_eq!(&message, &String::from_utf8_lossy(payload));
        return Ok(());
    }
    prop_assert_eq!(&message, "");
    if kind == Payload::Inline {
        let text = payload.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(payload);
        let own: Pairs = serde_json::from_slice(text).map_err(|why| TestCaseError::fail(why.to_string()))?;
        let ours = row.0.iter().filter(|(name, _)| own.get(name).is_none()).count();
        prop_assert_eq!((ours, ours + own.0.len()), (9, row.0.len()), "{:?}", row);
        prop_assert!(own.0.iter().all(|(name, value)| row.get(name) == Some(value)), "{:?}", row);
    }
    Ok(())
}

/// The fields of an object as they are written, also those that stand there twice.
#[derive(Debug)]
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    pairs.push((name, value.get().to_owned()));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[test]
fn any_payload_is_one_row_of_json() {
    fuzz("json", &[JSON, WORDS].concat(), 50_000, check);
}
