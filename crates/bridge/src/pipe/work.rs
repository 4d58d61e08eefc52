//! A started pipe: its leases, readers and open batch, and the steps that change them durably.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tracing::{info, warn};

use super::changes::{self, Commits};
use super::deps::Deps;
use super::leases::{Leases, keep_changing};
use super::listing::Listing;
use super::losses::Losses;
use super::open::Open;
use super::pull::Mode;
use super::reader::Source;
use super::recover::read_again;
use super::seen::Sight;
use super::shards::Shards;
use super::sharing::Sharing;
use super::status::Status;
use domain::batch::{Batch, Limits, ShardRange};
use domain::error::Error;
use domain::isolate::Search;
use domain::lease::{Destination, Lease, Offer};
use domain::limits::{CHORES_EVERY, COMMIT_RETRIES};
use domain::names::{BatchId, PipeName, StreamName};
use domain::ports::kinesis_now_ms;
use domain::sequence::Checkpoint;
use domain::shape::BatchShape;
use domain::start::Beginning;
use domain::unpacking::Unpacking;

/// The state of a pipe that has taken leases.
pub struct Work {
    pub(super) deps: Deps,
    pub(super) pipe: PipeName,
    pub(super) stream: StreamName,
    pub(super) leases: Leases,
    /// Readers and buffers.
    pub shards: Shards,
    /// What the readers share.
    pub source: Source,
    /// The open batch.
    pub open: Option<Open>,
    /// The part of a refused batch that is still to be searched.
    pub(super) search: Search,
    /// When the stream's shards are listed.
    pub(super) listing: Listing,
    pub(super) losses: Losses,
    /// The workers that share the leases.
    pub(super) sharing: Sharing,
    /// When the chores were last done.
    tended: Option<Instant>,
    /// The rows that readers followed last, as `Rows::changes` counts them.
    followed: u64,
}

impl Work {
    /// Takes leases and starts readers. `start` is where a pipe without leases begins.
    pub async fn start(
        deps: &Deps,
        pipe: &PipeName,
        stream: &StreamName,
        start: &Beginning,
        mode: Mode,
        unpacking: Unpacking,
        to: Option<&Destination>,
    ) -> Result<Work, Error> {
        let described = deps.kinesis.stream(stream).await?;
        // Taken from the response just received: any record put after the leases exist arrives
        // later (**kinesis-time-decides**).
        let start = start.checkpoint(kinesis_now_ms(&*deps.kinesis, &*deps.clock));
        let leases = Leases::load(deps.store.clone(), deps.clock.clone(), pipe, &deps.worker_id, &described).await?;
        let mut work = Work {
            deps: deps.clone(),
            pipe: pipe.clone(),
            stream: stream.clone(),
            leases,
            shards: Shards::new(),
            source: deps.source(pipe, described, unpacking),
            open: None,
            search: Search::default(),
            listing: Listing::default(),
            losses: Losses::default(),
            sharing: Sharing::default(),
            tended: None,
            followed: 0,
        };
        if let Some(to) = to {
            work.feed(to).await.map_err(|refused| refused.error)?;
        }
        deps.heartbeat.admitted().await?;
        let started = work.begin(&start, mode, to).await;
        started.inspect_err(|_| deps.heartbeat.left(pipe)).map(|()| work)
    }

    async fn begin(&mut self, start: &Checkpoint, mode: Mode, to: Option<&Destination>) -> Result<(), Error> {
        self.deps.heartbeat.join(&self.pipe).await?;
        self.read_by(mode).await?;
        self.look_at_shards(start, true).await?;
        match to {
            Some(to) => self.feed_alone(to).await,
            None => Ok(()),
        }
    }

    /// Sets how shards are read from now on; positions do not change. For fan-out, registers the
    /// consumer first.
    pub async fn read_by(&self, mode: Mode) -> Result<(), Error> {
        self.source.fan_out.want(mode == Mode::FanOut).await
    }

