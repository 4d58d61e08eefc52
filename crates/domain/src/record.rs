//! Records as held in memory: in columns, so that a million small records cost a few allocations
//! and an exact number of bytes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::error::Error;
use super::sequence::{RowPosition, SequenceNumber};

#[cfg(test)]
mod tests;

/// One record, borrowed from its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Partition key; empty when Kinesis chose the shard by itself.
    pub key: &'a str,
    /// Approximate arrival, Unix ms.
    pub timestamp_ms: i64,
    /// Decimal digits.
    pub sequence_number: &'a str,
    /// Number of the row within its Kinesis record, from 0; 0 for a plain record.
    pub sub_sequence: u32,
    /// The payload, as put to the stream or as produced by unpacking.
    pub payload: &'a [u8],
}

impl RecordRef<'_> {
    /// Bytes that count against `max_bytes`: the variable-length columns.
    pub fn size(&self) -> usize {
        self.key.len() + self.sequence_number.len() + self.payload.len()
    }

    /// Its position. Kinesis returns only digits; anything else is a broken response.
    pub fn position(&self) -> Result<RowPosition, Error> {
        let sequence = SequenceNumber::parse(self.sequence_number).ok_or_else(|| {
            Error::Unavailable(format!(
                "Kinesis returned the sequence number '{}', which is not a decimal number",
                self.sequence_number.chars().take(64).collect::<String>()
            ))
        })?;
        Ok(RowPosition::new(sequence, self.sub_sequence))
    }

    /// Whether this is its position.
    pub fn is_at(&self, row: &RowPosition) -> bool {
        self.sub_sequence == row.sub && self.sequence_number == row.sequence.as_str()
    }
}

/// Consecutive records of one shard, in columns. Grows by `push`, then is shared read-only.
#[derive(Default)]
pub struct Chunk {
    text: String,
    payload: Vec<u8>,
    rows: Vec<Row>,
    held: Option<Box<dyn Any + Send + Sync>>,
}

/// Where each part of one record ends, and its fixed-width columns.
#[derive(Debug, Clone, Copy)]
struct Row {
    key_end: u32,
    sequence_end: u32,
    payload_end: u32,
    sub_sequence: u32,
    timestamp_ms: i64,
}

impl Chunk {
    /// An empty chunk with room for `rows` records of `payload_bytes` in total.
    pub fn with_capacity(rows: usize, payload_bytes: usize) -> Chunk {
        Chunk {
            // Typically 56 digits of sequence number and a short key.
            text: String::with_capacity(rows * 72),
            payload: Vec::with_capacity(payload_bytes),
            rows: Vec::with_capacity(rows),
            held: None,
        }
    }

    /// Appends a record. Returns false, and appends nothing, if the chunk would exceed 4 GiB: start
    /// another one.
    #[must_use]
    pub fn push(&mut self, record: RecordRef<'_>) -> bool {
        let sequence_end = self.text.len() + record.key.len() + record.sequence_number.len();
        let payload_end = self.payload.len() + record.payload.len();
        let (Ok(sequence_end), Ok(payload_end)) = (u32::try_from(sequence_end), u32::try_from(payload_end)) else {
            return false;
        };
        self.text.push_str(record.key);
        let key_end = self.text.len() as u32;
        self.text.push_str(record.sequence_number);
        self.payload.extend_from_slice(record.payload);
        self.rows.push(Row {
            key_end,
            sequence_end,
            payload_end,
            sub_sequence: record.sub_sequence,
            timestamp_ms: record.timestamp_ms,
        });
        true
    }

