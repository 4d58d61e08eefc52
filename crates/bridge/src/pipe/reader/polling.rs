//! Polling: paced GetRecords calls, until a subscription has delivered its first event.

use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use super::fan_out::{Opened, Opening, open};
use super::pace::{Calls, Pace};
use super::retry::Retry;
use super::{Found, Reader};
use crate::pipe::Mode;
use crate::read::budget::Reservation;
use crate::read::cursor::{Cursor, back_off};
use domain::error::Error;
use domain::limits::{RETRY_FIRST, RETRY_LONGEST};
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
    async fn turn(&mut self, calls: &Calls) {
        if self.failed {
            self.pause = back_off(self.pause).await;
            self.failed = false;
        }
        self.pace.wait(calls).await;
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
            let turn = polling.turn(&self.source.calls);
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
                None => {
                    let budget = &self.source.budget;
                    let expected = polling.cursor.expected_memory(polling.cursor.limit());
                    let reservation = budget.reserve(expected.min(budget.limit() / 2)).await;
                    let (calls, buffer) = (self.source.calls.clone(), self.buffer.clone());
                    let _asking = calls.ask(buffer.arrivals());
                    if self.step(&mut polling, reservation).await? {
                        return Ok(None);
                    }
                }
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
    async fn step(&mut self, polling: &mut Polling, reservation: Reservation) -> Result<bool, Error> {
        let error = match self.page(polling, reservation).await {
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
    async fn page(&mut self, polling: &mut Polling, mut reservation: Reservation) -> Result<Found, KinesisError> {
        let limit = polling.cursor.limit();
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
