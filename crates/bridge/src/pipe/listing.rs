//! Decides when a stream's shards are listed again.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::rows::Rows;
use domain::limits::{CHILD_REFRESH, SHARD_REFRESH};
use domain::names::ShardId;
use domain::shard::Shard;

/// When the stream's shards were last listed, and which children are expected.
#[derive(Default)]
pub struct Listing {
    /// The last look; none if the next is due now.
    looked: Option<Instant>,
    /// Children named by a shard's end that have no lease yet, and since when.
    expected: BTreeMap<ShardId, Instant>,
    /// When the shards were last listed and all had leases, Kinesis' time, Unix ms; 0 for never.
    pub complete_ms: i64,
}

impl Listing {
    /// Makes the next look due now.
    pub fn hurry(&mut self) {
        self.looked = None;
    }

    /// Notes a look.
    pub fn looked(&mut self) {
        self.looked = Some(Instant::now());
    }

    /// Expects the children named by a shard's end: until they are listed, looks are frequent.
    pub fn await_children(&mut self, children: &[Shard]) {
        let now = Instant::now();
        self.expected.extend(children.iter().map(|child| (child.id.clone(), now)));
        self.hurry();
    }

    /// Whether the next look is due.
    pub fn due(&mut self, rows: &Rows) -> bool {
        self.expected.retain(|child, since| rows.get(child).is_none() && since.elapsed() < SHARD_REFRESH);
        let every = if self.expected.is_empty() { SHARD_REFRESH } else { CHILD_REFRESH };
        self.looked.is_none_or(|at| at.elapsed() > every)
    }
}
