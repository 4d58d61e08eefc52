//! The traits that connect decisions to the outside world. Adapters under `kinesis`, `state` and
//! `clickhouse` implement them; tests script them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use async_trait::async_trait;

use crate::error::Error;
use crate::lease::{Identity, Lease};
use crate::names::{BatchId, PipeName, ShardId, StreamName, WorkerId};
use crate::record::Chunk;
use crate::sequence::{Checkpoint, SequenceNumber};
use crate::shard::Shard;

/// Where a shard iterator starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IteratorStart {
    /// The oldest record.
    TrimHorizon,
    /// Only records put from now on.
    Latest,
    /// The first record that arrived at or after this time, Unix ms.
    AtTimestamp(i64),
    /// This record and everything after it.
    At(SequenceNumber),
    /// Everything after this record.
    After(SequenceNumber),
}

/// One GetRecords response.
#[derive(Debug)]
pub struct Page {
    /// The records, in order.
    pub records: Chunk,
    /// The next iterator; `None` at the end of a closed shard.
    pub next: Option<String>,
    /// How far the response is behind the tip, ms.
    pub millis_behind_latest: i64,
    /// The shards that this one was split or merged into; only at its end, and not from every
    /// implementation.
    pub children: Vec<Shard>,
}

impl Page {
    /// Whether there was nothing left to read after it, given that `limit` records were requested.
    /// Kinesis emulators may report every response as the latest; after a full one there may be
    /// more.
    pub fn is_last(&self, limit: usize) -> bool {
        self.next.is_none() || self.millis_behind_latest == 0 && self.records.len() < limit
    }
}

/// A stream as DescribeStreamSummary describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Name.
    pub name: StreamName,
    /// Amazon resource name.
    pub arn: String,
    /// When it was created, Unix ms; 0 if unknown.
    pub created_ms: i64,
    /// `ACTIVE`, `CREATING`, …
    pub status: String,
    /// `PROVISIONED` or `ON_DEMAND`.
    pub mode: String,
    /// Number of open shards.
    pub open_shards: i32,
    /// Retention, hours.
    pub retention_hours: i32,
}

impl Stream {
    /// Which of the streams that have, or had, its name.
    pub fn identity(&self) -> Identity {
        Identity { arn: self.arn.clone(), created_ms: self.created_ms }
    }
}

/// What a failed Kinesis call means to its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KinesisError {
    /// The iterator is older than five minutes: get a new one for the same position.
    IteratorExpired,
    /// The shard's calls or bytes per second are used up: wait and retry.
    Throttled(String),
    /// `LimitExceededException`: too many calls of this kind a second, or as many resources as AWS
    /// allows. Readers wait and repeat.
    LimitExceeded(String),
    /// Another subscription of the same consumer to the shard is younger than five seconds, or the
    /// consumer is not active yet: wait and retry.
    InUse(String),
    /// The consumer is not registered (any more): register it again.
    NoConsumer(String),
    /// Anything else, already worded for the user.
    Other(Error),
}

impl From<KinesisError> for Error {
    fn from(error: KinesisError) -> Error {
        match error {
            KinesisError::IteratorExpired => Error::Unavailable("the shard iterator expired".into()),
            KinesisError::Throttled(message) | KinesisError::LimitExceeded(message) | KinesisError::InUse(message) => {
                Error::Unavailable(message)
            }
            KinesisError::NoConsumer(message) => Error::NotFound(message),
            KinesisError::Other(error) => error,
        }
    }
}

/// The part of the Kinesis API that reading needs.
#[async_trait]
pub trait KinesisApi: Send + Sync {
    /// The region; empty if unknown.
    fn region(&self) -> &str;
    /// The current time according to Kinesis, Unix ms: the date of its responses plus the time
    /// elapsed since on the monotonic clock. `None` before the first response with a date, which
    /// emulators may omit: see [`kinesis_now_ms`].
    fn now_ms(&self) -> Option<i64>;
    /// All streams of the account and region.
    async fn streams(&self) -> Result<Vec<Stream>, Error>;
    /// One stream; `NotFound` names it and the region.
    async fn stream(&self, stream: &StreamName) -> Result<Stream, Error>;
    /// All shards that have not expired, open and closed.
    async fn shards(&self, stream: &StreamName) -> Result<Vec<Shard>, Error>;
    /// An iterator, valid for five minutes. `Gap` if the position is refused because it is too old.
    async fn iterator(
        &self,
        stream: &StreamName,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<String, KinesisError>;
    /// The next records, at most `limit`.
    async fn records(
        &self,
        stream: &StreamName,
        shard_id: &ShardId,
        iterator: &str,
        limit: usize,
    ) -> Result<Page, KinesisError>;
}

/// A registered consumer of a stream, which enhanced fan-out reads through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Amazon resource name.
    pub arn: String,
    /// Whether it can be subscribed with (`ACTIVE`); otherwise it is being registered or
    /// deregistered.
    pub active: bool,
}

