//! Everything outside a bridge, and bridges to put into it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::clickhouse::{FakeServer, VIEW};
use super::dice::{Dice, FakeClock};
use super::fan_out::SharedKinesis;
use super::kinesis::FakeKinesis;
use super::ledger::{Ledger, position};
use super::names::{PIPE, STREAM};
use super::quarantine::FakeQuarantine;
use super::records::Place;
use super::remote::{Gate, Remote};
use super::store::{Rows, WatchedStore};
use bridge::metrics::Metrics;
use bridge::pipe::heartbeat::Heartbeat;
use bridge::pipe::members::Members;
use bridge::pipe::status::Snapshot;
use bridge::pipe::{Confirm, Deps, Mode, OnFailure, Pipes, PullOptions, Served};
use bridge::read::budget::Budget;
use domain::batch::{Batch, Limits};
use domain::error::Error;
use domain::kinesis_time::KinesisTime;
use domain::lease::Lease;
use domain::names::{BatchId, ShardId, WorkerId};
use domain::ports::{StateStore, Versioned};
use domain::shape::BatchShape;
use domain::start::Beginning;
use domain::unpacking::Unpacking;
use formats::encode::Format;

/// The lease duration of most runs.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long ClickHouse waits for the next byte (`http_receive_timeout`).
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Kinesis, the rows, the tables, time and randomness.
pub struct World {
    /// Randomness.
    pub dice: Arc<Dice>,
    /// Time.
    pub clock: Arc<FakeClock>,
    /// The stream.
    pub kinesis: Arc<FakeKinesis>,
    /// What survives a crash.
    pub rows: Arc<Rows>,
    /// Rows that ClickHouse refuses.
    pub quarantine: Arc<FakeQuarantine>,
    /// What really happened.
    pub ledger: Arc<Ledger>,
    /// The lease duration.
    pub lease: Duration,
    living: Mutex<BTreeMap<WorkerId, usize>>,
    /// Of all processes, since to make them takes long.
    metrics: Metrics,
}

/// A running bridge. Dropping it is a crash.
pub struct Process {
    /// Its pipes.
    pub pipes: Pipes,
    /// Its access to the rows.
    pub store: Arc<WatchedStore>,
    /// Whether it is running or paused.
    pub gate: Arc<Gate>,
    /// Its wall clock.
    pub clock: Arc<FakeClock>,
    /// Its state among the workers.
    pub heartbeat: Heartbeat,
    beat: AbortHandle,
}

impl Process {
    /// The state of its pipe's first seat.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.pipes.snapshots().into_values().next()
    }

    /// SIGTERM.
    pub async fn leave(&self) {
        self.pipes.stop().await;
        self.beat.abort();
        self.heartbeat.end(&*self.store).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

/// The course of a refresh that was given a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It reads everything, inserts and succeeds.
    Success,
    /// It fails before it has read everything.
    Unread,
    /// It reads everything and fails before it inserts.
    FailedBefore,
    /// It reads everything and is cancelled before it inserts.
    Cancelled,
    /// The view is replaced by another one of the same name, after everything was read and before
    /// the insert.
    Replaced,
    /// It inserts and fails nevertheless.
    FailedAfter,
    /// ClickHouse crashes, before or after the insert.
    ServerCrash {
        /// After it.
        inserted: bool,
    },
    /// The bridge crashes while the body is in flight.
    BridgeCrash,
    /// The bridge crashes after the last byte; the refresh succeeds.
    BridgeCrashAfter,
    /// It reads everything and is refused because of its rows, although they could be inserted; a
    /// batch of one row, or one already inserted, fails for another reason.
    Refused,
    /// Without reading everything (a LIMIT), it succeeds and inserts nothing.
    Partial,
}

impl World {
    /// A stream with this many shards. In a calm world nothing goes wrong at random; `moves` says
    /// that operators will move positions.
    pub fn new(dice: Arc<Dice>, shards: usize, moves: bool, lease: Duration) -> World {
        let clock = FakeClock::new();
        let kinesis = FakeKinesis::new(dice.clone(), clock.clone(), shards);
        let quarantine = FakeQuarantine::new(dice.clone());
        let ledger = Ledger::new(kinesis.clone(), dice.clone(), quarantine.clone(), moves);
        let (rows, living, metrics) = (Arc::default(), Mutex::default(), Metrics::new().unwrap());
        World { dice, clock, kinesis, rows, quarantine, ledger, lease, living, metrics }
    }

