//! The store as one process sees it: requests and responses get lost or delayed, rows are changed
//! by others, and every write is checked.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::dice::{Dice, Flag};
use super::ledger::Ledger;
use super::remote::Gate;
use domain::lease::Lease;
use domain::limits::CLICKHOUSE_TIMEOUT;
use domain::names::{PipeName, WorkerId};
use domain::ports::{StateError, StateStore, Versioned, Worker};
use domain::seat::worker_of;
use testkit::MemoryStore;

/// How long after it was sent a write may be executed. Long after its sender has given up.
pub const LATEST: Duration = Duration::from_secs(40);

/// The rows, and whether they are reachable.
#[derive(Default)]
pub struct Rows {
    /// The rows themselves, which outlive every process.
    pub held: MemoryStore,
    /// They are unreachable.
    pub away: AtomicBool,
}

/// One process's access to the rows.
pub struct WatchedStore {
    way: Arc<Way>,
    gate: Arc<Gate>,
}

/// What remains of a process that dies with a request in flight.
struct Way {
    rows: Arc<Rows>,
    dice: Arc<Dice>,
    ledger: Arc<Ledger>,
    worker: WorkerId,
    /// The epochs that this process was given.
    taken: Mutex<BTreeMap<String, (WorkerId, u64)>>,
    /// Heartbeats do not arrive.
    mute: AtomicBool,
    /// What every write returns while set; true: after it was executed.
    fault: Mutex<Option<(StateError, bool)>>,
    /// While set, changes of leases stay in flight.
    held: Flag,
}

impl WatchedStore {
    /// Access to `rows` for `worker`.
    pub fn new(
        rows: Arc<Rows>,
        dice: Arc<Dice>,
        ledger: Arc<Ledger>,
        worker: &WorkerId,
        gate: Arc<Gate>,
    ) -> WatchedStore {
        let (taken, mute, fault) = (Mutex::default(), AtomicBool::new(false), Mutex::default());
        let way = Way { rows, dice, ledger, worker: worker.clone(), taken, mute, fault, held: Flag::new(false) };
        WatchedStore { way: Arc::new(way), gate }
    }

    /// Makes heartbeats get lost, or arrive again.
    pub fn mute(&self, mute: bool) {
        self.way.mute.store(mute, Ordering::Relaxed);
    }

    /// What writes of leases return from now on; with `done`, after they were executed.
    pub fn fault(&self, error: Option<StateError>, done: bool) {
        *self.way.fault.lock().unwrap() = error.map(|error| (error, done));
    }

    /// Keeps changes of leases in flight, or lets them arrive.
    pub fn hold(&self, hold: bool) {
        self.way.held.set(hold);
    }

    /// The epoch with which this process took a lease.
    pub fn taken(&self, key: &str) -> Option<u64> {
        self.way.taken.lock().unwrap().get(key).map(|(_, epoch)| *epoch)
    }

    async fn read<T: Debug>(
        &self,
        what: &str,
        chance: u64,
        read: impl Future<Output = Result<T, StateError>>,
    ) -> Result<T, StateError> {
        self.gate.pass().await;
        self.way.dice.travel(5).await;
        let answer = match self.way.away(chance, "the rows cannot be read") {
            Ok(()) => read.await,
            Err(away) => Err(away),
        };
        self.gate.pass().await;
        self.way.dice.note(|| format!("{} reads {what}: {answer:?}", self.way.worker));
        answer
    }

    /// Sends a request, which continues even if its sender gives up or dies.
    async fn write(
        &self,
        what: impl FnOnce() -> String,
        request: impl Future<Output = Result<(), StateError>> + Send + 'static,
    ) -> Result<(), StateError> {
        self.gate.pass().await;
        let dice = &self.way.dice;
        let late = dice.trouble(1).then(|| dice.within(LATEST));
        let way = self.way.clone();
        let under_way = tokio::spawn(async move {
            if let Some(late) = late {
                way.dice.linger(late).await;
            }
            request.await
        });
        let lost = || StateError::Unavailable("no answer in time".into());
        let answer = timeout(CLICKHOUSE_TIMEOUT, under_way).await;
        let answer = answer.map_err(|_| lost()).and_then(|joined| joined.unwrap_or_else(|_| Err(lost())));
        self.gate.pass().await;
        dice.note(|| format!("{} writes {}: {answer:?}", self.way.worker, what()));
        answer
    }
}

impl Way {
    fn away(&self, chance: u64, what: &str) -> Result<(), StateError> {
        match self.dice.trouble(chance) || self.rows.away.load(Ordering::Relaxed) {
            true => Err(StateError::Unavailable(what.into())),
            false => Ok(()),
        }
    }

