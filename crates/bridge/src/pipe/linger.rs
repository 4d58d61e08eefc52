//! How long a batch fills once it has a record.

use std::time::Duration;

use tokio::time::Instant;

use super::Mode;
use super::pull::PullOptions;
use domain::limits::{BATCH_EVERY, DEFAULT_LINGER, PUSHED_BATCH_EVERY, ROUND_SETTLE};

/// When a batch is sent whose first record came at `since`, unless it is full before; `last` is
/// when the one before was. If the pull leaves it to the bridge, a batch is sent at once when the
/// last one was long enough ago, and fills for longest while reading is `behind`, which is asked
/// only when it matters.
pub fn due(since: Instant, last: Option<Instant>, options: &PullOptions, behind: impl FnOnce() -> bool) -> Instant {
    let longest = since + options.linger.unwrap_or(DEFAULT_LINGER);
    if options.linger.is_some() {
        return longest;
    }
    let (every, settle) = match options.mode {
        Mode::Polling => (BATCH_EVERY, ROUND_SETTLE),
        Mode::FanOut => (PUSHED_BATCH_EVERY, Duration::ZERO),
    };
    let soon = last.map_or(since, |last| last + every).clamp(since + settle, longest);
    if soon <= Instant::now() && behind() { longest } else { soon }
}