    /// A world where nothing happens except what the test says.
    pub fn calm(shards: usize) -> World {
        let dice = Dice::new(1, false);
        dice.calm();
        World::new(dice, shards, false, LEASE)
    }

    /// Records how many views of a worker are there to stay; none if it has left for good.
    pub fn lives(&self, worker: &WorkerId, views: usize) {
        let mut living = self.living.lock().unwrap();
        match views {
            0 => living.remove(worker),
            _ => living.insert(worker.clone(), views),
        };
    }

    /// The workers that are there to stay, with the number of their views.
    pub fn living(&self) -> BTreeMap<WorkerId, usize> {
        self.living.lock().unwrap().clone()
    }

    /// A server with the view.
    pub fn server(&self) -> Arc<FakeServer> {
        FakeServer::new(self.dice.clone())
    }

    /// Starts a bridge next to `server`.
    pub fn process(&self, worker: &str, server: &Arc<FakeServer>, memory: usize) -> Process {
        self.skewed_process(&worker.into(), server, memory, 0)
    }

    /// The same on a machine whose wall clock is off by `skew_ms`.
    pub fn skewed_process(&self, worker: &WorkerId, server: &Arc<FakeServer>, memory: usize, skew_ms: i64) -> Process {
        self.reading(&self.kinesis, worker, server, memory, skew_ms)
    }

    /// The same in another region, where the stream's name belongs to another stream.
    pub fn process_elsewhere(&self, worker: &str, server: &Arc<FakeServer>) -> Process {
        self.reading(&self.kinesis.elsewhere(), &worker.into(), server, 1 << 20, 0)
    }

    fn reading(
        &self,
        kinesis: &Arc<FakeKinesis>,
        worker: &WorkerId,
        server: &Arc<FakeServer>,
        memory: usize,
        skew_ms: i64,
    ) -> Process {
        let (dice, gate) = (&self.dice, Gate::new());
        let clock = self.clock.of_process(skew_ms, gate.clone());
        let store = WatchedStore::new(self.rows.clone(), dice.clone(), self.ledger.clone(), worker, gate.clone());
        let store = Arc::new(store);
        let members = Members::new(clock.clone(), self.lease);
        let heartbeat = Heartbeat::new(clock.clone(), self.lease, worker);
        // A process that comes back elsewhere has to wait until its predecessor is certainly gone.
        let time = Arc::<KinesisTime>::default();
        let place = if self.dice.trouble(50) { "" } else { "here" };
        let beat = heartbeat.clone().run(store.clone(), members.clone(), worker.to_string(), place.into());
        let beat = tokio::spawn(beat).abort_handle();
        let deps = Deps {
            kinesis: Arc::new(self.remote(kinesis, &gate, worker, &time)),
            fan_out: Arc::new(self.remote(&Arc::new(SharedKinesis(kinesis.clone())), &gate, worker, &time)),
            store: store.clone(),
            views: Arc::new(self.remote(server, &gate, worker, &time)),
            quarantine: Arc::new(self.remote(&self.quarantine, &gate, worker, &time)),
            clock: clock.clone(),
            budget: Budget::new(memory),
            metrics: self.metrics.clone(),
            members,
            heartbeat: heartbeat.clone(),
            worker_id: worker.clone(),
        };
        Process { pipes: Pipes::new(deps), store, gate, clock, heartbeat, beat }
    }

    fn remote<T>(&self, to: &Arc<T>, gate: &Arc<Gate>, who: &str, time: &Arc<KinesisTime>) -> Remote<T> {
        Remote { to: to.clone(), gate: gate.clone(), dice: self.dice.clone(), who: who.into(), time: time.clone() }
    }

    /// A refresh that pulls once and proceeds as `ending` says. Returns the batch, if there was
    /// one.
    pub async fn refresh(
        &self,
        process: &Process,
        server: &FakeServer,
        options: &PullOptions,
        ending: Ending,
    ) -> Result<Option<BatchId>, Error> {
        server.begin();
        let pulled = process.pipes.pull(&PIPE, &STREAM, options.clone()).await;
        self.rest_of_refresh(process, server, options, ending, pulled).await
    }

