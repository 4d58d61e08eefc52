//! The leases that this worker holds in one pipe, as it last saw them, and the writes that change them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::domain::error::Error;
use crate::domain::lease::{Holder, Lease};
use crate::limits::LEASE_ROWS_PER_STATEMENT;
use crate::ports::{Clock, StateError, StateStore, Versioned};

/// How often a write is tried again after a conflict that turned out to be harmless.
const CONFLICT_RETRIES: usize = 5;

/// All lease rows of a pipe as last read, by shard id.
pub struct Leases {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    pipe: String,
    worker: String,
    rows: BTreeMap<String, Versioned<Lease>>,
    /// The epoch of each lease that this process took. A row with another owner or epoch is not ours any more.
    taken: BTreeMap<String, u64>,
    /// The last write's answer was lost: the rows may be newer than `rows`.
    in_doubt: bool,
}

/// What a write led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// All rows are as wanted.
    Yes,
    /// Somebody changed a row in between (a person with SQL, a seek). Nothing was written; the new rows have been read.
    Changed,
}

impl Leases {
    /// Reads the pipe's rows.
    pub async fn load(
        store: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        pipe: &str,
        worker: &str,
    ) -> Result<Leases, Error> {
        let mut leases = Leases {
            store,
            clock,
            pipe: pipe.into(),
            worker: worker.into(),
            rows: BTreeMap::new(),
            taken: BTreeMap::new(),
            in_doubt: false,
        };
        leases.reload().await?;
        Ok(leases)
    }

    /// Reads the rows again.
    pub async fn reload(&mut self) -> Result<(), Error> {
        let rows = self.store.leases(Some(&self.pipe)).await?;
        self.rows = rows.into_iter().map(|row| (row.value.shard_id.clone(), row)).collect();
        self.in_doubt = false;
        Ok(())
    }

    /// Reads the rows again if the answer to the last write was lost.
    pub async fn reload_if_in_doubt(&mut self) -> Result<(), Error> {
        match self.in_doubt {
            true => self.reload().await,
            false => Ok(()),
        }
    }

    /// All leases of the pipe, whoever holds them.
    pub fn all(&self) -> impl Iterator<Item = &Lease> {
        self.rows.values().map(|row| &row.value)
    }

    /// The leases that this process holds.
    pub fn held(&self) -> impl Iterator<Item = &Lease> {
        self.all().filter(|lease| self.holds(lease))
    }

    /// One lease.
    pub fn get(&self, shard_id: &str) -> Option<&Lease> {
        self.rows.get(shard_id).map(|row| &row.value)
    }

    /// Whether this process holds the lease, as last read.
    pub fn holds(&self, lease: &Lease) -> bool {
        lease.owner == self.worker && self.taken.get(&lease.shard_id) == Some(&lease.epoch)
    }

    /// Who this process is to `lease`.
    pub fn holder(&self, shard_id: &str) -> Holder {
        Holder { owner: self.worker.clone(), epoch: self.taken.get(shard_id).copied().unwrap_or(0) }
    }

    /// Adds rows for shards that have none. Another worker may have added them first; then its rows count.
    pub async fn create(&mut self, leases: Vec<Lease>) -> Result<(), Error> {
        for part in leases.chunks(LEASE_ROWS_PER_STATEMENT) {
            match self.store.create(part).await {
                Ok(()) | Err(StateError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        self.reload().await
    }

    /// Takes the leases that `free` allows, each with a new epoch, which fences whoever had it.
    pub async fn take(&mut self, free: impl Fn(&Lease) -> bool) -> Result<(), Error> {
        let now = self.clock.now_ms();
        let wanted: Vec<String> =
            self.all().filter(|l| !self.holds(l) && free(l)).map(|l| l.shard_id.clone()).collect();
        for part in wanted.chunks(LEASE_ROWS_PER_STATEMENT) {
            let takes: Vec<Lease> =
                part.iter().filter_map(|id| self.get(id)).map(|l| l.take(&self.worker, now)).collect();
            let epochs: Vec<(String, u64)> = takes.iter().map(|l| (l.shard_id.clone(), l.epoch)).collect();
            if self.write(takes).await? == Written::Yes {
                info!(pipe = self.pipe, leases = epochs.len(), "leases taken");
                self.taken.extend(epochs);
            }
        }
        Ok(())
    }

    /// Like [`Leases::write`] for changes that need not happen together, however many.
    pub async fn write_each(&mut self, changes: Vec<Lease>) -> Result<Written, Error> {
        for part in changes.chunks(LEASE_ROWS_PER_STATEMENT) {
            if self.write(part.to_vec()).await? == Written::Changed {
                return Ok(Written::Changed);
            }
        }
        Ok(Written::Yes)
    }

    /// Replaces rows with `changes`, all or none, if they are still as last read.
    ///
    /// `Fenced` when one of them belongs to somebody else now.
    pub async fn write(&mut self, changes: Vec<Lease>) -> Result<Written, Error> {
        if changes.is_empty() {
            return Ok(Written::Yes);
        }
        let mut expected = Vec::with_capacity(changes.len());
        for change in changes {
            let Some(row) = self.rows.get(&change.shard_id) else {
                return Err(Error::Internal(format!("lease {} is written and was never read", change.key())));
            };
            expected.push(Versioned { version: row.version, value: change });
        }
        for _ in 0..CONFLICT_RETRIES {
            match self.store.update(&expected).await {
                Ok(()) => {
                    for row in expected {
                        let next = Versioned { version: row.version + 1, ..row };
                        self.rows.insert(next.value.shard_id.clone(), next);
                    }
                    return Ok(Written::Yes);
                }
                Err(StateError::Conflict(why)) => {
                    let before: Vec<Option<Lease>> =
                        expected.iter().map(|e| self.get(&e.value.shard_id).cloned()).collect();
                    self.reload().await?;
                    self.still_mine(&expected, &before)?;
                    let same = expected.iter().zip(&before).all(|(e, b)| self.get(&e.value.shard_id) == b.as_ref());
                    if !same {
                        warn!(pipe = self.pipe, "lease rows were changed by somebody else: {why}");
                        return Ok(Written::Changed);
                    }
                    for row in &mut expected {
                        row.version = self.rows.get(&row.value.shard_id).map_or(row.version, |r| r.version);
                    }
                }
                Err(other) => {
                    self.in_doubt = true;
                    return Err(other.into());
                }
            }
        }
        Err(Error::Unavailable(format!("the lease rows of pipe '{}' keep changing; trying again", self.pipe)))
    }

    /// Fenced, when a row that we held has another owner or epoch now.
    fn still_mine(&self, expected: &[Versioned<Lease>], before: &[Option<Lease>]) -> Result<(), Error> {
        for (change, before) in expected.iter().zip(before) {
            let Some(now) = self.get(&change.value.shard_id) else { continue };
            let was_mine = before.as_ref().is_some_and(|b| self.holds(b));
            if was_mine && !self.holds(now) {
                return Err(Error::Fenced(format!(
                    "shard {} of pipe '{}' is held by '{}' (epoch {}) now, no longer by this process ('{}')",
                    now.shard_id, self.pipe, now.owner, now.epoch, self.worker
                )));
            }
        }
        Ok(())
    }
}