    fn faulty(&self, done: bool) -> Result<(), StateError> {
        match &*self.fault.lock().unwrap() {
            Some((error, at)) if *at == done => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Rewrites a row unchanged, except for its version.
    async fn touch(&self, leases: &[Versioned<Lease>]) {
        let meant = |row: &&Versioned<Lease>| leases.iter().any(|l| l.value.key() == row.value.key());
        let touched = self.rows.held.look(|rows| rows.leases.values().find(meant).cloned());
        self.rows.held.update(touched.as_slice()).await.unwrap();
    }

    async fn create(&self, leases: &[Lease]) -> Result<(), StateError> {
        self.dice.travel(5).await;
        self.away(3, "the rows cannot be created")?;
        self.faulty(false)?;
        let first = self.rows.held.look(|rows| rows.leases.is_empty());
        self.rows.held.create(leases).await?;
        for lease in leases {
            self.ledger.created(first, lease);
        }
        self.dice.travel(5).await;
        self.faulty(true)?;
        self.away(3, "the rows may have been created")
    }

    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.held.until(false).await;
        self.dice.travel(5).await;
        self.away(4, "the rows were not written")?;
        self.faulty(false)?;
        if self.dice.trouble(4) {
            self.touch(leases).await;
        }
        let (before, left) = self.rows.held.look(|rows| self.before(rows, leases));
        self.rows.held.update(leases).await?;
        if let Some(left) = left {
            self.ledger.broken("recovery-as-a-unit", left);
        }
        for (old, new) in before.iter().zip(leases.iter().map(|l| &l.value)) {
            let (Some(old), key) = (old, new.key()) else { continue };
            let (by, mut taken) = (self.writer(old, new), self.taken.lock().unwrap());
            let epoch = taken.get(&key).filter(|(owner, _)| *owner == by).map(|(_, epoch)| *epoch);
            self.ledger.stepped(&by, epoch, old, new);
            if new.epoch != old.epoch {
                taken.insert(key, (by, new.epoch));
            }
        }
        self.dice.travel(5).await;
        self.faulty(true)?;
        self.away(4, "the rows may have been written")
    }

    /// The seat of this process that writes a row: it owns the lease before or after that.
    fn writer(&self, old: &Lease, new: &Lease) -> WorkerId {
        let mine = |owner: &&WorkerId| worker_of(owner) == &*self.worker;
        [&new.owner, &old.owner].into_iter().find(mine).unwrap_or(&self.worker).clone()
    }

    /// The rows that are about to be replaced, and what is wrong with taking these together.
    fn before(&self, rows: &domain::rows::Rows, leases: &[Versioned<Lease>]) -> (Vec<Option<Lease>>, Option<String>) {
        let old = |l: &Versioned<Lease>| rows.leases.get(&l.value.key()).map(|row| row.value.clone());
        let left = || {
            let new: Vec<&Lease> = leases.iter().map(|l| &l.value).collect();
            let by = self.writer(new.first()?, new.first()?);
            self.ledger.taken_together(&by, rows.leases.values().map(|row| &row.value), &new)
        };
        (leases.iter().map(old).collect(), if self.ledger.moves { None } else { left() })
    }

    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.dice.travel(5).await;
        self.away(4, "the rows were not deleted")?;
        self.faulty(false)?;
        self.rows.held.delete(leases).await?;
        self.faulty(true)?;
        self.away(4, "the rows may have been deleted")
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError> {
        self.dice.travel(5).await;
        self.away(0, "the heartbeat got lost")?;
        match self.mute.load(Ordering::Relaxed) {
            true => Err(StateError::Unavailable("the heartbeat got lost".into())),
            false => self.rows.held.heartbeat(worker).await,
        }
    }
}

#[async_trait]
impl StateStore for WatchedStore {
    async fn leases(&self, pipe: Option<&PipeName>) -> Result<Vec<Versioned<Lease>>, StateError> {
        self.read("leases", 2, self.way.rows.held.leases(pipe)).await
    }

    async fn create(&self, leases: &[Lease]) -> Result<(), StateError> {
        let (way, new) = (self.way.clone(), leases.to_vec());
        self.write(|| format!("{leases:?}"), async move { way.create(&new).await }).await
    }

    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        let (way, new) = (self.way.clone(), leases.to_vec());
        self.write(|| format!("{leases:?}"), async move { way.update(&new).await }).await
    }

    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        let (way, gone) = (self.way.clone(), leases.to_vec());
        self.write(|| format!("without {leases:?}"), async move { way.delete(&gone).await }).await
    }

    async fn workers(&self) -> Result<Vec<Worker>, StateError> {
        self.read("workers", 5, self.way.rows.held.workers()).await
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError> {
        let (way, beat) = (self.way.clone(), worker.clone());
        self.write(|| format!("{worker:?}"), async move { way.heartbeat(&beat).await }).await
    }
}