    /// Sets how records become rows from now on. An offered batch stays as it is; an open one that
    /// was not offered yet is forgotten.
    pub fn unpack_by(&mut self, unpacking: Unpacking) {
        if self.source.unpacking != unpacking && self.open.as_ref().is_none_or(|open| !open.offered) {
            self.source.unpacking = unpacking;
            self.forget_open();
        }
    }

    pub(super) fn follow(&mut self) {
        self.followed = self.leases.changes();
        self.shards.follow(&self.leases, &self.source, &self.losses);
        let readers = self.shards.buffers().count().max(1);
        self.source.calls.shared_by(readers);
        let share = self.source.budget.limit() / 4 * 3 / self.views_here();
        self.source.shard_cap.set((share / readers) as u64);
    }

    /// Lets readers follow the rows if these were reread and something failed before they did. What
    /// readers know and have buffered counts only after that.
    pub(super) fn keep_up(&mut self) {
        if self.followed != self.leases.changes() {
            self.follow();
        }
    }

    /// Rereads an offered batch left open by an earlier process or by this one
    /// (**recovery-as-a-unit**).
    pub async fn recover(&mut self) -> Result<(), Error> {
        if self.open.is_none() && self.leases.readers_in_doubt() {
            // The lost write may have been an offer that is forgotten here, or half of one; readers
            // would then be on the wrong side of it.
            self.leases.reload().await?;
            self.leases.readers_restarted();
            self.restart_readers();
        }
        for _ in 0..COMMIT_RETRIES {
            let readable = |l: &&Lease| self.open.is_none() && self.losses.of(l).is_none();
            let offer = self.leases.held().filter(readable).find_map(|l| l.offer.clone());
            let Some(offer) = offer else { return Ok(()) };
            let (mut leases, mut elsewhere) = self.leases.holding(&offer.batch);
            if elsewhere {
                self.leases.reload().await?;
                self.take_rest_of(&offer.batch).await?;
                (leases, elsewhere) = self.leases.holding(&offer.batch);
            }
            if elsewhere {
                return Err(self.in_two_hands(&offer.batch, leases).await);
            }
            if leases.len() == offer.shards as usize && leases.iter().all(Lease::offer_follows) {
                let batch = offer.batch.clone();
                match self.read_again(offer, leases).await {
                    Err(gap @ Error::Gap(_)) => {
                        self.losses.add_batch(&batch, gap);
                        self.follow();
                        continue;
                    }
                    done => return done,
                }
            }
            // Only a manual edit leaves part of an offer behind. Its records are read again from
            // the checkpoints.
            let batch = offer.batch;
            warn!(
                pipe = self.pipe.as_str(),
                batch = batch.as_str(),
                "the lease rows of an open batch were edited by hand; the rest of the batch is discarded"
            );
            self.leases.try_change(|rows, now_ms| changes::discards(rows, &batch, now_ms).map(Some)).await?;
            self.restart_readers();
        }
        Err(keep_changing(&self.pipe))
    }

    /// Another live worker holds part of a batch, so neither can settle it: the holder of its first
    /// shard waits, the other releases its part.
    async fn in_two_hands(&mut self, batch: &BatchId, mine: Vec<Lease>) -> Error {
        let of_batch = |l: &&Lease| l.batch() == Some(batch);
        let first = self.leases.all().find(of_batch).map(|l| l.shard_id.clone());
        if mine.first().map(|l| &l.shard_id) != first.as_ref() {
            let part = |l: &Lease| l.batch() == Some(batch);
            let written = self.leases.try_change(|rows, now_ms| changes::releases(rows, part, now_ms).map(Some)).await;
            self.restart_readers();
            if let Err(error) = written {
                return error;
            }
        }
        Error::Unavailable(format!(
            "batch {batch} of pipe '{}' spans shards that another worker still holds; trying again",
            self.pipe
        ))
    }

