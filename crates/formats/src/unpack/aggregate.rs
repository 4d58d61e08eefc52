//! KPL aggregates: several user records in one Kinesis record.
//!
//! The format is that of the Kinesis Producer Library (`aggregation-format.md` in its repository):
//! a magic number, a protobuf message, and the MD5 of the message. The message is walked in place:
//! a record of 10 MiB may contain millions of user records, and none of them costs memory.

use std::ops::Range;

use md5::{Digest, Md5};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST: usize = 16;

/// A valid aggregate and the reading position in it. All positions are offsets in its payload.
#[derive(Debug)]
pub struct Aggregate {
    keys: Vec<Range<u32>>,
    fields: Fields,
}

/// One user record.
#[derive(Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Its partition key.
    pub key: Range<usize>,
    /// Its payload.
    pub data: Range<usize>,
}

/// Whether `payload` starts like an aggregate.
pub fn claims(payload: &[u8]) -> bool {
    payload.starts_with(&MAGIC)
}

impl Aggregate {
    /// Validates all of `payload`. `None` if it is not an aggregate from end to end: a wrong
    /// digest, a broken message, an index without a key, or no user record at all.
    pub fn open(payload: &[u8]) -> Option<Aggregate> {
        let end = payload.len().checked_sub(DIGEST).filter(|end| *end >= MAGIC.len())?;
        let (message, digest) = (payload.get(MAGIC.len()..end)?, payload.get(end..)?);
        if !claims(payload) || Md5::digest(message).as_slice() != digest {
            return None;
        }
        let whole = Fields { at: MAGIC.len(), end };
        let (mut keys, mut records, mut largest) = (Vec::new(), 0usize, 0);
        let mut fields = whole;
        while let Some((number, value)) = fields.next(payload)? {
            match (number, value) {
                (KEYS, Value::Bytes(key)) => {
                    std::str::from_utf8(payload.get(key.clone())?).ok()?;
                    keys.push(u32::try_from(key.start).ok()?..u32::try_from(key.end).ok()?);
                }
                (RECORDS, Value::Bytes(record)) => {
                    largest = largest.max(index_and_data(payload, record)?.0);
                    records += 1;
                }
                (KEYS | RECORDS, _) => return None,
                _ => {}
            }
        }
        (records > 0 && largest < keys.len() as u64).then_some(Aggregate { keys, fields: whole })
    }

    /// The next user record of the same `payload`.
    pub fn next(&mut self, payload: &[u8]) -> Option<UserRecord> {
        while let Some((number, value)) = self.fields.next(payload)? {
            if let (RECORDS, Value::Bytes(record)) = (number, value) {
                let (index, data) = index_and_data(payload, record)?;
                let key = self.keys.get(usize::try_from(index).ok()?)?;
                return Some(UserRecord { key: key.start as usize..key.end as usize, data });
            }
        }
        None
    }
}

// Field numbers of AggregatedRecord and Record.
const KEYS: u64 = 1;
const RECORDS: u64 = 3;
const KEY_INDEX: u64 = 1;
const DATA: u64 = 3;

/// The index of a record's key, and its data. The explicit hash key only chose the shard; a record
/// that a reshard has left outside its shard's range is still a record.
fn index_and_data(payload: &[u8], record: Range<usize>) -> Option<(u64, Range<usize>)> {
    let (mut index, mut data) = (None, None);
    let mut fields = Fields { at: record.start, end: record.end };
    while let Some((number, value)) = fields.next(payload)? {
        match (number, value) {
            (KEY_INDEX, Value::Number(number)) => index = Some(number),
            (DATA, Value::Bytes(bytes)) => data = Some(bytes),
            (KEY_INDEX | DATA, _) => return None,
            _ => {}
        }
    }
    index.zip(data)
}

/// The fields of a protobuf message between two offsets.
#[derive(Clone, Copy, Debug)]
struct Fields {
    at: usize,
    end: usize,
}

/// The value of a field.
enum Value {
    Number(u64),
    Bytes(Range<usize>),
    /// Fixed-width, which no known field is.
    Fixed,
}

impl Fields {
    /// The next field and its number; the inner option is `None` at the end, the outer if the
    /// message is broken.
    fn next(&mut self, payload: &[u8]) -> Option<Option<(u64, Value)>> {
        if self.at == self.end {
            return Some(None);
        }
        let tag = self.varint(payload)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint(payload)?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint(payload)?).ok()?;
                Value::Bytes(self.skip(length)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn skip(&mut self, length: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end)?;
        Some(std::mem::replace(&mut self.at, end)..end)
    }

    fn varint(&mut self, payload: &[u8]) -> Option<u64> {
        let mut number = 0u64;
        for (byte, shift) in payload.get(self.at..self.end)?.iter().zip((0..64).step_by(7)) {
            self.at += 1;
            number |= u64::from(byte & 0x7F) << shift;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
