//! How long a batch fills once it has a record.

use std::time::Duration;

use tokio::time::Instant;

use super::Mode;
use super::pull::PullOptions;
use super::work::Work;
use domain::limits::{BATCH_EVERY, DEFAULT_LINGER, PUSHED_BATCH_EVERY};

/// When a batch is sent whose first record came at `since`, unless it is full before; `last` is
/// when that of the one before came, and how long that batch took until the next pull. If the pull
/// leaves it to the bridge, a batch is sent at once when the last one was long enough ago and the
/// shards that were asked together have answered. Counted from record to record, that keeps step
/// with the calls that bring them, however long a batch takes. When inserts take long, it fills for
/// a quarter of that time: small batches would only make them more.
pub fn due(since: Instant, last: Option<(Instant, Duration)>, options: &PullOptions, work: &Work) -> Instant {
    let longest = since + options.linger.unwrap_or(DEFAULT_LINGER);
    if options.linger.is_some() {
        return longest;
    }
    let every = match options.mode {
        Mode::Polling => BATCH_EVERY,
        Mode::FanOut => PUSHED_BATCH_EVERY,
    };
    let filling = |took| if took > every { took / 4 } else { Duration::ZERO };
    let soon = last.map_or(since, |(at, took)| (at + every).max(since + filling(took))).clamp(since, longest);
    match soon > Instant::now() {
        true => soon,
        false if work.shards.behind() => longest,
        false if work.source.calls.are_asked() => soon.max(since + every),
        false => soon,
    }
}
