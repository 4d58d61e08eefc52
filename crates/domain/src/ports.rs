//! The traits between decisions and the world. Adapters under `kinesis`, `state` and `clickhouse`
//! implement them; tests script them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use async_trait::async_trait;

use crate::error::Error;
use crate::lease::{Identity, Lease};
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
    /// This record and what follows.
    At(SequenceNumber),
    /// What follows this record.
    After(SequenceNumber),
}

/// One answer of GetRecords.
#[derive(Debug)]
pub struct Page {
    /// The records, in order.
    pub records: Chunk,
    /// The next iterator; none at the end of a closed shard.
    pub next: Option<String>,
    /// How far the answer is behind the tip, ms.
    pub millis_behind_latest: i64,
    /// The shards that this one was split or merged into; only at its end, and not from every
    /// implementation.
    pub children: Vec<Shard>,
}

impl Page {
    /// Whether nothing was left to read behind it, having asked for `limit` records. Servers that
    /// stand in for AWS may call every answer the latest; a full one may have more behind it.
    pub fn is_last(&self, limit: usize) -> bool {
        self.next.is_none() || self.millis_behind_latest == 0 && self.records.len() < limit
    }
}

/// A stream as DescribeStreamSummary tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Name.
    pub name: String,
    /// Amazon resource name.
    pub arn: String,
    /// When it was created, Unix ms; 0 when that is not known.
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
    /// The shard's calls or bytes a second are used up: wait and repeat.
    Throttled(String),
    /// `LimitExceededException`: too many calls of this kind a second, or as many resources as AWS
    /// allows. Readers wait and repeat.
    LimitExceeded(String),
    /// Another subscription of the same consumer to the shard is younger than five seconds, or the
    /// consumer is not active yet: wait and repeat.
    InUse(String),
    /// The consumer is not registered (any more): register it again.
    NoConsumer(String),
    /// Anything else, already said for a person.
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
    /// The region; empty when it is not known.
    fn region(&self) -> &str;
    /// What time it is to Kinesis, Unix ms: that of its answers, and what has passed since on the
    /// monotonic clock. None before the first answer with a date, which servers that stand in for
    /// AWS may leave out: see [`kinesis_now_ms`].
    fn now_ms(&self) -> Option<i64>;
    /// All streams of the account and region.
    async fn streams(&self) -> Result<Vec<Stream>, Error>;
    /// One stream; `NotFound` names it and the region.
    async fn stream(&self, stream: &str) -> Result<Stream, Error>;
    /// All shards that have not left the retention, open and closed.
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, Error>;
    /// An iterator, good for five minutes. `Gap` when the position is refused because it is too
    /// old.
    async fn iterator(&self, stream: &str, shard_id: &str, start: &IteratorStart) -> Result<String, KinesisError>;
    /// The next records, `limit` at most.
    async fn records(&self, stream: &str, shard_id: &str, iterator: &str, limit: usize) -> Result<Page, KinesisError>;
}

/// A registered consumer of a stream: what enhanced fan-out reads as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Amazon resource name.
    pub arn: String,
    /// It can be subscribed with (`ACTIVE`); otherwise it is just being registered or deregistered.
    pub active: bool,
}

/// One event of a subscription. Kinesis sends one every few seconds, also when there is no record.
#[derive(Debug)]
pub struct Event {
    /// The records, in order.
    pub records: Chunk,
    /// Where another subscription goes on: after this; it moves without records, too. None at the
    /// end of a closed shard.
    pub continuation: Option<SequenceNumber>,
    /// How far the event is behind the tip, ms.
    pub millis_behind_latest: i64,
    /// The shards that this one was split or merged into; some implementations name them before the
    /// end.
    pub children: Vec<Shard>,
}

/// A shard's records as Kinesis pushes them, for up to five minutes.
#[async_trait]
pub trait Subscription: Send {
    /// The next event; none when Kinesis has ended the subscription. Nothing that is not read is
    /// lost: the next subscription brings it.
    async fn next(&mut self) -> Result<Option<Event>, KinesisError>;
}

