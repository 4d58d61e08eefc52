//! The leases that this worker holds in one pipe, as it last saw them, and the writes that change
//! them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::identity::one_stream;
use domain::error::Error;
use domain::lease::{Destination, Holder, Lease};
use domain::limits::{CONFLICT_RETRIES, LEASE_ROWS_PER_STATEMENT};
use domain::ports::{Clock, StateError, StateStore, Stream, Versioned};

/// All lease rows of a pipe as last read, by shard id.
pub struct Leases {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    pipe: String,
    worker: String,
    stream: Stream,
    destination: Destination,
    rows: BTreeMap<String, Versioned<Lease>>,
    /// The epoch of each lease that this process took. A row with another owner or epoch is not
    /// ours any more.
    taken: BTreeMap<String, u64>,
    /// The epochs with which a row under this worker's name is its own without being in `taken`:
    /// from before a restart, or of a take whose answer got lost. Another epoch would be that of a
    /// second process with that name.
    left_over: HashSet<(String, u64)>,
    /// The last write's answer was lost: the rows may be newer than `rows`.
    in_doubt: bool,
}

/// What a write led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// All rows are as wanted.
    Yes,
    /// Somebody changed a row in between (a person with SQL, a seek). Nothing was written; the new
    /// rows have been read.
    Changed,
}

impl Leases {
    /// Reads the pipe's rows.
    pub async fn load(
        store: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        pipe: &str,
        worker: &str,
        stream: &Stream,
    ) -> Result<Leases, Error> {
        let mut leases = Leases {
            store,
            clock,
            pipe: pipe.into(),
            worker: worker.into(),
            stream: stream.clone(),
            destination: Destination::default(),
            rows: BTreeMap::new(),
            taken: BTreeMap::new(),
            left_over: HashSet::new(),
            in_doubt: false,
        };
        leases.reload().await?;
        let own = leases.all().filter(|l| l.owner == worker);
        leases.left_over = own.map(|l| (l.shard_id.clone(), l.epoch)).collect();
        Ok(leases)
    }

    /// The stream, as it was described last.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Where rows go from now on: whatever is created or taken says so.
    pub fn feed(&mut self, to: &Destination) {
        if self.destination != *to {
            self.destination.clone_from(to);
        }
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

    /// Notes what the stream is now. Refused when it is not the one that the rows say.
    pub fn describe(&mut self, stream: Stream) -> Result<(), Error> {
        one_stream(&self.pipe, self.all(), &stream)?;
        self.stream = stream;
        Ok(())
    }

    /// Reads the rows again. Refused when they are another stream's: nothing of them may be taken
    /// or changed (**one-stream-per-pipe**).
    pub async fn reload(&mut self) -> Result<(), Error> {
        let rows = self.store.leases(Some(&self.pipe)).await?;
        one_stream(&self.pipe, rows.iter().map(|row| &row.value), &self.stream)?;
        self.rows = rows.into_iter().map(|row| (row.value.shard_id.clone(), row)).collect();
        self.in_doubt = false;
        Ok(())
    }

    /// Whether the rows may be newer than what is known here: the answer to the last write was
    /// lost, or see [`Leases::doubt`].
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Lets the rows be read again before the next step: something is wrong that a person may mend
    /// there.
    pub fn doubt(&mut self) {
        self.in_doubt = true;
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

    /// Adds rows for shards that have none. Another worker may have added them first; then its rows
    /// count.
    pub async fn create(&mut self, leases: Vec<Lease>) -> Result<(), Error> {
        let leases: Vec<Lease> = leases.into_iter().map(|lease| self.destined(lease)).collect();
        let mut created = Vec::new();
        for part in leases.chunks(LEASE_ROWS_PER_STATEMENT) {
            match self.store.create(part).await {
                Ok(()) => created.extend(part.iter().map(|lease| Versioned { version: 0, value: lease.clone() })),
                Err(StateError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        let read = self.reload().await;
        if let Err(Error::BadRequest(_)) = &read {
            // A bridge elsewhere was as fast, with shards of other names. What nobody has taken
            // goes away again.
            for part in created.chunks(LEASE_ROWS_PER_STATEMENT) {
                self.store.delete(part).await?;
            }
        }
        read
    }

    /// Deletes rows. Where others did so first, or write just now, that counts.
    pub async fn forget(&mut self, shard_ids: &[String]) -> Result<(), Error> {
        let rows: Vec<Versioned<Lease>> = shard_ids.iter().filter_map(|id| self.rows.get(id).cloned()).collect();
        for part in rows.chunks(LEASE_ROWS_PER_STATEMENT) {
            match self.store.delete(part).await {
                Ok(()) => info!(
                    pipe = self.pipe,
                    leases = part.len(),
                    "leases of shards that have left the retention are deleted"
                ),
                Err(StateError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        if rows.is_empty() { Ok(()) } else { self.reload().await }
    }

    /// Takes the leases that `free` allows and our own from before, each with a new epoch, which
    /// fences whoever had it. Whether there were any.
    pub async fn take(&mut self, free: impl Fn(&Lease) -> bool) -> Result<bool, Error> {
        let mut some = false;
        loop {
            // Chosen anew after each write: a conflict may have shown other rows.
            let now = self.clock.now_ms();
            let take = |l: &Lease| self.destined(l.take(&self.worker, now).adopted_by(&self.stream.identity()));
            let takes: Vec<Lease> = self.takeable(&free).into_iter().map(take).collect();
            if takes.is_empty() {
                return Ok(some);
            }
            some = true;
            let epochs: Vec<(String, u64)> = takes.iter().map(|l| (l.shard_id.clone(), l.epoch)).collect();
            self.left_over.extend(epochs.iter().cloned());
            if self.write(takes).await? == Written::Changed {
                // Somebody else was faster, and may have been with the other ones.
                return Ok(some);
            }
            info!(pipe = self.pipe, leases = epochs.len(), "leases taken");
            self.taken.extend(epochs);
            self.left_over.retain(|(shard_id, epoch)| self.taken.get(shard_id).is_none_or(|taken| epoch > taken));
        }
    }

    /// What to take in one write. The leases of one offered batch only all together: in two hands
    /// it could not be settled (**recovery-as-a-unit**).
    fn takeable(&self, free: impl Fn(&Lease) -> bool) -> Vec<&Lease> {
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

    /// Like [`Leases::write`] for changes that need not happen together, however many.
    pub async fn write_each(&mut self, changes: Vec<Lease>) -> Result<Written, Error> {
        let before: Vec<Option<Lease>> = changes.iter().map(|c| self.get(&c.shard_id).cloned()).collect();
        for (part, before) in changes.chunks(LEASE_ROWS_PER_STATEMENT).zip(before.chunks(LEASE_ROWS_PER_STATEMENT)) {
            // A conflict in an earlier part may have shown other rows than those that the changes
            // were made from.
            let same = part.iter().zip(before).all(|(c, b)| self.get(&c.shard_id) == b.as_ref());
            if !same || self.write(part.to_vec()).await? == Written::Changed {
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
