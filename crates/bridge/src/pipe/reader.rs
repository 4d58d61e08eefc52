//! Reads one shard for as long as its task lives, by polling or by enhanced fan-out, with
//! backpressure. `polling` and `fan_out` fetch records; both hand them to [`Reader::accept`].

mod fan_out;
mod pace;
mod polling;
mod retry;

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64};

use prometheus::IntCounterVec;
use tracing::{info, warn};

pub use self::pace::Calls;
use self::retry::Retry;
use super::buffer::ShardBuffer;
use super::consumer::FanOut;
use super::retention::Retention;
use crate::read::budget::Budget;
use crate::read::cursor::{Cursor, Pace};
use domain::error::{Error, go_on};
use domain::limits::{SHORTEST_RETENTION_MS, TIMESTAMP_SLACK_MS};
use domain::names::{PipeName, StreamName};
use domain::ports::{Clock, IteratorStart, KinesisApi, iterator_after, kinesis_now_ms};
use domain::record::{Chunk, RecordRef, Slice};
use domain::sequence::{Checkpoint, RowPosition, SequenceNumber, compare_digits};
use domain::shard::Shard;
use domain::unpacking::Unpacking;
use formats::unpack::{Rules, Unpacker};

/// A setting adjustable at run time.
#[derive(Clone)]
pub struct Knob(Arc<AtomicU64>);

impl Knob {
    /// One that has this value until it is set.
    pub fn new(value: u64) -> Knob {
        Knob(Arc::new(value.into()))
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, atomic::Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.0.load(atomic::Ordering::Relaxed)
    }
}

/// What a reader depends on besides its shard.
#[derive(Clone)]
pub struct Source {
    /// Kinesis.
    pub kinesis: Arc<dyn KinesisApi>,
    /// Enhanced fan-out, and whether to use it.
    pub fan_out: FanOut,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Memory for all readers of the process.
    pub budget: Budget,
    /// Stream name.
    pub stream: StreamName,
    /// The pace of GetRecords calls.
    pub calls: Arc<Calls>,
    /// Retention of the stream.
    pub retention: Retention,
    /// Bytes that one shard may have buffered before its reader pauses.
    pub shard_cap: Knob,
    /// How records become rows.
    pub unpacking: Unpacking,
    /// What unpacking found, by outcome.
    pub unpacked: IntCounterVec,
}

/// Where reading continues in a shard.
#[derive(Clone, Debug)]
pub struct Start {
    /// Name of the pipe that reads.
    pub pipe: PipeName,
    /// After this position.
    pub after: Checkpoint,
    /// How the record at that position was unpacked; none if like all others.
    pub unpacking: Option<Unpacking>,
    /// Nothing that arrived after this time, in Unix ms, was missing at the last check; 0 if no
    /// such time is known.
    pub whole_ms: i64,
    /// When the record at the position arrived, in Unix ms; 0 if unknown.
    pub arrived_ms: i64,
}

impl Source {
    /// The current time, in Unix ms.
    pub fn now_ms(&self) -> i64 {
        kinesis_now_ms(&*self.kinesis, &*self.clock)
    }
}

/// Reads from `at` into `buffer` until the shard ends or the task is aborted.
pub async fn read_shard(source: Source, buffer: Arc<ShardBuffer>, at: Start) {
    let Some(start) = iterator_after(&at.after) else { return };
    let (last, begins) = match at.after {
        Checkpoint::After(row) => (Some(row), None),
        // Emulators may answer a time after their last record with the oldest one, so records
        // before the start are skipped. To the second, since some keep arrival times only in
        // seconds.
        Checkpoint::AtTimestamp(ms) => (None, Some(ms - ms.rem_euclid(1_000))),
        _ => (None, None),
    };
    // The record at the checkpoint itself is checked first: see `verify`.
    let unverified = last.is_some();
    let begun = last.as_ref().map(|row| (row.sequence.clone(), at.unpacking.unwrap_or(source.unpacking)));
    let rules = Rules { unpacking: source.unpacking, begun };
    let mut reader = Reader {
        pipe: at.pipe,
        source,
        buffer,
        start,
        begins,
        last,
        unverified,
        vanished: false,
        continuation: None,
        whole_ms: at.whole_ms,
        arrived_ms: at.arrived_ms,
        rules,
    };
    if let Err(stopped) = reader.run().await {
        warn!(stream = reader.source.stream.as_str(), shard = reader.buffer.shard_id.as_str(), "{stopped}");
        reader.buffer.note(|p| p.error = Some(stopped));
    }
}

struct Reader {
    pipe: PipeName,
    source: Source,
    buffer: Arc<ShardBuffer>,
    /// Where reading starts as long as there is no last record.
    start: IteratorStart,
    /// A start time, in Unix ms, until a record after it has arrived.
    begins: Option<i64>,
    /// The last row that was read or committed. Once a record is read, so are all of its rows.
    last: Option<RowPosition>,
    /// Whether to check that `last` is still there: see `verify`.
    unverified: bool,
    /// The stream or the shard did not exist for a while: it may have been recreated.
    vanished: bool,
    /// Where the last event of a subscription said to continue; at `last` or after it.
    continuation: Option<SequenceNumber>,
    /// Nothing that arrived after this time, in Unix ms, was missing at the last check.
    whole_ms: i64,
    /// When `last` arrived, in Unix ms; 0 if unknown.
    arrived_ms: i64,
    /// How records become rows.
    rules: Rules,
}

