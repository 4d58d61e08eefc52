//! Reads one shard by polling: paced, with backpressure, for as long as its task lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::buffer::ShardBuffer;
use crate::domain::error::Error;
use crate::domain::record::{Chunk, Slice, sequence_of};
use crate::domain::sequence::{Checkpoint, SequenceNumber};
use crate::limits::{
    GET_RECORDS_BYTES_PER_SECOND, GET_RECORDS_PER_SECOND, IDLE_POLLS, MAX_IDLE_POLL, RETRY_FIRST, RETRY_LONGEST,
};
use crate::ports::{Clock, IteratorStart, KinesisApi, KinesisError, Page, iterator_after};
use crate::read::budget::Budget;
use crate::read::cursor::{Cursor, back_off};

/// A number that the pipe may change while its readers run.
#[derive(Clone, Default)]
pub struct Knob(Arc<AtomicU64>);

impl Knob {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a reader needs besides its shard.
#[derive(Clone)]
pub struct Source {
    /// Kinesis.
    pub kinesis: Arc<dyn KinesisApi>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Memory for all readers of the process.
    pub budget: Budget,
    /// Stream name.
    pub stream: String,
    /// Time between two GetRecords calls of a shard, ms.
    pub poll: Knob,
    /// Retention of the stream, ms.
    pub retention_ms: i64,
    /// Bytes that one shard may have buffered before its reader pauses.
    pub shard_cap: Knob,
}

/// Reads from after `checkpoint` until the shard ends or the task is aborted; what it finds goes into `buffer`. `caught_up_ms` is the
/// lease's: the last time at which nothing was left to read behind the checkpoint.
pub async fn read_shard(source: Source, buffer: Arc<ShardBuffer>, checkpoint: Checkpoint, caught_up_ms: i64) {
    let at = match &checkpoint {
        // The record of the checkpoint itself is looked at first: see `verify`.
        Checkpoint::After(sequence, _) => Some(IteratorStart::At(sequence.clone())),
        other => iterator_after(other),
    };
    let Some(at) = at else { return };
    let cursor = Cursor::new(source.kinesis.clone(), &source.stream, &buffer.shard_id, at);
    let mut reader = Reader { source, buffer, cursor, pace: Pace::new() };
    if let Err(stopped) = reader.run(&checkpoint, caught_up_ms).await {
        warn!(stream = reader.source.stream, shard = reader.buffer.shard_id, "{stopped}");
        reader.buffer.note(|p| p.error = Some(stopped));
    }
}

struct Reader {
    source: Source,
    buffer: Arc<ShardBuffer>,
    cursor: Cursor,
    pace: Pace,
}

impl Reader {
    /// The loop. Ends at the shard's end, or with a gap.
    async fn run(&mut self, checkpoint: &Checkpoint, mut caught_up_ms: i64) -> Result<(), Error> {
        let mut unverified = match checkpoint {
            Checkpoint::After(sequence, _) => Some(sequence.clone()),
            _ => None,
        };
        let (mut last, mut seen_ms) = (unverified.clone(), self.source.clock.now_ms());
        // Servers that stand in for AWS may answer a time after their last record with the oldest one: what lies before the start is passed
        // over. To the second, since some keep no more of an arrival.
        let mut begins = match checkpoint {
            Checkpoint::AtTimestamp(ms) => Some(ms - ms.rem_euclid(1_000)),
            _ => None,
        };
        loop {
            self.buffer.room(self.source.shard_cap.get() as usize).await;
            if let Some(sequence) =
                last.as_ref().filter(|_| self.source.clock.now_ms() - seen_ms > self.source.retention_ms / 2)
            {
                // Nobody took what is buffered for so long that records behind it may have gone meanwhile.
                let at = IteratorStart::At(sequence.clone());
                self.cursor = Cursor::new(self.source.kinesis.clone(), &self.source.stream, &self.buffer.shard_id, at);
                unverified = Some(sequence.clone());
            }
            let limit = self.cursor.limit();
            let mut page = self.page(unverified.is_some()).await?;
            seen_ms = self.source.clock.now_ms();
            // Some servers (ferrokinesis) call every answer the latest; a full one may have more behind it.
            let tip = page.next.is_none() || (page.millis_behind_latest == 0 && page.records.len() < limit);
            if let Some(sequence) = unverified.take_if(|_| !page.records.is_empty() || tip) {
                page.records = self.verify(page.records, &sequence, caught_up_ms)?;
            }
            if let Some(record) = page.records.last() {
                last = Some(sequence_of(record)?);
            }
            if tip {
                caught_up_ms = seen_ms;
            }
            let ended = page.next.is_none();
            let mut slice = Slice::whole(Arc::new(page.records));
            if let Some(second) = begins.filter(|_| !slice.is_empty()) {
                let early = slice.records().take_while(|r| r.timestamp_ms < second).count();
                (_, slice) = slice.split_at(early);
                begins = begins.filter(|_| slice.is_empty());
            }
            if !slice.is_empty() {
                self.buffer.push(slice);
            }
            self.buffer.note(|p| {
                p.millis_behind_latest = Some(page.millis_behind_latest);
                p.ended = ended;
                p.children = page.children;
                p.error = None;
            });
            if ended {
                info!(stream = self.source.stream, shard = self.buffer.shard_id, "shard read to its end");
                return Ok(());
            }
        }
    }

