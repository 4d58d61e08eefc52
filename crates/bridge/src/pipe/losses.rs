//! A pipe's losses: shards and offered batches whose unread records no longer exist.

use std::collections::{BTreeMap, BTreeSet};

use tracing::error;

use domain::error::Error;
use domain::lease::Lease;
use domain::lineage::Lost;
use domain::names::{BatchId, PipeName, ShardId};

/// What cannot be read any further, and why. Found by `lineage` and `recover`.
#[derive(Default)]
pub struct Losses {
    /// By shard.
    shards: BTreeMap<ShardId, Error>,
    /// By offered batch.
    batches: BTreeMap<BatchId, Error>,
    /// Shards that looked reopened or were not listed at the last look. ListShards may lag, so it
    /// takes two looks.
    suspected: BTreeSet<ShardId>,
}

impl Losses {
    /// Whether nothing is lost, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.batches.is_empty()
    }

    /// Why this lease cannot be read any further, if so.
    pub fn of(&self, lease: &Lease) -> Option<&Error> {
        let batch = lease.batch().and_then(|batch| self.batches.get(batch));
        batch.or_else(|| self.shards.get(&lease.shard_id))
    }

    /// Notes that an offered batch cannot be read again. Its shards stop; others continue.
    pub fn add_batch(&mut self, batch: &BatchId, gap: Error) {
        self.batches.insert(batch.clone(), gap);
    }

    /// Notes the certain losses found by a look at the shards, and returns the `exhausted` shards
    /// that were already absent at the previous look. `gap` makes the error for a loss; none if the
    /// shard no longer has a lease.
    pub fn look(
        &mut self,
        pipe: &PipeName,
        found: BTreeMap<ShardId, Lost>,
        exhausted: Vec<ShardId>,
        gap: impl Fn(&ShardId, Lost) -> Option<Error>,
    ) -> Vec<ShardId> {
        let suspected = std::mem::take(&mut self.suspected);
        let before = std::mem::take(&mut self.shards);
        for (shard_id, lost) in found {
            // The stream's creation time and the beginning of a shard do not depend on ListShards.
            if !matches!(lost, Lost::Replaced | Lost::Recreated) {
                self.suspected.insert(shard_id.clone());
                if !suspected.contains(&shard_id) {
                    continue;
                }
            }
            let Some(gap) = gap(&shard_id, lost) else { continue };
            if before.get(&shard_id) != Some(&gap) {
                error!(pipe = pipe.as_str(), "{gap}");
            }
            self.shards.insert(shard_id, gap);
        }
        // Batches are tried again: the failure may have been temporary.
        self.batches.clear();
        self.suspected.extend(exhausted.iter().cloned());
        exhausted.into_iter().filter(|shard_id| suspected.contains(shard_id)).collect()
    }
}
