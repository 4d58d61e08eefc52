//! What one pull serves: an ordered list of per-shard ranges, chosen once from the buffered records
//! and then frozen.

use super::error::Error;
use super::lease::Offer;
use super::names::{BatchId, ShardId, StreamName};
use super::record::{RecordRef, Slice};
use super::shape::BatchShape;

#[cfg(test)]
mod tests;

/// Upper bounds on the size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows across all shards.
    pub max_rows: usize,
    /// Bytes across all shards, as [`RecordRef::size`] counts them.
    pub max_bytes: usize,
}

/// The records of one shard in a batch.
#[derive(Clone, Debug)]
pub struct ShardRange {
    /// Shard id.
    pub shard_id: ShardId,
    /// The records, in order.
    pub slices: Vec<Slice>,
}

impl ShardRange {
    /// Number of records.
    pub fn rows(&self) -> usize {
        self.slices.iter().map(Slice::len).sum()
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.slices.iter().flat_map(Slice::records)
    }

    /// The lease's side of this range.
    pub fn offer(&self, batch: &BatchId, shape: &BatchShape, shards: u32) -> Result<Offer, Error> {
        let first = self.slices.iter().find_map(Slice::first);
        let last = self.slices.iter().rev().find_map(Slice::last);
        let (Some(first), Some(last)) = (first, last) else {
            return Err(Error::Internal(format!("batch {batch} has an empty range for shard {}", self.shard_id)));
        };
        Ok(Offer {
            batch: batch.clone(),
            shape: shape.clone(),
            shards,
            first: first.position()?,
            through: last.position()?,
            rows: self.rows() as u64,
        })
    }
}

/// A frozen batch. Its bytes depend only on this value and the response format.
#[derive(Clone, Debug)]
pub struct Batch {
    /// 16 hexadecimal digits, the column `_batch`.
    pub id: BatchId,
    /// Stream name, the column `_stream`.
    pub stream: StreamName,
    /// Ranges, ordered by shard id; none is empty.
    pub ranges: Vec<ShardRange>,
}

impl Batch {
    /// Number of records.
    pub fn rows(&self) -> usize {
        self.ranges.iter().map(ShardRange::rows).sum()
    }

    /// Splits into the first `rows` rows and the rest, each in order (**halves-are-prefixes**).
    pub fn split_at(&self, rows: usize) -> (Vec<ShardRange>, Vec<ShardRange>) {
        let (mut first, mut rest, mut left) = (Vec::new(), Vec::new(), rows);
        for range in &self.ranges {
            let parts = range.slices.iter().map(|slice| {
                let (front, back) = slice.split_at(left);
                left -= front.len();
                (front, back)
            });
            let (front, back): (Vec<Slice>, Vec<Slice>) = parts.unzip();
            for (slices, ranges) in [(front, &mut first), (back, &mut rest)] {
                let slices: Vec<Slice> = slices.into_iter().filter(|slice| !slice.is_empty()).collect();
                if !slices.is_empty() {
                    ranges.push(ShardRange { shard_id: range.shard_id.clone(), slices });
                }
            }
        }
        (first, rest)
    }

    /// Payload, key and sequence number bytes.
    pub fn bytes(&self) -> usize {
        self.ranges.iter().flat_map(|r| &r.slices).map(Slice::size).sum()
    }
}

/// Takes what fits from each shard's buffered records: evenly at first, then shards that have more
/// fill the remaining room (**one-block**).
///
/// Returns how many records to take from each shard, in the order given. If there is any record, at
/// least one is taken, however large; otherwise a record over `max_bytes` would block its shard
/// forever.
pub fn choose(buffered: &[Vec<Slice>], limits: Limits) -> Vec<usize> {
    let mut taken = vec![0; buffered.len()];
    let waiting = buffered.iter().filter(|s| !s.is_empty()).count();
    let (mut rows, mut bytes) = (limits.max_rows, limits.max_bytes);
    let even = Limits { max_rows: rows / waiting.max(1), max_bytes: bytes / waiting.max(1) };
    for (shard, slices) in buffered.iter().enumerate() {
        let (n, size) = fitting(slices, 0, even.max_rows, even.max_bytes);
        taken[shard] = n;
        rows -= n;
        bytes -= size;
    }
    for (shard, slices) in buffered.iter().enumerate() {
        let (n, size) = fitting(slices, taken[shard], rows, bytes);
        taken[shard] += n;
        rows -= n;
        bytes -= size;
    }
    if taken.iter().all(|n| *n == 0)
        && let Some(first) = buffered.iter().position(|s| s.iter().any(|s| !s.is_empty()))
    {
        taken[first] = 1;
    }
    taken
}

/// How many records after the first `skip` stay within `rows` and `bytes`, and their size.
fn fitting(slices: &[Slice], skip: usize, rows: usize, bytes: usize) -> (usize, usize) {
    let (mut skip, mut count, mut size) = (skip, 0, 0);
    for slice in slices {
        let (_, rest) = slice.split_at(skip.min(slice.len()));
        skip = skip.saturating_sub(slice.len());
        let n = rest.fitting(rows - count, bytes - size);
        count += n;
        size += rest.split_at(n).0.size();
        if n < rest.len() {
            break;
        }
    }
    (count, size)
}
