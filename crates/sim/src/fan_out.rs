//! Enhanced fan-out in memory: one consumer, subscriptions that end, break, fall silent, and take
//! over from each other.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, sleep_until};

use super::dice::Dice;
use super::kinesis::FakeKinesis;
use super::names::STREAM;
use super::records::number;
use domain::error::Error;
use domain::names::{ShardId, StreamName};
use domain::ports::{Consumer, Event, FanOutApi, IteratorStart, KinesisError, Stream, Subscription};
use domain::sequence::SequenceNumber;

/// How long a subscription lives.
const LIFE: Duration = Duration::from_secs(300);
/// Up to this age it cannot be taken over.
const PROTECTED: Duration = Duration::from_secs(5);
/// How often an event without records is sent.
const HEARTBEAT: Duration = Duration::from_secs(4);

/// The registered consumer and its subscriptions.
#[derive(Default)]
pub struct Consumers {
    /// Its name, the number of its registration, and when it becomes active.
    registered: Option<(String, u64, Instant)>,
    registrations: u64,
    /// By shard: the number of the last subscription and when it started.
    subscribed: BTreeMap<ShardId, (u64, Instant)>,
    /// Subscriptions that have been made.
    pub subscriptions: u64,
    /// While set, no event is sent.
    pub silent: bool,
}

impl FakeKinesis {
    fn consumers(&self) -> std::sync::MutexGuard<'_, Consumers> {
        self.fan_out.lock().unwrap()
    }

    /// Whether subscriptions deliver no events from now on.
    pub fn silence(&self, silent: bool) {
        self.consumers().silent = silent;
    }

    /// Subscriptions made so far.
    pub fn subscriptions(&self) -> u64 {
        self.consumers().subscriptions
    }

    /// The registered consumer's name.
    pub fn registered(&self) -> Option<String> {
        self.consumers().registered.as_ref().map(|(name, ..)| name.clone())
    }

    /// An operator deregisters it.
    pub fn forget_consumer(&self) {
        self.consumers().registered = None;
    }

    fn control(&self, what: &str) -> Result<(), Error> {
        self.outage_now()?;
        match self.dice.trouble(3) {
            true => Err(Error::Unavailable(format!("{what} failed"))),
            false => Ok(()),
        }
    }
}

fn arn(registration: u64) -> String {
    format!("arn:consumer:{registration}")
}

#[async_trait]
impl FanOutApi for SharedKinesis {
    async fn consumer(&self, _: &Stream, name: &str) -> Result<Option<Consumer>, Error> {
        self.0.dice.travel(20).await;
        self.0.control("DescribeStreamConsumer")?;
        let consumers = self.0.consumers();
        let found = consumers.registered.as_ref().filter(|(known, ..)| known == name);
        Ok(found.map(|(_, number, active)| Consumer { arn: arn(*number), active: *active <= Instant::now() }))
    }

    async fn register(&self, _: &Stream, name: &str) -> Result<(), Error> {
        self.0.dice.travel(20).await;
        self.0.control("RegisterStreamConsumer")?;
        let active = Instant::now() + Duration::from_millis(self.0.dice.below(3_000));
        let mut consumers = self.0.consumers();
        assert!(consumers.registered.as_ref().is_none_or(|(known, ..)| known == name), "one consumer a pipe");
        if consumers.registered.is_none() {
            consumers.registrations += 1;
            consumers.registered = Some((name.into(), consumers.registrations, active));
        }
        Ok(())
    }

    async fn deregister(&self, _: &Stream, name: &str) -> Result<(), Error> {
        self.0.dice.travel(20).await;
        self.0.control("DeregisterStreamConsumer")?;
        self.0.consumers().registered.take_if(|(known, ..)| known == name);
        Ok(())
    }

    async fn subscribe(
        &self,
        stream: &StreamName,
        consumer_arn: &str,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<Box<dyn Subscription>, KinesisError> {
        assert_eq!(*stream, *STREAM);
        let kinesis = &self.0;
        kinesis.dice.travel(40).await;
        kinesis.outage_now().map_err(KinesisError::Other)?;
        if kinesis.dice.trouble(4) {
            return Err(KinesisError::Other(Error::Unavailable("SubscribeToShard failed".into())));
        }
        if kinesis.dice.trouble(3) {
            pending::<()>().await;
        }
        if kinesis.dice.trouble(2) {
            kinesis.forget_consumer();
        }
        let index = kinesis.index(shard_id, start)?;
        let mut consumers = kinesis.consumers();
        match &consumers.registered {
            Some((_, number, active)) if arn(*number) == consumer_arn && *active <= Instant::now() => {}
            Some((_, number, _)) if arn(*number) == consumer_arn => {
                return Err(KinesisError::InUse("the consumer is not active".into()));
            }
            _ => return Err(KinesisError::NoConsumer("the consumer is not registered".into())),
        }
        let before = consumers.subscribed.get(shard_id);
        if before.is_some_and(|(_, began)| began.elapsed() < PROTECTED) {
            return Err(KinesisError::InUse("another subscription is too young".into()));
        }
        consumers.subscriptions += 1;
        let me = consumers.subscriptions;
        consumers.subscribed.insert(shard_id.clone(), (me, Instant::now()));
        let continuation = match start {
            IteratorStart::At(sequence) => number(sequence) - 1,
            IteratorStart::After(sequence) => number(sequence),
            _ => 0,
        };
        let life = if kinesis.dice.trouble(20) { Duration::from_secs(kinesis.dice.below(20)) } else { LIFE };
        Ok(Box::new(FakeSubscription {
            kinesis: kinesis.clone(),
            shard_id: shard_id.clone(),
            me,
            index,
            continuation,
            ends: Instant::now() + life,
            ended: false,
        }))
    }

    fn distrust_connections(&self) {}
}

/// The stream as shared by subscriptions.
pub struct SharedKinesis(pub Arc<FakeKinesis>);

struct FakeSubscription {
    kinesis: Arc<FakeKinesis>,
    shard_id: ShardId,
    me: u64,
    index: usize,
    continuation: u128,
    ends: Instant,
    ended: bool,
}

impl FakeSubscription {
    fn dice(&self) -> &Dice {
        &self.kinesis.dice
    }

