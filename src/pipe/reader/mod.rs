//! Reads one shard for as long as its task lives: by polling, or as Kinesis pushes it (enhanced fan-out), with backpressure.
//!
//! `polling` and `fan_out` find records; what follows is in one place, whichever way they came: [`Reader::accept`].

mod fan_out;
mod polling;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{info, warn};

use self::fan_out::Retry;
use super::buffer::ShardBuffer;
use super::consumer::FanOut;
use crate::domain::error::Error;
use crate::domain::record::{Chunk, Slice, sequence_of};
use crate::domain::sequence::{Checkpoint, SequenceNumber, compare_digits};
use crate::domain::shard::Shard;
use crate::ports::{Clock, IteratorStart, KinesisApi, iterator_after};
use crate::read::budget::Budget;

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
    /// Enhanced fan-out, and whether it is wanted.
    pub fan_out: FanOut,
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
    let Some(start) = iterator_after(&checkpoint) else { return };
    let (last, begins) = match checkpoint {
        Checkpoint::After(sequence, _) => (Some(sequence), None),
        // Servers that stand in for AWS may answer a time after their last record with the oldest one: what lies before the start is passed
        // over. To the second, since some keep no more of an arrival.
        Checkpoint::AtTimestamp(ms) => (None, Some(ms - ms.rem_euclid(1_000))),
        _ => (None, None),
    };
    // The record of the checkpoint itself is looked at first: see `verify`.
    let unverified = last.is_some();
    let mut reader = Reader {
        source,
        buffer,
        start,
        begins,
        last,
        unverified,
        vanished: false,
        continuation: None,
        whole_ms: caught_up_ms,
    };
    if let Err(stopped) = reader.run().await {
        warn!(stream = reader.source.stream, shard = reader.buffer.shard_id, "{stopped}");
        reader.buffer.note(|p| p.error = Some(stopped));
    }
}

struct Reader {
    source: Source,
    buffer: Arc<ShardBuffer>,
    /// Where reading begins as long as there is no last record.
    start: IteratorStart,
    /// A start in time, Unix ms, until a record after it has come.
    begins: Option<i64>,
    /// The last record that was read or is committed.
    last: Option<SequenceNumber>,
    /// Whether `last` is still there has to be looked at: see `verify`.
    unverified: bool,
    /// The stream or the shard was not there for a while: it may be another one of that name now.
    vanished: bool,
    /// Where the last event of a subscription said to go on; at `last` or behind it.
    continuation: Option<SequenceNumber>,
    /// Nothing that arrived after this time, Unix ms, was missing when it was last looked at.
    whole_ms: i64,
}

/// What an answer or an event brought.
struct Found {
    /// The records, in order; the memory budget knows of them.
    records: Chunk,
    /// The shard is closed, and nothing follows.
    ended: bool,
    /// A time, Unix ms, before which nothing is left to read; none when more may be waiting.
    tip_ms: Option<i64>,
    /// How far it is behind the tip, ms.
    millis_behind_latest: i64,
    /// Shards that the end named.
    children: Vec<Shard>,
}

impl Reader {
    /// Ends at the shard's end, or with a gap.
    async fn run(&mut self) -> Result<(), Error> {
        let (mut wanted, mut retry) = (self.source.fan_out.wanted(), Retry::new());
        while let Some(opened) = self.poll(&mut wanted, &mut retry).await? {
            if self.listen(opened, &mut wanted, &mut retry).await? {
                break;
            }
        }
        info!(stream = self.source.stream, shard = self.buffer.shard_id, "shard read to its end");
        Ok(())
    }

    /// Where an iterator stands that misses nothing and shows whether something is missing.
    fn position(&self) -> IteratorStart {
        match &self.last {
            Some(last) if self.unverified => IteratorStart::At(last.clone()),
            Some(last) => IteratorStart::After(last.clone()),
            None => self.start.clone(),
        }
    }

    /// Takes note of what was found: looks for a gap, drops what is known, buffers the rest. True: the shard's end.
    fn accept(&mut self, found: Found) -> Result<bool, Error> {
        // Kinesis may answer nothing although there is more ahead.
        if self.unverified && (found.tip_ms.is_some() || !found.records.is_empty()) {
            self.verify(&found.records)?;
            (self.unverified, self.vanished) = (false, false);
        }
        // The record of the checkpoint, and what a subscription brings again that polling has read meanwhile.
        let known = |sequence: &str| self.last.as_ref().is_some_and(|l| compare_digits(sequence, l.as_str()).is_le());
        let known = found.records.records().take_while(|r| known(r.sequence_number)).count();
        let (_, mut slice) = Slice::whole(Arc::new(found.records)).split_at(known);
        if let Some(last) = slice.last() {
            self.last = Some(sequence_of(last)?);
            self.whole_ms = self.whole_ms.max(last.timestamp_ms);
        }
        self.whole_ms = self.whole_ms.max(found.tip_ms.unwrap_or(0));
        if let Some(second) = self.begins.filter(|_| !slice.is_empty()) {
            let early = slice.records().take_while(|r| r.timestamp_ms < second).count();
            (_, slice) = slice.split_at(early);
            self.begins = self.begins.filter(|_| slice.is_empty());
        }
        if !slice.is_empty() {
            self.buffer.push(slice);
        }
        self.buffer.note(|p| {
            p.millis_behind_latest = Some(found.millis_behind_latest);
            p.tip_ms = found.tip_ms;
            p.ended = found.ended;
            p.children = found.children;
            p.error = None;
        });
        Ok(found.ended)
    }

    /// Whether the last record may have left the retention since it was read, and others after it: Kinesis passes over what is gone without
    /// a word. That takes a reader that is hardly faster than the retention, or was without an answer for that long.
    fn doubtful(&self) -> bool {
        self.last.is_some() && self.source.clock.now_ms() - self.whole_ms >= self.source.retention_ms
    }

    /// The stream was deleted, and there is one of its name again: what follows the last record is another stream's.
    fn not_of_this_stream(&self, why: &str) -> Error {
        let last = self.last.as_ref().map_or("", SequenceNumber::as_str);
        Error::Gap(format!(
            "stream '{}', shard {}: position {last} is not in the shard, so the stream may have been deleted and created again under its name, and \
             records may be lost ({why}); POST a position to /v1/pipes/<pipe>/seek to go on from there",
            self.source.stream, self.buffer.shard_id
        ))
    }

    /// Makes sure that nothing after the last record has been lost (**gap-is-an-error**). `records` were asked for *at* that record.
    ///
    /// If it is still there, so is everything after it. If it is gone, records after it may be gone too, unless less than the retention has
    /// passed since nothing was left to read.
    fn verify(&self, records: &Chunk) -> Result<(), Error> {
        let Some(sequence) = &self.last else { return Ok(()) };
        let first = (!records.is_empty()).then(|| records.get(0).sequence_number);
        // An earlier one, where a server goes back further than it was asked to, says the same.
        let there = first.is_some_and(|first| compare_digits(first, sequence.as_str()).is_le());
        if there || !self.doubtful() && !self.vanished {
            return Ok(());
        }
        let oldest = first
            .map_or("there is no oldest record, the shard holds none".into(), |o| format!("the oldest record is {o}"));
        if self.vanished {
            return Err(self.not_of_this_stream(&oldest));
        }
        Err(Error::Gap(format!(
            "stream '{}', shard {}: position {sequence} is older than the stream's retention of {} h and {oldest}, so records may be \
             lost; POST a position to /v1/pipes/<pipe>/seek to go on from there",
            self.source.stream,
            self.buffer.shard_id,
            self.source.retention_ms / 3_600_000
        )))
    }
}
