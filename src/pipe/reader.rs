//! Reads one shard by polling: paced, with backpressure, for as long as its task lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::budget::Budget;
use super::buffer::ShardBuffer;
use crate::domain::error::Error;
use crate::domain::record::{Chunk, Slice, sequence_of};
use crate::domain::sequence::{Checkpoint, SequenceNumber};
use crate::limits::{
    GET_RECORDS_BYTES_PER_SECOND, GET_RECORDS_MAX_RECORDS, GET_RECORDS_PER_SECOND, GET_RECORDS_TARGET_BYTES,
    IDLE_POLLS, MAX_IDLE_POLL, RETRY_FIRST, RETRY_LONGEST,
};
use crate::ports::{Clock, IteratorStart, KinesisApi, KinesisError, Page, iterator_after};

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
    let mut reader = Reader { source, buffer, iterator: None, average: 0, pace: Pace::new() };
    let start = match reader.verified_start(&checkpoint, caught_up_ms).await {
        Ok(start) => start,
        Err(gap) => {
            warn!(shard = reader.buffer.shard_id, "{gap}");
            reader.buffer.note(|p| p.error = Some(gap));
            return;
        }
    };
    reader.run(start).await;
}

struct Reader {
    source: Source,
    buffer: Arc<ShardBuffer>,
    iterator: Option<String>,
    /// Bytes a record, from the last answer that had any; 0 before.
    average: usize,
    pace: Pace,
}

impl Reader {
    /// The loop. Ends at the shard's end.
    async fn run(&mut self, mut position: Option<IteratorStart>) {
        while let Some(from) = position.clone() {
            self.buffer.room(self.source.shard_cap.get() as usize).await;
            let page = self.page(&from).await;
            if let Some(last) = page.records.len().checked_sub(1).map(|i| page.records.get(i)) {
                match sequence_of(last) {
                    Ok(sequence) => position = Some(IteratorStart::After(sequence)),
                    Err(broken) => {
                        self.buffer.note(|p| p.error = Some(broken));
                        return;
                    }
                }
            }
            let ended = page.next.is_none();
            self.deliver(page);
            if ended {
                info!(stream = self.source.stream, shard = self.buffer.shard_id, "shard read to its end");
                position = None;
            }
        }
    }

    fn deliver(&mut self, page: Page) {
        let (behind, ended, children) = (page.millis_behind_latest, page.next.is_none(), page.children);
        self.iterator = page.next;
        if !page.records.is_empty() {
            self.buffer.push(Slice::whole(Arc::new(page.records)));
        }
        self.buffer.note(|p| {
            p.millis_behind_latest = Some(behind);
            p.ended = ended;
            p.children = children;
            p.error = None;
        });
    }

    /// Where to read from after `checkpoint`, having made sure that nothing between the two has been lost.
    ///
    /// The record of the checkpoint is looked at again: if it is still there, so is everything after it. If it is gone, records after it may be
    /// gone too, unless less than the retention has passed since nothing was left to read.
    async fn verified_start(
        &mut self,
        checkpoint: &Checkpoint,
        caught_up_ms: i64,
    ) -> Result<Option<IteratorStart>, Error> {
        let Checkpoint::After(sequence, _) = checkpoint else { return Ok(iterator_after(checkpoint)) };
        let at = IteratorStart::At(sequence.clone());
        loop {
            let mut page = self.try_page(&at).await?;
            let first = (!page.records.is_empty()).then(|| page.records.get(0).sequence_number.to_string());
            let (empty, tip) = (first.is_none(), page.millis_behind_latest == 0 || page.next.is_none());
            if empty && !tip {
                // Kinesis may answer nothing although there is more ahead.
                self.iterator = page.next;
                continue;
            }
            if first.as_deref() == Some(sequence.as_str()) {
                page.records = held(page.records.without_first(), &self.source.budget);
            } else if self.source.clock.now_ms() - caught_up_ms >= self.source.retention_ms {
                return Err(self.gap(sequence, first));
            }
            let last = page.records.len().checked_sub(1).map(|i| sequence_of(page.records.get(i))).transpose()?;
            let ended = page.next.is_none();
            self.deliver(page);
            return Ok((!ended).then(|| IteratorStart::After(last.unwrap_or_else(|| sequence.clone()))));
        }
    }

