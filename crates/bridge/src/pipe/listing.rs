//! When the shards of a stream are listed again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::rows::Rows;
use domain::limits::{CHILD_REFRESH, SHARD_REFRESH};
use domain::shard::Shard;

/// When the stream's shards were listed, and which are awaited.
#[derive(Default)]
pub struct Listing {
    /// When they were last looked at; none: it is time.
    looked: Option<Instant>,
    /// Children that an end named and that have no lease yet, and since when.
    expected: BTreeMap<String, Instant>,
    /// When they were last listed and all had leases, Kinesis' time, Unix ms; 0 for never.
    pub complete_ms: i64,
}

impl Listing {
    /// The next look is due now.
    pub fn hurry(&mut self) {
        self.looked = None;
    }

    /// They were looked at.
    pub fn looked(&mut self) {
        self.looked = Some(Instant::now());
    }

    /// A shard ended, and its end named these children: until they are listed, looks are frequent.
    pub fn expect(&mut self, children: &[Shard]) {
        let now = Instant::now();
        self.expected.extend(children.iter().map(|child| (child.id.clone(), now)));
        self.hurry();
    }

    /// Whether it is time for the next look.
    pub fn due(&mut self, rows: &Rows) -> bool {
        self.expected.retain(|child, since| rows.get(child).is_none() && since.elapsed() < SHARD_REFRESH);
        let every: Duration = if self.expected.is_empty() { SHARD_REFRESH } else { CHILD_REFRESH };
        self.looked.is_none_or(|at| at.elapsed() > every)
    }
}