/// One event of a subscription. Kinesis sends one every few seconds, even when there are no
/// records.
#[derive(Debug)]
pub struct Event {
    /// The records, in order.
    pub records: Chunk,
    /// Where another subscription resumes: after this; it advances even without records. `None` at
    /// the end of a closed shard.
    pub continuation: Option<SequenceNumber>,
    /// How far the event is behind the tip, ms.
    pub millis_behind_latest: i64,
    /// The shards that this one was split or merged into; some implementations report them before
    /// the end.
    pub children: Vec<Shard>,
}

/// A shard's records as pushed by Kinesis, for up to five minutes.
#[async_trait]
pub trait Subscription: Send {
    /// The next event; `None` when Kinesis has ended the subscription. Nothing unread is lost: the
    /// next subscription delivers it.
    async fn next(&mut self) -> Result<Option<Event>, KinesisError>;
}

/// The part of the Kinesis API that enhanced fan-out needs.
#[async_trait]
pub trait FanOutApi: Send + Sync {
    /// Looks up a consumer by name; `None` if the stream has no consumer of that name.
    async fn consumer(&self, stream: &Stream, name: &str) -> Result<Option<Consumer>, Error>;
    /// Registers a consumer, which takes a moment to become active. An existing one is not an
    /// error.
    async fn register(&self, stream: &Stream, name: &str) -> Result<(), Error>;
    /// Deregisters a consumer. A missing one is not an error.
    async fn deregister(&self, stream: &Stream, name: &str) -> Result<(), Error>;
    /// Subscribes to a shard. Takes over from a subscription of the same consumer that is older
    /// than five seconds.
    async fn subscribe(
        &self,
        stream: &StreamName,
        consumer_arn: &str,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<Box<dyn Subscription>, KinesisError>;
    /// A subscription fell silent: later ones must not use the connection that it shared with
    /// others.
    fn distrust_connections(&self);
}

/// A value with the version of its row, which a compare-and-set expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The version that was read; the next write increments it.
    pub version: i32,
    /// The value.
    pub value: T,
}

/// Why a state store did not do what was requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// A row was not at the expected version, already existed (create) or did not exist (update).
    /// Nothing was written. Read again and decide.
    Conflict(String),
    /// The store cannot be reached or its response was lost: the write may have happened. Read it
    /// back.
    Unavailable(String),
    /// The store cannot be used as configured; the message says what to change.
    Misconfigured(String),
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Error {
        match error {
            // Whoever asks again reads the rows again.
            StateError::Conflict(message) | StateError::Unavailable(message) => Error::Unavailable(message),
            StateError::Misconfigured(message) => Error::Misconfigured(message),
        }
    }
}

/// A row of `kinesis.workers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Worker id.
    pub worker_id: WorkerId,
    /// Which process it is: distinguishes two with the same id.
    pub incarnation: String,
    /// Where its HTTP interface listens.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// Counter; a worker whose counter does not move for the lease duration, on the observer's
    /// clock, is dead.
    pub heartbeat: u64,
    /// The pipes it currently runs, each with a counter that increases when it changed lease rows
    /// that others should look at.
    pub pipes: BTreeMap<PipeName, u64>,
}

/// Where leases and workers are stored. Every write is a compare-and-set on all rows it names, or
/// on none.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The leases of one pipe, or of all, ordered by key.
    async fn leases(&self, pipe: Option<&PipeName>) -> Result<Vec<Versioned<Lease>>, StateError>;
    /// Adds leases; `Conflict` if one of them exists.
    async fn create(&self, leases: &[Lease]) -> Result<(), StateError>;
    /// Replaces leases whose rows are still at the given versions; `Conflict` if one is not.
    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError>;
    /// Removes leases whose rows are still at the given versions; `Conflict` if one is not. One
    /// that is already gone is not an error.
    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError>;
    /// All workers that ever wrote a heartbeat.
    async fn workers(&self) -> Result<Vec<Worker>, StateError>;
    /// Writes this worker's own row.
    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError>;
}

/// The row of `system.view_refreshes` for one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewState {
    /// Distinguishes a view from a later one of the same name.
    pub uuid: String,
    /// Whether a refresh is running now.
    pub running: bool,
    /// `Scheduled`, `Running`, `Disabled`, …
    pub status: String,
    /// The exception of the last attempt; empty if it succeeded.
    pub exception: String,
    /// What caused it.
    pub cause: Cause,
    /// Whether a refresh has succeeded since the server started; a restart clears this, and the
    /// exception with it.
    pub succeeded: bool,
    /// How many consecutive attempts have failed.
    pub retry: u64,
    /// Whether its own schedule starts the next refresh within `REFRESH_DUE_SECONDS` (see
    /// `limits`).
    pub due_soon: bool,
    /// Changes when another refreshable view is created or dropped.
    pub others: u32,
}

impl ViewState {
    /// Whether only a short pause in its schedule delays the next refresh.
    pub fn due(&self) -> bool {
        self.status == "Scheduled" && self.due_soon && self.exception.is_empty() && self.retry == 0
    }

    /// Whether `SYSTEM STOP VIEW` has stopped it.
    pub fn stopped(&self) -> bool {
        self.status == "Disabled" && !self.running
    }
}