    fn replaced(&self) -> bool {
        self.kinesis.consumers().subscribed.get(&self.shard_id).is_some_and(|(last, _)| *last != self.me)
    }
}

#[async_trait]
impl Subscription for FakeSubscription {
    async fn next(&mut self) -> Result<Option<Event>, KinesisError> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            self.dice().travel(60).await;
            if self.replaced() {
                return Err(KinesisError::InUse("another subscription took over".into()));
            }
            if self.ended || Instant::now() >= self.ends {
                return Ok(None);
            }
            self.kinesis.outage_now().map_err(KinesisError::Other)?;
            if self.kinesis.consumers().silent || self.dice().trouble(1) {
                // For good: a silent subscription stays silent.
                pending::<()>().await;
            }
            if self.dice().trouble(2) {
                return Err(KinesisError::Other(Error::Unavailable("the subscription broke".into())));
            }
            let page = self.kinesis.page(&self.shard_id, self.index, 10_000)?;
            if page.records.is_empty() && page.next.is_some() && Instant::now() < heartbeat {
                // In the calm nobody is in a hurry, and these looks took a tenth of all time.
                let most = if self.dice().is_calm() { 1_000 } else { 100 };
                let soon = Duration::from_millis(20 + self.dice().below(most));
                sleep_until((Instant::now() + soon).min(heartbeat)).await;
                continue;
            }
            if self.dice().trouble(2) {
                // Part of it arrives, and then nothing.
                sleep(LIFE).await;
            }
            self.ended = page.next.is_none();
            if let Some(next) = &page.next {
                self.index = next.split_once('@').unwrap().0.parse().unwrap();
            }
            if let Some(last) = page.records.last() {
                self.continuation = number(&last.position().unwrap().sequence);
            }
            let continuation = SequenceNumber::parse(&self.continuation.to_string());
            return Ok(Some(Event {
                records: page.records,
                continuation: continuation.filter(|_| !self.ended),
                millis_behind_latest: page.millis_behind_latest,
                children: page.children,
            }));
        }
    }
}

mod rules {
    use super::*;
    use crate::kinesis::RETENTION_HOURS;
    use crate::names::{PIPE, STREAM};
    use crate::rules::{MEMORY, a_moment, calm};
    use crate::world::{Ending, Process, World};
    use bridge::pipe::{Mode, PullOptions};
    use domain::sequence::Checkpoint;

    /// A calm world, and the options of a view with `mode=efo`.
    fn pushed(shards: usize) -> (World, Arc<super::super::clickhouse::FakeServer>, Process, PullOptions) {
        let (world, server, process, options) = calm(shards);
        (world, server, process, PullOptions { mode: Mode::FanOut, ..options })
    }

    /// How the shards are read, and why they are polled.
    fn reading(process: &Process) -> Vec<(Mode, Option<String>)> {
        let buffers = process.snapshot().map(|s| s.buffers).unwrap_or_default();
        buffers.iter().map(|b| b.progress()).map(|p| (p.mode, p.fallback)).collect()
    }

