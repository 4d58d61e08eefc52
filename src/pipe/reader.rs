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
    let (last, begins_ms) = match checkpoint {
        Checkpoint::After(sequence, _) => (Some(sequence), None),
        Checkpoint::AtTimestamp(ms) => (None, Some(ms)),
        _ => (None, None),
    };
    let cursor = Cursor::new(source.kinesis.clone(), &source.stream, &buffer.shard_id, at);
    let (unverified, pace) = (last.is_some(), Pace::new());
    let mut reader = Reader { source, buffer, cursor, pace, last, unverified, whole_ms: caught_up_ms, tip_ms: None };
    if let Err(stopped) = reader.run(begins_ms).await {
        warn!(stream = reader.source.stream, shard = reader.buffer.shard_id, "{stopped}");
        reader.buffer.note(|p| p.error = Some(stopped));
    }
}

struct Reader {
    source: Source,
    buffer: Arc<ShardBuffer>,
    cursor: Cursor,
    pace: Pace,
    /// The last record that was read or is committed.
    last: Option<SequenceNumber>,
    /// The cursor stands at `last`, not behind it: see `verify`.
    unverified: bool,
    /// Nothing that arrived after this time, Unix ms, was missing when it was last looked at.
    whole_ms: i64,
    /// When the last page was asked for, Unix ms, if nothing was left to read after it.
    tip_ms: Option<i64>,
}

impl Reader {
    /// The loop. Ends at the shard's end, or with a gap. `begins_ms` is a start in time.
    async fn run(&mut self, begins_ms: Option<i64>) -> Result<(), Error> {
        // Servers that stand in for AWS may answer a time after their last record with the oldest one: what lies before the start is passed
        // over. To the second, since some keep no more of an arrival.
        let mut begins = begins_ms.map(|ms| ms - ms.rem_euclid(1_000));
        loop {
            self.buffer.room(self.source.shard_cap.get() as usize).await;
            let mut page = self.page().await?;
            // Kinesis may answer nothing although there is more ahead.
            if self.unverified && (self.tip_ms.is_some() || !page.records.is_empty()) {
                page.records = self.verify(page.records)?;
                self.unverified = false;
            }
            if let Some(last) = page.records.last() {
                self.last = Some(sequence_of(last)?);
                self.whole_ms = self.whole_ms.max(last.timestamp_ms);
            }
            self.whole_ms = self.whole_ms.max(self.tip_ms.unwrap_or(0));
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
                p.tip_ms = self.tip_ms;
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

    /// Goes back to the last record when it may have left the retention since it was read, and others after it: Kinesis passes over what is
    /// gone without a word. That takes a reader that is hardly faster than the retention, or was without an answer for that long.
    fn doubt(&mut self) {
        let Some(last) = self.last.as_ref().filter(|_| !self.unverified) else { return };
        if self.source.clock.now_ms() - self.whole_ms >= self.source.retention_ms {
            let at = IteratorStart::At(last.clone());
            self.cursor = Cursor::new(self.source.kinesis.clone(), &self.source.stream, &self.buffer.shard_id, at);
            self.unverified = true;
        }
    }

    /// Makes sure that nothing after the last record has been lost, and drops that record, which is known (**gap-is-an-error**).
    ///
    /// If it is still there, so is everything after it. If it is gone, records after it may be gone too, unless less than the retention has
    /// passed since nothing was left to read.
    fn verify(&self, records: Chunk) -> Result<Chunk, Error> {
        let Some(sequence) = &self.last else { return Ok(records) };
        let first = (!records.is_empty()).then(|| records.get(0).sequence_number.to_string());
        if first.as_deref() == Some(sequence.as_str()) {
            let mut rest = records.without_first();
            rest.hold(self.source.budget.hold(rest.memory()));
            return Ok(rest);
        }
        if self.source.clock.now_ms() - self.whole_ms < self.source.retention_ms {
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
    async fn page(&mut self) -> Result<Page, Error> {
        let mut pause = RETRY_FIRST;
        loop {
            let error = match self.call().await {
                Ok(page) => return Ok(page),
                Err(KinesisError::IteratorExpired) => continue,
                Err(KinesisError::Other(Error::BadRequest(refused))) if self.unverified => {
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
        self.doubt();
        let asked_ms = self.source.clock.now_ms();
        let mut page = self.cursor.page(limit).await?;
        // Servers that stand in for AWS may call every answer the latest; a full one may have more behind it.
        let tip = page.next.is_none() || page.millis_behind_latest == 0 && page.records.len() < limit;
        self.tip_ms = tip.then_some(asked_ms);
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
