//! Times that were stored. Decisions about records never use the local wall clock
//! (**kinesis-time-decides**).

use crate::limits::TIMESTAMP_SLACK_MS;

#[cfg(test)]
mod tests;

/// A time, Unix ms, possibly written by a wrong clock: a time in the future counts as never (0).
/// Kinesis hosts may differ slightly; within that margin it counts as now.
pub fn past(ms: i64, now_ms: i64) -> i64 {
    match ms > now_ms.saturating_add(TIMESTAMP_SLACK_MS) {
        true => 0,
        false => ms.min(now_ms),
    }
}