/// The part of the Kinesis API that enhanced fan-out needs.
#[async_trait]
pub trait FanOutApi: Send + Sync {
    /// A consumer by its name; none when the stream has none of that name.
    async fn consumer(&self, stream: &Stream, name: &str) -> Result<Option<Consumer>, Error>;
    /// Registers a consumer, which takes a moment to become active. One that exists is no error.
    async fn register(&self, stream: &Stream, name: &str) -> Result<(), Error>;
    /// Deregisters a consumer. One that does not exist is no error.
    async fn deregister(&self, stream: &Stream, name: &str) -> Result<(), Error>;
    /// Subscribes to a shard. Takes over from a subscription of the same consumer that is older
    /// than five seconds.
    async fn subscribe(
        &self,
        stream: &str,
        consumer_arn: &str,
        shard_id: &str,
        start: &IteratorStart,
    ) -> Result<Box<dyn Subscription>, KinesisError>;
    /// A subscription fell silent: later ones shall not use the connection that it had in common
    /// with others.
    fn distrust_connections(&self);
}

/// A value with the version of its row, which a compare-and-set expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The version that was read; the next write makes it one larger.
    pub version: i32,
    /// The value.
    pub value: T,
}

/// Why a state store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// A row was not at the expected version, did exist (create) or did not (update). Nothing was
    /// written. Read again and decide.
    Conflict(String),
    /// The store cannot be reached or its answer was lost: the write may have happened. Read back.
    Unavailable(String),
    /// The store is not usable as it is configured; the sentence says what to change.
    Misconfigured(String),
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Error {
        match error {
            StateError::Conflict(m) | StateError::Unavailable(m) | StateError::Misconfigured(m) => {
                Error::Unavailable(m)
            }
        }
    }
}

/// A row of `kinesis.workers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Worker id.
    pub worker_id: String,
    /// Which process it is: two with one id are told apart by it.
    pub incarnation: String,
    /// Where its HTTP interface listens.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// Counter; a worker whose counter stands still for the lease duration, on the observer's
    /// clock, is dead.
    pub heartbeat: u64,
    /// The pipes that it runs now, each with a counter that grows when it changed lease rows that
    /// others should look at.
    pub pipes: BTreeMap<String, u64>,
}

/// Where leases and workers live. Every write is a compare-and-set over all rows it names, or none.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The leases of one pipe, or of all, ordered by key.
    async fn leases(&self, pipe: Option<&str>) -> Result<Vec<Versioned<Lease>>, StateError>;
    /// Adds leases; `Conflict` when one of them exists.
    async fn create(&self, leases: &[Lease]) -> Result<(), StateError>;
    /// Replaces leases whose rows are still at the given versions; `Conflict` when one is not.
    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError>;
    /// Removes leases whose rows are still at the given versions; `Conflict` when one is not. One
    /// that is gone already is no error.
    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError>;
    /// All workers that ever wrote a heartbeat.
    async fn workers(&self) -> Result<Vec<Worker>, StateError>;
    /// Writes one's own row.
    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError>;
}

/// `system.view_refreshes` for one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewState {
    /// Tells a view from another one that was created later under the same name.
    pub uuid: String,
    /// Whether a refresh is running now.
    pub running: bool,
    /// `Scheduled`, `Running`, `Disabled`, …
    pub status: String,
    /// The exception of the last attempt; empty when it succeeded.
    pub exception: String,
    /// Who is to blame for it.
    pub cause: Cause,
    /// Whether a refresh has succeeded since the server started; what was before, it forgets, and
    /// the exception with it.
    pub succeeded: bool,
    /// How many attempts have failed in a row.
    pub retry: u64,
    /// Whether its own schedule starts the next refresh within `REFRESH_DUE_SECONDS` of the limits.
    pub due_soon: bool,
    /// Changes when another refreshable view is created or dropped.
    pub others: u32,
}

impl ViewState {
    /// Whether nothing but a short pause of its schedule keeps the next refresh from beginning.
    pub fn due(&self) -> bool {
        self.status == "Scheduled" && self.due_soon && self.exception.is_empty() && self.retry == 0
    }
}

/// What the statement of a view says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The table that it inserts into, as ClickHouse writes its name.
    pub target: String,
    /// Whether its refreshes add to that table; if not, each replaces what is in it.
    pub appends: bool,
    /// The pipes whose URLs stand in its SELECT; none where a URL is computed, stands in a named
    /// collection, or may not be seen.
    pub pipes: Vec<String>,
    /// Other views whose URLs name this one in `view=`.
    pub copies: Vec<Copied>,
}

