//! What payloads are if they are not JSON objects, or if another command handles them better:
//! evidence from the whole sample, and the matching flag, command or example.

use std::collections::{BTreeMap, HashMap};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::dynamodb::Event;
use super::plan::shown;
use domain::limits::DELIMITED_SHARE;

/// The magic number of a KPL aggregate; seeing it here means that unpacking failed.
const KPL: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// Magic bytes of compressed data and files, and their names.
const SIGNATURES: [(&[u8], Content); 11] = [
    (&[0x1F, 0x8B, 0x08], Content::Damaged("gzip")),
    (&[0x28, 0xB5, 0x2F, 0xFD], Content::Damaged("zstd")),
    (&[0x04, 0x22, 0x4D, 0x18], Content::Foreign("LZ4 data")),
    (b"\xFF\x06\0\0sNaPpY", Content::Foreign("Snappy data")),
    (b"BZh", Content::Foreign("bzip2 data")),
    (b"\xFD7zXZ\0", Content::Foreign("xz data")),
    (b"Obj\x01", Content::Foreign("Avro files")),
    (b"PAR1", Content::Foreign("Parquet files")),
    (b"ARROW1", Content::Foreign("Arrow files")),
    (b"PK\x03\x04", Content::Foreign("zip files")),
    (&KPL, Content::Foreign("damaged KPL aggregates")),
];

/// The kind of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A JSON object that is none of the kinds below.
    Object,
    /// A change event of DynamoDB.
    DynamoDb,
    /// A JSON array.
    Array,
    /// Several JSON documents, on separate lines or in sequence.
    Documents,
    /// Another JSON value.
    Scalar,
    /// Starts like compressed data that should have been decompressed.
    Damaged(&'static str),
    /// Data of a known kind that nothing here can read.
    Foreign(&'static str),
    /// A header of the AWS Glue Schema Registry; whether JSON follows.
    Glue(bool),
    /// A header of the Confluent Schema Registry; whether JSON follows.
    Confluent(bool),
    /// Base64 of a JSON object, or of something else.
    Base64(bool),
    /// Comma-separated fields.
    Csv,
    /// Tab-separated fields.
    Tsv,
    /// Space-separated fields.
    Spaces,
    /// Other text.
    Text,
    /// Only white space.
    Empty,
    /// Bytes that are not text.
    Binary,
}

/// The kinds of payloads in a sample and their counts, most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    total: usize,
    counts: Vec<(Content, usize)>,
    /// The tables that the change events belong to.
    tables: Vec<String>,
}

impl Contents {
    /// Classifies all payloads.
    pub fn of<'p>(payloads: impl Iterator<Item = &'p [u8]>) -> Contents {
        let (mut counts, mut tables) = (BTreeMap::<Content, usize>::new(), BTreeMap::<String, usize>::new());
        let (mut total, mut texts) = (0, Vec::new());
        for payload in payloads {
            total += 1;
            let content = content(payload);
            if content == Content::DynamoDb {
                // It becomes part of a command that someone may run.
                let event = Event::parse(payload);
                let table = event.as_ref().and_then(Event::table).filter(|table| is_table_name(table));
                *tables.entry(table.unwrap_or_default().to_owned()).or_default() += 1;
            }
            match (content, std::str::from_utf8(payload)) {
                (Content::Text, Ok(text)) => texts.push(text),
                _ => *counts.entry(content).or_default() += 1,
            }
        }
        // A single line says nothing about its delimiter; many that agree do.
        if !texts.is_empty() {
            *counts.entry(delimited(&texts)).or_default() += texts.len();
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| usize::MAX - count);
        let mut tables: Vec<_> = tables.into_iter().filter(|(table, _)| !table.is_empty()).collect();
        tables.sort_by_key(|(_, count)| usize::MAX - count);
        Contents { total, counts, tables: tables.into_iter().map(|(table, _)| table).collect() }
    }

    /// Notes about payloads that are not plain objects: one sentence per kind.
    pub fn sentences(&self, stream: &str) -> Vec<String> {
        let others = self.counts.iter().filter(|(content, _)| *content != Content::Object);
        let said = others.map(|(content, count)| {
            let (are, advice) = content.advice(stream, self.tables.first().map(String::as_str));
            format!("{count} of {} records {are}: {advice}", self.total)
        });
        said.collect()
    }
}

