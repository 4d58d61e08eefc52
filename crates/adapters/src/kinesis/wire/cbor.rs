//! CBOR (`application/x-amz-cbor-1.1`), which AWS's Java SDK speaks with Kinesis: payloads are raw
//! bytes, so nothing is escaped and nothing is in base64. One pass, no allocation per record.

use aws_smithy_types::DateTime;
use base64_simd::STANDARD;
use serde_json::{Map, Value};

use super::{Child, Decoded, HashKeys, once};
use domain::limits::{BODY_BYTES_PER_RECORD, CBOR_DEPTH, CBOR_FIRST_MS};
use domain::record::Chunk;

#[cfg(test)]
mod tests;

const BYTES: u8 = b'\x02';
const TEXT: u8 = b'\x03';
const LIST: u8 = b'\x04';
const MAP: u8 = b'\x05';
const NULL: u8 = b'\xf6';
const UNDEFINED: u8 = b'\xf7';
const BREAK: u8 = b'\xff';
/// The tag of times.
const TIME: u8 = b'\x01';

/// Decodes a body. `None` if it is broken or in any way unusual.
pub fn decode(body: &[u8]) -> Option<Decoded> {
    let mut items = Items { bytes: body, at: 0 };
    let (mut records, mut resume, mut millis_behind_latest, mut children) = (None, None, None, None);
    items.map(|items, member| match member {
        "Records" => once(&mut records, chunk(items)?),
        "NextShardIterator" | "ContinuationSequenceNumber" => once(&mut resume, items.or_null(Items::text)?),
        "MillisBehindLatest" => once(&mut millis_behind_latest, items.or_null(Items::integer)?),
        "ChildShards" => once(&mut children, items.or_null(child_shards)?),
        _ => items.skip(CBOR_DEPTH),
    })?;
    (items.at == body.len()).then_some(Decoded {
        records: records?,
        resume: resume.flatten().map(str::to_owned),
        millis_behind_latest: millis_behind_latest.flatten().unwrap_or(0),
        children: children.flatten().unwrap_or_default().into_iter().map(Into::into).collect(),
    })
}

fn chunk(items: &mut Items<'_>) -> Option<Chunk> {
    let bytes = items.bytes.len();
    let mut chunk = Chunk::with_capacity(bytes / BODY_BYTES_PER_RECORD, bytes);
    items.list(|items| record(items, &mut chunk))?;
    chunk.shrink();
    Some(chunk)
}

fn record(items: &mut Items<'_>, chunk: &mut Chunk) -> Option<()> {
    let (mut data, mut sequence, mut key, mut timestamp_ms) = (None, None, None, None);
    items.map(|items, member| match member {
        "Data" => once(&mut data, items.data()?),
        "SequenceNumber" => once(&mut sequence, items.text()?),
        "PartitionKey" => once(&mut key, items.text()?),
        "ApproximateArrivalTimestamp" => once(&mut timestamp_ms, items.time_ms()?),
        _ => items.skip(CBOR_DEPTH),
    })?;
    let (data, in_base64) = data?;
    let copy = |payload: &mut Vec<u8>| match in_base64 {
        true => STANDARD.decode_append(data, payload).is_ok(),
        false => {
            payload.extend_from_slice(data);
            true
        }
    };
    chunk.push_with(key.unwrap_or_default(), timestamp_ms.unwrap_or(0), sequence?, copy)
}

fn child_shards(items: &mut Items<'_>) -> Option<Vec<Child>> {
    let mut children = Vec::new();
    items.list(|items| {
        let (mut shard_id, mut parents, mut keys) = (None, None, None);
        items.map(|items, member| match member {
            "ShardId" => once(&mut shard_id, items.text()?.to_owned()),
            "ParentShards" => {
                let mut ids = Vec::new();
                items.list(|items| items.text().map(|id| ids.push(id.to_owned())))?;
                once(&mut parents, ids)
            }
            "HashKeyRange" => once(&mut keys, hash_keys(items)?),
            _ => items.skip(CBOR_DEPTH),
        })?;
        children.push(Child { shard_id: shard_id?, parent_shards: parents?, hash_key_range: keys? });
        Some(())
    })?;
    Some(children)
}

fn hash_keys(items: &mut Items<'_>) -> Option<HashKeys> {
    let (mut first, mut last) = (None, None);
    items.map(|items, member| match member {
        "StartingHashKey" => once(&mut first, items.text()?.to_owned()),
        "EndingHashKey" => once(&mut last, items.text()?.to_owned()),
        _ => items.skip(CBOR_DEPTH),
    })?;
    Some(HashKeys { starting_hash_key: first?, ending_hash_key: last? })
}

/// A request's JSON in CBOR. `None` if it holds what no request of ours does.
pub fn from_json(json: &[u8]) -> Option<Vec<u8>> {
    from_value(&serde_json::from_slice(json).ok()?)
}

/// The same of a request that is not written yet.
pub fn from_value(request: &Value) -> Option<Vec<u8>> {
    let mut cbor = Vec::new();
    write(request, &mut cbor)?;
    Some(cbor)
}

