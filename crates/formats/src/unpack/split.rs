//! Several rows in one payload: lines, and the log events of a CloudWatch Logs envelope.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use domain::limits::MAX_LOG_EVENTS;

/// The next non-blank line at or after `at`, without its line end, and where the following one
/// starts.
pub fn line(text: &[u8], mut at: usize) -> Option<(Range<usize>, usize)> {
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let next = at + length + 1;
        let line = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
        if !line.trim_ascii().is_empty() {
            return Some((at..at + line.len(), next));
        }
        at = next;
    }
    None
}

/// What CloudWatch Logs sends to a stream, with ranges in its text.
#[derive(Debug)]
pub enum Envelope {
    /// Log events.
    Data {
        /// How each row begins: `{"owner":…,"logGroup":…,"logStream":…`.
        head: Vec<u8>,
        /// The text between the braces of each event.
        events: Vec<Range<usize>>,
    },
    /// A test whether the stream can be written to; no log event.
    Control,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parsed<'a> {
    message_type: String,
    #[serde(borrow)]
    owner: &'a RawValue,
    #[serde(borrow)]
    log_group: &'a RawValue,
    #[serde(borrow)]
    log_stream: &'a RawValue,
    #[serde(borrow)]
    log_events: Events<'a>,
}

/// The events as written; at least one, at most [`MAX_LOG_EVENTS`].
struct Events<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Events<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "1 to {MAX_LOG_EVENTS} objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut events = Vec::new();
                while let Some(event) = elements.next_element::<&'de RawValue>()? {
                    if !event.get().starts_with('{') || events.len() == MAX_LOG_EVENTS {
                        return Err(serde::de::Error::invalid_length(events.len(), &self));
                    }
                    events.push(event);
                }
                match events.is_empty() {
                    true => Err(serde::de::Error::invalid_length(0, &self)),
                    false => Ok(events),
                }
            }
        }
        deserializer.deserialize_seq(Bounded).map(Events)
    }
}

/// Parses an envelope, from byte `first` on; `None` if the text is something else.
pub fn envelope(text: &[u8], first: usize) -> Option<Envelope> {
    let parsed: Parsed<'_> = serde_json::from_slice(text.get(first..)?).ok()?;
    match parsed.message_type.as_str() {
        "CONTROL_MESSAGE" => return Some(Envelope::Control),
        "DATA_MESSAGE" => {}
        _ => return None,
    }
    let (owner, group, stream) = (parsed.owner.get(), parsed.log_group.get(), parsed.log_stream.get());
    let head = format!("{{\"owner\":{owner},\"logGroup\":{group},\"logStream\":{stream}").into_bytes();
    let inside = |event: &&RawValue| {
        // A raw value is a slice of the text that it was parsed from.
        let start = (event.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        Some(start + 1..start + event.get().len() - 1)
    };
    let events = parsed.log_events.0.iter().map(inside).collect::<Option<Vec<_>>>()?;
    Some(Envelope::Data { head, events })
}

/// Appends the row of an event to `row`.
pub fn event_row(head: &[u8], inside: &[u8], row: &mut Vec<u8>) {
    row.extend_from_slice(head);
    if !inside.trim_ascii().is_empty() {
        row.push(b',');
        row.extend_from_slice(inside);
    }
    row.push(b'}');
}