impl Content {
    /// What such records are, and how to handle them.
    fn advice(self, stream: &str, table: Option<&str>) -> (String, String) {
        const RAW: &str = "land them raw, see \"Raw landing\" in docs/sql.md";
        let example = |heading: &str| format!("see \"{heading}\" in docs/sql.md for a pipe that takes them");
        let (are, advice) = match self {
            Content::Object => ("are JSON objects", "they become columns".to_owned()),
            Content::DynamoDb => {
                let table = table.map_or_else(|| "TABLE".to_owned(), shown);
                let stream = shown(stream);
                let command = format!("sql dynamodb --table {table} --stream {stream}");
                (
                    "are change events of DynamoDB",
                    format!("{command} creates a table with the items, see docs/dynamodb.md"),
                )
            }
            Content::Array => {
                ("are JSON arrays", "split=json in the URL of the pipe turns each element into a row".into())
            }
            Content::Documents => {
                ("are several JSON documents", "split=json in the URL of the pipe turns each into a row".into())
            }
            Content::Scalar => ("are JSON, but neither objects nor arrays", RAW.into()),
            Content::Damaged(kind) => {
                let are = format!("begin like {kind} data, but cannot be decompressed");
                return (are, format!("they are truncated, damaged, or larger than 16 MiB; {RAW}"));
            }
            Content::Foreign(kind) => {
                return (
                    format!("are {kind}"),
                    format!("neither the bridge nor ClickHouse can read them in a column; {RAW}"),
                );
            }
            Content::Glue(true) => ("are JSON after an AWS Glue Schema Registry header", example("Behind a header")),
            Content::Glue(false) => (
                "have an AWS Glue Schema Registry header, followed by Avro, Protobuf or compressed data",
                format!("ClickHouse has no function that reads it; {RAW}"),
            ),
            Content::Confluent(true) => {
                ("are JSON after a Confluent Schema Registry header", example("Behind a header"))
            }
            Content::Confluent(false) => (
                "have a Confluent Schema Registry header, followed by Avro or Protobuf",
                format!("ClickHouse has no function that reads it; {RAW}"),
            ),
            Content::Base64(true) => ("are JSON in base64", example("In base64")),
            Content::Base64(false) => ("are base64", format!("base64Decode(_raw_message) gives the bytes; {RAW}")),
            Content::Csv => ("are CSV", example("CSV")),
            Content::Tsv => ("are fields separated by tabs", example("Tabs")),
            Content::Spaces => ("are fields separated by spaces", example("Spaces")),
            Content::Text => ("are plain text", RAW.into()),
            Content::Empty => ("are empty", "there is nothing to derive columns from".into()),
            Content::Binary => ("are bytes that are not text, such as Avro, Protobuf or MessagePack", RAW.into()),
        };
        (are.to_owned(), advice)
    }
}

/// Whether DynamoDB allows this table name.
fn is_table_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// The kind of a single payload; text formats can only be distinguished over all payloads.
fn content(payload: &[u8]) -> Content {
    let payload = payload.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(payload);
    if payload.trim_ascii().is_empty() {
        return Content::Empty;
    }
    if let Some(json) = json(payload) {
        return json;
    }
    let signature = SIGNATURES.iter().find(|(bytes, _)| payload.starts_with(bytes));
    if let Some((_, content)) = signature {
        return *content;
    }
    match payload {
        [0x78, flags, ..] if (0x7800 + u16::from(*flags)).is_multiple_of(31) && !is_text(payload) => {
            return Content::Damaged("zlib");
        }
        [0x03, 0x00 | 0x05, _, ..] if payload.len() > GLUE_HEADER => {
            return Content::Glue(is_json_at(payload, GLUE_HEADER));
        }
        [0x00, ..] if payload.len() > CONFLUENT_HEADER => {
            let is_json = is_json_at(payload, CONFLUENT_HEADER);
            // A zero byte alone is weak evidence: schema ids are counted from 1.
            let id = u32::from_be_bytes([payload[1], payload[2], payload[3], payload[4]]);
            if is_json || (1..MAX_SCHEMA_ID).contains(&id) {
                return Content::Confluent(is_json);
            }
        }
        _ => {}
    }
    if !is_text(payload) {
        return Content::Binary;
    }
    base64(payload).map_or(Content::Text, |decoded| Content::Base64(is_json_at(&decoded, 0)))
}

