//! Looks at the stream's shards: new ones get leases, and those whose unread records are gone are
//! reported.

use std::collections::{BTreeSet, HashSet};

use tokio::time::Instant;
use tracing::{debug, info};

use super::changes;
use super::work::Work;
use domain::error::Error;
use domain::lease::{Identity, Lease};
use domain::lineage::{Lost, Subject, exhausted, forgettable, lacking_parents, lost, missing};
use domain::names::ShardId;
use domain::sequence::Checkpoint;
use domain::shard::Shard;

impl Work {
    /// Adds leases for shards that have none, notes losses, and updates leases and readers. `start`
    /// is where a pipe without leases begins. `described`: the stream was described for this look.
    pub(super) async fn look_at_shards(&mut self, start: &Checkpoint, described: bool) -> Result<(), Error> {
        // Others may have released leases or finished parents, and operators may have moved
        // positions.
        self.leases.reload().await?;
        // A slow answer may lack a shard that others have found meanwhile.
        let asked_of: BTreeSet<ShardId> = self.leases.all().map(|l| l.shard_id.clone()).collect();
        let shards = self.deps.kinesis.shards(&self.stream).await?;
        let now_ms = self.source.now_ms();
        self.add_missing(&shards, start).await?;
        let identity = self.leases.stream().identity();
        self.listing.complete_ms = now_ms;
        let some_absent = || {
            let listed: HashSet<&ShardId> = shards.iter().map(|shard| &shard.id).collect();
            self.leases.all().any(|l| !l.finished() && !listed.contains(&l.shard_id))
        };
        if !described && some_absent() {
            // Whether an absent shard was read to its end or lost records depends on the retention.
            // It takes two looks, so a retention that is shortened after this description is seen
            // by the next.
            self.source.retention.look().await?;
        }
        let asked = |l: &&Lease| asked_of.contains(&l.shard_id);
        let kept = self.source.retention.kept();
        let lost = lost(self.leases.all().filter(asked), &shards, &identity, kept, now_ms);
        let exhausted = exhausted(self.leases.held().filter(asked), &shards, &lost);
        let gap = |id: &ShardId, lost: Lost| Some(Error::Gap(lost.message(self.leases.get(id)?, kept.retention_ms)));
        let exhausted = self.losses.look(&self.pipe, lost, exhausted, gap);
        self.leases.try_change(|rows, now_ms| changes::finishes(rows, &exhausted, now_ms).map(Some)).await?;
        let mine = self.leases.all().filter(|l| self.is_mine_to_forget(l));
        let forgettable = forgettable(mine, &shards, kept, now_ms);
        self.leases.forget(&forgettable).await?;
        self.listing.looked();
        self.sharing.hurry();
        self.balance().await?;
        self.complete_parents(&shards).await?;
        self.note_beginnings(now_ms).await?;
        self.follow();
        Ok(())
    }

    /// Sets the beginning of leases without one, from an earlier version or written by hand, to
    /// now.
    async fn note_beginnings(&mut self, since_ms: i64) -> Result<(), Error> {
        let unknown = |l: &Lease| l.since_ms == 0 && !l.finished();
        let begun = self.leases.try_change(|rows, now_ms| {
            rows.each_held(unknown, |lease, holder| lease.begin(holder, since_ms, now_ms)).map(Some)
        });
        begun.await.map(drop)
    }

    /// Calls [`Work::look_at_shards`] when it is due.
    pub(super) async fn look_at_shards_in_time(&mut self) -> Result<bool, Error> {
        if !self.listing.due(&self.leases) {
            return Ok(false);
        }
        let described = self.describe().await?;
        self.look_at_shards(&Checkpoint::TrimHorizon, described).await.map(|()| true)
    }

    /// Describes the stream: its identity and retention. False if Kinesis is unavailable.
    async fn describe(&mut self) -> Result<bool, Error> {
        let asked = Instant::now();
        match self.deps.kinesis.stream(&self.stream).await {
            Ok(stream) => {
                self.source.retention.seen(&stream, asked);
                self.leases.describe(stream).map(|()| true)
            }
            // DescribeStreamSummary allows few calls per second and account. The next look will do;
            // the shards need not wait.
            Err(Error::Unavailable(why)) => {
                debug!(pipe = self.pipe.as_str(), "cannot describe the stream: {why}");
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// A shard has ended, and its end named these children, or none. Only ListShards knows all
    /// parents of a child (**lineage-from-list-shards**), so it is called now, and again until it
    /// lists them.
    pub(super) fn look_for(&mut self, children: &[Shard]) {
        self.listing.await_children(children);
        // Other workers may hold the children and wait for this end.
        self.deps.heartbeat.changed(&self.pipe);
        self.sharing.hurry();
    }

    /// Adds listed parents that are missing from leases held here, as long as nothing was read.
    /// Leases made by an earlier version have only the parents that a shard's end named.
    async fn complete_parents(&mut self, shards: &[Shard]) -> Result<(), Error> {
        let completed = self.leases.try_change(|rows, now_ms| {
            let known = rows.all().map(|l| (l.shard_id.as_str(), l)).collect();
            let lacking = lacking_parents(rows.held(), &known, shards).into_iter();
            let complete = lacking.map(|(l, parents)| l.descend_from(&rows.holder(&l.shard_id), parents, now_ms));
            complete.collect::<Result<_, _>>().map(Some)
        });
        completed.await.map(drop)
    }

    pub(super) async fn add_missing(&mut self, shards: &[Shard], start: &Checkpoint) -> Result<(), Error> {
        let known = self.leases.all().map(|l| (l.shard_id.as_str(), l)).collect();
        let new = missing(&known, shards, start, self.subject(&self.leases.stream().identity()));
        if !new.is_empty() {
            info!(pipe = self.pipe.as_str(), shards = new.len(), "new shards");
            self.leases.create(new).await?;
            self.deps.heartbeat.changed(&self.pipe);
        }
        Ok(())
    }

    /// Finished leases keep their owner, so other workers clean up after dead ones.
    fn is_mine_to_forget(&self, lease: &Lease) -> bool {
        lease.owner == self.deps.worker_id || self.deps.members.is_nobodys(lease)
    }

    fn subject<'a>(&'a self, identity: &'a Identity) -> Subject<'a> {
        Subject {
            pipe: &self.pipe,
            stream: &self.stream,
            identity,
            now_ms: self.source.now_ms(),
            listed_ms: self.listing.complete_ms,
            written_ms: self.deps.clock.now_ms(),
        }
    }
}
