//! Clock and randomness of this machine.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use domain::names::BatchId;
use domain::ports::Clock;

/// The system clock, and batch names from the operating system's randomness.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn batch_id(&self) -> BatchId {
        format!("{:016x}", fastrand::u64(..)).into()
    }
}
