//! A started pipe: its leases, its readers and its open batch, and the steps that change them
//! durably.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tracing::{info, warn};

use super::deps::Deps;
use super::leases::{Leases, Written};
use super::lineage::Losses;
use super::members::Circle;
use super::open::Open;
use super::pull::Mode;
use super::reader::Source;
use super::recover::read_again;
use super::shards::Shards;
use super::status::Status;
use domain::batch::{Batch, Limits, ShardRange};
use domain::error::Error;
use domain::isolate::Search;
use domain::lease::{Destination, Lease, Offer};
use domain::limits::COMMIT_RETRIES;
use domain::plan::rate_after;
use domain::ports::kinesis_now_ms;
use domain::sequence::Checkpoint;
use domain::shard::Shard;
use domain::start::Beginning;
use domain::unpacking::Unpacking;

/// What exists once the leases have been taken.
pub struct Work {
    pub(super) deps: Deps,
    pub(super) pipe: String,
    pub(super) stream: String,
    pub(super) leases: Leases,
    /// Readers and buffers.
    pub shards: Shards,
    /// What readers share.
    pub source: Source,
    /// The open batch.
    pub open: Option<Open>,
    /// What is left to look through of a batch that was refused.
    pub(super) search: Search,
    /// When the stream's shards were last looked at; none: it is time.
    pub(super) refreshed: Option<Instant>,
    /// Children that an end named and that have no lease yet, and since when.
    pub(super) expected: BTreeMap<String, Instant>,
    /// When the stream's shards were last listed and all had leases, Kinesis' time, Unix ms; 0 for
    /// never.
    pub(super) listed_ms: i64,
    pub(super) losses: Losses,
    /// Who shared the leases at the last look, and when that was.
    pub(super) circle: Circle,
    pub(super) balanced: Option<Instant>,
    /// Leases that are free and meant for others, and since when.
    pub(super) unclaimed: BTreeMap<String, Instant>,
}

impl Work {
    /// Takes leases and starts readers. `start` is where a pipe without any lease begins.
    pub async fn start(
        deps: &Deps,
        pipe: &str,
        stream: &str,
        start: &Beginning,
        mode: Mode,
        unpacking: Unpacking,
        to: Option<&Destination>,
    ) -> Result<Work, Error> {
        let described = deps.kinesis.stream(stream).await?;
        // By the answer that just came: whatever is put after the leases are there arrives later
        // (**kinesis-time-decides**).
        let start = start.checkpoint(kinesis_now_ms(&*deps.kinesis, &*deps.clock));
        let leases = Leases::load(deps.store.clone(), deps.clock.clone(), pipe, &deps.worker_id, &described).await?;
        let mut work = Work {
            deps: deps.clone(),
            pipe: pipe.into(),
            stream: stream.into(),
            leases,
            shards: Shards::new(),
            source: deps.source(pipe, described, unpacking),
            open: None,
            search: Search::default(),
            refreshed: None,
            expected: BTreeMap::new(),
            listed_ms: 0,
            losses: Losses::default(),
            circle: Circle::default(),
            balanced: None,
            unclaimed: BTreeMap::new(),
        };
        if let Some(to) = to {
            work.feed(to).await.map_err(|refused| refused.error)?;
        }
        deps.heartbeat.admitted().await?;
        deps.heartbeat.joined(pipe);
        let started = work.begin(&start, mode, to).await;
        started.inspect_err(|_| deps.heartbeat.left(pipe)).map(|()| work)
    }

    async fn begin(&mut self, start: &Checkpoint, mode: Mode, to: Option<&Destination>) -> Result<(), Error> {
        self.read_by(mode).await?;
        self.look_at_shards(start, true).await?;
        match to {
            Some(to) => self.feed_alone(to).await,
            None => Ok(()),
        }
    }

    /// How shards are read from now on; where they are read does not change. For fan-out the
    /// consumer is registered first.
    pub async fn read_by(&self, mode: Mode) -> Result<(), Error> {
        self.source.fan_out.want(mode == Mode::FanOut).await
    }