    /// What follows the response to the pull.
    pub async fn rest_of_refresh(
        &self,
        process: &Process,
        server: &FakeServer,
        options: &PullOptions,
        ending: Ending,
        pulled: Result<Served, Error>,
    ) -> Result<Option<BatchId>, Error> {
        let served = match pulled {
            Ok(served) => served,
            Err(error) => {
                tracing::debug!("refresh refused: {error}");
                server.end(Err(error.to_string()));
                return Err(error);
            }
        };
        let Some(batch) = served.batch.clone() else {
            tracing::debug!("refresh reads nothing");
            server.end(Ok(()));
            return Ok(None);
        };
        tracing::debug!("refresh reads batch {}, {} rows: {ending:?}", batch.id, batch.rows());
        let held = self.held(&batch);
        self.ledger.served(&batch, options.shape.as_str().split(' ').next().and_then(Format::parse).unwrap());
        self.dice.delay(100).await;
        if self.dice.trouble(3) {
            // It pauses in the middle of the body, for long enough that others may take over.
            process.gate.pause();
            self.dice.trouble_for(self.dice.within(PATIENCE)).await;
            process.gate.resume();
        }
        // The rest of the body comes when the process resumes, if ClickHouse waits that long.
        if timeout(PATIENCE, process.gate.pass()).await.is_err() {
            server.end(Err("Timeout exceeded while reading from socket".into()));
            return Ok(Some(batch.id.clone()));
        }
        let read = !matches!(ending, Ending::Unread | Ending::BridgeCrash | Ending::Partial);
        if read && !served.deliver() {
            server.end(Err("the end of the body did not come".into()));
            return Ok(Some(batch.id.clone()));
        }
        if read {
            self.still_held(process, &batch, &held);
        }
        self.dice.delay(100).await;
        let inserts = matches!(
            ending,
            Ending::Success | Ending::FailedAfter | Ending::BridgeCrashAfter | Ending::ServerCrash { inserted: true }
        );
        let wrongly = ending == Ending::Refused && batch.rows() > 1 && !self.ledger.has_any(&batch);
        let refused = wrongly || inserts && self.quarantine.refuses(&batch);
        if inserts && !refused {
            self.ledger.insert(&batch);
        }
        self.dice.delay(50).await;
        match ending {
            Ending::ServerCrash { .. } => server.crash(),
            _ if refused => {
                self.ledger.refused(&batch.id);
                server.refuse();
            }
            Ending::Success | Ending::BridgeCrashAfter | Ending::Partial => server.end(Ok(())),
            Ending::Unread | Ending::FailedBefore | Ending::FailedAfter | Ending::BridgeCrash | Ending::Refused => {
                server.end(Err(format!("{ending:?}")));
            }
            Ending::Cancelled => server.cancel(),
            Ending::Replaced => server.drop_view(true),
        }
        Ok(Some(batch.id.clone()))
    }

    /// Who has the leases of a batch.
    fn held(&self, batch: &Batch) -> BTreeMap<ShardId, (WorkerId, u64)> {
        let of_batch = |l: &&Lease| batch.ranges.iter().any(|r| r.shard_id == l.shard_id);
        let of = |l: &Lease| (l.shard_id.clone(), (l.owner.clone(), l.epoch));
        self.look(|leases| leases.filter(of_batch).map(of).collect())
    }

    /// A process completes a body: it must still hold the whole batch, at the seat that was given
    /// it.
    fn still_held(&self, process: &Process, batch: &Batch, before: &BTreeMap<ShardId, (WorkerId, u64)>) {
        let same = |l: &Lease| before.get(&l.shard_id) == Some(&(l.owner.clone(), l.epoch));
        let lost = |l: &&Lease| process.store.taken(&l.key()) != Some(l.epoch) || l.owner.is_empty() || !same(l);
        let of_batch = |l: &&Lease| batch.ranges.iter().any(|r| r.shard_id == l.shard_id);
        if let Some(lost) = self.look(|leases| leases.filter(of_batch).find(lost).cloned()) {
            self.ledger.ended_by_another(&batch.id, &lost);
        }
    }

