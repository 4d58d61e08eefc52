//! Read capacity units per second: when the next request may go.

use std::time::Duration;

/// Keeps the average over any period at the rate, plus one request. Time is counted from an
/// arbitrary fixed point.
#[derive(Clone, Debug)]
pub struct Pace {
    rate: f64,
    free_at: Duration,
    used: f64,
}

impl Pace {
    /// A pace of `rate` units per second.
    pub fn new(rate: u32) -> Pace {
        Pace { rate: f64::from(rate), free_at: Duration::ZERO, used: 0.0 }
    }

    /// Lets a request go that will need about `estimate` units, or returns the minimum time it has
    /// to wait.
    pub fn begin(&mut self, now: Duration, estimate: f64) -> Result<(), Duration> {
        if let Some(wait) = self.free_at.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.free_at = now + self.time(estimate);
        Ok(())
    }

    /// Reports what a request with that estimate really needed.
    pub fn end(&mut self, estimate: f64, units: f64) {
        self.used += units;
        self.free_at = (self.free_at + self.time(units)).saturating_sub(self.time(estimate));
    }

    /// All units so far.
    pub fn used(&self) -> f64 {
        self.used
    }

    fn time(&self, units: f64) -> Duration {
        Duration::try_from_secs_f64(units / self.rate).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Requests of any size, whatever was estimated, from several tasks, on a clock moved by
        /// the test.
        #[test]
        fn the_rate_is_kept(rate in 1..1_000u32, requests in proptest::collection::vec((0.5..300.0f64, 0.5..300.0f64, 0..200u64), 1..60)) {
            let mut pace = Pace::new(rate);
            let (mut now, mut begun, mut largest) = (Duration::ZERO, 0.0, 0.0f64);
            for (estimate, units, idle) in requests {
                while let Err(wait) = pace.begin(now, estimate) {
                    now += wait;
                }
                // Earlier requests are paid for before the next may go.
                prop_assert!(begun <= now.as_secs_f64() * f64::from(rate) + 0.001);
                pace.end(estimate, units);
                begun += units;
                largest = largest.max(units);
                now += Duration::from_millis(idle);
            }
            prop_assert!((pace.used() - begun).abs() < 0.001);
        }
    }

    #[test]
    fn time_without_requests_is_not_saved_up() {
        let mut pace = Pace::new(10);
        let now = Duration::from_secs(3_600);
        assert_eq!(pace.begin(now, 20.0), Ok(()));
        assert_eq!(pace.begin(now, 1.0), Err(Duration::from_secs(2)));
        // It was cheaper than estimated: the next may go earlier.
        pace.end(20.0, 5.0);
        assert_eq!(pace.begin(now, 1.0), Err(Duration::from_millis(500)));
        assert_eq!(pace.begin(now + Duration::from_millis(500), 1.0), Ok(()));
    }
}
