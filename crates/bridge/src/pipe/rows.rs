//! A pipe's lease rows as last read, and which of them this process holds. Pure: `leases` does the
//! reading and writing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use domain::error::Error;
use domain::lease::{Destination, Holder, Lease};
use domain::limits::LEASE_ROWS_PER_STATEMENT;
use domain::names::{BatchId, ShardId, WorkerId};
use domain::ports::Versioned;

/// All lease rows of a pipe as last read.
pub struct Rows {
    worker: WorkerId,
    destination: Destination,
    /// By shard id; shared with what is published.
    rows: BTreeMap<ShardId, Versioned<Arc<Lease>>>,
    /// Counts the changes of any of this.
    changes: u64,
    /// The epoch of each lease that this process took. A row with another owner or epoch is no
    /// longer ours.
    taken: BTreeMap<ShardId, u64>,
    /// Epochs of rows under this worker's name that are ours without being in `taken`: from before
    /// a restart, or from a take whose answer was lost. Any other epoch belongs to a second process
    /// with the same name.
    left_over: HashSet<(ShardId, u64)>,
}

impl Rows {
    /// Creates an empty set of rows.
    pub fn new(worker: &WorkerId) -> Rows {
        Rows {
            worker: worker.clone(),
            destination: Destination::default(),
            rows: BTreeMap::new(),
            changes: 0,
            taken: BTreeMap::new(),
            left_over: HashSet::new(),
        }
    }

    /// A number that differs after every change of the rows, or of which of them are held.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All leases of the pipe, ordered by shard id, whoever holds them.
    pub fn all(&self) -> impl Iterator<Item = &Lease> {
        self.shared().map(|lease| &**lease)
    }