/// Materialized views that take what is inserted into a table, those below their tables as well.
/// Each name is a database and a name in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// The views.
    pub views: BTreeSet<[String; 2]>,
    /// The table, and those that the views write to.
    pub tables: BTreeSet<[String; 2]>,
}

/// A view that pulls in another one's name, as a copied statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its database and name.
    pub view: String,
    /// The pipes that it pulls so.
    pub pipes: Vec<String>,
    /// Whether a refresh is running now.
    pub running: bool,
}

/// Why a refresh failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What ClickHouse said.
    pub why: String,
    /// Whether the rows may be to blame.
    pub cause: Cause,
}

/// Who is to blame for an insert that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The rows: none of them is in the target, and without the bad ones the others get in.
    Rows,
    /// Something else, or some of the rows may be in the target: what it is, as a part of a
    /// sentence.
    Other(&'static str),
}

/// How a refresh ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// Its rows are in the target.
    Succeeded,
    /// It failed, was cancelled, or its view is gone. Rows may be in the target all the same.
    Failed(Failure),
    /// The answer was lost.
    Unknown(String),
}

/// What the pull protocol asks ClickHouse about refreshable views.
#[async_trait]
pub trait Views: Send + Sync {
    /// The view's state; none when there is no refreshable view of that name.
    async fn view(&self, database: &str, view: &str) -> Result<Option<ViewState>, Error>;
    /// What the view's statement says, and others that name it; none when there is no such view.
    async fn definition(&self, database: &str, view: &str) -> Result<Option<Definition>, Error>;
    /// What is below `table` now, which is written as in [`Definition::target`]. `known` is what
    /// was there the last time: as long as that has not changed, one look at these tables tells.
    async fn below(&self, table: &str, known: &Below) -> Result<Below, Error>;
    /// Waits for the end of the running refresh. `Succeeded` is not the whole truth: ClickHouse
    /// says so of a refresh that `SYSTEM STOP VIEW` cancelled, too. The view's state after it tells
    /// (see `pipe`).
    async fn wait(&self, database: &str, view: &str) -> RefreshOutcome;
    /// Asks for a refresh now. It may be forgotten: ClickHouse does so while it is about to note
    /// the end of the last one.
    async fn refresh(&self, database: &str, view: &str) -> Result<(), Error>;
}

/// A row that ClickHouse refuses, and everything that is needed to put it in later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// Name of the pipe.
    pub pipe: String,
    /// Name of the stream.
    pub stream: String,
    /// Shard id.
    pub shard_id: String,
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
    /// What ClickHouse said.
    pub error: String,
    /// When it was given up, Unix ms.
    pub quarantined_ms: i64,
    /// The payload, any bytes.
    pub raw_message: Vec<u8>,
}

/// Whether a row was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is durable.
    Yes,
    /// The pipe has as many rows there as it may have. Nothing was written.
    Full,
}

/// Where rows are kept that cannot be inserted.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// Keeps a row. One that is there already, by its position in the pipe, is replaced.
    async fn put(&self, row: &QuarantinedRow) -> Result<Kept, Error>;
}

/// Time and chance.
pub trait Clock: Send + Sync {
    /// Unix ms on the local clock, for what users read, and never for what decides about records:
    /// see [`kinesis_now_ms`].
    fn now_ms(&self) -> i64;
    /// Monotonic, for expiry.
    fn monotonic(&self) -> Instant;
    /// A new name for a batch: 16 hexadecimal digits.
    fn batch_id(&self) -> String;
}

/// The time that decides about records, Unix ms: Kinesis' own (**kinesis-time-decides**). Where its
/// answers have no date, which AWS's always have, the local clock stands in for it.
pub fn kinesis_now_ms(kinesis: &dyn KinesisApi, clock: &dyn Clock) -> i64 {
    kinesis.now_ms().unwrap_or_else(|| clock.now_ms())
}

/// Turns a checkpoint into where reading starts.
pub fn iterator_after(checkpoint: &Checkpoint) -> Option<IteratorStart> {
    match checkpoint {
        Checkpoint::TrimHorizon => Some(IteratorStart::TrimHorizon),
        Checkpoint::AtTimestamp(ms) => Some(IteratorStart::AtTimestamp(*ms)),
        Checkpoint::After(sequence, _) => Some(IteratorStart::After(sequence.clone())),
        Checkpoint::ShardEnd => None,
    }
}