/// Version, compression and the id of the schema version.
const GLUE_HEADER: usize = 18;
/// A zero byte and the id of the schema.
const CONFLUENT_HEADER: usize = 5;
/// Above this, four bytes are data rather than an id.
const MAX_SCHEMA_ID: u32 = 1 << 24;

fn json(payload: &[u8]) -> Option<Content> {
    let documents = serde_json::Deserializer::from_slice(payload).into_iter::<&RawValue>();
    let documents = documents.collect::<Result<Vec<_>, _>>().ok()?;
    Some(match documents[..] {
        [] => return None,
        [one] => match one.get().as_bytes().first() {
            Some(b'{') if Event::parse(payload).is_some_and(|event| event.table().is_some()) => Content::DynamoDb,
            Some(b'{') => Content::Object,
            Some(b'[') => Content::Array,
            _ => Content::Scalar,
        },
        // Numbers separated by spaces are several JSON documents, too.
        _ if documents.iter().all(|one| one.get().starts_with(['{', '['])) => Content::Documents,
        _ => return None,
    })
}

fn is_json_at(payload: &[u8], from: usize) -> bool {
    let rest = payload.get(from..).unwrap_or_default();
    serde_json::from_slice::<HashMap<String, IgnoredAny>>(rest).is_ok()
}

fn is_text(payload: &[u8]) -> bool {
    let is_control = |c: char| c.is_control() && !c.is_whitespace() && c != '\u{1b}';
    std::str::from_utf8(payload).is_ok_and(|text| !text.contains(is_control))
}

/// The decoded base64; `None` for short texts, which may be words.
fn base64(payload: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(payload.trim_ascii()).ok()?;
    let is_long = text.len() >= 16 && text.len().is_multiple_of(4);
    let decoded = is_long.then(|| aws_smithy_types::base64::decode(text).ok())??;
    // A long hexadecimal number or an identifier decodes as well, but into nothing known.
    let is_known = is_json_at(&decoded, 0) || SIGNATURES.iter().any(|(bytes, _)| decoded.starts_with(bytes));
    let looks = text.contains(['+', '/', '=']) && text.contains(|c: char| c.is_ascii_uppercase());
    (is_known || looks).then_some(decoded)
}

/// The delimiter that the lines have in common: nearly all contain it equally often.
fn delimited(texts: &[&str]) -> Content {
    let lines: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .collect();
    let agree = |delimiter: char, least: usize| {
        let mut counts = HashMap::<usize, usize>::new();
        lines.iter().for_each(|line| *counts.entry(delimiters(line, delimiter)).or_default() += 1);
        let most = counts.into_iter().filter(|(fields, _)| *fields >= least).max_by_key(|(_, lines)| *lines);
        most.is_some_and(|(_, agreeing)| 100 * agreeing >= DELIMITED_SHARE * lines.len())
    };
    match () {
        () if agree('\t', 1) => Content::Tsv,
        () if agree(',', 2) => Content::Csv,
        // Sentences contain spaces, too, but not equally many.
        () if lines.len() > 1 && agree(' ', 3) => Content::Spaces,
        () => Content::Text,
    }
}