    /// Looks at the pipe's rows without copying them.
    fn look<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Lease>) -> T) -> T {
        self.rows.held.look(|rows| look(&mut rows.leases.values().map(|row| &row.value).filter(|l| l.pipe == *PIPE)))
    }

    /// The pipe's rows.
    pub async fn leases(&self) -> Vec<Versioned<Lease>> {
        self.rows.held.leases(Some(&PIPE)).await.unwrap()
    }

    /// One row.
    pub async fn lease(&self, shard_id: &ShardId) -> Lease {
        self.leases().await.into_iter().map(|r| r.value).find(|l| l.shard_id == *shard_id).unwrap()
    }

    /// An operator changes a row with SQL.
    pub async fn edit(&self, shard_id: &ShardId, change: impl Fn(&mut Lease)) {
        let row = self.leases().await.into_iter().find(|r| r.value.shard_id == *shard_id);
        let Some(mut row) = row else { return };
        let before = row.value.clone();
        change(&mut row.value);
        if (&before.owner, before.epoch) != (&row.value.owner, row.value.epoch) {
            self.ledger.freed(&before);
        }
        tracing::debug!(
            "a person writes {shard_id}: at {}, {:?}",
            row.value.checkpoint,
            row.value.offer.as_ref().map(|o| &o.batch)
        );
        self.rows.held.update(&[row]).await.unwrap();
    }

    /// Whether every record is committed and nothing is open.
    pub async fn settled(&self) -> bool {
        self.look(|leases| {
            let leases: BTreeMap<&ShardId, &Lease> = leases.map(|l| (&l.shard_id, l)).collect();
            let done = |shard: &ShardId| {
                let committed = leases.get(shard).map_or(0, |l| position(&l.checkpoint));
                self.kinesis.between(shard, committed, u128::MAX).iter().all(|row| self.ledger.is_told(row))
            };
            leases.values().all(|l| l.offer.is_none()) && self.kinesis.shards_ever().iter().all(done)
        })
    }

    /// Whether each open shard has a lease and each closed one is finished.
    pub async fn finished(&self) -> bool {
        self.look(|leases| {
            let leases: BTreeMap<&ShardId, &Lease> = leases.map(|l| (&l.shard_id, l)).collect();
            self.kinesis.open_shards().iter().all(|shard| leases.contains_key(shard))
                && leases.values().all(|l| l.finished() || !self.kinesis.closed(&l.shard_id))
        })
    }

    /// Refreshes until every record is committed. Returns false if that did not happen in time.
    pub async fn drain(&self, process: &Process, server: &FakeServer, options: &PullOptions) -> bool {
        for _ in 0..300 {
            let _ = self.refresh(process, server, options, Ending::Success).await;
            sleep(Duration::from_millis(200)).await;
            if self.settled().await {
                return true;
            }
        }
        false
    }

    /// Every record is in both tables as it should be, and no rule was broken on the way.
    pub fn judge(&self) -> Result<(), String> {
        if let Some(first) = self.ledger.violations().first() {
            return Err(first.clone());
        }
        for place in self.kinesis.all() {
            let (kept, bad) = (self.quarantine.payload(&place), self.quarantine.is_bad(&place));
            match (self.ledger.times(&place), kept) {
                ((0, 0), Some(kept)) if bad && self.quarantine.sent(&place) == Some(kept.clone()) => {}
                (times, Some(_)) => {
                    return Err(format!("{place:?} is in the quarantine, and in the tables {times:?} times"));
                }
                ((0, 0), None) if self.ledger.is_told(&place) => {}
                (times, None) if bad => {
                    return Err(format!("{place:?} is bad, not in the quarantine, and in the tables {times:?}"));
                }
                (times, None) => self.judge_good(&place, times)?,
            }
        }
        Ok(())
    }

    fn judge_good(&self, place: &Place, times: (u32, u32)) -> Result<(), String> {
        match times {
            (0, _) => Err(format!("{place:?} was lost")),
            (_, 1) => Ok(()),
            (_, _) if self.ledger.moves => Ok(()),
            (_, times) => Err(format!("{place:?} is in the deduplicating table {times} times")),
        }
    }
}

/// The options of the view.
pub fn options(limits: Limits) -> PullOptions {
    PullOptions {
        confirm: Confirm::View { database: "default".into(), view: VIEW.into() },
        shape: BatchShape::new(Format::ArrowStream.name(), Unpacking::default()),
        unpacking: Unpacking::default(),
        limits,
        linger: Some(Duration::from_millis(200)),
        wait: Duration::from_millis(1_000),
        mode: Mode::Polling,
        on_failure: OnFailure::Stop,
        poll: Some(Duration::from_millis(200)),
        start: Beginning::TrimHorizon,
        resume: false,
    }
}

/// Limits that no test reaches by chance.
pub const WIDE: Limits = Limits { max_rows: 100_000, max_bytes: 64 << 20 };
