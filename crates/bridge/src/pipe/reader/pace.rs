//! When a shard is asked for records: within its limits, and together with the pipe's other shards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::pipe::arrivals::Arrivals;
use domain::limits::{
    BATCH_EVERY, DEFAULT_POLL, GET_RECORDS_BYTES_PER_SECOND, GET_RECORDS_PER_SECOND, IDLE_POLLS, MAX_IDLE_POLL,
    ROUND_SHARDS,
};

/// The pace that a pipe sets for all of its shards.
pub struct Calls {
    state: Mutex<State>,
    /// Wakes readers of quiet shards.
    hurried: Notify,
    /// Calls in progress.
    asking: AtomicUsize,
}

/// A call in progress, until this is dropped.
pub struct Asking<'a> {
    calls: &'a Calls,
    arrivals: &'a Arrivals,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.calls.asking.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.arrivals.complete();
        }
    }
}

struct State {
    /// Time between two calls of a shard.
    poll: Duration,
    /// The same for a shard at its tip.
    at_tip: Duration,
    /// The first call of the latest round.
    round: Instant,
    /// Whether shards at their tips are asked together.
    together: bool,
}

impl State {
    fn in_rounds(&self) -> bool {
        self.at_tip > self.poll && self.together
    }
}

impl Calls {
    /// The default pace.
    pub fn new() -> Calls {
        let state = State { poll: DEFAULT_POLL, at_tip: DEFAULT_POLL, round: Instant::now(), together: false };
        Calls { state: Mutex::new(state), hurried: Notify::new(), asking: AtomicUsize::new(0) }
    }

    /// Notes a call; the end of the last one wakes the pipe if there are records.
    pub fn ask<'a>(&'a self, arrivals: &'a Arrivals) -> Asking<'a> {
        self.asking.fetch_add(1, Ordering::AcqRel);
        Asking { calls: self, arrivals }
    }

    /// Whether responses are awaited that are worth waiting for: those of a round.
    pub fn are_asked(&self) -> bool {
        self.asking.load(Ordering::Acquire) > 0 && self.state().together
    }

    /// Whether shards at their tips are asked together, once a batch.
    pub fn in_rounds(&self) -> bool {
        self.state().in_rounds()
    }

    // Nothing panics while holding the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time between two calls of a shard.
    pub fn poll(&self) -> Duration {
        self.state().poll
    }

    /// Sets it, as a pull asks. If the pull leaves it to the bridge, and also when batches are sent
    /// (`adapts`), shards at their tips are asked once a batch.
    pub fn set(&self, poll: Option<Duration>, adapts: bool) {
        let mut state = self.state();
        state.poll = poll.unwrap_or(DEFAULT_POLL);
        state.at_tip = if poll.is_none() && adapts { BATCH_EVERY } else { state.poll };
    }

    /// Notes how many shards are read. Very many are not asked all at once.
    pub fn shared_by(&self, shards: usize) {
        self.state().together = shards <= ROUND_SHARDS;
    }

    /// Makes readers ask quiet shards without the longer pauses: someone waits for records after a
    /// while in which nobody did.
    pub fn hurry(&self) {
        self.hurried.notify_waiters();
    }

    /// When to make a call that is due at `due`, and is free to wait for a round. Up to an eighth
    /// of a round earlier, which keeps shards in step and their calls within AWS's limit.
    fn round_for(&self, due: Instant) -> Instant {
        let state = self.state();
        if !state.in_rounds() {
            return due;
        }
        let early = due.checked_sub(state.at_tip / 8).unwrap_or(due);
        let ahead = early.saturating_duration_since(state.round).as_nanos();
        let rounds = ahead.div_ceil(state.at_tip.as_nanos().max(1));
        state.round + state.at_tip * u32::try_from(rounds).unwrap_or(u32::MAX)
    }

    /// Notes a call of a round.
    fn called(&self, at: Instant) {
        let mut state = self.state();
        if at >= state.round + state.at_tip / 2 {
            state.round = at;
        }
    }
}

/// Keeps one shard's calls within its limits.
/// A `poll` of 200 ms uses AWS's full 5 calls per second, and the bytes per second follow it: half
/// the time between calls means twice the bytes, so one number sets which share of the limits this
/// pipe takes.
pub struct Pace {
    /// The last call.
    called: Instant,
    /// Empty responses at the tip in a row.
    empty: u32,
    last: Last,
}

/// The last response.
#[derive(Clone, Copy, Default)]
struct Last {
    rows: usize,
    bytes: usize,
    /// It reached the shard's tip.
    tip: bool,
}

impl Pace {
    /// The first call is due now.
    pub fn new() -> Pace {
        Pace { called: Instant::now(), empty: 0, last: Last::default() }
    }

    /// Waits for the next call's turn.
    pub async fn wait(&mut self, calls: &Calls) {
        let (poll, at_tip) = {
            let state = calls.state();
            (state.poll, if self.last.tip { state.at_tip } else { state.poll })
        };
        let due = |empty| self.called + pause_after((self.last.rows, self.last.bytes), empty, poll, at_tip);
        let (due, soonest) = (due(self.empty), due(0));
        let turn = sleep_until(if self.last.tip { calls.round_for(due) } else { due });
        tokio::select! {
            biased;
            () = turn => {}
            () = calls.hurried.notified() => sleep_until(soonest).await,
        }
        self.called = Instant::now();
        if self.last.tip {
            calls.called(self.called);
        }
    }

