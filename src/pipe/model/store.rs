//! The store as one process sees it: answers get lost, rows are changed by others, and every write is looked at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::dice::Dice;
use super::ledger::Ledger;
use crate::domain::lease::Lease;
use crate::ports::{StateError, StateStore, Versioned, Worker};
use crate::state::MemoryStore;

/// One process's way to the rows.
pub struct WatchedStore {
    /// The rows themselves, which outlive every process.
    pub rows: Arc<MemoryStore>,
    dice: Arc<Dice>,
    ledger: Arc<Ledger>,
    worker: String,
    /// The epochs that this process was given.
    taken: Mutex<BTreeMap<String, u64>>,
    /// Heartbeats do not arrive.
    mute: AtomicBool,
    /// What every write answers while it is set; true: after it was carried out.
    fault: Mutex<Option<(StateError, bool)>>,
}

impl WatchedStore {
    /// A way to `rows` for `worker`.
    pub fn new(rows: Arc<MemoryStore>, dice: Arc<Dice>, ledger: Arc<Ledger>, worker: &str) -> WatchedStore {
        let (taken, mute, fault) = (Mutex::default(), AtomicBool::new(false), Mutex::default());
        WatchedStore { rows, dice, ledger, worker: worker.into(), taken, mute, fault }
    }

    /// Lets heartbeats get lost, or arrive again.
    pub fn mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::Relaxed);
    }

    /// What writes of leases answer from now on; with `done`, after they were carried out.
    pub fn fault(&self, error: Option<StateError>, done: bool) {
        *self.fault.lock().unwrap() = error.map(|error| (error, done));
    }

    fn away(&self, chance: u64, what: &str) -> Result<(), StateError> {
        match self.dice.trouble(chance) {
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

    /// Somebody writes a row as it is: nothing changes but its version.
    async fn touch(&self, leases: &[Versioned<Lease>]) {
        let rows = self.rows.leases(None).await.unwrap();
        let touched: Vec<_> =
            rows.into_iter().filter(|r| leases.iter().any(|l| l.value.key() == r.value.key())).collect();
        self.rows.update(&touched[..touched.len().min(1)]).await.unwrap();
    }
}

#[async_trait]
impl StateStore for WatchedStore {
    async fn leases(&self, pipe: Option<&str>) -> Result<Vec<Versioned<Lease>>, StateError> {
        self.dice.delay(5).await;
        self.away(2, "the rows cannot be read")?;
        self.rows.leases(pipe).await
    }

    async fn create(&self, leases: &[Lease]) -> Result<(), StateError> {
        self.dice.delay(5).await;
        self.away(3, "the rows cannot be created")?;
        self.faulty(false)?;
        let before = self.rows.leases(None).await?;
        self.rows.create(leases).await?;
        for lease in leases {
            self.ledger.created(before.is_empty(), lease);
        }
        self.dice.delay(5).await;
        self.faulty(true)?;
        self.away(3, "the rows may have been created")
    }

    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.dice.delay(5).await;
        self.away(4, "the rows were not written")?;
        self.faulty(false)?;
        if self.dice.trouble(4) {
            self.touch(leases).await;
        }
        let before = self.rows.leases(None).await?;
        self.rows.update(leases).await?;
        tracing::debug!(by = self.worker, shards = leases.len(), "rows written");
        for new in leases.iter().map(|l| &l.value) {
            let Some(old) = before.iter().map(|l| &l.value).find(|l| l.key() == new.key()) else { continue };
            let mut taken = self.taken.lock().unwrap();
            self.ledger.stepped(&self.worker, taken.get(&new.key()).copied(), old, new);
            if new.epoch != old.epoch {
                taken.insert(new.key(), new.epoch);
            }
        }
        self.dice.delay(5).await;
        self.faulty(true)?;
        self.away(4, "the rows may have been written")
    }

    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.dice.delay(5).await;
        self.away(4, "the rows were not deleted")?;
        self.faulty(false)?;
        self.rows.delete(leases).await?;
        self.faulty(true)?;
        self.away(4, "the rows may have been deleted")
    }

    async fn workers(&self) -> Result<Vec<Worker>, StateError> {
        self.dice.delay(5).await;
        self.away(5, "the workers cannot be read")?;
        self.rows.workers().await
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError> {
        self.dice.delay(5).await;
        match self.mute.load(Ordering::Relaxed) {
            true => Err(StateError::Unavailable("the heartbeat got lost".into())),
            false => self.rows.heartbeat(worker).await,
        }
    }
}