/// What a response or an event brought.
struct Found {
    /// The records, in order; counted in the memory budget.
    records: Chunk,
    /// The shard is closed, and nothing follows.
    ended: bool,
    /// A time, in Unix ms, before which nothing is left to read; none if more may be waiting. Also
    /// none at the end of a shard, which may have been closed long before.
    tip_ms: Option<i64>,
    /// How far it is behind the newest record, in ms.
    millis_behind_latest: i64,
    /// Child shards that the end of the shard named.
    children: Vec<Shard>,
}

impl Reader {
    /// Returns at the shard's end, or with a gap.
    async fn run(&mut self) -> Result<(), Error> {
        let (mut wanted, mut retry) = (self.source.fan_out.wanted(), Retry::new());
        while let Some(opened) = self.poll(&mut wanted, &mut retry).await? {
            if self.listen(opened, &mut wanted, &mut retry).await? {
                break;
            }
        }
        info!(stream = self.source.stream.as_str(), shard = self.buffer.shard_id.as_str(), "shard read to its end");
        Ok(())
    }

    /// The position of an iterator that skips nothing and reveals whether something is missing.
    fn position(&self) -> IteratorStart {
        match &self.last {
            Some(last) if self.unverified => IteratorStart::At(last.sequence.clone()),
            Some(last) => IteratorStart::After(last.sequence.clone()),
            None => self.start.clone(),
        }
    }

    /// Processes what was fetched: checks for a gap, drops what is already known, and buffers the
    /// rows of the rest. True at the shard's end. After an error other than a `Gap` nothing has
    /// changed, and the same has to be fetched again.
    async fn accept(&mut self, found: Found) -> Result<bool, Error> {
        // Kinesis may return nothing although there is more ahead.
        if found.ended || found.tip_ms.is_some() || !found.records.is_empty() {
            self.verify(&found.records).await?;
            (self.unverified, self.vanished) = (false, false);
        }
        // Some rows of the checkpoint's record may be left. What a subscription repeats after
        // polling has read it is already known.
        let known = |sequence: &str| {
            self.last.as_ref().is_some_and(|last| match compare_digits(sequence, last.sequence.as_str()) {
                Ordering::Less => true,
                Ordering::Equal => last.sub == u32::MAX,
                Ordering::Greater => false,
            })
        };
        let known = found.records.records().take_while(|r| known(r.sequence_number)).count();
        let last = found.records.last().filter(|_| known < found.records.len());
        let last = last.map(|record| Ok::<_, Error>((record.position()?.sequence, record.timestamp_ms))).transpose()?;
        self.buffer_rows(found.records, known).await;
        if let Some((sequence, timestamp_ms)) = last {
            self.last = Some(RowPosition::new(sequence, u32::MAX));
            self.rules.begun = None;
            self.whole_ms = self.whole_ms.max(timestamp_ms);
            self.arrived_ms = timestamp_ms;
        }
        self.whole_ms = self.whole_ms.max(found.tip_ms.unwrap_or(0));
        self.buffer.note(|p| {
            p.millis_behind_latest = Some(found.millis_behind_latest);
            p.tip_ms = found.tip_ms;
            p.ended = found.ended;
            p.children = found.children;
            p.error = None;
        });
        Ok(found.ended)
    }

    /// Buffers the rows of the records from index `first` on, as soon as there is room.
    async fn buffer_rows(&mut self, records: Chunk, first: usize) {
        if first == records.len() {
            return;
        }
        let mut unpacker = Unpacker::new(records, first, self.rules.clone());
        let budget = self.source.budget.clone();
        while let Some(mut rows) = unpacker.next_chunk() {
            if !rows.is_held() {
                // Without waiting: others may be waiting for the memory that this page holds.
                rows.hold(budget.hold(rows.memory()));
            }
            let slice = self.unknown(Slice::whole(Arc::new(rows)));
            if !slice.is_empty() {
                self.buffer.push(slice);
            }
            if !unpacker.is_done() {
                let _document = budget.hold(unpacker.memory());
                self.buffer.room(self.source.shard_cap.get() as usize).await;
            }
        }
        for (outcome, count) in unpacker.counts().labelled().into_iter().filter(|(_, count)| *count > 0) {
            self.source.unpacked.with_label_values(&[self.source.stream.as_str(), outcome]).inc_by(count);
        }
    }

