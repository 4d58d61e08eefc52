//! A pipe's lease rows, and the only way to change them: read, decide, compare-and-set.

use std::ops::Deref;
use std::sync::Arc;

use tracing::{info, warn};

use super::identity::one_stream;
use super::rows::Rows;
use domain::error::Error;
use domain::lease::{Destination, Lease};
use domain::limits::{COMMIT_RETRIES, CONFLICT_RETRIES, LEASE_ROWS_PER_STATEMENT};
use domain::names::{PipeName, ShardId, WorkerId};
use domain::ports::{Clock, StateError, StateStore, Stream, Versioned};

/// A pipe's rows as last read, and the store that holds them.
pub struct Leases {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    pipe: PipeName,
    worker: WorkerId,
    stream: Stream,
    rows: Rows,
    /// The last write's answer was lost: the rows may be newer than `rows`.
    in_doubt: bool,
    /// Readers were started from rows that were in doubt. Rereading the rows does not move them.
    readers_in_doubt: bool,
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
        pipe: &PipeName,
        worker: &WorkerId,
        stream: &Stream,
    ) -> Result<Leases, Error> {
        let (rows, stream) = (Rows::new(worker), stream.clone());
        let (pipe, worker) = (pipe.clone(), worker.clone());
        let mut leases = Leases { store, clock, pipe, worker, stream, rows, in_doubt: false, readers_in_doubt: false };
        leases.reload().await?;
        leases.rows.are_left_over();
        Ok(leases)
    }

    /// The stream as last described.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sets where rows go from now on; leases created or taken later record it.
    pub fn feed(&mut self, to: &Destination) {
        self.rows.feed(to);
    }

    /// Updates the stream's description. Refused if it is not the stream named in the rows.
    pub fn describe(&mut self, stream: Stream) -> Result<(), Error> {
        one_stream(&self.pipe, self.all(), &stream)?;
        self.stream = stream;
        Ok(())
    }

    /// Rereads the rows. Refused if they belong to another stream: none of them may be taken or
    /// changed (**one-stream-per-pipe**).
    pub async fn reload(&mut self) -> Result<(), Error> {
        let rows = self.store.leases(Some(&self.pipe)).await?;
        one_stream(&self.pipe, rows.iter().map(|row| &row.value), &self.stream)?;
        self.rows.read(rows);
        self.in_doubt = false;
        Ok(())
    }

    /// Whether readers may be on the wrong side of an offer: an answer to a write was lost, or
    /// [`Leases::doubt`] was called, since [`Leases::readers_restarted`]. The rows may have been
    /// reread since.
    pub fn readers_in_doubt(&self) -> bool {
        self.readers_in_doubt
    }

    /// Notes that all readers start from rows that were reread.
    pub fn readers_restarted(&mut self) {
        self.readers_in_doubt = false;
    }

    /// Makes the next step reread the rows: something is wrong that an operator may fix there.
    pub fn doubt(&mut self) {
        (self.in_doubt, self.readers_in_doubt) = (true, true);
    }

    /// Rereads the rows if they are in doubt.
    pub async fn reload_if_in_doubt(&mut self) -> Result<(), Error> {
        match self.in_doubt {
            true => self.reload().await,
            false => Ok(()),
        }
    }

    /// Adds rows for shards that have none. If another worker added them first, its rows count.
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
            // A bridge in another account or region was as fast, with other shard ids. Delete the
            // new rows that nobody has taken.
            for part in created.chunks(LEASE_ROWS_PER_STATEMENT) {
                self.store.delete(part).await?;
            }
        }
        read
    }

    /// Deletes the rows of shards that have left the retention. If others deleted or wrote them
    /// first, that counts.
    pub async fn forget(&mut self, shard_ids: &[ShardId]) -> Result<(), Error> {
        let leases = shard_ids.iter().filter_map(|id| self.get(id).cloned()).collect();
        let rows = self.versioned(leases)?;
        if rows.is_empty() {
            return Ok(());
        }
        if delete(&*self.store, &rows).await? {
            info!(
                pipe = self.pipe.as_str(),
                leases = rows.len(),
                "deleted the leases of shards that are older than the retention"
            );
        }
        self.reload().await
    }

    /// Takes the leases that `free` allows and our own from before, each with a new epoch, which
    /// fences the previous holder. True if there were any.
    pub async fn take(&mut self, free: impl Fn(&Lease) -> bool) -> Result<bool, Error> {
        let mut some = false;
        loop {
            // Choose again after each write: a conflict may have shown other rows.
            let now = self.clock.now_ms();
            let take = |l: &Lease| self.destined(l.take(&self.worker, now).adopted_by(&self.stream.identity()));
            let takes: Vec<Lease> = self.takeable(&free).into_iter().map(take).collect();
            if takes.is_empty() {
                return Ok(some);
            }
            some = true;
            let epochs: Vec<(ShardId, u64)> = takes.iter().map(|l| (l.shard_id.clone(), l.epoch)).collect();
            self.rows.taking(&epochs);
            if !self.write(takes).await? {
                // Another worker was faster, perhaps with the others as well.
                return Ok(some);
            }
            info!(pipe = self.pipe.as_str(), leases = epochs.len(), "leases taken");
            self.rows.taken(epochs);
        }
    }

    /// Writes the rows that `decide` makes of those last read and the local time, Unix ms. False if
    /// its decision does not hold, because somebody changed rows in between (an operator with SQL,
    /// a seek) and they were reread, or if it returns none.
    ///
    /// Up to [`LEASE_ROWS_PER_STATEMENT`] rows are written together or not at all; a batch never
    /// has more. Larger changes are written in parts, of which the first ones may succeed alone.
    ///
    /// # Errors
    ///
    /// `Fenced` if another worker now holds a lease that was held here.
    pub async fn try_change(
        &mut self,
        decide: impl FnOnce(&Rows, i64) -> Result<Option<Vec<Lease>>, Error>,
    ) -> Result<bool, Error> {
        let Some(changes) = decide(&self.rows, self.clock.now_ms())? else { return Ok(false) };
        let before = self.of(&changes);
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

    /// The same for a decision that depends only on the rows: it is repeated until it holds. False
    /// if the rows kept changing.
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

    /// Replaces rows, all or none, if they are still as last read. False if they are not; they have
    /// been reread then.
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
                    let before = self.of(wanted.iter().map(|row| &row.value));
                    self.reload().await?;
                    match self.still(wanted, &before)? {
                        Some(same) => wanted = same,
                        None => {
                            warn!(
                                pipe = self.pipe.as_str(),
                                "lease rows were changed by another bridge or by hand: {why}"
                            );
                            return Ok(false);
                        }
                    }
                }
                Err(other) => {
                    self.doubt();
                    return Err(other.into());
                }
            }
        }
        Err(keep_changing(&self.pipe))
    }
}

/// Deletes any number of rows. False if some are left because they were written since they were
/// read.
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

/// The error for rows that change every time before they can be written.
pub fn keep_changing(pipe: &PipeName) -> Error {
    Error::Unavailable(format!("the lease rows of pipe '{pipe}' keep changing; trying again"))
}