/// How often a delimiter occurs in a line outside double quotes.
fn delimiters(line: &str, delimiter: char) -> usize {
    let mut quoted = false;
    let outside = |c: &char| {
        quoted ^= *c == '"';
        !quoted && *c == delimiter
    };
    line.chars().filter(outside).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"eventName":"INSERT","tableName":"users","dynamodb":{"Keys":{"id":{"S":"a"}}}}"#;
    const OF_STREAMS: &str =
        r#"{"eventSourceARN":"arn:aws:dynamodb:us-east-1:1:table/users/stream/2026","dynamodb":{"Keys":{}}}"#;

    fn found(payloads: &[&[u8]]) -> Vec<(Content, usize)> {
        Contents::of(payloads.iter().copied()).counts
    }

    #[test]
    fn payloads_are_what_they_look_like() {
        let glue = |compression: u8, body: &str| [&[3, compression][..], &[7; 16], body.as_bytes()].concat();
        let avro = b"\x02\x06abc\x80\xff";
        let cases: [(&[u8], Content); 30] = [
            (b"{\"a\": 1}\n", Content::Object),
            (b"\xEF\xBB\xBF{\"a\": 1}", Content::Object),
            (EVENT.as_bytes(), Content::DynamoDb),
            (OF_STREAMS.as_bytes(), Content::DynamoDb),
            (b"[{\"a\": 1}]", Content::Array),
            (b"{\"a\": 1}{\"a\": 2}", Content::Documents),
            (b"{\"a\": 1}\n{\"a\": 2}\n", Content::Documents),
            (b"5", Content::Scalar),
            (b"null", Content::Scalar),
            (b"\x1F\x8B\x08broken", Content::Damaged("gzip")),
            (b"\x28\xB5\x2F\xFDbroken", Content::Damaged("zstd")),
            (b"\x78\x9Cbroken\xff", Content::Damaged("zlib")),
            (b"xylophone", Content::Text),
            (b"Obj\x01\x04\x14avro.codec", Content::Foreign("Avro files")),
            (&glue(0, "{\"a\": 1}"), Content::Glue(true)),
            (&glue(5, "\u{78}\u{1}"), Content::Glue(false)),
            (b"\0\0\0\0\x07{\"a\": 1}", Content::Confluent(true)),
            (&[b"\0\0\0\0\x07".as_slice(), avro].concat(), Content::Confluent(false)),
            (b"\0\xff\xff\xff\xffzzz", Content::Binary),
            (b"eyJhIjogMSwgImIiOiAieCJ9", Content::Base64(true)),
            (b"H4sIAAAAAAAAA6tWKkktLlGyUlAqS8wpTtVRKsvPSVGyMqgFAOVvE2kdAAAA", Content::Base64(false)),
            (b"550e8400e29b41d4a716446655440000", Content::Text),
            (b"abcdabcdabcdabcd", Content::Text),
            (avro, Content::Binary),
            (b"a\tb\tc", Content::Tsv),
            (b"a,\"b,c\",d", Content::Csv),
            (b"Hello, world", Content::Text),
            (b" \n", Content::Empty),
            (b"", Content::Empty),
            (b"{\"a\": 1", Content::Text),
        ];
        for (payload, expected) in cases {
            assert_eq!(found(&[payload]), [(expected, 1)], "{:?}", String::from_utf8_lossy(payload));
        }
    }

    #[test]
    fn delimiters_are_those_that_nearly_all_lines_have_in_common() {
        let flow = b"2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK";
        let none = b"2 123456789010 eni-1235b8ca - - - - - - - 1431280876 1431280934 - NODATA\n";
        assert_eq!(found(&[flow, none]), [(Content::Spaces, 2)]);
        assert_eq!(found(&[b"one two three four", b"a sentence of five words"]), [(Content::Text, 2)]);
        assert_eq!(found(&[b"a,b,c\nd,e,f\n", b"1,2,\"x,y\"", b"#a comment"]), [(Content::Csv, 3)]);
        assert_eq!(found(&[b"1 2 3", b"{}"]), [(Content::Object, 1), (Content::Text, 1)]);
    }

    #[test]
    fn what_is_said_names_the_share_and_the_way() {
        let contents = Contents::of([EVENT.as_bytes(), b"{}", EVENT.as_bytes(), b"\x1F\x8B\x08"].into_iter());
        let said = contents.sentences("changes");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with(
                "2 of 4 records are change events of DynamoDB: sql dynamodb --table \"users\" --stream \"changes\""
            ),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("1 of 4 records begin like gzip data, but cannot be decompressed: they are truncated"),
            "{said:?}"
        );
        let odd = EVENT.replace("users", "$(reboot)");
        let said = Contents::of([odd.as_bytes()].into_iter()).sentences("s");
        assert!(said[0].contains("sql dynamodb --table TABLE --stream \"s\" creates"), "{said:?}");
        assert!(Contents::of([&b"{}"[..]].into_iter()).sentences("s").is_empty());
    }
}
