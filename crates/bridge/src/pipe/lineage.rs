//! Looking at the stream's shards: new ones get leases, and those whose unread records are gone are
//! told.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::work::Work;
use domain::error::Error;
use domain::lease::{Identity, Lease};
use domain::limits::{CHILD_REFRESH, SHARD_REFRESH};
use domain::lineage::{Lost, Subject, exhausted, forgettable, lacking_parents, lost, missing};
use domain::sequence::Checkpoint;
use domain::shard::Shard;

/// What is lost in a pipe: see [`Work::look_at_shards`] and `recover`.
#[derive(Default)]
pub(super) struct Losses {
    /// By shard.
    shards: BTreeMap<String, Error>,
    /// By offered batch that cannot be read again.
    batches: BTreeMap<String, Error>,
    /// Shards that looked reopened, or were not listed, at the last look. ListShards may be late,
    /// so it takes two looks.
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
    /// Adds leases for shards that have none, notes what is lost, and lets leases and readers
    /// follow. `start` is where a pipe without any lease begins. `described`: the stream was
    /// described for this look.
    pub(super) async fn look_at_shards(&mut self, start: &Checkpoint, described: bool) -> Result<(), Error> {
        // Others may have given leases back or finished parents, and people may have moved
        // positions.
        self.leases.reload().await?;
        // A slow answer does not list a shard that others found meanwhile.
        let asked_of: BTreeSet<String> = self.leases.all().map(|l| l.shard_id.clone()).collect();
        let shards = self.deps.kinesis.shards(&self.stream).await?;
        let now_ms = self.source.now_ms();
        self.add_missing(&shards, start).await?;
        let identity = self.leases.stream().identity();
        self.listed_ms = now_ms;
        let absent = |l: &Lease| shards.iter().all(|shard| shard.id != l.shard_id);
        if !described && self.leases.all().any(|l| !l.finished() && absent(l)) {
            // Whether it was read to its end, or its records are lost, depends on how long the
            // stream keeps them. It takes two looks: what shortens the retention after a
            // description is known at the next.
            self.source.retention.look().await?;
        }
        let asked = |l: &&Lease| asked_of.contains(&l.shard_id);
        let kept = self.source.retention.kept();
        let lost = lost(self.leases.all().filter(asked), &shards, &identity, kept, now_ms);
        let exhausted = exhausted(self.leases.held().filter(asked), &shards, &lost);
        let exhausted = self.note_lost(lost, exhausted);
        self.finish(&exhausted).await?;
        let mine = self.leases.all().filter(|l| self.is_mine_to_forget(l));
        let forgettable = forgettable(mine, &shards, kept, now_ms);
        self.leases.forget(&forgettable).await?;
        self.refreshed = Some(Instant::now());
        self.balanced = None;
        self.balance().await?;
        self.complete_parents(&shards).await?;
        self.note_beginnings(now_ms).await?;
        self.follow();
        Ok(())
    }

    /// Leases of which it is not known when they began, from an earlier version or written by hand,
    /// begin now.
    async fn note_beginnings(&mut self, now_ms: i64) -> Result<(), Error> {
        let written_ms = self.deps.clock.now_ms();
        let unknown = self.leases.held().filter(|l| l.since_ms == 0 && !l.finished());
        let begun = unknown.map(|l| l.begin(&self.leases.holder(&l.shard_id), now_ms, written_ms));
        let begun = begun.collect::<Result<Vec<Lease>, Error>>()?;
        self.leases.write_each(begun).await.map(drop)
    }

    /// The same when it is time.
    pub(super) async fn look_at_shards_in_time(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        self.expected.retain(|child, since| self.leases.get(child).is_none() && now - *since < SHARD_REFRESH);
        let every = if self.expected.is_empty() { SHARD_REFRESH } else { CHILD_REFRESH };
        if self.refreshed.is_some_and(|at| at.elapsed() <= every) {
            return Ok(false);
        }
        let described = self.describe().await?;
        self.look_at_shards(&Checkpoint::TrimHorizon, described).await.map(|()| true)
    }

    /// Looks at the stream itself: which one it is, and what it keeps. False: that is not known
    /// now.
    async fn describe(&mut self) -> Result<bool, Error> {
        let asked = Instant::now();
        match self.deps.kinesis.stream(&self.stream).await {
            Ok(stream) => {
                self.source.retention.seen(&stream, asked);
                self.leases.describe(stream).map(|()| true)
            }
            // DescribeStreamSummary has few calls a second for a whole account: the next look will
            // do, and the shards do not wait.
            Err(Error::Unavailable(why)) => {
                debug!(pipe = self.pipe, "the stream was not described: {why}");
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// A shard has ended, and its end named these children, or none. ListShards alone knows all
    /// parents of a child (**lineage-from-list-shards**), so it is asked now, and again until it
    /// lists them.
    pub(super) fn look_for(&mut self, children: &[Shard]) {
        let now = Instant::now();
        self.expected.extend(children.iter().map(|child| (child.id.clone(), now)));
        self.refreshed = None;
        // Others may hold the children, and wait for this end.
        self.deps.heartbeat.changed(&self.pipe);
        self.balanced = None;
    }

    /// Gives the leases held here those parents that they lack although the stream lists them, as
    /// long as nothing was read. One that was made by an earlier version knows only what the end of
    /// a parent said.
    async fn complete_parents(&mut self, shards: &[Shard]) -> Result<(), Error> {
        let known = self.leases.all().map(|l| (l.shard_id.as_str(), l)).collect();
        let now = self.deps.clock.now_ms();
        let lacking = lacking_parents(self.leases.held(), &known, shards);
        let complete = |(lease, parents): (&Lease, Vec<String>)| {
            lease.descend_from(&self.leases.holder(&lease.shard_id), parents, now)
        };
        let completed = lacking.into_iter().map(complete).collect::<Result<Vec<Lease>, Error>>()?;
        self.leases.write_each(completed).await.map(drop)
    }

    pub(super) async fn add_missing(&mut self, shards: &[Shard], start: &Checkpoint) -> Result<(), Error> {
        let known = self.leases.all().map(|l| (l.shard_id.as_str(), l)).collect();
        let new = missing(&known, shards, start, self.subject(&self.leases.stream().identity()));
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

    /// Notes what was found lost at two looks, and gives those of `exhausted` that were absent at
    /// both.
    fn note_lost(&mut self, found: BTreeMap<String, Lost>, exhausted: Vec<String>) -> Vec<String> {
        let suspected = std::mem::take(&mut self.losses.suspected);
        let before = std::mem::take(&mut self.losses.shards);
        for (shard_id, lost) in found {
            // Neither when the stream was created nor where a shard begins depends on ListShards.
            if !matches!(lost, Lost::Replaced | Lost::Recreated) {
                self.losses.suspected.insert(shard_id.clone());
                if !suspected.contains(&shard_id) {
                    continue;
                }
            }
            let Some(lease) = self.leases.get(&shard_id) else { continue };
            let gap = Error::Gap(lost.message(lease, self.source.retention.kept().retention_ms));
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

    fn subject<'a>(&'a self, identity: &'a Identity) -> Subject<'a> {
        Subject {
            pipe: &self.pipe,
            stream: &self.stream,
            identity,
            now_ms: self.source.now_ms(),
            listed_ms: self.listed_ms,
            written_ms: self.deps.clock.now_ms(),
        }
    }
}
