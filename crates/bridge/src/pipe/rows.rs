//! The lease rows of a pipe as last read, and which of them this process holds. Pure: `leases`
//! reads and writes them.

use std::collections::{BTreeMap, HashSet};

use domain::error::Error;
use domain::lease::{Destination, Holder, Lease};
use domain::limits::LEASE_ROWS_PER_STATEMENT;
use domain::ports::Versioned;

/// All lease rows of a pipe as last read.
pub struct Rows {
    worker: String,
    destination: Destination,
    /// By shard id.
    rows: BTreeMap<String, Versioned<Lease>>,
    /// The epoch of each lease that this process took. A row with another owner or epoch is not
    /// ours any more.
    taken: BTreeMap<String, u64>,
    /// The epochs with which a row under this worker's name is its own without being in `taken`:
    /// from before a restart, or of a take whose answer got lost. Another epoch would be that of a
    /// second process with that name.
    left_over: HashSet<(String, u64)>,
}

impl Rows {
    /// No row yet.
    pub fn new(worker: &str) -> Rows {
        Rows {
            worker: worker.into(),
            destination: Destination::default(),
            rows: BTreeMap::new(),
            taken: BTreeMap::new(),
            left_over: HashSet::new(),
        }
    }

    /// All leases of the pipe, whoever holds them, ordered by shard id.
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

    /// Who this process is to the lease of a shard.
    pub fn holder(&self, shard_id: &str) -> Holder {
        Holder { owner: self.worker.clone(), epoch: self.taken.get(shard_id).copied().unwrap_or(0) }
    }

    /// What `step` makes of each lease held here that it applies to.
    pub fn each_held(
        &self,
        applies: impl Fn(&Lease) -> bool,
        step: impl Fn(&Lease, &Holder) -> Result<Lease, Error>,
    ) -> Result<Vec<Lease>, Error> {
        self.held().filter(|lease| applies(lease)).map(|lease| step(lease, &self.holder(&lease.shard_id))).collect()
    }

    /// The leases held here that have a part of `batch`, and whether others have parts of it, too.
    pub fn holding(&self, batch: &str) -> (Vec<Lease>, bool) {
        let of_batch = |l: &&Lease| l.batch() == Some(batch);
        let held: Vec<Lease> = self.held().filter(of_batch).cloned().collect();
        let elsewhere = self.all().filter(of_batch).count() > held.len();
        (held, elsewhere)
    }

    /// Where rows go from now on: whatever is created or taken says so.
    pub fn feed(&mut self, to: &Destination) {
        self.destination.clone_from(to);
    }

    /// The lease, and that its rows go there.
    pub fn destined(&self, lease: Lease) -> Lease {
        // A reader that acknowledges by itself has none, and does not change that of a view.
        if self.destination.target.is_empty() {
            lease
        } else {
            Lease { destination: self.destination.clone(), ..lease }
        }
    }

    /// What to take in one write. The leases of one offered batch only all together: in two hands
    /// it could not be settled (**recovery-as-a-unit**).
    pub fn takeable(&self, free: impl Fn(&Lease) -> bool) -> Vec<&Lease> {
        let left_over = |l: &Lease| l.owner == self.worker && self.left_over.contains(&(l.shard_id.clone(), l.epoch));
        let allowed = |l: &&Lease| self.holds(l) || left_over(l) || free(l);
        let batch = |l: &Lease| l.offer.as_ref().map(|o| o.batch.clone());
        let in_other_hands: HashSet<String> = self.all().filter(|l| !allowed(l)).filter_map(batch).collect();
        let whole = |l: &&Lease| left_over(l) || batch(l).is_none_or(|b| !in_other_hands.contains(&b));
        let mut all: Vec<&Lease> = self.all().filter(allowed).filter(|l| !self.holds(l)).filter(whole).collect();
        all.sort_by_key(|l| batch(l));
        let first = all.first().and_then(|l| batch(l));
        all.into_iter().take_while(|l| batch(l) == first).take(LEASE_ROWS_PER_STATEMENT).collect()
    }

    /// The rows were read anew.
    pub fn read(&mut self, rows: Vec<Versioned<Lease>>) {
        self.rows = rows.into_iter().map(|row| (row.value.shard_id.clone(), row)).collect();
    }

    /// Rows under this worker's name, of which this process took none yet, are from before it
    /// started.
    pub fn are_left_over(&mut self) {
        let own = self.rows.values().map(|row| &row.value).filter(|l| l.owner == self.worker);
        self.left_over = own.map(|l| (l.shard_id.clone(), l.epoch)).collect();
    }

    /// Leases are about to be taken with these epochs: if the answer gets lost, they may be ours.
    pub fn taking(&mut self, epochs: &[(String, u64)]) {
        self.left_over.extend(epochs.iter().cloned());
    }

    /// They were taken.
    pub fn taken(&mut self, epochs: Vec<(String, u64)>) {
        self.taken.extend(epochs);
        self.left_over.retain(|(shard_id, epoch)| self.taken.get(shard_id).is_none_or(|taken| epoch > taken));
    }

    /// The changed leases, each with the version at which its row was read.
    pub fn versioned(&self, changes: Vec<Lease>) -> Result<Vec<Versioned<Lease>>, Error> {
        let versioned = changes.into_iter().map(|change| match self.rows.get(&change.shard_id) {
            Some(row) => Ok(Versioned { version: row.version, value: change }),
            None => Err(Error::Internal(format!("lease {} is written and was never read", change.key()))),
        });
        versioned.collect()
    }

    /// The rows as some of them are wanted, `before` a look that was taken since: with the versions
    /// of now if they are the same leases still; none if they are not. `Fenced` when one that was
    /// held here is no longer.
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
            (row.map(|row| &row.value) == before.as_ref())
                .then(|| Versioned { version: row.map_or(change.version, |row| row.version), ..change })
        });
        Ok(now.collect())
    }

    /// The leases of these shards now.
    pub fn of(&self, changes: &[Versioned<Lease>]) -> Vec<Option<Lease>> {
        changes.iter().map(|change| self.get(&change.value.shard_id).cloned()).collect()
    }

    /// The rows were written over the versions that they have here.
    pub fn written(&mut self, rows: Vec<Versioned<Lease>>) {
        for row in rows {
            let next = Versioned { version: row.version.wrapping_add(1), ..row };
            self.rows.insert(next.value.shard_id.clone(), next);
        }
    }
}
