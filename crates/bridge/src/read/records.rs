//! `records` and `sample`: bounded reads without state. Repeating one gives the same result, and no
//! checkpoint moves.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::budget::Budget;
use super::cursor::{Cursor, Pace};
use domain::error::Error;
use domain::interface::Route;
use domain::limits::{RECORDS_SHARDS_AT_ONCE, SAMPLE_LOOK_BACK_MS, TIMESTAMP_SLACK_MS};
use domain::moment::Moment;
use domain::names::{ShardId, StreamName};
use domain::ports::{Clock, IteratorStart, KinesisApi, kinesis_now_ms};
use domain::range::{Bound, Place, SliceOf, Until, place};
use domain::record::Chunk;
use domain::shard::Shard;
use domain::unpacking::Unpacking;
use formats::unpack::{Rules, Unpacker};

/// What to read. In a request, the times may be relative ([`Moment`]); reading needs Unix ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range<T = i64> {
    /// Stream name.
    pub stream: StreamName,
    /// Beginning.
    pub from: Bound<T>,
    /// End.
    pub to: Bound<T>,
    /// Only this shard.
    pub shard: Option<ShardId>,
    /// Only this part of the shards.
    pub slice: Option<SliceOf>,
    /// How records become rows.
    pub unpacking: Unpacking,
}

impl Range<Moment> {
    /// The range at the time of the request. An error when it ends before it begins.
    pub fn at(self, now_ms: i64) -> Result<Range, Error> {
        let (from, to) = (self.from.at(now_ms), self.to.at(now_ms));
        let reversed = match (&from, &to) {
            (Bound::Time(from), Bound::Time(to)) => from > to,
            (Bound::Sequence(from), Bound::Sequence(to)) => from > to,
            _ => false,
        };
        if reversed {
            return Err(Error::BadRequest(
                "from is later than to: swap them, or leave to empty to read until now".into(),
            ));
        }
        let Range { stream, shard, slice, unpacking, .. } = self;
        Ok(Range { stream, from, to, shard, slice, unpacking })
    }
}

/// What reading depends on. Cheap to clone.
#[derive(Clone)]
pub struct Reading {
    /// Kinesis.
    pub kinesis: Arc<dyn KinesisApi>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Memory.
    pub budget: Budget,
}

/// What to read of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shard.
    pub shard: Shard,
    /// Where reading ends, besides the range's own end.
    pub until: Option<Until>,
}

/// Records of one shard, by its index in the list of shards.
pub type Found = Result<(usize, Chunk), Error>;

impl Reading {
    /// What time it is, Unix ms.
    pub fn now_ms(&self) -> i64 {
        kinesis_now_ms(&*self.kinesis, &*self.clock)
    }

    /// The same, from a new response about the stream: relative times must not be based on an old
    /// one.
    pub async fn asked_now_ms(&self, stream: &StreamName) -> Result<i64, Error> {
        self.kinesis.shards(stream).await?;
        Ok(self.now_ms())
    }

    /// The range at the time of the request. An error when it ends before it begins.
    pub async fn at_now(&self, range: Range<Moment>) -> Result<Range, Error> {
        let relative = |bound: &Bound<Moment>| matches!(bound, Bound::Time(Moment::Ago(_)));
        let now_ms = match relative(&range.from) || relative(&range.to) {
            true => self.asked_now_ms(&range.stream).await?,
            false => self.now_ms(),
        };
        range.at(now_ms)
    }

    /// The shards that `range` reads, ordered by id.
    pub async fn shards(&self, range: &Range) -> Result<Vec<Shard>, Error> {
        let all = self.kinesis.shards(&range.stream).await?;
        if let Some(wanted) = &range.shard
            && !all.iter().any(|s| s.id == *wanted)
        {
            return Err(Error::NotFound(format!(
                "stream '{}' has no shard '{wanted}': {} lists them",
                range.stream,
                Route::Shards.with(&range.stream)
            )));
        }
        let wanted =
            |s: &Shard| range.shard.as_ref().is_none_or(|id| *id == s.id) && range.slice.is_none_or(|i| i.reads(&s.id));
        Ok(all.into_iter().filter(wanted).collect())
    }

