//! How the rows of a batch that cannot be inserted are found: what is tried next, and what is known
//! about what is left.
//!
//! A batch that failed is replaced by its first half, and the rest goes back to the front of the
//! shards' buffers. When that half goes in, the rest is known to hold a bad row, so half of the
//! rest is tried next; when it fails, nothing is known about the rest. A batch of one row that
//! fails is a bad row. What follows a bad row is tried in steps that grow, since bad rows come
//! together.

use std::collections::BTreeMap;

use crate::limits::ISOLATE_GROWTH;

#[cfg(test)]
mod tests;

/// What is known about the rows that are left of a batch that failed. They are the next ones in the
/// buffers of their shards, and are taken in the order of a batch: by shard id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Rows left, by shard; none is 0.
    left: BTreeMap<String, usize>,
    /// So many of the first of them hold a bad row.
    suspect: usize,
    /// So many are tried at once where nothing is known.
    step: usize,
}

impl Search {
    /// Whether rows are left to look through.
    pub fn active(&self) -> bool {
        !self.left.is_empty()
    }

    /// A batch failed, and all but its first rows was put back: these `rest` of these shards.
    pub fn halved<'a>(&mut self, rest: impl IntoIterator<Item = (&'a str, usize)>) {
        if !self.active() {
            self.step = usize::MAX;
        }
        self.suspect = 0;
        for (shard_id, rows) in rest.into_iter().filter(|(_, rows)| *rows > 0) {
            *self.left.entry(shard_id.into()).or_default() += rows;
            self.suspect += rows;
        }
    }

    /// A bad row was found: a batch of one row that failed.
    pub fn found(&mut self) {
        (self.suspect, self.step) = (0, 1);
    }

    /// A batch that [`Search::take`] gave, or its half, went in.
    pub fn went_in(&mut self) {
        if self.suspect == 0 {
            self.step = self.step.saturating_mul(ISOLATE_GROWTH);
        }
    }

    /// The next batch: how many rows of which shard, of those that are `buffered`. Nothing: what is
    /// left is not buffered any more.
    pub fn take(&mut self, buffered: impl Fn(&str) -> usize) -> BTreeMap<String, usize> {
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