    async fn settle(
        world: &World,
        server: &super::super::clickhouse::FakeServer,
        process: &Process,
        options: &PullOptions,
    ) {
        assert!(world.drain(process, server, options).await, "{:?}", world.leases().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_subscription_does_not_hold_up_records() {
        let (world, server, process, options) = pushed(2);
        let shards = world.kinesis.open_shards();
        world.kinesis.put(&shards[0], 5);
        settle(&world, &server, &process, &options).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(reading(&process), vec![(Mode::FanOut, None); 2]);
        world.kinesis.silence(true);
        for minute in 0..10 {
            let began = Instant::now();
            shards.iter().for_each(|shard| world.kinesis.put(shard, 3));
            settle(&world, &server, &process, &options).await;
            let took = began.elapsed();
            // The first time it has to be detected; after that nobody waits for it.
            let most = Duration::from_secs(if minute == 0 { 30 } else { 5 });
            assert!(took < most, "minute {minute}: {took:?}");
            let told = |(mode, why): &(Mode, Option<String>)| *mode == Mode::Polling && why.is_some();
            assert!(reading(&process).iter().all(told), "{:?}", reading(&process));
            sleep(Duration::from_secs(45)).await;
            let _ = world.refresh(&process, &server, &options, Ending::Success).await;
        }
        world.kinesis.silence(false);
        // The longest pause, plus whatever was in flight.
        for _ in 0..8 {
            sleep(Duration::from_secs(45)).await;
            let _ = world.refresh(&process, &server, &options, Ending::Success).await;
        }
        assert_eq!(reading(&process), vec![(Mode::FanOut, None); 2]);
        world.judge().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_is_followed_by_another_one() {
        let (world, server, process, options) = pushed(1);
        let shard = world.kinesis.open_shards().remove(0);
        let mut pushed = 0;
        for _ in 0..40 {
            world.kinesis.put(&shard, 3);
            let _ = world.refresh(&process, &server, &options, Ending::Success).await;
            sleep(Duration::from_secs(30)).await;
            let [(mode, None)] = &reading(&process)[..] else { panic!("{:?}", reading(&process)) };
            pushed += u32::from(*mode == Mode::FanOut);
        }
        // It may just be between two of them.
        assert!(pushed >= 36, "{pushed} of 40");
        // 20 minutes: one every five, and no more.
        assert!((4..=6).contains(&world.kinesis.subscriptions()), "{}", world.kinesis.subscriptions());
        settle(&world, &server, &process, &options).await;
        world.judge().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn modes_are_switched_where_reading_stands() {
        let (world, server, process, mut options) = pushed(2);
        for round in 0..12 {
            options.mode = [Mode::FanOut, Mode::Polling][round % 2];
            for shard in world.kinesis.open_shards() {
                world.kinesis.put(&shard, 4);
            }
            settle(&world, &server, &process, &options).await;
            sleep(Duration::from_secs(8)).await;
            assert_eq!(reading(&process), vec![(options.mode, None); 2], "round {round}");
        }
        world.judge().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_an_error_under_fan_out_too() {
        let (world, server, process, options) = pushed(1);
        let shard = world.kinesis.open_shards().remove(0);
        world.kinesis.put(&shard, 5);
        settle(&world, &server, &process, &options).await;
        drop(process);
        world.kinesis.put(&shard, 5);
        sleep(Duration::from_secs(2 * 3_600 * RETENTION_HOURS as u64)).await;
        world.kinesis.trim();
        world.kinesis.put(&shard, 5);
        let process = world.process("worker", &server, MEMORY);
        let mut refused = None;
        for _ in 0..20 {
            refused = world.refresh(&process, &server, &options, Ending::Success).await.err();
            a_moment().await;
        }
        assert!(matches!(refused, Some(Error::Gap(_))), "{refused:?}");
        process.pipes.seek(&PIPE, &[(ShardId::default(), Checkpoint::TrimHorizon)]).await.unwrap();
        assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_ends_leaves_nothing_behind() {
        let (world, server, process, options) = pushed(2);
        world.kinesis.put(&world.kinesis.open_shards()[0], 5);
        settle(&world, &server, &process, &options).await;
        assert_eq!(world.kinesis.registered().as_deref(), Some("clickhouse-kinesis-bridge-orders"));
        // A pipe does not end while a pull is running.
        let patient = PullOptions { wait: Duration::from_secs(12), ..options.clone() };
        server.begin();
        let (pulled, refused) = tokio::join!(process.pipes.pull(&PIPE, &STREAM, patient), process.pipes.end(&PIPE));
        assert!(pulled.unwrap().batch.is_none());
        let Err(Error::BadRequest(refused)) = refused else { panic!("{refused:?}") };
        assert!(refused.contains("is being pulled here"), "{refused}");
        server.end(Ok(()));
        // A consumer left over from before a restart is deregistered, too.
        drop(process);
        let process = world.process("worker", &server, MEMORY);
        process.pipes.end(&PIPE).await.unwrap();
        assert_eq!((world.kinesis.registered(), world.leases().await.len()), (None, 0));
        assert!(matches!(process.pipes.end(&PIPE).await, Err(Error::NotFound(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_on_its_way_keeps_its_pipe() {
        let (world, server, process, options) = pushed(1);
        world.kinesis.put(&world.kinesis.open_shards()[0], 5);
        server.begin();
        let served = process.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
        // The insert takes long; nobody pulls meanwhile.
        sleep(Duration::from_secs(30)).await;
        assert!(matches!(process.pipes.end(&PIPE).await, Err(Error::BadRequest(_))));
        assert!(
            world.rest_of_refresh(&process, &server, &options, Ending::Success, Ok(served)).await.unwrap().is_some()
        );
        a_moment().await;
        assert!(world.settled().await);
        world.judge().unwrap();
    }
}
