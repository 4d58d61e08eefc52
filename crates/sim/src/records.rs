//! The records of the fake Kinesis, and the numbers of their rows.

use std::ops::Range;

use domain::names::ShardId;
use domain::sequence::{RowPosition, SequenceNumber};
use domain::shard::Shard;

/// The number of a row, see [`row`], and its shard. Nearly always the number decides a comparison.
pub type Place = (u128, ShardId);

/// The number of a row from the numbers of its record and within it: rows are ordered by it.
pub fn row(sequence: u128, sub_sequence: u32) -> u128 {
    sequence * ROWS_IN_A_RECORD + u128::from(sub_sequence).min(ROWS_IN_A_RECORD - 1)
}

/// The inverse: the record, and the number of the row within it.
pub fn parts(row: u128) -> RowPosition {
    let sequence = SequenceNumber::parse(&(row / ROWS_IN_A_RECORD).to_string()).unwrap();
    RowPosition::new(sequence, (row % ROWS_IN_A_RECORD) as u32)
}

/// More rows than any record of the model has.
const ROWS_IN_A_RECORD: u128 = 100;

/// The number of a sequence number.
pub fn number(sequence: &SequenceNumber) -> u128 {
    sequence.as_str().parse().unwrap()
}

/// A shard, with its records.
pub struct Held {
    /// As listed.
    pub shard: Shard,
    /// First and last hash key.
    pub range: (u128, u128),
    /// In order.
    pub records: Vec<Put>,
    /// How many of the first ones are gone.
    pub trimmed: usize,
}

/// A record.
pub struct Put {
    /// Partition key.
    pub key: String,
    /// Sequence number.
    pub sequence: u128,
    /// The same, as text.
    pub digits: String,
    /// When it was put, Unix ms.
    pub at_ms: i64,
    /// Payload.
    pub payload: Vec<u8>,
    /// Number of rows, as an aggregate.
    pub rows: u32,
}

impl Put {
    pub fn places(&self, shard: &ShardId) -> impl Iterator<Item = Place> {
        (0..self.rows).map(move |sub| (row(self.sequence, sub), shard.clone()))
    }
}

impl Held {
    /// The rows of the records with these indexes.
    pub fn places(&self, records: Range<usize>) -> Vec<Place> {
        self.records[records].iter().flat_map(|r| r.places(&self.shard.id)).collect()
    }

    /// The index of the first record at or after `sequence` that still exists.
    pub fn at(&self, sequence: u128) -> usize {
        self.records.partition_point(|r| r.sequence < sequence).max(self.trimmed)
    }

    pub fn open(&self) -> bool {
        self.shard.open()
    }
}

/// A payload of `rows` JSON documents: the elements of an array, followed by an object.
pub fn items(text: &str, rows: u32) -> Vec<u8> {
    let elements: Vec<String> = (1..rows).map(|sub| format!("\"{text}/{sub}\"")).collect();
    format!("[{}]{{\"last\":\"{text}\"}}", elements.join(", ")).into_bytes()
}
