//! The format `JSONEachRow`: one JSON object per line, keyed by column names.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use chrono::DateTime;

use super::inline::fields;
use super::{Columns, Payload};
use crate::unmarshal::Event;
use domain::error::Error;
use domain::names::ShardId;
use domain::record::RecordRef;

/// Timestamp format down to the second. With a trailing Z the text is UTC; without it, ClickHouse
/// would read it in the time zone of its session or server.
const SECONDS: &str = "%Y-%m-%dT%H:%M:%S";
/// A piece is emitted once it has this many bytes.
const PIECE: usize = 512 << 10;

/// Writes rows. A row's newline is written before the next row, so that the last one is left for
/// the tail.
pub(super) struct Json {
    out: Vec<u8>,
    rows: bool,
    /// `","_stream":"…","_shard_id":"…","_sequence_number":"` for each shard.
    shards: Vec<Vec<u8>>,
    payload: Payload,
    /// Reused for each event.
    event: Event,
    /// `,"_batch":"…"`, or nothing.
    batch: Vec<u8>,
    /// The last second written and its text: neighbouring rows mostly share it.
    second: i64,
    second_text: String,
}

impl Json {
    pub(super) fn new(columns: &Columns, payload: Payload) -> Json {
        let shard = |id: &ShardId| {
            let mut text = b"\",\"_stream\":\"".to_vec();
            escape(columns.stream.as_bytes(), &mut text);
            text.extend_from_slice(b"\",\"_shard_id\":\"");
            escape(id.as_bytes(), &mut text);
            text.extend_from_slice(b"\",\"_sequence_number\":\"");
            text
        };
        let mut batch = Vec::new();
        if let Some(id) = &columns.batch {
            batch.extend_from_slice(b",\"_batch\":\"");
            escape(id.as_bytes(), &mut batch);
            batch.push(b'"');
        }
        Json {
            out: Vec::new(),
            rows: false,
            shards: columns.shards.iter().map(shard).collect(),
            payload,
            event: Event::default(),
            batch,
            second: 0,
            second_text: second_text(0),
        }
    }

    pub(super) fn push(
        &mut self,
        record: RecordRef<'_>,
        shard: usize,
        ready: &mut VecDeque<Bytes>,
    ) -> Result<(), Error> {
        let Some(shard) = self.shards.get(shard) else {
            return Err(Error::Internal(format!("a record refers to shard {shard} of {}", self.shards.len())));
        };
        let second = record.timestamp_ms.div_euclid(1_000);
        if second != self.second {
            (self.second, self.second_text) = (second, second_text(second));
        }
        if self.rows {
            self.out.push(b'\n');
        }
        self.rows = true;
        let out = &mut self.out;
        out.extend_from_slice(b"{\"_key\":\"");
        escape(record.key.as_bytes(), out);
        out.extend_from_slice(b"\",\"_timestamp\":\"");
        out.extend_from_slice(self.second_text.as_bytes());
        let ms = record.timestamp_ms.rem_euclid(1_000) as u16;
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
        out.extend_from_slice(shard);
        escape(record.sequence_number.as_bytes(), out);
        out.extend_from_slice(b"\",\"_sub_sequence_number\":");
        // Writing to memory does not fail.
        let _ = write!(out, "{}", record.sub_sequence);
        let own = match self.payload {
            Payload::Raw => {
                out.extend_from_slice(b",\"_raw_message\":\"");
                escape_payload(record.payload, out, ready);
                &[]
            }
            Payload::Inline => {
                let (fields, raw, error) = match fields(record.payload) {
                    Ok(fields) => (fields, &[][..], String::new()),
                    Err(why) => {
                        (&[][..], record.payload, format!("the payload is not a JSON object that makes a row: {why}"))
                    }
                };
                out.extend_from_slice(b",\"_error\":\"");
                escape(error.as_bytes(), out);
                out.extend_from_slice(b"\",\"_raw_message\":\"");
                escape_payload(raw, out, ready);
                fields
            }
            Payload::DynamoDb => {
                self.event.read(record.payload);
                write_event(&self.event, out, ready);
                out.extend_from_slice(b",\"_raw_message\":\"");
                if !self.event.error().is_empty() {
                    escape_payload(record.payload, out, ready);
                }
                &[]
            }
        };
        out.push(b'"');
        out.extend_from_slice(&self.batch);
        if !own.is_empty() {
            out.push(b',');
            out.extend_from_slice(own);
        }
        out.push(b'}');
        hand_out(&mut self.out, ready);
        Ok(())
    }

    pub(super) fn finish(self, ready: &mut VecDeque<Bytes>) -> Bytes {
        if !self.out.is_empty() {
            ready.push_back(self.out.into());
        }
        if self.rows { Bytes::from_static(b"\n") } else { Bytes::new() }
    }
}

/// Emits what is written once it is large enough for a piece.
fn hand_out(out: &mut Vec<u8>, ready: &mut VecDeque<Bytes>) {
    if out.len() >= PIECE {
        let next = Vec::with_capacity(PIECE + PIECE / 8);
        ready.push_back(std::mem::replace(out, next).into());
    }
}

/// Escapes a payload of any size, piece by piece: it may grow sixfold, and a single buffer would be
/// reallocated as it grows.
fn escape_payload(payload: &[u8], out: &mut Vec<u8>, ready: &mut VecDeque<Bytes>) {
    for part in payload.chunks(PIECE / 4) {
        hand_out(out, ready);
        escape(part, out);
    }
}

/// Writes the columns of an event except `_raw_message`.
fn write_event(event: &Event, out: &mut Vec<u8>, ready: &mut VecDeque<Bytes>) {
    let mut text = |before: &str, text: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(before.as_bytes());
        escape_payload(text.as_bytes(), out, ready);
    };
    text(",\"_event_name\":\"", event.name(), out);
    text("\",\"_event_id\":\"", event.id(), out);
    text("\",\"_table\":\"", event.table(), out);
    let (version, is_deleted) = (event.version(), u8::from(event.is_deleted()));
    let ttl_delete = u8::from(event.is_ttl_delete());
    // Writing to memory does not fail.
    let _ = write!(out, "\",\"_version\":{version},\"_is_deleted\":{is_deleted},\"_ttl_delete\":{ttl_delete}");
    text(",\"_keys\":\"", event.keys(), out);
    text("\",\"_new\":\"", event.new_image(), out);
    text("\",\"_old\":\"", event.old_image(), out);
    out.extend_from_slice(b"\",\"_attributes\":{");
    for (n, (name, value)) in event.attributes().enumerate() {
        text(if n == 0 { "\"" } else { ",\"" }, name, out);
        text("\":\"", value, out);
        out.push(b'"');
    }
    text("},\"_error\":\"", event.error(), out);
    out.push(b'"');
}

fn digit(n: u16) -> u8 {
    b'0' + (n % 10) as u8
}

/// A second outside the calendar, which Kinesis does not produce, becomes the epoch.
fn second_text(second: i64) -> String {
    DateTime::from_timestamp(second, 0).unwrap_or_default().format(SECONDS).to_string()
}

/// Writes the inside of a JSON string. Bytes that are not UTF-8 pass through: a payload may be
/// anything, and ClickHouse reads them back.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for (i, byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&text[from..i]);
        from = i + 1;
        match short {
            0 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
    }
    out.extend_from_slice(&text[from..]);
}
