//! Times that were written down. What decides about records is never the local wall clock
//! (**kinesis-time-decides**).

use crate::limits::TIMESTAMP_SLACK_MS;

#[cfg(test)]
mod tests;

/// A time, Unix ms, that may have been written by a clock that was wrong: what is in the future
/// counts as never (0). Hosts of Kinesis may differ by a little; so much counts as now.
pub fn past(ms: i64, now_ms: i64) -> i64 {
    match ms > now_ms.saturating_add(TIMESTAMP_SLACK_MS) {
        true => 0,
        false => ms.min(now_ms),
    }
}