    /// How records become rows from now on. Where a batch is open, it stays as it was offered; one
    /// that was not offered yet is forgotten.
    pub fn unpack_by(&mut self, unpacking: Unpacking) {
        if self.source.unpacking != unpacking && self.open.as_ref().is_none_or(|open| !open.offered) {
            self.source.unpacking = unpacking;
            self.forget_open();
        }
    }

    pub(super) fn follow(&mut self) {
        self.shards.follow(&self.leases, &self.source, &self.losses);
        let readers = self.shards.buffers().count().max(1);
        self.source.shard_cap.set((self.source.budget.limit() / 4 * 3 / readers) as u64);
    }

    /// Reads an offered batch again that an earlier process, or an earlier self, left open
    /// (**recovery-as-a-unit**).
    pub async fn recover(&mut self) -> Result<(), Error> {
        if self.open.is_none() && self.leases.in_doubt() {
            // What was written may be an offer that is forgotten here, and readers would be on the
            // wrong side of it.
            self.leases.reload().await?;
            self.restart_readers();
        }
        for _ in 0..COMMIT_RETRIES {
            let readable = |l: &&Lease| self.open.is_none() && self.losses.of(l).is_none();
            let offer = self.leases.held().filter(readable).find_map(|l| l.offer.clone());
            let Some(offer) = offer else { return Ok(()) };
            let (mut leases, mut elsewhere) = self.holding(&offer.batch);
            if elsewhere {
                self.leases.reload().await?;
                self.take_rest_of(&offer.batch).await?;
                (leases, elsewhere) = self.holding(&offer.batch);
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
            // Only an edit by hand leaves a part of an offer behind. Its records are read again
            // from the checkpoints.
            let batch = offer.batch;
            warn!(pipe = self.pipe, batch, "an offered batch was taken apart by hand; what is left of it is discarded");
            let now = self.deps.clock.now_ms();
            let discarded = leases.iter().map(|l| l.discard(&self.leases.holder(&l.shard_id), now));
            self.leases.write(discarded.collect::<Result<_, _>>()?).await?;
            self.restart_readers();
        }
        Err(self.keeps_changing())
    }

    /// The leases held here whose offer belongs to `batch`, and whether there are others elsewhere.
    fn holding(&self, batch: &str) -> (Vec<Lease>, bool) {
        let of_batch = |l: &&Lease| l.batch() == Some(batch);
        let held: Vec<Lease> = self.leases.held().filter(of_batch).cloned().collect();
        let elsewhere = self.leases.all().filter(of_batch).count() > held.len();
        (held, elsewhere)
    }

    /// Another living worker holds a part of a batch, and neither can settle it: whoever has its
    /// first shard waits, the other gives way.
    async fn in_two_hands(&mut self, batch: &str, mine: Vec<Lease>) -> Error {
        let of_batch = |l: &&Lease| l.batch() == Some(batch);
        let first = self.leases.all().find(of_batch).map(|l| l.shard_id.clone());
        if mine.first().map(|l| &l.shard_id) != first.as_ref() {
            let now = self.deps.clock.now_ms();
            let released = mine.iter().map(|l| l.release(&self.leases.holder(&l.shard_id), now));
            let written = match released.collect::<Result<Vec<Lease>, Error>>() {
                Ok(released) => self.leases.write(released).await,
                Err(refused) => Err(refused),
            };
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
            pipe = self.pipe,
            batch = offer.batch,
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

    /// Chores between batches: shards that ended, leases to take and to give back, new shards, the
    /// mark of idle ones. True when something changed.
    pub async fn tend(&mut self) -> Result<bool, Error> {
        // While a batch is open, too: it may be so for days, and what is behind it must not pass
        // unseen.
        self.source.retention.look_in_time();
        if self.open.is_some() {
            // Its shards look drained and are not.
            return self.balance().await;
        }
        let now = self.deps.clock.now_ms();
        let mut changes = Vec::new();
        for buffer in self.shards.buffers().filter(|b| b.since().is_none()) {
            let Some(lease) = self.leases.get(&buffer.shard_id).filter(|l| l.offer.is_none()) else { continue };
            let holder = self.leases.holder(&lease.shard_id);
            // Closed, read to its end, and wholly taken into batches.
            if buffer.ended() && buffer.since().is_none() {
                changes.push(lease.finish(&holder, now)?);
            } else if let Some(seen) = self.seen_anew(buffer, lease) {
                changes.push(lease.caught_up(&holder, seen, now)?);
            }
        }
        let ends = changes.iter().filter(|l| l.finished()).filter_map(|l| self.shards.buffer(&l.shard_id));
        let ends: Vec<Vec<Shard>> = ends.map(|buffer| buffer.progress().children).collect();
        let mut changed = !changes.is_empty();
        match self.leases.write_each(changes).await? {
            Written::Yes if changed => self.follow(),
            Written::Yes => {}
            Written::Changed => self.restart_readers(),
        }
        for children in ends {
            self.look_for(&children);
        }
        changed |= self.look_at_shards_in_time().await?;
        Ok(self.balance().await? || changed)
    }

    /// Decides what the next batch is. Nothing can change it afterwards.
    pub fn freeze(&mut self, limits: Limits, shape: &str) {
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
        let mut open = Open::new(batch, shape.into(), before);
        open.suspicion.searched = !searched.is_empty();
        self.open = Some(open);
    }

    /// Writes the offer into all lease rows of the open batch, unless they hold it.
    pub async fn offer(&mut self) -> Result<(), Error> {
        // After an answer that got lost the rows may hold the offer already.
        self.leases.reload_if_in_doubt().await?;
        let Some(open) = self.open.as_ref().filter(|o| !o.offered) else { return Ok(()) };
        let written = match self.offers(open) {
            Ok(Some(changes)) => self.leases.write(changes).await?,
            Ok(None) => Written::Changed,
            Err(broken @ Error::Internal(_)) => {
                // Whatever it was, it must not stand in the way for ever.
                self.forget_open();
                return Err(broken);
            }
            Err(other) => return Err(other),
        };
        if written == Written::Changed {
            self.forget_open();
            return Err(self.positions_changed());
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.offered = true;
        // An attempt whose answer got lost may have written another shape, and that one stands.
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

    /// The lease rows that offer the batch, where they do not yet; none when positions were changed
    /// since it was frozen.
    fn offers(&self, open: &Open) -> Result<Option<Vec<Lease>>, Error> {
        let (now, shards) = (self.deps.clock.now_ms(), open.batch.ranges.len());
        // An attempt whose answer got lost may have written some of them in another shape, and a
        // user changed the rest.
        let written = |(id, _): &(String, Checkpoint)| {
            self.leases.get(id)?.offer.as_ref().filter(|offer| offer.batch == open.batch.id)
        };
        let shape = open.before.iter().find_map(written).map_or(&open.shape, |offer| &offer.shape);
        let mut changes = Vec::with_capacity(shards);
        for range in &open.batch.ranges {
            let id = &range.shard_id;
            // Both are ordered by shard id.
            let Ok(at) = open.before.binary_search_by(|(shard, _)| shard.cmp(id)) else { return Ok(None) };
            let lease = self.leases.get(id).filter(|l| l.checkpoint == open.before[at].1);
            match lease.map(|l| (l, &l.offer)) {
                Some((_, Some(offer))) if offer.batch == open.batch.id => {}
                Some((lease, None)) => {
                    let offer = range.offer(&open.batch.id, shape, shards as u32)?;
                    let offered = lease.offer(&self.leases.holder(id), offer, now)?;
                    changes.push(self.leases.destined(offered));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(changes))
    }

    /// Forgets a batch of which not a byte was served, and reads on from where the rows say.
    pub(super) fn forget_open(&mut self) {
        self.open = None;
        self.restart_readers();
    }

    /// Moves the checkpoints of all shards of the confirmed batch in one write
    /// (**commit-equals-offer**), and closes it. A shard that a person moved in the meantime keeps
    /// that position.
    pub async fn commit(&mut self) -> Result<Open, Error> {
        for _ in 0..COMMIT_RETRIES {
            self.leases.reload_if_in_doubt().await?;
            let now = self.deps.clock.now_ms();
            let Some(open) = &self.open else { break };
            let (mut changes, mut moved) = (Vec::with_capacity(open.before.len()), false);
            for (id, before) in &open.before {
                let ours = |l: &&Lease| l.batch() == Some(open.batch.id.as_str());
                match self.leases.get(id).filter(ours) {
                    Some(lease) if lease.checkpoint == *before => {
                        let next =
                            lease.commit(&self.leases.holder(id), &open.batch.id, self.seen_behind(open, id), now)?;
                        let rate = rate_after(lease.bytes_per_second, open.bytes(id), now - lease.last_commit_ms);
                        changes.push(Lease { bytes_per_second: rate, ..next });
                    }
                    Some(lease) => {
                        moved = true;
                        changes.push(lease.discard(&self.leases.holder(id), now)?);
                    }
                    None => moved = true,
                }
            }
            let positions: Vec<(String, Checkpoint)> =
                changes.iter().map(|l| (l.shard_id.clone(), l.checkpoint.clone())).collect();
            if self.leases.write(changes).await? == Written::Changed {
                continue;
            }
            let Some(open) = self.open.take() else { break };
            for (id, checkpoint) in &positions {
                self.shards.committed(id, checkpoint);
            }
            if moved {
                self.restart_readers();
            }
            self.search_on(&open);
            self.follow();
            return Ok(open);
        }
        Err(self.keeps_changing())
    }

    /// Looks at the rows again after they were changed on purpose. What is open in them is
    /// recovered by the next pull.
    pub async fn reload(&mut self) -> Result<(), Error> {
        self.leases.reload().await?;
        self.open = None;
        // What was lost may have been given up.
        self.refreshed = None;
        self.restart_readers();
        Ok(())
    }

    pub(super) fn restart_readers(&mut self) {
        self.search = Search::default();
        self.shards.clear();
        self.follow();
    }

    /// Stops reading and forgets what is in memory only: buffers, and an open batch that nobody is
    /// waiting for (an offered one can be read again). Whether there was anything to forget.
    pub fn rest(&mut self) -> bool {
        self.search = Search::default();
        let read = self.shards.buffers().next().is_some();
        self.shards.clear();
        let open = self.open.take_if(|open| open.waits == 0 && !open.confirmed);
        read || open.is_some()
    }

    /// Lets readers run again after a rest.
    pub fn wake(&mut self) {
        if self.shards.buffers().next().is_none() {
            self.follow();
        }
    }

    /// Gives all leases back. Open offers stay in them.
    pub async fn release(&mut self) -> Result<(), Error> {
        self.shards.clear();
        for _ in 0..COMMIT_RETRIES {
            self.leases.reload_if_in_doubt().await?;
            let now = self.deps.clock.now_ms();
            let mut released = Vec::new();
            for lease in self.leases.held() {
                released.push(lease.release(&self.leases.holder(&lease.shard_id), now)?);
            }
            if self.leases.write_each(released).await? == Written::Yes {
                return Ok(());
            }
        }
        Err(self.keeps_changing())
    }

    pub(super) fn positions_changed(&self) -> Error {
        Error::Unavailable(format!("the positions of pipe '{}' were changed; reading goes on from there", self.pipe))
    }

    fn keeps_changing(&self) -> Error {
        Error::Unavailable(format!("the lease rows of pipe '{}' keep changing; trying again", self.pipe))
    }

    /// Shows the pipe's state to `/v1/pipes` and `/metrics`.
    pub fn publish(&self, status: &Status) {
        status.publish(|s| {
            s.leases = self.leases.all().cloned().collect();
            s.buffers = self.shards.buffers().cloned().collect();
        });
    }
}