    /// The rows after the checkpoint (**exact-to-the-row**) and the start.
    fn unknown(&mut self, rows: Slice) -> Slice {
        let committed = |r: &RecordRef<'_>| {
            let last = self.last.as_ref();
            last.is_some_and(|last| r.sequence_number == last.sequence.as_str() && r.sub_sequence <= last.sub)
        };
        let (_, mut rows) = rows.split_at(rows.records().take_while(committed).count());
        if let Some(second) = self.begins.filter(|_| !rows.is_empty()) {
            let early = rows.records().take_while(|r| r.timestamp_ms < second).count();
            (_, rows) = rows.split_at(early);
            self.begins = self.begins.filter(|_| rows.is_empty());
        }
        rows
    }

    /// Whether unread records may be older than the shortest retention that a stream can have.
    /// Kinesis skips expired records silently. This happens only to a reader that lags this far
    /// behind, or that was without a response or without room for this long. The time comes from a
    /// recent response, so it is certain.
    fn doubtful(&self) -> bool {
        self.source.now_ms() - self.whole_ms >= SHORTEST_RETENTION_MS
    }

    /// Whether the next request must show that nothing is missing, and therefore has to start again
    /// at the last record.
    fn must_go_back(&self) -> bool {
        self.last.is_some() && !self.unverified && self.doubtful()
    }

    /// The stream was deleted and recreated under the same name: what follows the last record
    /// belongs to another stream.
    fn not_of_this_stream(&self, why: &str) -> Error {
        let last = self.last.as_ref().map_or("", |last| last.sequence.as_str());
        Error::Gap(format!(
            "stream '{}', shard {}: position {last} is not in the shard, so the stream may have been deleted and recreated under the same name, \
             and records may be lost ({why}); {}",
            self.source.stream,
            self.buffer.shard_id,
            go_on(&self.pipe)
        ))
    }

    /// Makes sure that nothing has been lost before `records` (**gap-is-an-error**). If there is a
    /// last record and it is in doubt, they were requested starting *at* it. If it is still there,
    /// so is everything after it. If it is gone, or there was none, records may be gone, unless
    /// less than the retention has passed since nothing was left to read, or since the position
    /// began to cover what arrives (**unread-within-retention**).
    async fn verify(&mut self, records: &Chunk) -> Result<(), Error> {
        let first = (!records.is_empty()).then(|| records.get(0));
        if let Some(last) = self.last.as_ref().filter(|_| self.unverified)
            && let Some(first) = first
        {
            // An earlier record, from a server that goes back further than requested, proves the
            // same.
            let found = compare_digits(first.sequence_number, last.sequence.as_str());
            if found.is_eq() {
                self.whole_ms = self.whole_ms.max(first.timestamp_ms);
            }
            if found.is_le() {
                return Ok(());
            }
        }
        let oldest = first.map_or("the shard has no records".into(), |first| {
            format!("the oldest record is {}", first.sequence_number)
        });
        if self.vanished {
            return Err(self.not_of_this_stream(&oldest));
        }
        if self.last.is_some() && !self.unverified || !self.doubtful() {
            return Ok(());
        }
        let kept = self.source.retention.look().await?;
        let now_ms = self.source.now_ms();
        let lost = kept.may_have_lost(self.whole_ms, now_ms);
        // The last record expired early: the retention was shorter than it is now.
        let early = self.last.is_some() && self.arrived_ms > now_ms - kept.retention_ms + TIMESTAMP_SLACK_MS;
        if !lost && !early || self.reaches_back().await? {
            return Ok(());
        }
        Err(self.gap(&oldest, kept.retention_ms / 3_600_000, early && !lost))
    }

    /// Whether the shard still has a record at or before the last position: then it has all that
    /// follow. A user may have chosen a position without a record.
    async fn reaches_back(&self) -> Result<bool, Error> {
        let Some(last) = &self.last else { return Ok(false) };
        let (kinesis, start) = (self.source.kinesis.clone(), IteratorStart::TrimHorizon);
        let mut cursor = Cursor::new(kinesis, &self.source.stream, &self.buffer.shard_id, start);
        let mut pace = Pace::polite();
        loop {
            let page = cursor.patient_page(1, &mut pace).await?;
            if !page.records.is_empty() {
                return Ok(compare_digits(page.records.get(0).sequence_number, last.sequence.as_str()).is_le());
            }
            if page.millis_behind_latest == 0 || page.next.is_none() {
                return Ok(false);
            }
        }
    }

    /// Records may be lost.
    fn gap(&self, oldest: &str, hours: i64, early: bool) -> Error {
        let position = match (&self.last, &self.start) {
            (Some(last), _) => last.sequence.to_string(),
            (None, IteratorStart::AtTimestamp(ms)) => Checkpoint::AtTimestamp(*ms).to_string(),
            (None, _) => Checkpoint::TrimHorizon.to_string(),
        };
        let why = match (early, self.last.is_some()) {
            (true, _) => format!(
                "is gone, although the stream's retention is {hours} h now, so it must have been shorter for a while, and {oldest}"
            ),
            (false, true) => format!("is older than the stream's retention of {hours} h and {oldest}"),
            (false, false) => format!("was not read for longer than the stream's retention of {hours} h and {oldest}"),
        };
        Error::Gap(format!(
            "stream '{}', shard {}: position {position} {why}, so records may be lost; {}",
            self.source.stream,
            self.buffer.shard_id,
            go_on(&self.pipe)
        ))
    }
}
