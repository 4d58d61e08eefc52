//! Looking at the stream's shards: new ones get leases, and those whose unread records are gone are told.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use tracing::{error, info};

use super::work::Work;
use crate::domain::error::Error;
use crate::domain::lease::Lease;
use crate::domain::lineage::{Lost, Subject, exhausted, forgettable, lost, missing};
use crate::domain::sequence::Checkpoint;
use crate::domain::shard::Shard;
use crate::limits::SHARD_REFRESH;

/// What is lost in a pipe: see [`Work::look_at_shards`] and `recover`.
#[derive(Default)]
pub(super) struct Losses {
    /// By shard.
    shards: BTreeMap<String, Error>,
    /// By offered batch that cannot be read again.
    batches: BTreeMap<String, Error>,
    /// Shards that looked reopened, or were not listed, at the last look. ListShards may be late, so it takes two looks.
    suspected: BTreeSet<String>,
}

impl Losses {
    /// Why this lease cannot be read on, if so.
    pub fn of(&self, lease: &Lease) -> Option<&Error> {
        let batch = lease.offer.as_ref().and_then(|offer| self.batches.get(&offer.batch));
        batch.or_else(|| self.shards.get(&lease.shard_id))
    }

    /// Notes that an offered batch cannot be read again. Its shards stop, others go on.
    pub fn add_batch(&mut self, batch: &str, gap: Error) {
        self.batches.insert(batch.into(), gap);
    }
}

impl Work {
    /// Adds leases for shards that have none, notes what is lost, and lets leases and readers follow. `start` is where a pipe without any lease begins.
    pub(super) async fn look_at_shards(&mut self, start: &Checkpoint) -> Result<(), Error> {
        // Others may have given leases back or finished parents, and people may have moved positions.
        self.leases.reload().await?;
        // A slow answer does not list a shard that others found meanwhile.
        let asked_of: BTreeSet<String> = self.leases.all().map(|l| l.shard_id.clone()).collect();
        let shards = self.deps.kinesis.shards(&self.stream).await?;
        self.add_missing(&shards, start).await?;
        let asked = |l: &&Lease| asked_of.contains(&l.shard_id);
        let lost = lost(self.leases.all().filter(asked), &shards, self.subject());
        let exhausted = exhausted(self.leases.held().filter(asked), &shards, &lost);
        let exhausted = self.note_lost(lost, exhausted);
        self.finish(&exhausted).await?;
        let forgettable = forgettable(self.leases.all().filter(|l| self.is_mine_to_forget(l)), &shards, self.subject());
        self.leases.forget(&forgettable).await?;
        self.refreshed = Some(Instant::now());
        self.balanced = None;
        self.balance().await?;
        self.follow();
        Ok(())
    }

    /// The same when it is time.
    pub(super) async fn look_at_shards_in_time(&mut self) -> Result<bool, Error> {
        if self.refreshed.is_some_and(|at| at.elapsed() <= SHARD_REFRESH) {
            return Ok(false);
        }
        self.look_at_shards(&Checkpoint::TrimHorizon).await.map(|()| true)
    }

    /// Adds the children that the end of a shard named. Without any, or with a parent that is not known here, ListShards tells.
    pub(super) async fn adopt(&mut self, children: &[Shard]) -> Result<(), Error> {
        let known = |parent: &String| self.leases.get(parent).is_some();
        match !children.is_empty() && children.iter().all(|child| child.parents().iter().all(known)) {
            true => self.add_missing(children, &Checkpoint::TrimHorizon).await?,
            false => self.refreshed = None,
        }
        // Others may hold the children, and wait for this end.
        self.deps.heartbeat.changed(&self.pipe);
        self.balanced = None;
        Ok(())
    }

    async fn add_missing(&mut self, shards: &[Shard], start: &Checkpoint) -> Result<(), Error> {
        let known = self.leases.all().map(|l| (l.shard_id.as_str(), l)).collect();
        let new = missing(&known, shards, start, self.subject());
        if !new.is_empty() {
            info!(pipe = self.pipe, shards = new.len(), "new shards");
            self.leases.create(new).await?;
            self.deps.heartbeat.changed(&self.pipe);
        }
        Ok(())
    }

    /// Finishes leases of shards that have left the retention with nothing unread.
    async fn finish(&mut self, shards: &[String]) -> Result<(), Error> {
        let now = self.deps.clock.now_ms();
        let leases = self.leases.held().filter(|l| shards.contains(&l.shard_id));
        let finished = leases.map(|l| l.finish(&self.leases.holder(&l.shard_id), now));
        let finished = finished.collect::<Result<Vec<Lease>, Error>>()?;
        self.leases.write_each(finished).await.map(drop)
    }

    /// Finished leases keep their owner; somebody has to look after those of the dead.
    fn is_mine_to_forget(&self, lease: &Lease) -> bool {
        lease.owner == self.deps.worker_id || self.deps.members.is_nobodys(lease)
    }

    /// Notes what was found lost at two looks, and gives those of `exhausted` that were absent at both.
    fn note_lost(&mut self, found: BTreeMap<String, Lost>, exhausted: Vec<String>) -> Vec<String> {
        let suspected = std::mem::take(&mut self.losses.suspected);
        let before = std::mem::take(&mut self.losses.shards);
        for (shard_id, lost) in found {
            // That a shard begins after the position needs no second look.
            if lost != Lost::Replaced {
                self.losses.suspected.insert(shard_id.clone());
                if !suspected.contains(&shard_id) {
                    continue;
                }
            }
            let Some(lease) = self.leases.get(&shard_id) else { continue };
            let gap = Error::Gap(lost.message(lease, self.source.retention_ms));
            if before.get(&shard_id) != Some(&gap) {
                error!(pipe = self.pipe, "{gap}");
            }
            self.losses.shards.insert(shard_id, gap);
        }
        // Tried again: what could not be read may have been a fault.
        self.losses.batches.clear();
        self.losses.suspected.extend(exhausted.iter().cloned());
        exhausted.into_iter().filter(|shard_id| suspected.contains(shard_id)).collect()
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            pipe: &self.pipe,
            stream: &self.stream,
            retention_ms: self.source.retention_ms,
            now_ms: self.deps.clock.now_ms(),
        }
    }
}