    /// Notes a response. An empty one that is behind the tip does not make a shard quiet: Kinesis
    /// searches the shard in pieces, and records follow.
    pub fn note(&mut self, rows: usize, bytes: usize, behind: bool) {
        self.empty = if rows == 0 && !behind { self.empty.saturating_add(1) } else { 0 };
        self.last = Last { rows, bytes, tip: !behind };
    }
}

/// Time from one call to the next, after a response with `(rows, bytes)` and this many empty
/// responses in a row; not less than `at_tip`, which is `poll` or longer.
fn pause_after((rows, bytes): (usize, usize), empty: u32, poll: Duration, at_tip: Duration) -> Duration {
    if rows == 0 {
        // A quiet shard is polled less and less often, down to once per second, and leaves its
        // calls to others.
        let doublings = (empty / IDLE_POLLS).min(8);
        return (at_tip * (1 << doublings)).min(at_tip.max(MAX_IDLE_POLL));
    }
    let share = f64::from(GET_RECORDS_PER_SECOND) * poll.as_secs_f64();
    at_tip.max(Duration::from_secs_f64(share * bytes as f64 / GET_RECORDS_BYTES_PER_SECOND as f64))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn calls(poll: Option<Duration>, adapts: bool) -> Arc<Calls> {
        let calls = Calls::new();
        calls.set(poll, adapts);
        calls.shared_by(4);
        Arc::new(calls)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Neither more calls nor more bytes per second than this share of the limits, whatever was
        /// read.
        #[test]
        fn the_limits_of_a_shard_are_kept(rows in 0..10_000usize, bytes in 0..10usize << 20, empty in 0..1_000u32, poll_ms in 5..10_000u64, tip in 0..500u64) {
            let poll = Duration::from_millis(poll_ms);
            let at_tip = poll + Duration::from_millis(tip);
            let pause = pause_after((rows, bytes), empty, poll, at_tip);
            prop_assert!(pause >= at_tip);
            let share = poll.as_secs_f64() * f64::from(GET_RECORDS_PER_SECOND);
            if rows > 0 {
                prop_assert!(bytes as f64 / pause.as_secs_f64() <= 1.001 * GET_RECORDS_BYTES_PER_SECOND as f64 / share);
            } else {
                prop_assert!(pause <= at_tip.max(MAX_IDLE_POLL));
            }
        }

        /// The quieter a shard, the longer the pauses; the first record restores the full pace.
        #[test]
        fn a_quiet_shard_is_asked_less(empty in 0..1_000u32, poll_ms in 5..10_000u64) {
            let poll = Duration::from_millis(poll_ms);
            prop_assert!(pause_after((0, 0), empty, poll, poll) <= pause_after((0, 0), empty + 1, poll, poll));
            prop_assert_eq!(pause_after((1, 1), empty, poll, poll), poll);
        }
    }

    /// A sparse shard that is far behind, 120 empty responses of it: each call waits as long as the
    /// one before.
    #[tokio::test(start_paused = true)]
    async fn empty_responses_on_the_way_do_not_slow_a_reader_down() {
        let poll = Duration::from_millis(200);
        let (calls, mut pace) = (calls(Some(poll), true), Pace::new());
        let began = Instant::now();
        for _ in 0..120 {
            pace.wait(&calls).await;
            pace.note(0, 0, true);
        }
        assert_eq!(began.elapsed(), 120 * poll);
        for _ in 0..120 {
            pace.note(0, 0, false);
        }
        pace.wait(&calls).await;
        assert_eq!(began.elapsed(), 120 * poll + MAX_IDLE_POLL);
    }

    /// A quiet shard is asked at once when someone comes back for its records, but not before the
    /// time that its limits allow.
    #[tokio::test(start_paused = true)]
    async fn a_quiet_shard_is_asked_soon_when_hurried() {
        let poll = Duration::from_millis(200);
        let (calls, mut pace) = (calls(Some(poll), false), Pace::new());
        pace.wait(&calls).await;
        for _ in 0..200 {
            pace.note(0, 0, false);
        }
        for (at_ms, after_ms) in [(50, 200), (700, 700)] {
            let (asked, hurry) = (Instant::now(), calls.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(at_ms)).await;
                hurry.hurry();
            });
            for _ in 0..200 {
                pace.note(0, 0, false);
            }
            pace.wait(&calls).await;
            assert_eq!(asked.elapsed(), Duration::from_millis(after_ms));
        }
    }

    /// Shards that began at any time are soon asked together, each within AWS's limit.
    #[tokio::test(start_paused = true)]
    async fn shards_at_their_tips_are_asked_together() {
        let calls = calls(None, true);
        let tasks: Vec<_> = (0..4)
            .map(|shard| {
                let calls = calls.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(shard * 83)).await;
                    let (mut pace, mut times) = (Pace::new(), Vec::new());
                    for call in 0..40u64 {
                        pace.wait(&calls).await;
                        times.push(Instant::now());
                        // Responses take their time.
                        tokio::time::sleep(Duration::from_millis(5 + 7 * shard + call % 3)).await;
                        pace.note(3, 600, false);
                    }
                    times
                })
            })
            .collect();
        let mut last = Vec::new();
        for task in tasks {
            let times = task.await.unwrap();
            for pair in times.windows(2) {
                assert!(pair[1] - pair[0] >= DEFAULT_POLL, "{:?}", pair[1] - pair[0]);
            }
            last.push(times[30]);
        }
        let phase = |at: &Instant| at.duration_since(last[0].min(*at)).as_millis() % BATCH_EVERY.as_millis();
        assert!(last.iter().all(|at| phase(at) <= 1 || phase(at) >= BATCH_EVERY.as_millis() - 1), "{last:?}");
    }
}
