//! What DynamoDB writes into a Kinesis stream: change events, with items in marshalled JSON.

use std::fmt::Write;

use aws_sdk_dynamodb::types::AttributeValue;

use super::items::{Item, KeySchema, key_of};

/// The unit of an event's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Without a field for it: milliseconds.
    Absent,
    Millisecond,
    Microsecond,
}

/// A change of an item.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    pub table: &'a str,
    pub keys: KeySchema,
    /// The item before it; none for an INSERT.
    pub old: Option<&'a Item>,
    /// The item after it; none for a REMOVE.
    pub new: Option<&'a Item>,
    /// Microseconds since 1970.
    pub micros: i64,
    pub precision: Precision,
    /// Whether the item was deleted by time-to-live.
    pub ttl: bool,
}

impl Change<'_> {
    /// The event as DynamoDB documents it.
    pub fn event(&self) -> String {
        let name = match (self.old, self.new) {
            (None, Some(_)) => "INSERT",
            (Some(_), Some(_)) => "MODIFY",
            (Some(_), None) => "REMOVE",
            (None, None) => panic!("an event has an image"),
        };
        let keys = key_of(self.keys, self.new.or(self.old).expect("an image"));
        let user = match self.ttl {
            true => r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#,
            false => "null",
        };
        let time = match self.precision {
            Precision::Microsecond => self.micros,
            Precision::Absent | Precision::Millisecond => self.micros / 1_000,
        };
        let mut event = format!(
            r#"{{"awsRegion":"us-east-1","eventID":"{:032x}","eventName":"{name}","userIdentity":{user},"recordFormat":"application/json","tableName":{},"dynamodb":{{"ApproximateCreationDateTime":{time},"Keys":{}"#,
            fastrand::u128(..),
            quoted(self.table),
            marshalled(&keys),
        );
        let mut bytes = 0;
        for (field, image) in [("NewImage", self.new), ("OldImage", self.old)] {
            if let Some(image) = image {
                let image = marshalled(image);
                bytes += image.len();
                write!(event, r#","{field}":{image}"#).expect("a text");
            }
        }
        write!(event, r#","SizeBytes":{bytes}"#).expect("a text");
        match self.precision {
            Precision::Absent => {}
            Precision::Millisecond => event.push_str(r#","ApproximateCreationDateTimePrecision":"MILLISECOND""#),
            Precision::Microsecond => event.push_str(r#","ApproximateCreationDateTimePrecision":"MICROSECOND""#),
        }
        event.push_str(r#"},"eventSource":"aws:dynamodb"}"#);
        event
    }
}

/// An item as marshalled JSON: `{"age":{"N":"26"}}`.
pub fn marshalled(item: &Item) -> String {
    object(item.iter().map(|(name, value)| (name, marshalled_value(value))))
}

/// A value as marshalled JSON: `{"N":"26"}`. The members of maps are sorted, so that equal values
/// have equal texts.
pub fn marshalled_value(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) => format!(r#"{{"S":{}}}"#, quoted(text)),
        AttributeValue::N(number) => format!(r#"{{"N":"{number}"}}"#),
        AttributeValue::B(bytes) => format!(r#"{{"B":"{}"}}"#, base64(bytes.as_ref())),
        AttributeValue::Bool(bool) => format!(r#"{{"BOOL":{bool}}}"#),
        AttributeValue::Null(_) => r#"{"NULL":true}"#.to_owned(),
        AttributeValue::Ss(texts) => format!(r#"{{"SS":{}}}"#, array(texts.iter().map(|text| quoted(text)))),
        AttributeValue::Ns(numbers) => format!(r#"{{"NS":{}}}"#, array(numbers.iter().map(|number| quoted(number)))),
        AttributeValue::Bs(blobs) => {
            format!(r#"{{"BS":{}}}"#, array(blobs.iter().map(|blob| quoted(&base64(blob.as_ref())))))
        }
        AttributeValue::L(values) => format!(r#"{{"L":{}}}"#, array(values.iter().map(marshalled_value))),
        AttributeValue::M(members) => {
            format!(r#"{{"M":{}}}"#, object(sorted(members).map(|(name, value)| (name, marshalled_value(value)))))
        }
        other => panic!("no type of DynamoDB: {other:?}"),
    }
}

/// A value as plain JSON, numbers unchanged.
pub fn plain(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) => quoted(text),
        AttributeValue::N(number) => number.clone(),
        AttributeValue::B(bytes) => quoted(&base64(bytes.as_ref())),
        AttributeValue::Bool(bool) => bool.to_string(),
        AttributeValue::Null(_) => "null".to_owned(),
        AttributeValue::Ss(texts) => array(texts.iter().map(|text| quoted(text))),
        AttributeValue::Ns(numbers) => array(numbers.iter().cloned()),
        AttributeValue::Bs(blobs) => array(blobs.iter().map(|blob| quoted(&base64(blob.as_ref())))),
        AttributeValue::L(values) => array(values.iter().map(plain)),
        AttributeValue::M(members) => object(sorted(members).map(|(name, value)| (name, plain(value)))),
        other => panic!("no type of DynamoDB: {other:?}"),
    }
}

fn sorted(
    members: &std::collections::HashMap<String, AttributeValue>,
) -> impl Iterator<Item = (&String, &AttributeValue)> {
    std::collections::BTreeMap::from_iter(members).into_iter()
}

fn object<'a>(members: impl Iterator<Item = (&'a String, String)>) -> String {
    let members: Vec<String> = members.map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn array(elements: impl Iterator<Item = String>) -> String {
    format!("[{}]", elements.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

/// With padding, as in DynamoDB's JSON.
pub fn base64(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(bytes)
}
