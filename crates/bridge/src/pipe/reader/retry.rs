//! When fan-out is tried again.

use std::time::Duration;

use tokio::time::Instant;

use domain::limits::{FAN_OUT_RETRY_FIRST, FAN_OUT_RETRY_LONGEST, SUBSCRIBE_AGAIN, SUBSCRIPTION_WELL};

/// When to retry fan-out.
pub(super) struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    pub(super) fn new() -> Retry {
        Retry { at: Instant::now(), pause: FAN_OUT_RETRY_FIRST }
    }

    pub(super) fn due(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Notes that a subscription delivered events for this long.
    pub(super) fn lived(&mut self, time: Duration) {
        if time >= SUBSCRIPTION_WELL {
            self.pause = FAN_OUT_RETRY_FIRST;
        }
        self.at = Instant::now() + SUBSCRIBE_AGAIN.saturating_sub(time);
    }

    /// Notes a failure. Returns how long to wait.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = self.pause;
        self.at = Instant::now() + pause;
        self.pause = (2 * pause).min(FAN_OUT_RETRY_LONGEST);
        pause
    }
}
