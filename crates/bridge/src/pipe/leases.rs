//! The lease rows of a pipe, and the one way to change them: read, decide, write by
//! compare-and-set.

use std::ops::Deref;
use std::sync::Arc;

use tracing::{info, warn};

use super::identity::one_stream;
use super::rows::Rows;
use domain::error::Error;
use domain::lease::{Destination, Lease};
use domain::limits::{COMMIT_RETRIES, CONFLICT_RETRIES, LEASE_ROWS_PER_STATEMENT};
use domain::ports::{Clock, StateError, StateStore, Stream, Versioned};

/// The rows of a pipe as last read, and the store that they are in.
pub struct Leases {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    pipe: String,
    worker: String,
    stream: Stream,
    rows: Rows,
    /// The last write's answer was lost: the rows may be newer than `rows`.
    in_doubt: bool,
}

impl Deref for Leases {
    type Target = Rows;

    fn deref(&self) -> &Rows {
        &self.rows
    }
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
        let (rows, stream) = (Rows::new(worker), stream.clone());
        let (pipe, worker) = (pipe.into(), worker.into());
        let mut leases = Leases { store, clock, pipe, worker, stream, rows, in_doubt: false };
        leases.reload().await?;
        leases.rows.are_left_over();
        Ok(leases)
    }

    /// The stream, as it was described last.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Where rows go from now on: whatever is created or taken says so.
    pub fn feed(&mut self, to: &Destination) {
        self.rows.feed(to);
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
        self.rows.read(rows);
        self.in_doubt = false;
        Ok(())
    }

    /// Whether the rows may be newer than what is known here: the answer to the last write was
    /// lost, or see [`Leases::doubt`].
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Lets the rows be read again before the next step: something is wrong that an operator may
    /// mend there.
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

    /// Deletes the rows of shards that have left the retention. Where others did so first, or write
    /// just now, that counts.
    pub async fn forget(&mut self, shard_ids: &[String]) -> Result<(), Error> {
        let leases = shard_ids.iter().filter_map(|id| self.get(id).cloned()).collect();
        let rows = self.versioned(leases)?;
        if rows.is_empty() {
            return Ok(());
        }
        if delete(&*self.store, &rows).await? {
            info!(pipe = self.pipe, leases = rows.len(), "leases of shards that have left the retention are deleted");
        }
        self.reload().await
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
            self.rows.taking(&epochs);
            if !self.write(takes).await? {
                // Somebody else was faster, and may have been with the other ones.
                return Ok(some);
            }
            info!(pipe = self.pipe, leases = epochs.len(), "leases taken");
            self.rows.taken(epochs);
        }
    }

    /// Writes the rows that `decide` makes of those that were read last, at this local time (Unix
    /// ms). False: its decision does not hold, since somebody changed rows in between (an operator
    /// with SQL, a seek), or it says so itself (none). The rows of now have been read then.
    ///
    /// Up to [`LEASE_ROWS_PER_STATEMENT`] rows, which those of a batch never exceed, are written
    /// together or not at all; more of them in parts, of which the first may be written.
    ///
    /// # Errors
    ///
    /// `Fenced` when one of them belongs to somebody else now.
    pub async fn try_change(
        &mut self,
        decide: impl FnOnce(&Rows, i64) -> Result<Option<Vec<Lease>>, Error>,
    ) -> Result<bool, Error> {
        let Some(changes) = decide(&self.rows, self.clock.now_ms())? else { return Ok(false) };
        let before: Vec<Option<Lease>> = changes.iter().map(|c| self.get(&c.shard_id).cloned()).collect();
        for (part, before) in changes.chunks(LEASE_ROWS_PER_STATEMENT).zip(before.chunks(LEASE_ROWS_PER_STATEMENT)) {
            // A conflict in an earlier part may have shown other rows than those that the changes
            // were made from.
            let same = part.iter().zip(before).all(|(c, b)| self.get(&c.shard_id) == b.as_ref());
            if !same || !self.write(part.to_vec()).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same for a decision that needs nothing but the rows: it is made anew until it holds.
    /// False: the rows kept changing.
    pub async fn change(
        &mut self,
        mut decide: impl FnMut(&Rows, i64) -> Result<Vec<Lease>, Error>,
    ) -> Result<bool, Error> {
        for _ in 0..COMMIT_RETRIES {
            self.reload_if_in_doubt().await?;
            if self.try_change(|rows, now_ms| decide(rows, now_ms).map(Some)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Replaces rows, all or none, if they are still as last read. False: they are not, and have
    /// been read again.
    async fn write(&mut self, changes: Vec<Lease>) -> Result<bool, Error> {
        if changes.is_empty() {
            return Ok(true);
        }
        let mut wanted = self.versioned(changes)?;
        for _ in 0..CONFLICT_RETRIES {
            match self.store.update(&wanted).await {
                Ok(()) => {
                    self.rows.written(wanted);
                    return Ok(true);
                }
                Err(StateError::Conflict(why)) => {
                    let before = self.of(&wanted);
                    self.reload().await?;
                    match self.still(wanted, &before)? {
                        Some(same) => wanted = same,
                        None => {
                            warn!(pipe = self.pipe, "lease rows were changed by somebody else: {why}");
                            return Ok(false);
                        }
                    }
                }
                Err(other) => {
                    self.in_doubt = true;
                    return Err(other.into());
                }
            }
        }
        Err(keep_changing(&self.pipe))
    }
}

/// Deletes rows, however many. False: somebody wrote one of them since it was read, and some are
/// left.
pub async fn delete(store: &dyn StateStore, rows: &[Versioned<Lease>]) -> Result<bool, Error> {
    let mut all = true;
    for part in rows.chunks(LEASE_ROWS_PER_STATEMENT) {
        match store.delete(part).await {
            Ok(()) => {}
            Err(StateError::Conflict(_)) => all = false,
            Err(other) => return Err(other.into()),
        }
    }
    Ok(all)
}

/// The error when rows change each time before they can be written.
pub fn keep_changing(pipe: &str) -> Error {
    Error::Unavailable(format!("the lease rows of pipe '{pipe}' keep changing; trying again"))
}