/// What a view's statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The table it inserts into, as ClickHouse writes its name.
    pub target: String,
    /// Whether its refreshes append to that table; if not, each replaces its contents.
    pub appends: bool,
    /// The pipes whose URLs appear in its SELECT; empty if a URL is computed, comes from a named
    /// collection, or may not be seen.
    pub pipes: Vec<PipeName>,
    /// Other views whose URLs name this one in `view=`.
    pub copies: Vec<Copied>,
}

/// Materialized views fed by inserts into a table, including those below their own tables. Each
/// name is a database and a name in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// The views.
    pub views: BTreeSet<[String; 2]>,
    /// The table, and those the views write to.
    pub tables: BTreeSet<[String; 2]>,
}

/// A view that pulls in another view's name, as a copied statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its database and name.
    pub view: String,
    /// The pipes that it pulls this way.
    pub pipes: Vec<PipeName>,
    /// Whether a refresh is running now.
    pub running: bool,
}

/// Why a refresh failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// ClickHouse's message.
    pub why: String,
    /// Whether the rows may be the cause.
    pub cause: Cause,
}

/// What caused an insert to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The rows: none of them is in the target, and without the bad ones the others can be
    /// inserted.
    Rows,
    /// Something else, or some of the rows may be in the target: the reason, as part of a sentence.
    Other(&'static str),
}

/// The outcome of a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// Its rows are in the target.
    Succeeded,
    /// It failed, was cancelled, or its view is gone. Rows may be in the target nevertheless.
    Failed(Failure),
    /// The response was lost.
    Unknown(String),
}

/// What the pull protocol needs to know from ClickHouse about refreshable views.
#[async_trait]
pub trait Views: Send + Sync {
    /// The view's state; `None` if there is no refreshable view of that name.
    async fn view(&self, database: &str, view: &str) -> Result<Option<ViewState>, Error>;
    /// What the view's statement says, and which others name it; `None` if there is no such view.
    async fn definition(&self, database: &str, view: &str) -> Result<Option<Definition>, Error>;
    /// What is below `table` now, written as in [`Definition::target`]. `known` is what was found
    /// last time: as long as that has not changed, a single query on these tables is enough.
    async fn below(&self, table: &str, known: &Below) -> Result<Below, Error>;
    /// Waits for the end of the running refresh. `Succeeded` is not conclusive: ClickHouse also
    /// reports it for a refresh cancelled by `SYSTEM STOP VIEW`. The view's state afterwards
    /// decides (see `pipe`).
    async fn wait(&self, database: &str, view: &str) -> RefreshOutcome;
    /// Requests a refresh now. The request may get lost: ClickHouse drops it while it is recording
    /// the end of the last refresh.
    async fn refresh(&self, database: &str, view: &str) -> Result<(), Error>;
}

/// A row that ClickHouse refuses, with everything needed to insert it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// Name of the pipe.
    pub pipe: PipeName,
    /// Name of the stream.
    pub stream: StreamName,
    /// Shard id.
    pub shard_id: ShardId,
    /// Sequence number.
    pub sequence_number: String,
    /// Number within an aggregate, from 0.
    pub sub_sequence_number: u32,
    /// Partition key.
    pub key: String,
    /// Approximate arrival, Unix ms.
    pub timestamp_ms: i64,
    /// The view that could not insert it.
    pub view: String,
    /// ClickHouse's message.
    pub error: String,
    /// When it was quarantined, Unix ms.
    pub quarantined_ms: i64,
    /// The payload, any bytes.
    pub raw_message: Vec<u8>,
}

/// Whether a row was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is durable.
    Yes,
    /// The pipe has reached its limit there. Nothing was written.
    Full,
}

/// Where rows that cannot be inserted are stored.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// Stores a row. One that is already there, by its position in the pipe, is replaced.
    async fn put(&self, row: &QuarantinedRow) -> Result<Kept, Error>;
}

/// Clock and randomness.
pub trait Clock: Send + Sync {
    /// Unix ms on the local clock, for users to read, never for decisions about records: see
    /// [`kinesis_now_ms`].
    fn now_ms(&self) -> i64;
    /// Monotonic, for expiry.
    fn monotonic(&self) -> Instant;
    /// A new name for a batch: 16 hexadecimal digits.
    fn batch_id(&self) -> BatchId;
}

/// The time used for decisions about records, Unix ms: Kinesis' own (**kinesis-time-decides**). If
/// its responses have no date, which AWS's always have, the local clock is used instead.
pub fn kinesis_now_ms(kinesis: &dyn KinesisApi, clock: &dyn Clock) -> i64 {
    kinesis.now_ms().unwrap_or_else(|| clock.now_ms())
}

/// Converts a checkpoint into the position where reading starts.
pub fn iterator_after(checkpoint: &Checkpoint) -> Option<IteratorStart> {
    match checkpoint {
        Checkpoint::TrimHorizon => Some(IteratorStart::TrimHorizon),
        Checkpoint::AtTimestamp(ms) => Some(IteratorStart::AtTimestamp(*ms)),
        Checkpoint::After(row) => Some(IteratorStart::After(row.sequence.clone())),
        Checkpoint::ShardEnd => None,
    }
}