    async fn read_again(&mut self, offer: Offer, leases: Vec<Lease>) -> Result<(), Error> {
        info!(
            pipe = self.pipe.as_str(),
            batch = offer.batch.as_str(),
            shards = leases.len(),
            "an open batch was found; reading it again"
        );
        let reads =
            leases.iter().filter_map(|lease| Some((lease, lease.offer.as_ref()?))).map(async |(lease, offer)| {
                let slices = read_again(&self.source, lease, offer).await?;
                Ok::<_, Error>(ShardRange { shard_id: lease.shard_id.clone(), slices })
            });
        let read = try_join_all(reads).await;
        let ranges = read.inspect_err(|_| self.leases.doubt())?;
        let batch = Arc::new(Batch { id: offer.batch.clone(), stream: self.stream.clone(), ranges });
        let before = leases.iter().map(|l| (l.shard_id.clone(), l.checkpoint.clone())).collect();
        self.open = Some(Open { offered: true, ..Open::new(batch, offer.shape, before) });
        self.deps.metrics.batch(&self.pipe, "recovered");
        Ok(())
    }

    /// When the next chores are due: see [`Work::tend`]. At once if a shard has ended.
    pub fn chores_due(&self) -> Instant {
        match self.tended {
            Some(at) if !self.shards.arrivals().ended() => at + CHORES_EVERY,
            _ => Instant::now(),
        }
    }

    /// Chores between batches: finishes ended shards, takes and releases leases, finds new shards,
    /// marks idle ones as caught up. Visits every shard, so don't call it for each record. True if
    /// something changed.
    pub async fn tend(&mut self) -> Result<bool, Error> {
        // Also while a batch is open: that may last for days, and records after it must not expire
        // unnoticed.
        self.source.retention.look_in_time();
        self.shards.arrivals().forget_ended();
        self.tended = Some(Instant::now());
        if self.open.is_some() {
            // Its shards look drained and are not.
            return self.balance().await;
        }
        // A reader that began elsewhere must not finish its shard.
        self.keep_up();
        let (mut ends, mut changed) = (Vec::new(), false);
        let sight = Sight::now(&self.shards, &self.listing, &self.source);
        let written = self.leases.try_change(|rows, now_ms| {
            let mut changes = Vec::new();
            for buffer in sight.shards.buffers().filter(|b| b.since().is_none()) {
                let Some(lease) = rows.get(&buffer.shard_id).filter(|l| l.offer.is_none()) else { continue };
                let holder = rows.holder(&lease.shard_id);
                // Closed, read to its end, and all its records are in batches.
                if buffer.ended() && buffer.since().is_none() {
                    changes.push(lease.finish(&holder, now_ms)?);
                    ends.push(buffer.progress().children);
                } else if let Some(seen) = sight.anew(buffer, lease) {
                    changes.push(lease.caught_up(&holder, seen, now_ms)?);
                }
            }
            changed = !changes.is_empty();
            Ok(Some(changes))
        });
        match written.await? {
            true if changed => self.follow(),
            true => {}
            false => self.restart_readers(),
        }
        for children in ends {
            self.look_for(&children);
        }
        changed |= self.look_at_shards_in_time().await?;
        Ok(self.balance().await? || changed)
    }

    /// Fixes the contents of the next batch. Nothing changes them afterwards.
    pub fn freeze(&mut self, limits: Limits, shape: &BatchShape) {
        let searched = self.search.take(|id| self.shards.buffer(id).map_or(0, |buffer| buffer.rows()));
        let ranges = match searched.is_empty() {
            true => {
                self.search = Search::default();
                self.shards.freeze(limits)
            }
            false => self.shards.cut(&searched),
        };
        let checkpoint =
            |r: &ShardRange| self.leases.get(&r.shard_id).map(|l| (l.shard_id.clone(), l.checkpoint.clone()));
        let before = ranges.iter().filter_map(checkpoint).collect();
        let batch = Arc::new(Batch { id: self.deps.clock.batch_id(), stream: self.stream.clone(), ranges });
        let mut open = Open::new(batch, shape.clone(), before);
        open.suspicion.searched = !searched.is_empty();
        self.open = Some(open);
    }

