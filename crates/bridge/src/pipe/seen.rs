//! What is known about a position when it is written to its lease.

use super::buffer::ShardBuffer;
use super::listing::Listing;
use super::open::Open;
use super::reader::Source;
use super::shards::Shards;
use domain::lease::{Lease, Seen};
use domain::limits::CAUGHT_UP_REFRESH_MS;
use domain::names::ShardId;
use domain::record::Slice;
use domain::time::past;

/// What a pipe's readers know now.
pub struct Sight<'a> {
    /// The readers.
    pub shards: &'a Shards,
    /// When the shards were last listed and all had leases, Kinesis' time, Unix ms; 0 for never.
    listed_ms: i64,
    /// Now, Kinesis' time, Unix ms.
    now_ms: i64,
}

impl<'a> Sight<'a> {
    /// What they know now.
    pub fn now(shards: &'a Shards, listing: &Listing, source: &Source) -> Sight<'a> {
        Sight { shards, listed_ms: listing.complete_ms, now_ms: source.now_ms() }
    }

    /// What is known about a shard's position after the open batch.
    pub fn behind(&self, open: &Open, shard_id: &ShardId) -> Seen {
        let range = open.batch.ranges.iter().find(|range| range.shard_id == *shard_id);
        let last = range.and_then(|range| range.slices.iter().rev().find_map(Slice::last));
        let arrived_ms = last.map_or(0, |last| last.timestamp_ms);
        let tip_ms = self.shards.buffer(shard_id).and_then(|buffer| tip_ms(buffer));
        Seen { tip_ms, arrived_ms, listed_ms: self.listed_ms, now_ms: self.now_ms }
    }

    /// An update worth writing: the tip, if the lease has not recorded it for a while.
    pub fn anew(&self, buffer: &ShardBuffer, lease: &Lease) -> Option<Seen> {
        let (arrived_ms, listed_ms, now_ms) = (lease.arrived_ms, self.listed_ms, self.now_ms);
        let seen = Seen { tip_ms: tip_ms(buffer), arrived_ms, listed_ms, now_ms };
        // The reader may have had no response for a while: what counts is when it last saw the tip.
        let known_ms = past(lease.caught_up_ms, now_ms);
        seen.tip_ms.is_some_and(|tip_ms| tip_ms - known_ms > CAUGHT_UP_REFRESH_MS).then_some(seen)
    }
}

/// When a reader was last at the tip, if nothing is buffered.
fn tip_ms(buffer: &ShardBuffer) -> Option<i64> {
    // In this order, records read in between are not missed.
    let tip_ms = buffer.tip_ms();
    tip_ms.filter(|_| buffer.since().is_none())
}