fn write(value: &Value, to: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::String(value) => text(value, to),
        Value::Number(number) => head(0, number.as_u64()?, to),
        Value::Object(members) => {
            head(MAP, members.len() as u64, to);
            for (name, value) in members {
                text(name, to);
                write(value, to)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => return None,
    }
    Some(())
}

fn text(text: &str, to: &mut Vec<u8>) {
    head(TEXT, text.len() as u64, to);
    to.extend_from_slice(text.as_bytes());
}

fn head(major: u8, value: u64, to: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(small @ 0..24) => to.push(major << 5 | small),
        _ => {
            to.push(major << 5 | 27);
            to.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// The texts of an error in JSON, for the SDK to tell errors apart. `None` if it is not a map.
pub fn error_as_json(cbor: &[u8]) -> Option<Vec<u8>> {
    let (mut items, mut texts) = (Items { bytes: cbor, at: 0 }, Map::new());
    items.map(|items, member| {
        let before = items.at;
        match items.text() {
            Some(text) => drop(texts.insert(member.to_owned(), text.into())),
            None => {
                items.at = before;
                items.skip(CBOR_DEPTH)?;
            }
        }
        Some(())
    })?;
    serde_json::to_vec(&Value::Object(texts)).ok()
}

/// Bytes and the place in them that is read next.
#[derive(Clone, Copy)]
struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes this byte, if it comes next.
    fn pass(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    /// Major type and value of the next item; no value if its length is not given.
    fn head(&mut self) -> Option<(u8, Option<u64>)> {
        let first = self.take(1)?[0];
        let value = match first & 31 {
            small @ 0..24 => u64::from(small),
            size @ 24..28 => self.take(1 << (size - 24))?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
            31 => return Some((first >> 5, None)),
            _ => return None,
        };
        Some((first >> 5, Some(value)))
    }

    /// A string of this major type, all in one piece.
    fn string(&mut self, major: u8) -> Option<&'a [u8]> {
        match self.head()? {
            (found, Some(count)) if found == major => self.take(usize::try_from(count).ok()?),
            _ => None,
        }
    }

    /// A payload, and whether it is in base64: emulators that translate from JSON leave it so.
    fn data(&mut self) -> Option<(&'a [u8], bool)> {
        match self.peek()? >> 5 {
            TEXT => Some((self.string(TEXT)?, true)),
            _ => Some((self.string(BYTES)?, false)),
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.string(TEXT)?).ok()
    }

    fn integer(&mut self) -> Option<i64> {
        match self.head()? {
            (0, Some(value)) => i64::try_from(value).ok(),
            (1, Some(value)) => i64::try_from(value).ok().map(|value| -1 - value),
            _ => None,
        }
    }

    /// What `read` reads, or nothing if there is a null.
    fn or_null<T>(&mut self, read: impl FnOnce(&mut Items<'a>) -> Option<T>) -> Option<Option<T>> {
        match self.pass(NULL) || self.pass(UNDEFINED) {
            true => Some(None),
            false => read(self).map(Some),
        }
    }

    /// A time, as ms. With the arithmetic of the SDK for JSON: the same record always has the same
    /// time, however it came.
    fn time_ms(&mut self) -> Option<i64> {
        if self.peek()? >> 5 == 6 && self.head()?.1 != Some(TIME.into()) {
            return None;
        }
        let number = match self.peek()? {
            0xfa => f64::from(f32::from_be_bytes(self.take(5)?[1..].try_into().ok()?)),
            0xfb => f64::from_be_bytes(self.take(9)?[1..].try_into().ok()?),
            _ => self.integer()? as f64,
        };
        let seconds = if number >= CBOR_FIRST_MS { number / 1_000.0 } else { number };
        seconds.is_finite().then(|| DateTime::from_secs_f64(seconds).to_millis().unwrap_or(0))
    }

    /// Passes any item, in which others are nested at most `depth` deep.
    fn skip(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let plain = matches!(self.peek()?, 0xf4..=UNDEFINED | 0xf9..=0xfb);
        match self.head()? {
            (0 | 1, Some(_)) => Some(()),
            (7, Some(_)) if plain => Some(()),
            (BYTES, Some(count)) => self.take(usize::try_from(count).ok()?).map(drop),
            (TEXT, Some(count)) => std::str::from_utf8(self.take(usize::try_from(count).ok()?)?).ok().map(drop),
            (LIST, count) => self.each(count, |items| items.skip(depth)),
            (MAP, count) => self.each(count, |items| items.skip(depth).and_then(|()| items.skip(depth))),
            (6, Some(_)) => self.skip(depth),
            _ => None,
        }
    }

    /// Calls `each` as often as a list or a map of this size has entries.
    fn each(&mut self, count: Option<u64>, mut each: impl FnMut(&mut Items<'a>) -> Option<()>) -> Option<()> {
        match count {
            Some(count) => (0..count).try_for_each(|_| each(self)),
            None => {
                while !self.pass(BREAK) {
                    each(self)?;
                }
                Some(())
            }
        }
    }

    /// Calls `each` for every element of a list, where it begins.
    fn list(&mut self, each: impl FnMut(&mut Items<'a>) -> Option<()>) -> Option<()> {
        match self.head()? {
            (LIST, count) => self.each(count, each),
            _ => None,
        }
    }

    /// Calls `each` for every member of a map, where its value begins.
    fn map(&mut self, mut each: impl FnMut(&mut Items<'a>, &str) -> Option<()>) -> Option<()> {
        match self.head()? {
            (MAP, count) => self.each(count, |items| {
                let member = items.text()?;
                each(items, member)
            }),
            _ => None,
        }
    }
}
