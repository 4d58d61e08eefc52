//! Polling: paced GetRecords calls, until a subscription has delivered its first event.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::fan_out::{Opened, Opening, open};
use super::retry::Retry;
use super::{Found, Reader};
use crate::pipe::Mode;
use crate::read::cursor::{Cursor, back_off};
use domain::error::Error;
use domain::limits::{
    GET_RECORDS_BYTES_PER_SECOND, GET_RECORDS_PER_SECOND, IDLE_POLLS, MAX_IDLE_POLL, RETRY_FIRST, RETRY_LONGEST,
};
use domain::ports::KinesisError;

/// A reader's place in the shard and the pace of its calls.
struct Polling {
    cursor: Cursor,
    pace: Pace,
    /// The next pause after an error.
    pause: Duration,
    /// Whether the last call failed.
    failed: bool,
}

impl Polling {
    /// Waits for the next call's turn.
    async fn turn(&mut self, poll: Duration) {
        if self.failed {
            self.pause = back_off(self.pause).await;
            self.failed = false;
        }
        self.pace.wait(poll).await;
    }
}

/// A subscription that is being opened beside the calls, so that records flow even if it fails.
struct Attempt {
    opening: Option<Opening>,
    /// Whether fan-out was wanted at the last look.
    wants: bool,
    /// Whether the record at the checkpoint had been checked by then.
    verified: bool,
}

impl Reader {
    /// Polls until the shard's end (then none), or, if fan-out is wanted, until a subscription has
    /// delivered an event.
    pub(super) async fn poll(
        &mut self,
        wanted: &mut watch::Receiver<bool>,
        retry: &mut Retry,
    ) -> Result<Option<Opened>, Error> {
        self.buffer.note(|p| p.mode = Mode::Polling);
        let mut polling = Polling { cursor: self.cursor(), pace: Pace::new(), pause: RETRY_FIRST, failed: false };
        let mut attempt = Attempt { opening: None, wants: true, verified: false };
        loop {
            self.attempt(&mut attempt, *wanted.borrow_and_update(), retry);
            self.buffer.room(self.source.shard_cap.get() as usize).await;
            let turn = polling.turn(Duration::from_millis(self.source.poll.get()));
            let opened = match &mut attempt.opening {
                None => {
                    turn.await;
                    None
                }
                Some(opening) => tokio::select! {
                    biased;
                    opened = opening => Some(opened),
                    () = turn => None,
                },
            };
            match opened {
                Some(Ok(opened)) => return Ok(Some(opened)),
                Some(Err(left)) => {
                    attempt.opening = None;
                    self.fall_back(&left, retry);
                }
                None if self.step(&mut polling).await? => return Ok(None),
                None => {}
            }
        }
    }

    /// Begins to subscribe, or gives it up, as is wanted now.
    fn attempt(&self, attempt: &mut Attempt, wants: bool, retry: &mut Retry) {
        if std::mem::replace(&mut attempt.wants, wants) && !wants {
            attempt.opening = None;
            *retry = Retry::new();
            self.buffer.note(|p| p.fallback = None);
        }
        if std::mem::replace(&mut attempt.verified, !self.unverified) && self.unverified {
            // The request did not start at the record that is in doubt now.
            attempt.opening = None;
        }
        if wants && attempt.opening.is_none() && retry.due() && self.may_subscribe() {
            let opening = open(self.source.clone(), self.buffer.shard_id.clone(), self.subscribe_at());
            attempt.opening = Some(Box::pin(opening));
        }
    }

    /// One call, and what it brings. True at the shard's end. Errors that may pass are noted, and
    /// delay the next call; others end reading.
    async fn step(&mut self, polling: &mut Polling) -> Result<bool, Error> {
        let error = match self.page(polling).await {
            Ok(found) => match self.accept(found).await {
                Ok(ended) => {
                    polling.pause = RETRY_FIRST;
                    return Ok(ended);
                }
                Err(gap @ Error::Gap(_)) => return Err(gap),
                Err(other) => {
                    // The cursor is already past what was not processed.
                    polling.cursor = self.cursor();
                    other
                }
            },
            Err(KinesisError::IteratorExpired) => return Ok(false),
            // The sequence number does not belong to this stream.
            Err(KinesisError::Other(Error::BadRequest(refused)))
                if self.last.is_some() && polling.cursor.without_place() =>
            {
                return Err(self.not_of_this_stream(&refused));
            }
            Err(KinesisError::Other(away @ Error::NotFound(_))) => {
                if self.last.is_some() {
                    (self.unverified, self.vanished) = (true, true);
                    polling.cursor = self.cursor();
                }
                away
            }
            // Every other error may pass, for example once the stream is back or the policy is
            // fixed.
            Err(other) => Error::from(other),
        };
        if polling.pause == RETRY_LONGEST {
            warn!(stream = self.source.stream.as_str(), shard = self.buffer.shard_id.as_str(), "{error}; trying again");
        }
        self.buffer.note(|p| p.error = Some(error));
        polling.failed = true;
        Ok(false)
    }