    fn gap(&self, position: &SequenceNumber, oldest: Option<String>) -> Error {
        let oldest = oldest.map_or("the shard holds no record now".into(), |o| format!("the oldest record is {o}"));
        Error::Gap(format!(
            "stream '{}', shard {}: position {position} is older than the stream's retention of {} h and {oldest}, so records may be lost; \
             POST a position to /v1/pipes/{{pipe}}/seek to go on from there",
            self.source.stream,
            self.buffer.shard_id,
            self.source.retention_ms / 3_600_000
        ))
    }

    /// The next page, whatever it takes.
    async fn page(&mut self, from: &IteratorStart) -> Page {
        loop {
            match self.try_page(from).await {
                Ok(page) => return page,
                Err(error) => {
                    // Every error but a gap may pass: the stream comes back, the policy is mended.
                    warn!(stream = self.source.stream, shard = self.buffer.shard_id, "{error}; trying again");
                    self.buffer.note(|p| p.error = Some(error));
                    sleep(RETRY_LONGEST).await;
                }
            }
        }
    }

    /// The next page. Throttling, expired iterators and unreachable servers are waited out; what a person must know of is returned.
    async fn try_page(&mut self, from: &IteratorStart) -> Result<Page, Error> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.call(from).await {
                Ok(page) => return Ok(page),
                Err(KinesisError::IteratorExpired) => self.iterator = None,
                Err(KinesisError::Other(Error::BadRequest(refused))) if matches!(from, IteratorStart::At(_)) => {
                    // The sequence number is not one of this stream's: trimmed away, or the stream was created anew.
                    return Err(Error::Gap(format!("{refused}; POST a position to /v1/pipes/{{pipe}}/seek to go on")));
                }
                Err(KinesisError::Throttled(message)) | Err(KinesisError::Other(Error::Unavailable(message))) => {
                    self.buffer.note(|p| p.error = Some(Error::Unavailable(message)));
                    // Full jitter, so that shards and consumers do not come back in step.
                    sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
                Err(KinesisError::Other(error)) => return Err(error),
            }
        }
    }

    async fn call(&mut self, from: &IteratorStart) -> Result<Page, KinesisError> {
        let Source { kinesis, budget, stream, poll, .. } = &self.source;
        self.pace.wait(Duration::from_millis(poll.get())).await;
        let limit = records_limit(self.average);
        // The reply and its decoded form exist together for a moment.
        let expected = 2 * limit * self.average.max(FIRST_GUESS);
        let mut reservation = budget.reserve(expected.min(budget.limit() / 2)).await;
        let iterator = match self.iterator.clone() {
            Some(iterator) => iterator,
            None => kinesis.iterator(stream, &self.buffer.shard_id, from).await?,
        };
        let answered = kinesis.records(stream, &self.buffer.shard_id, &iterator, limit).await;
        // An iterator that met an error is not used again: a fresh one for the same position cannot be wrong.
        self.iterator = None;
        let mut page = answered?;
        let (rows, bytes) = (page.records.len(), page.records.memory());
        if rows > 0 {
            self.average = (bytes / rows).max(1);
        }
        self.pace.note(rows, bytes);
        reservation.resize(bytes);
        page.records.hold(reservation);
        Ok(page)
    }
}

/// Bytes a record assumed before the first answer.
const FIRST_GUESS: usize = 1_024;

/// A copy of a chunk must stand in the budget as the original did.
fn held(mut chunk: Chunk, budget: &Budget) -> Chunk {
    chunk.shrink();
    chunk.hold(budget.hold(chunk.memory()));
    chunk
}

/// How many records to ask for, so that the answer is about [`GET_RECORDS_TARGET_BYTES`]; `average` bytes a record have been seen, 0: none yet.
pub fn records_limit(average: usize) -> usize {
    match average {
        // A first look: enough to learn the size, little enough to be safe with large records.
        0 => 1_000,
        _ => (GET_RECORDS_TARGET_BYTES / average).clamp(1, GET_RECORDS_MAX_RECORDS),
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