    /// The same, to be kept.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.rows.values().map(|row| &row.value)
    }

    /// The leases that this process holds.
    pub fn held(&self) -> impl Iterator<Item = &Lease> {
        self.all().filter(|lease| self.holds(lease))
    }

    /// The lease of a shard.
    pub fn get(&self, shard_id: &ShardId) -> Option<&Lease> {
        self.rows.get(shard_id).map(|row| &*row.value)
    }

    /// Whether this process holds the lease, as last read.
    pub fn holds(&self, lease: &Lease) -> bool {
        lease.owner == self.worker && self.taken.get(&lease.shard_id) == Some(&lease.epoch)
    }

    /// This process as the holder of a shard's lease.
    pub fn holder(&self, shard_id: &ShardId) -> Holder {
        Holder { owner: self.worker.clone(), epoch: self.taken.get(shard_id).copied().unwrap_or(0) }
    }

    /// Applies `step` to each lease held here that `applies` selects.
    pub fn each_held(
        &self,
        applies: impl Fn(&Lease) -> bool,
        step: impl Fn(&Lease, &Holder) -> Result<Lease, Error>,
    ) -> Result<Vec<Lease>, Error> {
        self.held().filter(|lease| applies(lease)).map(|lease| step(lease, &self.holder(&lease.shard_id))).collect()
    }

    /// The leases of `batch` held here, and whether others hold some as well.
    pub fn holding(&self, batch: &BatchId) -> (Vec<Lease>, bool) {
        let of_batch = |l: &&Lease| l.batch() == Some(batch);
        let held: Vec<Lease> = self.held().filter(of_batch).cloned().collect();
        let elsewhere = self.all().filter(of_batch).count() > held.len();
        (held, elsewhere)
    }

    /// Sets where rows go from now on; leases created or taken later record it.
    pub fn feed(&mut self, to: &Destination) {
        self.destination.clone_from(to);
    }

    /// The lease with the current destination.
    pub fn destined(&self, lease: Lease) -> Lease {
        // A reader that sends acks itself has no destination and does not change a view's.
        if self.destination.target.is_empty() {
            lease
        } else {
            Lease { destination: self.destination.clone(), ..lease }
        }
    }

    /// The leases to take in one write. Those of an offered batch are taken together or not at all:
    /// split between two workers, it could not be settled (**recovery-as-a-unit**).
    pub fn takeable(&self, free: impl Fn(&Lease) -> bool) -> Vec<&Lease> {
        let left_over = |l: &Lease| l.owner == self.worker && self.left_over.contains(&(l.shard_id.clone(), l.epoch));
        let allowed = |l: &&Lease| self.holds(l) || left_over(l) || free(l);
        let batch = |l: &Lease| l.offer.as_ref().map(|o| o.batch.clone());
        let in_other_hands: HashSet<BatchId> = self.all().filter(|l| !allowed(l)).filter_map(batch).collect();
        let whole = |l: &&Lease| left_over(l) || batch(l).is_none_or(|b| !in_other_hands.contains(&b));
        let mut all: Vec<&Lease> = self.all().filter(allowed).filter(|l| !self.holds(l)).filter(whole).collect();
        all.sort_by_key(|l| batch(l));
        let first = all.first().and_then(|l| batch(l));
        all.into_iter().take_while(|l| batch(l) == first).take(LEASE_ROWS_PER_STATEMENT).collect()
    }

    /// Replaces the rows with those just read.
    pub fn read(&mut self, rows: Vec<Versioned<Lease>>) {
        self.rows = rows.into_iter().map(shared).collect();
        self.changes += 1;
    }

    /// Notes that all rows under this worker's name are from before this process started; it has
    /// taken none yet.
    pub fn are_left_over(&mut self) {
        let own = self.all().filter(|l| l.owner == self.worker);
        self.left_over = own.map(|l| (l.shard_id.clone(), l.epoch)).collect();
    }

    /// Notes that leases are about to be taken with these epochs: if the answer is lost, they may
    /// be ours.
    pub fn taking(&mut self, epochs: &[(ShardId, u64)]) {
        self.left_over.extend(epochs.iter().cloned());
    }

    /// Notes that they were taken.
    pub fn taken(&mut self, epochs: Vec<(ShardId, u64)>) {
        self.changes += 1;
        self.taken.extend(epochs);
        self.left_over.retain(|(shard_id, epoch)| self.taken.get(shard_id).is_none_or(|taken| epoch > taken));
    }

    /// Adds to each changed lease the version at which its row was read.
    pub fn versioned(&self, changes: Vec<Lease>) -> Result<Vec<Versioned<Lease>>, Error> {
        let versioned = changes.into_iter().map(|change| match self.rows.get(&change.shard_id) {
            Some(row) => Ok(Versioned { version: row.version, value: change }),
            None => Err(Error::Internal(format!("lease {} is written and was never read", change.key()))),
        });
        versioned.collect()
    }

    /// The wanted changes with the current versions, if the rows still have the same leases as in
    /// `before`; none if not. `Fenced` if a lease that was held here no longer is.
    pub fn still(
        &self,
        wanted: Vec<Versioned<Lease>>,
        before: &[Option<Lease>],
    ) -> Result<Option<Vec<Versioned<Lease>>>, Error> {
        for (change, before) in wanted.iter().zip(before) {
            let Some(now) = self.get(&change.value.shard_id) else { continue };
            if before.as_ref().is_some_and(|b| self.holds(b)) && !self.holds(now) {
                return Err(Error::Fenced(format!(
                    "shard {} of pipe '{}' is held by '{}' (epoch {}) now, no longer by this process ('{}')",
                    now.shard_id, now.pipe, now.owner, now.epoch, self.worker
                )));
            }
        }
        let now = wanted.into_iter().zip(before).map(|(change, before)| {
            let row = self.rows.get(&change.value.shard_id);
            (row.map(|row| &*row.value) == before.as_ref())
                .then(|| Versioned { version: row.map_or(change.version, |row| row.version), ..change })
        });
        Ok(now.collect())
    }

    /// The current leases of these shards.
    pub fn of<'a>(&self, changes: impl IntoIterator<Item = &'a Lease>) -> Vec<Option<Lease>> {
        changes.into_iter().map(|change| self.get(&change.shard_id).cloned()).collect()
    }

    /// Notes that rows were written over the given versions.
    pub fn written(&mut self, rows: Vec<Versioned<Lease>>) {
        self.changes += 1;
        let next = |row: Versioned<Lease>| Versioned { version: row.version.wrapping_add(1), ..row };
        self.rows.extend(rows.into_iter().map(next).map(shared));
    }
}

fn shared(row: Versioned<Lease>) -> (ShardId, Versioned<Arc<Lease>>) {
    (row.value.shard_id.clone(), Versioned { version: row.version, value: Arc::new(row.value) })
}
