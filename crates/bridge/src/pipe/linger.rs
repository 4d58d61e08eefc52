//! How long a batch fills once it has a record.

use std::time::Duration;

use tokio::time::Instant;

use super::Mode;
use super::pull::PullOptions;
use super::work::Work;
use domain::limits::{BATCH_EVERY, DEFAULT_LINGER, PUSHED_BATCH_EVERY};

/// A batch that was made.
#[derive(Clone, Copy)]
pub struct Made {
    /// When its first record came.
    pub since: Instant,
    /// When it was made.
    pub at: Instant,
}

/// When a batch is sent whose first record came at `since`, unless it is full before; `last` is the
/// one before, and how long it took from then until the next pull. If the pull leaves it to the
/// bridge, a batch is sent at once when the last one was long enough ago and the shards that were
/// asked together have answered. Where they are, that is counted from the record: each round of
/// calls then has its batch, however long after its records the last one was made. When inserts
/// take long, a batch fills for a quarter of that time: small ones would only make them more.
pub fn due(since: Instant, last: Option<(Made, Duration)>, options: &PullOptions, work: &Work) -> Instant {
    let longest = since + options.linger.unwrap_or(DEFAULT_LINGER);
    if options.linger.is_some() {
        return longest;
    }
    let every = match options.mode {
        Mode::Polling => BATCH_EVERY,
        Mode::FanOut => PUSHED_BATCH_EVERY,
    };
    let filling = |took| if took > every { took / 4 } else { Duration::ZERO };
    let in_rounds = options.mode == Mode::Polling && work.source.calls.in_rounds();
    let next = |last: Made| if in_rounds { last.since } else { last.at } + every;
    let soon = last.map_or(since, |(last, took)| next(last).max(since + filling(took))).clamp(since, longest);
    match soon > Instant::now() {
        true => soon,
        false if work.shards.behind() => longest,
        false if work.source.calls.are_asked() => soon.max(since + every),
        false => soon,
    }
}
