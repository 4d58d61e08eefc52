//! Where a pipe starts, or resumes after a `seek`.

use super::moment::Moment;
use super::sequence::Checkpoint;

/// A position that is valid for any shard, and that may depend on the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The oldest record.
    TrimHorizon,
    /// Records that arrived at this time or later.
    From(Moment),
}

impl Beginning {
    /// Records that arrive from now on.
    pub const LATEST: Beginning = Beginning::From(Moment::Ago(0));

    /// The position at `now_ms`, Unix ms. A fixed time, so that it means the same after a restart.
    pub fn checkpoint(self, now_ms: i64) -> Checkpoint {
        match self {
            Beginning::TrimHorizon => Checkpoint::TrimHorizon,
            Beginning::From(moment) => Checkpoint::AtTimestamp(moment.at(now_ms)),
        }
    }
}