    fn cursor(&self) -> Cursor {
        Cursor::new(self.source.kinesis.clone(), &self.source.stream, &self.buffer.shard_id, self.position())
    }

    /// One call. Goes back to the last record first if that is in doubt.
    async fn page(&mut self, polling: &mut Polling) -> Result<Found, KinesisError> {
        let limit = polling.cursor.limit();
        let budget = &self.source.budget;
        let mut reservation = budget.reserve(polling.cursor.expected_memory(limit).min(budget.limit() / 2)).await;
        let (asked_ms, mut page) = loop {
            if self.must_go_back() {
                self.unverified = true;
                polling.cursor = self.cursor();
            }
            let asked_ms = self.source.now_ms();
            let page = polling.cursor.page(limit).await?;
            // The response tells the time; the monotonic clock misses the time that a computer was
            // suspended.
            if !self.must_go_back() {
                break (asked_ms, page);
            }
        };
        let ended = page.next.is_none();
        let tip = page.is_last(limit);
        let bytes = page.records.memory();
        polling.pace.note(page.records.len(), bytes, page.millis_behind_latest > 0);
        reservation.resize(bytes);
        page.records.hold(reservation);
        Ok(Found {
            records: page.records,
            ended,
            tip_ms: (tip && !ended).then_some(asked_ms),
            millis_behind_latest: page.millis_behind_latest,
            children: page.children,
        })
    }
}

/// Keeps one shard's calls within its limits.
/// A `poll` of 200 ms uses AWS's full 5 calls per second, and the bytes per second follow it: half
/// the time between calls means twice the bytes, so one number sets which share of the limits this
/// pipe takes.
struct Pace {
    next: Instant,
    empty: u32,
    last: (usize, usize),
}

impl Pace {
    fn new() -> Pace {
        Pace { next: Instant::now(), empty: 0, last: (0, 0) }
    }

    async fn wait(&mut self, poll: Duration) {
        let pause = pause_after(self.last, self.empty, poll);
        sleep_until(self.next + pause).await;
        self.next = Instant::now();
    }

    /// Notes a response. An empty one that is behind the tip does not make a shard quiet: Kinesis
    /// searches the shard in pieces, and records follow.
    fn note(&mut self, rows: usize, bytes: usize, behind: bool) {
        self.empty = if rows == 0 && !behind { self.empty.saturating_add(1) } else { 0 };
        self.last = (rows, bytes);
    }
}

/// Time from one call to the next, after a response with `(rows, bytes)` and this many empty
/// responses in a row.
fn pause_after((rows, bytes): (usize, usize), empty: u32, poll: Duration) -> Duration {
    if rows == 0 {
        // A quiet shard is polled less and less often, down to once per second, and leaves its
        // calls to others.
        let doublings = (empty / IDLE_POLLS).min(8);
        return (poll * (1 << doublings)).min(poll.max(MAX_IDLE_POLL));
    }
    let share = f64::from(GET_RECORDS_PER_SECOND) * poll.as_secs_f64();
    poll.max(Duration::from_secs_f64(share * bytes as f64 / GET_RECORDS_BYTES_PER_SECOND as f64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Neither more calls nor more bytes per second than this share of the limits, whatever was
        /// read.
        #[test]
        fn the_limits_of_a_shard_are_kept(rows in 0..10_000usize, bytes in 0..10usize << 20, empty in 0..1_000u32, poll_ms in 5..10_000u64) {
            let poll = Duration::from_millis(poll_ms);
            let pause = pause_after((rows, bytes), empty, poll);
            prop_assert!(pause >= poll);
            let share = poll.as_secs_f64() * f64::from(GET_RECORDS_PER_SECOND);
            if rows > 0 {
                prop_assert!(bytes as f64 / pause.as_secs_f64() <= 1.001 * GET_RECORDS_BYTES_PER_SECOND as f64 / share);
            } else {
                prop_assert!(pause <= poll.max(MAX_IDLE_POLL));
            }
        }

        /// The quieter a shard, the longer the pauses; the first record restores the full pace.
        #[test]
        fn a_quiet_shard_is_asked_less(empty in 0..1_000u32, poll_ms in 5..10_000u64) {
            let poll = Duration::from_millis(poll_ms);
            prop_assert!(pause_after((0, 0), empty, poll) <= pause_after((0, 0), empty + 1, poll));
            prop_assert_eq!(pause_after((1, 1), empty, poll), poll);
        }
    }

    /// A sparse shard that is far behind, 120 empty responses of it: each call waits as long as the
    /// one before.
    #[tokio::test(start_paused = true)]
    async fn empty_responses_on_the_way_do_not_slow_a_reader_down() {
        let (poll, mut pace) = (Duration::from_millis(200), Pace::new());
        let began = Instant::now();
        for _ in 0..120 {
            pace.wait(poll).await;
            pace.note(0, 0, true);
        }
        assert_eq!(began.elapsed(), 120 * poll);
        for _ in 0..120 {
            pace.note(0, 0, false);
        }
        pace.wait(poll).await;
        assert_eq!(began.elapsed(), 120 * poll + MAX_IDLE_POLL);
    }
}