    /// Writes the offer into all lease rows of the open batch, unless they already have it.
    pub async fn offer(&mut self) -> Result<(), Error> {
        // If the last answer was lost, the rows may already have the offer.
        self.leases.reload_if_in_doubt().await?;
        let Some(open) = self.open.as_ref().filter(|o| !o.offered) else { return Ok(()) };
        match self.leases.try_change(|rows, now_ms| changes::offers(rows, open, now_ms)).await {
            Ok(true) => {}
            Ok(false) => {
                self.forget_open();
                return Err(self.positions_changed());
            }
            Err(broken @ Error::Internal(_)) => {
                // Whatever the cause, the batch must not block the pipe forever.
                self.forget_open();
                return Err(broken);
            }
            Err(other) => return Err(other),
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.offered = true;
        // An attempt whose answer was lost may have written another shape, which then counts.
        let first = open.before.first().and_then(|(id, _)| self.leases.get(id)).and_then(|l| l.offer.as_ref());
        match first.filter(|offer| offer.shape != open.shape) {
            None => Ok(()),
            Some(offer) => {
                open.shape.clone_from(&offer.shape);
                Err(Error::Unavailable(format!(
                    "batch {} of pipe '{}' was offered as {} a moment ago; trying again",
                    open.batch.id, self.pipe, open.shape
                )))
            }
        }
    }

    /// Forgets a batch of which nothing was served, and continues from the rows' positions.
    pub(super) fn forget_open(&mut self) {
        self.open = None;
        self.restart_readers();
    }

    /// Moves the checkpoints of all shards of the confirmed batch in one write
    /// (**commit-equals-offer**), and closes it. A shard that an operator moved meanwhile keeps
    /// that position.
    pub async fn commit(&mut self) -> Result<Open, Error> {
        let Some(open) = &self.open else { return Err(keep_changing(&self.pipe)) };
        let sight = Sight::now(&self.shards, &self.listing, &self.source);
        let mut commits = Commits::default();
        let written = self.leases.change(|rows, now_ms| {
            commits = changes::commits(rows, open, |id| sight.behind(open, id), now_ms)?;
            Ok(commits.leases.clone())
        });
        let (true, Some(open)) = (written.await?, self.open.take()) else { return Err(keep_changing(&self.pipe)) };
        for lease in &commits.leases {
            self.shards.committed(&lease.shard_id, &lease.checkpoint);
        }
        if commits.moved {
            self.restart_readers();
        }
        self.search_on(&open);
        self.follow();
        Ok(open)
    }

    /// Rereads the rows after a deliberate change. The next pull recovers what is open in them.
    pub async fn reload(&mut self) -> Result<(), Error> {
        self.leases.reload().await?;
        self.open = None;
        // The user may have accepted a loss.
        self.listing.hurry();
        self.tended = None;
        self.restart_readers();
        Ok(())
    }

    pub(super) fn restart_readers(&mut self) {
        self.search = Search::default();
        self.shards.clear();
        self.follow();
    }

    /// Stops reading and drops what is only in memory: buffers, and an open batch that nobody is
    /// waiting for (an offered one can be read again). True if there was anything to drop.
    pub fn rest(&mut self) -> bool {
        self.search = Search::default();
        let read = self.shards.buffers().next().is_some();
        self.shards.clear();
        let open = self.open.take_if(|open| open.waits == 0 && !open.confirmed);
        read || open.is_some()
    }

    /// Restarts readers after [`Work::rest`].
    pub fn wake(&mut self) {
        if self.shards.buffers().next().is_none() {
            self.follow();
        }
    }

    /// Releases all leases. Open offers stay in them.
    pub async fn release(&mut self) -> Result<(), Error> {
        self.shards.clear();
        match self.leases.change(|rows, now_ms| changes::releases(rows, |_| true, now_ms)).await? {
            true => Ok(()),
            false => Err(keep_changing(&self.pipe)),
        }
    }

    pub(super) fn positions_changed(&self) -> Error {
        Error::Unavailable(format!("the positions of pipe '{}' were changed; reading resumes there", self.pipe))
    }

    /// Publishes the pipe's state for `/v1/pipes` and `/metrics`.
    pub fn publish(&self, status: &Status) {
        status.publish(|s| {
            s.leases = self.leases.shared().cloned().collect();
            s.buffers = self.shards.buffers().cloned().collect();
        });
    }
}