    /// Makes sure that nothing after the checkpoint has been lost, and drops its record, which is committed (**gap-is-an-error**).
    ///
    /// If the checkpoint's record is still there, so is everything after it. If it is gone, records after it may be gone too, unless less
    /// than the retention has passed since nothing was left to read.
    fn verify(&self, records: Chunk, sequence: &SequenceNumber, caught_up_ms: i64) -> Result<Chunk, Error> {
        let first = (!records.is_empty()).then(|| records.get(0).sequence_number.to_string());
        if first.as_deref() == Some(sequence.as_str()) {
            let mut rest = records.without_first();
            rest.hold(self.source.budget.hold(rest.memory()));
            return Ok(rest);
        }
        if self.source.clock.now_ms() - caught_up_ms < self.source.retention_ms {
            return Ok(records);
        }
        let oldest = first.map_or("the shard holds no record now".into(), |o| format!("the oldest record is {o}"));
        Err(Error::Gap(format!(
            "stream '{}', shard {}: position {sequence} is older than the stream's retention of {} h and {oldest}, so records may be \
             lost; POST a position to /v1/pipes/<pipe>/seek to go on from there",
            self.source.stream,
            self.buffer.shard_id,
            self.source.retention_ms / 3_600_000
        )))
    }

    /// The next page, whatever it takes: every error but a gap may pass, when the stream comes back or the policy is mended.
    async fn page(&mut self, verifying: bool) -> Result<Page, Error> {
        let mut pause = RETRY_FIRST;
        loop {
            let error = match self.call().await {
                Ok(page) => return Ok(page),
                Err(KinesisError::IteratorExpired) => continue,
                Err(KinesisError::Other(Error::BadRequest(refused))) if verifying => {
                    // The sequence number is not one of this stream's: trimmed away, or the stream was created anew.
                    return Err(Error::Gap(format!("{refused}; POST a position to /v1/pipes/<pipe>/seek to go on")));
                }
                Err(KinesisError::Throttled(message)) => Error::Unavailable(message),
                Err(KinesisError::Other(error)) => error,
            };
            if pause == RETRY_LONGEST {
                warn!(stream = self.source.stream, shard = self.buffer.shard_id, "{error}; trying again");
            }
            self.buffer.note(|p| p.error = Some(error));
            pause = back_off(pause).await;
        }
    }

    async fn call(&mut self) -> Result<Page, KinesisError> {
        self.pace.wait(Duration::from_millis(self.source.poll.get())).await;
        let limit = self.cursor.limit();
        let budget = &self.source.budget;
        let mut reservation = budget.reserve(self.cursor.expected_memory(limit).min(budget.limit() / 2)).await;
        let mut page = self.cursor.page(limit).await?;
        let bytes = page.records.memory();
        self.pace.note(page.records.len(), bytes);
        reservation.resize(bytes);
        page.records.hold(reservation);
        Ok(page)
    }
}

/// Keeps one shard's calls within its limits.
///
/// `poll` stands for AWS's 5 calls a second when it is 200 ms, and the bytes a second go with it: half the time between calls means twice
/// the bytes, so one number says which share of the limits this pipe takes.
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

    fn note(&mut self, rows: usize, bytes: usize) {
        self.empty = if rows == 0 { self.empty.saturating_add(1) } else { 0 };
        self.last = (rows, bytes);
    }
}

/// Time from one call to the next, after an answer of `(rows, bytes)` and so many empty answers in a row.
fn pause_after((rows, bytes): (usize, usize), empty: u32, poll: Duration) -> Duration {
    if rows == 0 {
        // A quiet shard is asked less and less often, up to a second apart, and leaves its calls to others.
        let doublings = (empty / IDLE_POLLS).min(8);
        return (poll * (1 << doublings)).min(poll.max(MAX_IDLE_POLL));
    }
    let share = f64::from(GET_RECORDS_PER_SECOND) * poll.as_secs_f64();
    poll.max(Duration::from_secs_f64(share * bytes as f64 / GET_RECORDS_BYTES_PER_SECOND as f64))
}
