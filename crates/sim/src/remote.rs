//! One process's access to the world: a gate that a pause closes, and its own connection to Kinesis
//! and ClickHouse.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::clickhouse::FakeServer;
use super::dice::{Dice, Flag};
use super::fan_out::SharedKinesis;
use super::kinesis::FakeKinesis;
use super::quarantine::FakeQuarantine;
use domain::error::Error;
use domain::kinesis_time::KinesisTime;
use domain::names::{ShardId, StreamName};
use domain::ports::{
    Below, Consumer, Definition, Event, FanOutApi, IteratorStart, Kept, KinesisApi, KinesisError, Page, Quarantine,
    QuarantinedRow, RefreshOutcome, Stream, Subscription, ViewState, Views,
};
use domain::shard::Shard;

/// Whether a process is running. While it is paused (SIGSTOP) nothing leaves it, no response
/// reaches it and its clock shows when it stopped; what is in flight continues. (Its own timers
/// still fire; what they start gets as far as the gate.)
pub struct Gate {
    paused: Flag,
    since: Mutex<Option<Instant>>,
}

impl Gate {
    /// A running process.
    pub fn new() -> Arc<Gate> {
        Arc::new(Gate { paused: Flag::new(false), since: Mutex::default() })
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        *self.since.lock().unwrap() = Some(Instant::now());
        self.paused.set(true);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        *self.since.lock().unwrap() = None;
        self.paused.set(false);
    }

    /// Returns when the process runs.
    pub async fn pass(&self) {
        self.paused.until(false).await;
    }

    /// The current time according to the process.
    pub fn now(&self) -> Instant {
        self.since.lock().unwrap().unwrap_or_else(Instant::now)
    }
}

/// One process's connection to something.
pub struct Remote<T> {
    /// The other end.
    pub to: Arc<T>,
    /// Whether the process is running.
    pub gate: Arc<Gate>,
    /// Randomness.
    pub dice: Arc<Dice>,
    /// The process.
    pub who: String,
    /// Kinesis' time, as the process knows it.
    pub time: Arc<KinesisTime>,
}

impl<T> Remote<T> {
    async fn call<A: Debug>(&self, what: impl Debug, call: impl Future<Output = A>) -> A {
        self.gate.pass().await;
        let answer = call.await;
        if self.dice.trouble(1) {
            // The response is slow, not lost.
            self.dice.linger(self.dice.within(Duration::from_secs(20))).await;
        }
        self.gate.pass().await;
        self.dice.note(|| format!("{} {what:?} -> {answer:?}", self.who));
        answer
    }
}

impl Remote<FakeKinesis> {
    /// Like `call`, with the date of a response that is not an error.
    async fn dated<A: Debug, E: Debug>(
        &self,
        what: impl Debug,
        call: impl Future<Output = Result<A, E>>,
    ) -> Result<A, E> {
        let asked = self.gate.now().into_std();
        let call = async { call.await.map(|answer| (self.to.date_ms(), answer)) };
        let (date_ms, answer) = self.call(what, call).await?;
        self.time.answered(date_ms, asked, self.gate.now().into_std());
        Ok(answer)
    }
}

#[async_trait]
impl KinesisApi for Remote<FakeKinesis> {
    fn region(&self) -> &str {
        self.to.region()
    }

    fn now_ms(&self) -> Option<i64> {
        self.time.at(self.gate.now().into_std())
    }

    async fn streams(&self) -> Result<Vec<Stream>, Error> {
        self.dated("streams", self.to.streams()).await
    }

    async fn stream(&self, stream: &StreamName) -> Result<Stream, Error> {
        self.dated(("stream", stream), self.to.stream(stream)).await
    }

    async fn shards(&self, stream: &StreamName) -> Result<Vec<Shard>, Error> {
        self.dated(("shards", stream), self.to.shards(stream)).await
    }

    async fn iterator(
        &self,
        stream: &StreamName,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<String, KinesisError> {
        self.dated(("iterator", shard_id, start), self.to.iterator(stream, shard_id, start)).await
    }

    async fn records(
        &self,
        stream: &StreamName,
        shard_id: &ShardId,
        iterator: &str,
        limit: usize,
    ) -> Result<Page, KinesisError> {
        self.dated(("records", shard_id, iterator, limit), self.to.records(stream, shard_id, iterator, limit)).await
    }
}

#[async_trait]
impl Views for Remote<FakeServer> {
    async fn view(&self, database: &str, view: &str) -> Result<Option<ViewState>, Error> {
        self.call("view", self.to.named(view).view(database, view)).await
    }

    async fn definition(&self, database: &str, view: &str) -> Result<Option<Definition>, Error> {
        self.call(("definition", view), self.to.named(view).definition(database, view)).await
    }

    async fn below(&self, table: &str, known: &Below) -> Result<Below, Error> {
        self.call(("below", table), self.to.below(table, known)).await
    }

    async fn wait(&self, database: &str, view: &str) -> RefreshOutcome {
        // A response in flight arrives, whatever happens to the server.
        self.call("wait", self.to.named(view).wait(database, view)).await
    }

    async fn refresh(&self, database: &str, view: &str) -> Result<(), Error> {
        self.call("refresh", self.to.named(view).refresh(database, view)).await
    }
}

#[async_trait]
impl Quarantine for Remote<FakeQuarantine> {
    async fn put(&self, row: &QuarantinedRow) -> Result<Kept, Error> {
        self.call(("put", &row.shard_id, &row.sequence_number), self.to.put(row)).await
    }
}

#[async_trait]
impl FanOutApi for Remote<SharedKinesis> {
    async fn consumer(&self, stream: &Stream, name: &str) -> Result<Option<Consumer>, Error> {
        self.call("consumer", self.to.consumer(stream, name)).await
    }

    async fn register(&self, stream: &Stream, name: &str) -> Result<(), Error> {
        self.call("register", self.to.register(stream, name)).await
    }

    async fn deregister(&self, stream: &Stream, name: &str) -> Result<(), Error> {
        self.call("deregister", self.to.deregister(stream, name)).await
    }

    async fn subscribe(
        &self,
        stream: &StreamName,
        consumer_arn: &str,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<Box<dyn Subscription>, KinesisError> {
        self.gate.pass().await;
        let asked = self.gate.now().into_std();
        let subscription = self.to.subscribe(stream, consumer_arn, shard_id, start).await?;
        let date_ms = self.to.0.date_ms();
        self.gate.pass().await;
        self.time.answered(date_ms, asked, self.gate.now().into_std());
        let (gate, dice, who) = (self.gate.clone(), self.dice.clone(), format!("{} {shard_id}", self.who));
        let time = self.time.clone();
        Ok(Box::new(Remote { to: Arc::new(tokio::sync::Mutex::new(subscription)), gate, dice, who, time }))
    }

    fn distrust_connections(&self) {
        self.to.distrust_connections();
    }
}

#[async_trait]
impl Subscription for Remote<tokio::sync::Mutex<Box<dyn Subscription>>> {
    async fn next(&mut self) -> Result<Option<Event>, KinesisError> {
        self.gate.pass().await;
        let event = self.to.lock().await.next().await;
        self.gate.pass().await;
        self.dice.note(|| format!("{} event {event:?}", self.who));
        event
    }
}
