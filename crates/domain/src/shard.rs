//! Shards of a stream and the order in which they may be read.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::lease::Lease;
use super::names::ShardId;
use super::sequence::{Checkpoint, RowPosition, compare_digits};

#[cfg(test)]
mod tests;

/// A shard as ListShards describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Shard id.
    pub id: ShardId,
    /// The shard it was split from, or the first of the two it was merged from; empty for none.
    pub parent: ShardId,
    /// The second shard it was merged from; empty for none.
    pub adjacent_parent: ShardId,
    /// First hash key, decimal.
    pub starting_hash_key: String,
    /// Last hash key, decimal.
    pub ending_hash_key: String,
    /// First sequence number the shard may hold.
    pub starting_sequence_number: String,
    /// Last one, once the shard is closed; empty while open.
    pub ending_sequence_number: String,
}

impl Shard {
    /// The shards it came from.
    pub fn parents(&self) -> Vec<ShardId> {
        [&self.parent, &self.adjacent_parent].into_iter().filter(|p| !p.is_empty()).cloned().collect()
    }

    /// Normalizes a position in the shard: becomes its end where nothing can follow, because no
    /// record has the shard's ending sequence number.
    pub fn position(&self, at: Checkpoint) -> Checkpoint {
        let (begins, ends) = (&self.starting_sequence_number, &self.ending_sequence_number);
        // Kinesis emulators may report an ending number that lies before all of their records.
        let plausible = !self.open() && compare_digits(ends, begins).is_ge();
        let behind = |row: &RowPosition| match compare_digits(row.sequence.as_str(), ends) {
            Ordering::Less => false,
            // If a record has that number after all, some of its rows may be left.
            Ordering::Equal => row.sub == u32::MAX,
            Ordering::Greater => true,
        };
        match &at {
            Checkpoint::After(row) if plausible && behind(row) => Checkpoint::ShardEnd,
            _ => at,
        }
    }

    /// Whether it still accepts records.
    pub fn open(&self) -> bool {
        self.ending_sequence_number.is_empty()
    }
}

/// Whether a shard may be read: every parent known to the pipe is committed to its end
/// (**parents-before-children**).
///
/// A parent without a lease has expired, or lies before the pipe's start: there is nothing to wait
/// for.
pub fn readable(lease: &Lease, all: &HashMap<ShardId, &Lease>) -> bool {
    lease.parents.iter().all(|parent| all.get(parent).is_none_or(|p| p.finished()))
}