    /// Reads `range` into `found`, a few shards at a time, until its end, an error, or until nobody
    /// is receiving any more.
    pub async fn run(self, range: Range, spans: Vec<Span>, found: mpsc::Sender<Found>) {
        // The list of shards has just arrived, and with it the time.
        let began_ms = self.now_ms();
        let (this, range) = (Arc::new(self), Arc::new(range));
        let permits = Arc::new(Semaphore::new(RECORDS_SHARDS_AT_ONCE));
        let mut tasks = JoinSet::new();
        for (index, span) in spans.into_iter().enumerate() {
            let (this, range, permits, found) = (this.clone(), range.clone(), permits.clone(), found.clone());
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                if let Err(error) = this.shard(&range, index, &span, began_ms, &found).await {
                    let _ = found.send(Err(error)).await;
                }
            });
        }
        tokio::select! {
            () = async { while tasks.join_next().await.is_some() {} } => {}
            // Dropping the set ends its tasks.
            () = found.closed() => {}
        }
    }

    pub(super) async fn shard(
        &self,
        range: &Range,
        index: usize,
        span: &Span,
        began_ms: i64,
        found: &mpsc::Sender<Found>,
    ) -> Result<(), Error> {
        let start = match &range.from {
            Bound::Open => IteratorStart::TrimHorizon,
            Bound::Time(ms) => IteratorStart::AtTimestamp((ms - TIMESTAMP_SLACK_MS).max(0)),
            Bound::Sequence(first) => IteratorStart::At(first.clone()),
        };
        let mut cursor = Cursor::new(self.kinesis.clone(), &range.stream, &span.shard.id, start);
        let mut pace = Pace::polite();
        loop {
            let limit = cursor.limit();
            let wanted = cursor.expected_memory(limit).min(self.budget.limit() / 4);
            let mut reservation = self.budget.reserve(wanted).await;
            let page = cursor.patient_page(limit, &mut pace).await?;
            let tip = page.is_last(limit);
            let mut inside = Chunk::with_capacity(page.records.len(), page.records.payload_bytes());
            let mut past = false;
            for record in page.records.records() {
                let passed = span.until.as_ref().is_some_and(|until| until.passed_by(record));
                match if passed { Place::Past } else { place(record, &range.from, &range.to, began_ms) } {
                    Place::Outside => {}
                    // A page is 10 MiB at most, far from a chunk's end.
                    Place::Inside => drop(inside.push(record)),
                    Place::Past => {
                        past = true;
                        break;
                    }
                }
            }
            drop(page.records);
            reservation.resize(inside.memory());
            inside.hold(reservation);
            let mut unpacker = Unpacker::new(inside, 0, Rules { unpacking: range.unpacking, begun: None });
            while let Some(mut rows) = unpacker.next_chunk() {
                if !rows.is_held() {
                    rows.hold(self.budget.hold(rows.memory() + unpacker.memory()));
                }
                let rows = match &span.until {
                    Some(until) => before(until, rows),
                    None => rows,
                };
                if !rows.is_empty() && found.send(Ok((index, rows))).await.is_err() {
                    return Ok(());
                }
            }
            if past || tip {
                return Ok(());
            }
        }
    }

    /// The newest rows of a stream, at most `limit`, oldest first, with their shard ids.
    pub async fn sample(
        &self,
        stream: &StreamName,
        limit: usize,
        unpacking: Unpacking,
    ) -> Result<(Vec<ShardId>, Vec<(usize, Chunk)>), Error> {
        let mut look_back = SAMPLE_LOOK_BACK_MS.iter();
        let now_ms = self.asked_now_ms(stream).await?;
        loop {
            let from = look_back.next().map_or(Bound::Open, |ms| Bound::Time(now_ms - ms));
            let last_try = from == Bound::Open;
            let (stream, to) = (stream.clone(), Bound::Open);
            let range = Range { stream, from, to, shard: None, slice: None, unpacking };
            let shards = self.shards(&range).await?;
            let ids = shards.iter().map(|shard| shard.id.clone()).collect();
            let spans = shards.into_iter().map(|shard| Span { shard, until: None }).collect();
            let (sender, mut receiver) = mpsc::channel(RECORDS_SHARDS_AT_ONCE);
            let read = tokio::spawn(self.clone().run(range, spans, sender));
            let mut newest = Newest::new(limit);
            while let Some(found) = receiver.recv().await {
                let (shard, chunk) = found?;
                newest.add(shard, &chunk);
            }
            drop(read);
            if newest.rows.len() >= limit || last_try {
                return Ok((ids, newest.into_chunks()));
            }
        }
    }
}

/// The rows before `until`, which is in the last record or after it.
fn before(until: &Until, rows: Chunk) -> Chunk {
    if rows.last().is_none_or(|last| until.follows(last)) {
        return rows;
    }
    let mut kept = Chunk::with_capacity(rows.len(), rows.payload_bytes());
    for row in rows.records().filter(|row| until.follows(*row)) {
        // Fewer than there were.
        let _ = kept.push(row);
    }
    kept
}

/// Keeps the newest records by arrival time.
struct Newest {
    limit: usize,
    /// Arrival, shard, record.
    rows: Vec<(i64, usize, Chunk)>,
}

impl Newest {
    fn new(limit: usize) -> Newest {
        Newest { limit, rows: Vec::new() }
    }

    fn add(&mut self, shard: usize, chunk: &Chunk) {
        let skip = chunk.len().saturating_sub(self.limit);
        for record in chunk.records().skip(skip) {
            let mut one = Chunk::with_capacity(1, record.payload.len());
            if one.push(record) {
                self.rows.push((record.timestamp_ms, shard, one));
            }
        }
        self.rows.sort_by_key(|(at, _, _)| *at);
        self.rows.drain(..self.rows.len().saturating_sub(self.limit));
    }

    fn into_chunks(self) -> Vec<(usize, Chunk)> {
        self.rows.into_iter().map(|(_, shard, one)| (shard, one)).collect()
    }
}
