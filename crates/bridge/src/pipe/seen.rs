//! What is known about a position when it is written into its lease.

use super::buffer::ShardBuffer;
use super::open::Open;
use super::work::Work;
use domain::lease::{Lease, Seen};
use domain::limits::CAUGHT_UP_REFRESH_MS;
use domain::record::Slice;
use domain::time::past;

impl Work {
    /// What is known about a shard's position after the open batch.
    pub(super) fn seen_behind(&self, open: &Open, shard_id: &str) -> Seen {
        let range = open.batch.ranges.iter().find(|range| range.shard_id == shard_id);
        let last = range.and_then(|range| range.slices.iter().rev().find_map(Slice::last));
        let arrived_ms = last.map_or(0, |last| last.timestamp_ms);
        match self.shards.buffer(shard_id) {
            Some(buffer) => self.seen(buffer, arrived_ms),
            None => Seen { tip_ms: None, arrived_ms, listed_ms: self.listed_ms, now_ms: self.source.now_ms() },
        }
    }

    /// What a reader knows. At the tip, nothing is left to read after what it has buffered.
    fn seen(&self, buffer: &ShardBuffer, arrived_ms: i64) -> Seen {
        // In this order: records read in between must not be missed.
        let tip_ms = buffer.progress().tip_ms;
        let tip_ms = tip_ms.filter(|_| buffer.since().is_none());
        Seen { tip_ms, arrived_ms, listed_ms: self.listed_ms, now_ms: self.source.now_ms() }
    }

    /// What is worth a write: the tip, if the lease has not recorded it for long.
    pub(super) fn seen_anew(&self, buffer: &ShardBuffer, lease: &Lease) -> Option<Seen> {
        let seen = self.seen(buffer, lease.arrived_ms);
        // The reader may have been without a response for long: what counts is when it last saw
        // the tip.
        let known_ms = past(lease.caught_up_ms, seen.now_ms);
        seen.tip_ms.is_some_and(|tip_ms| tip_ms - known_ms > CAUGHT_UP_REFRESH_MS).then_some(seen)
    }
}
