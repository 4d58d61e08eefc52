//! Checks that a row has what its record had: with a separate JSON parser, digit for digit, and a
//! separate notion of equality.

use std::fmt;
use std::net::IpAddr;

use crate::engines::on_each_engine;
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

on_each_engine!(the_comparison_can_fail,);

/// A JSON value with its numbers as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn parse(text: &str) -> Option<Json> {
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        let text = raw.get();
        Some(match text.as_bytes().first()? {
            b'n' => Json::Null,
            b't' | b'f' => Json::Bool(text == "true"),
            b'"' => Json::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Json::Array(elements.iter().map(|raw| Json::parse(raw.get())).collect::<Option<_>>()?)
            }
            b'{' => {
                let fields = serde_json::Deserializer::from_str(text).deserialize_map(Fields).ok()?;
                Json::Object(
                    fields
                        .into_iter()
                        .map(|(name, raw)| Some((name, Json::parse(raw.get())?)))
                        .collect::<Option<_>>()?,
                )
            }
            _ => Json::Number(text.into()),
        })
    }

    pub fn object(text: &str) -> Vec<(String, Json)> {
        match Json::parse(text) {
            Some(Json::Object(fields)) => fields,
            other => panic!("no object: {text} is {other:?}"),
        }
    }

    pub fn get(fields: &[(String, Json)], name: &str) -> Json {
        fields.iter().find(|(field, _)| field == name).map_or(Json::Null, |(_, value)| value.clone())
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

/// Whether `got`, from a row as ClickHouse prints it, equals what was sent. Null equals a missing
/// value, and the only null of an array, a map or a tuple is the empty one. A value may have become
/// its text, but not another value.
pub fn arrived(sent: &Json, got: &Json) -> bool {
    match (sent, got) {
        (Json::Null, got) => is_nothing(got),
        // A text column has other kinds of values as text.
        (Json::Text(sent), Json::Text(got)) => sent == got || is_same_by_meaning(sent, got),
        (sent, Json::Text(got)) => {
            Json::parse(got).is_some_and(|got| !matches!(got, Json::Text(_)) && arrived(sent, &got))
        }
        (Json::Number(sent), Json::Number(got)) => same_number(sent, got),
        (Json::Array(sent), Json::Array(got)) => {
            sent.len() == got.len() && sent.iter().zip(got).all(|(s, g)| arrived(s, g))
        }
        (Json::Object(sent), Json::Object(got)) => {
            let all = sent.iter().all(|(name, value)| arrived(value, &Json::get(got, name)));
            let more = got.iter().filter(|(name, _)| sent.iter().all(|(known, _)| known != name));
            all && more.into_iter().all(|(_, value)| is_nothing(value))
        }
        (sent, got) => sent == got,
    }
}

fn is_nothing(got: &Json) -> bool {
    match got {
        Json::Null => true,
        Json::Array(elements) => elements.is_empty(),
        Json::Object(fields) => fields.iter().all(|(_, value)| is_nothing(value)),
        _ => false,
    }
}

/// Integers by their digits, others as doubles, like most programs treat numbers in JSON.
fn same_number(sent: &str, got: &str) -> bool {
    let is_integer = !sent.contains(['.', 'e', 'E']);
    sent == got || (sent.len() < 18 || !is_integer) && sent.parse::<f64>().ok() == got.parse::<f64>().ok()
}

/// Times, addresses and UUIDs that are written differently.
fn is_same_by_meaning(sent: &str, got: &str) -> bool {
    let local = |text: &str| NaiveDateTime::parse_from_str(&text.replace('T', " "), "%Y-%m-%d %H:%M:%S%.f").ok();
    // ClickHouse prints UTC.
    let time =
        |text: &str| DateTime::parse_from_rfc3339(text).map(|t| t.with_timezone(&Utc).naive_utc()).ok().or(local(text));
    let is_uuid = sent.len() == 36 && sent.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    let (address, day) = (|text: &str| text.parse::<IpAddr>().ok(), |text: &str| text.parse::<NaiveDate>().ok());
    time(sent).is_some_and(|sent| local(got) == Some(sent))
        || day(sent).is_some_and(|sent| day(got) == Some(sent))
        || address(sent).is_some_and(|sent| address(got) == Some(sent))
        || is_uuid && sent.eq_ignore_ascii_case(got)
}

fn the_comparison_can_fail() {
    let arrived = |sent: &str, got: &str| arrived(&Json::parse(sent).expect(sent), &Json::parse(got).expect(got));
    for (sent, got) in [
        ("1.50", "1.5"),
        ("123456789012345678901234567890", "\"123456789012345678901234567890\""),
        ("\"2026-11-21T10:00:00.5+02:00\"", "\"2026-11-21 08:00:00.500\""),
        ("{\"a\": null, \"b\": [1]}", "{\"b\": [1], \"c\": null}"),
        ("{\"a\": [true]}", "\"{\\\"a\\\":[true]}\""),
        ("null", "[]"),
    ] {
        assert!(arrived(sent, got), "{sent} {got}");
    }
    for (sent, got) in [
        ("1", "0"),
        ("1", "null"),
        ("null", "0"),
        ("null", "\"\""),
        ("\"5\"", "5"),
        ("123456789012345678901234567890", "123456789012345678901234567891"),
        ("123456789012345678901234567890", "1.2345678901234568e29"),
        ("\"2026-11-21T10:00:00+02:00\"", "\"2026-11-21 10:00:00.000\""),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, null]"),
        ("{\"a\": 1}", "{}"),
        ("{}", "{\"a\": 0}"),
        ("true", "\"1\""),
        ("0.1234567890123456789", "\"0.123\""),
    ] {
        assert!(!arrived(sent, got), "{sent} {got}");
    }
}
