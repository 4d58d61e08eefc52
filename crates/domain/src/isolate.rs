//! How the bad rows of a batch are found: what to try next, and what is known about the remaining
//! rows.
//!
//! A batch that failed is replaced by its first half, and the rest goes back to the front of the
//! shards' buffers. If that half is inserted, the rest must contain a bad row, so half of the rest
//! is tried next; if it fails, nothing is known about the rest. A one-row batch that fails is a bad
//! row. After a bad row, rows are tried in growing steps, because bad rows come in clusters.

use std::collections::BTreeMap;

use crate::limits::ISOLATE_GROWTH;
use crate::names::ShardId;

#[cfg(test)]
mod tests;

/// What is known about the remaining rows of a failed batch. They are the next rows in their
/// shards' buffers and are taken in batch order: by shard id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Rows left per shard; none is 0.
    left: BTreeMap<ShardId, usize>,
    /// The first `suspect` rows contain a bad one.
    suspect: usize,
    /// How many rows to try at once where nothing is known.
    step: usize,
}

impl Search {
    /// Whether any rows are left to search.
    pub fn active(&self) -> bool {
        !self.left.is_empty()
    }

    /// A batch failed, and all but its first rows was put back: `rest` lists the rows per shard.
    pub fn halved<'a>(&mut self, rest: impl IntoIterator<Item = (&'a ShardId, usize)>) {
        if !self.active() {
            self.step = usize::MAX;
        }
        self.suspect = 0;
        for (shard_id, rows) in rest.into_iter().filter(|(_, rows)| *rows > 0) {
            *self.left.entry(shard_id.clone()).or_default() += rows;
            self.suspect += rows;
        }
    }

    /// A bad row was found: a one-row batch failed.
    pub fn found(&mut self) {
        (self.suspect, self.step) = (0, 1);
    }

    /// A batch from [`Search::take`], or its half, was inserted.
    pub fn went_in(&mut self) {
        if self.suspect == 0 {
            self.step = self.step.saturating_mul(ISOLATE_GROWTH);
        }
    }

    /// The next batch: how many rows to take from which shard, out of the `buffered` ones. Empty if
    /// the remaining rows are no longer buffered.
    pub fn take(&mut self, buffered: impl Fn(&ShardId) -> usize) -> BTreeMap<ShardId, usize> {
        let mut wanted = if self.suspect > 0 { self.suspect.div_ceil(2) } else { self.step };
        let mut taken = BTreeMap::new();
        for (shard_id, left) in &mut self.left {
            let rows = wanted.min(*left).min(buffered(shard_id));
            if rows > 0 {
                taken.insert(shard_id.clone(), rows);
            }
            (wanted, *left) = (wanted - rows, *left - rows);
            self.suspect -= self.suspect.min(rows);
        }
        self.left.retain(|_, left| *left > 0);
        taken
    }
}
