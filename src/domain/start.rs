//! Where a pipe begins, or goes on after a `seek`, before it is known what time it is to Kinesis.

use super::moment::Moment;
use super::sequence::Checkpoint;

/// A position that may depend on the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A position.
    At(Checkpoint),
    /// What arrived so many milliseconds before now, or later.
    Ago(i64),
}

impl Beginning {
    /// The position, when it is `now_ms`, Unix ms. A time, so that it means the same after a restart.
    pub fn checkpoint(&self, now_ms: i64) -> Checkpoint {
        match self {
            Beginning::At(checkpoint) => checkpoint.clone(),
            Beginning::Ago(ms) => Checkpoint::AtTimestamp(Moment::Ago(*ms).at(now_ms)),
        }
    }
}
