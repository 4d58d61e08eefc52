//! Kinesis' own time.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The current time according to Kinesis: the `Date` of its responses, plus the time elapsed since
/// on the monotonic clock.
///
/// A date was true at some time between request and response, and is rounded down to seconds, so
/// this is slightly behind and never ahead. The monotonic clock stops while the computer is
/// suspended: decisions where the time must not be behind use a fresh response.
#[derive(Debug, Default)]
pub struct KinesisTime(Mutex<Option<(i64, Instant)>>);

impl KinesisTime {
    /// A response with this date, Unix ms. One received before the latest is ignored.
    pub fn answered(&self, date_ms: i64, asked: Instant, received: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = match *last {
            Some((_, before)) if received < before => return,
            // The response may have been delayed for long: then the known time is better. But if
            // that is later than the response allows, it was wrong, and only the date itself has
            // certainly passed.
            Some((ms, before)) => {
                let known_ms = later(ms, before, received);
                match known_ms > later(date_ms + 1_000, asked, received) {
                    true => date_ms,
                    false => known_ms.max(date_ms),
                }
            }
            None => date_ms,
        };
        *last = Some((now_ms, received));
    }

    /// Unix ms; `None` before the first response that had a date.
    pub fn at(&self, now: Instant) -> Option<i64> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|(ms, received)| later(ms, received, now))
    }
}

fn later(ms: i64, from: Instant, to: Instant) -> i64 {
    let passed = to.saturating_duration_since(from).as_millis();
    ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an Instant to begin at; the test moves it on by hand")]
    fn time_goes_on_from_the_last_answer() {
        let (time, began) = (KinesisTime::default(), Instant::now());
        let later = |ms| began + Duration::from_millis(ms);
        assert_eq!(time.at(began), None);
        time.answered(1_000, later(0), later(10));
        assert_eq!((time.at(later(10)), time.at(later(510)), time.at(began)), (Some(1_000), Some(1_500), Some(1_000)));
        // It may have been delayed, and is rounded down.
        time.answered(3_000, later(2_010), later(9_010));
        assert_eq!(time.at(later(9_010)), Some(10_000));
        // Not only forwards: our clock, or Kinesis', was ahead.
        time.answered(6_000, later(9_010), later(9_020));
        assert_eq!(time.at(later(9_020)), Some(6_000));
        time.answered(50_000, later(9_015), later(9_020));
        assert_eq!(time.at(later(9_020)), Some(50_000));
        time.answered(1_000, later(9_010), later(9_018));
        assert_eq!(time.at(later(9_020)), Some(50_000), "it was received before");
    }
}