    /// Appends a record whose payload `write` appends to what is there. `None`, and nothing is
    /// appended, if it returns false or the chunk would exceed 4 GiB.
    #[must_use]
    pub fn push_with(
        &mut self,
        key: &str,
        timestamp_ms: i64,
        sequence_number: &str,
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> Option<()> {
        let before = self.payload.len();
        let sequence_end = u32::try_from(self.text.len() + key.len() + sequence_number.len()).ok()?;
        let payload_end = Some(write(&mut self.payload)).filter(|written| *written).map(|_| self.payload.len());
        let Some(payload_end) = payload_end.and_then(|end| u32::try_from(end).ok()) else {
            self.payload.truncate(before);
            return None;
        };
        self.text.push_str(key);
        let key_end = self.text.len() as u32;
        self.text.push_str(sequence_number);
        self.rows.push(Row { key_end, sequence_end, payload_end, sub_sequence: 0, timestamp_ms });
        Some(())
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of memory that the chunk occupies.
    pub fn memory(&self) -> usize {
        self.text.capacity() + self.payload.capacity() + self.rows.capacity() * std::mem::size_of::<Row>()
    }

    /// Bytes of the records and their bookkeeping, without spare capacity.
    pub fn size(&self) -> usize {
        self.text.len() + self.payload.len() + self.rows.len() * std::mem::size_of::<Row>()
    }

    /// Keeps `guard` for as long as the chunk lives: the reader's reservation in the memory budget.
    pub fn hold(&mut self, guard: impl Any + Send + Sync) {
        self.held = Some(Box::new(guard));
    }

    /// Whether a guard is kept.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Frees memory that was reserved but not used.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.payload.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    /// The record at `index`, which must be less than `len()`.
    pub fn get(&self, index: usize) -> RecordRef<'_> {
        let row = self.rows[index];
        let (text_start, payload_start) = match index.checked_sub(1).map(|i| self.rows[i]) {
            Some(before) => (before.sequence_end as usize, before.payload_end as usize),
            None => (0, 0),
        };
        let (key_end, sequence_end) = (row.key_end as usize, row.sequence_end as usize);
        RecordRef {
            // Both were pushed as whole strings, so the boundaries are character boundaries.
            key: self.text.get(text_start..key_end).unwrap_or_default(),
            sequence_number: self.text.get(key_end..sequence_end).unwrap_or_default(),
            timestamp_ms: row.timestamp_ms,
            sub_sequence: row.sub_sequence,
            payload: &self.payload[payload_start..row.payload_end as usize],
        }
    }

    /// The last record, if any.
    pub fn last(&self) -> Option<RecordRef<'_>> {
        self.len().checked_sub(1).map(|i| self.get(i))
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Bytes of all payloads.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Sum of [`RecordRef::size`] over the records in `start..end`.
    fn size_between(&self, start: usize, end: usize) -> usize {
        let upto = |n: usize| match n.checked_sub(1).map(|i| self.rows[i]) {
            Some(row) => row.sequence_end as usize + row.payload_end as usize,
            None => 0,
        };
        upto(end) - upto(start)
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} records, {} bytes)", self.len(), self.memory())
    }
}

/// A run of records inside a shared chunk.
#[derive(Debug, Clone)]
pub struct Slice {
    chunk: Arc<Chunk>,
    start: usize,
    end: usize,
}

impl Slice {
    /// All of a chunk.
    pub fn whole(chunk: Arc<Chunk>) -> Slice {
        let end = chunk.len();
        Slice { chunk, start: 0, end }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Sum of [`RecordRef::size`] over its records.
    pub fn size(&self) -> usize {
        self.chunk.size_between(self.start, self.end)
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        (self.start..self.end).map(|i| self.chunk.get(i))
    }

    /// The first record, if any.
    pub fn first(&self) -> Option<RecordRef<'_>> {
        (!self.is_empty()).then(|| self.chunk.get(self.start))
    }

    /// The last record, if any.
    pub fn last(&self) -> Option<RecordRef<'_>> {
        (!self.is_empty()).then(|| self.chunk.get(self.end - 1))
    }

    /// How many records from the front stay within `rows` and `bytes`.
    pub fn fitting(&self, rows: usize, bytes: usize) -> usize {
        let (mut low, mut high) = (0, self.len().min(rows));
        while low < high {
            let middle = (low + high).div_ceil(2);
            match self.chunk.size_between(self.start, self.start + middle) <= bytes {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        low
    }

    /// Splits into the first `count` records and the rest.
    pub fn split_at(&self, count: usize) -> (Slice, Slice) {
        let middle = self.start.saturating_add(count).min(self.end);
        let front = Slice { end: middle, ..self.clone() };
        let back = Slice { start: middle, ..self.clone() };
        (front, back)
    }
}
