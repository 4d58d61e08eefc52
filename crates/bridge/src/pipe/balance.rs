//! Sharing the leases of a pipe out between the workers that pull it: this worker's part of the
//! plan.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::info;

use super::leases::Written;
use super::members::{Circle, Members};
use super::work::Work;
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::BALANCE_EVERY;
use domain::plan::{Share, plan};

impl Work {
    /// Takes and gives back what the plan says, when something has changed or it is time to look.
    /// True when leases changed hands.
    pub(super) async fn balance(&mut self) -> Result<bool, Error> {
        let circle = self.circle_now();
        if circle != self.circle {
            // Somebody came, died, or says that rows have changed.
            self.leases.reload().await?;
            self.circle = circle;
            self.follow();
        } else if self.balanced.is_some_and(|at| at.elapsed() < BALANCE_EVERY) {
            return Ok(false);
        }
        self.balanced = Some(Instant::now());
        let me = &self.deps.worker_id;
        let workers: BTreeSet<String> = self.circle.workers.keys().chain([me]).cloned().collect();
        let members = self.deps.members.clone();
        let shares = self.leases.all().filter(|l| !l.finished());
        let shares: Vec<Share<'_>> = shares.map(|lease| share(lease, &members)).collect();
        let plan = plan(&shares, &workers, me);
        self.note_unclaimed(&plan.take);
        let released = self.give_back(&plan.release).await?;
        let overdue = self.overdue();
        let losses = &self.losses;
        // A finished lease needs somebody only to say that its shard is another one now.
        let reopened = |l: &Lease| l.finished() && losses.of(l).is_some() && members.is_nobodys(l);
        let meant = |l: &Lease| plan.take.contains(&l.shard_id) || overdue.contains(&l.shard_id);
        let left = |l: &Lease| l.owner == self.deps.worker_id && overdue.contains(&l.shard_id);
        // A lease of the open batch that is not held went to others while this process stood still.
        // The next pull sees that, and must not find it taken back (**a-zombie-serves-nothing**).
        let missed = |l: &Lease| self.open.as_ref().is_some_and(|open| open.has(&l.shard_id));
        let wanted = |l: &Lease| !missed(l) && (free(l, &members) && meant(l) || left(l) || reopened(l));
        self.look_before_taking(&wanted).await?;
        let taken = self.leases.take(wanted).await?;
        if released || taken {
            self.follow();
        }
        Ok(released || taken)
    }

    /// Takes the leases of a batch, of which this worker has a part, from whoever is dead.
    pub(super) async fn take_rest_of(&mut self, batch: &str) -> Result<(), Error> {
        let members = self.deps.members.clone();
        let wanted = |lease: &Lease| free(lease, &members) && lease.batch() == Some(batch);
        self.look_before_taking(&wanted).await?;
        self.leases.take(wanted).await?;
        self.follow();
        Ok(())
    }

    /// Whoever has come to life since the last look at the workers may have taken a lease since: it
    /// has beaten before, so a look after the rows were read shows it
    /// (**expiry-on-the-observers-clock**).
    async fn look_before_taking(&self, wanted: &(impl Fn(&Lease) -> bool + Sync)) -> Result<(), Error> {
        if self.leases.all().any(|lease| !lease.owner.is_empty() && wanted(lease)) {
            self.deps.members.observe(self.deps.store.workers().await?);
        }
        Ok(())
    }

    /// Looks at the rows again after this process stood still. `Fenced` when the open batch went to
    /// others meanwhile. If it did not, its rows are written once more: a take that was decided
    /// meanwhile, and may be on its way still, finds them changed.
    pub async fn look_again(&mut self) -> Result<(), Error> {
        self.leases.reload().await?;
        self.follow();
        let now = self.deps.clock.now_ms();
        let mut kept = Vec::new();
        for (id, _) in self.open.iter().flat_map(|open| &open.before) {
            let Some(lease) = self.leases.get(id).filter(|lease| self.leases.holds(lease)) else {
                return Err(Error::Fenced(format!(
                    "shard {id} of pipe '{}' went to another worker while '{}' stood still",
                    self.pipe, self.deps.worker_id
                )));
            };
            kept.push(lease.touch(&self.leases.holder(id), now)?);
        }
        match self.leases.write(kept).await? {
            Written::Yes => Ok(()),
            Written::Changed => Err(self.positions_changed()),
        }
    }

    /// Whether a worker that matters to this pipe came, died or changed rows since the last look.
    /// What others do with other pipes must not make this one ask ClickHouse and Kinesis.
    pub fn circle_changed(&self) -> bool {
        self.circle_now() != self.circle
    }

    fn circle_now(&self) -> Circle {
        self.deps.members.circle(&self.pipe, &self.deps.worker_id)
    }

    /// Whether other workers pull this pipe.
    pub fn others_pull(&self) -> bool {
        !self.circle.workers.is_empty()
    }

    /// Gives leases back of which no batch is open; the others follow when theirs is settled.
    /// Whether there were any.
    async fn give_back(&mut self, release: &BTreeSet<String>) -> Result<bool, Error> {
        let now = self.deps.clock.now_ms();
        let open = |l: &Lease| l.offer.is_some() || self.open.as_ref().is_some_and(|open| open.has(&l.shard_id));
        let settled = self.leases.held().filter(|l| release.contains(&l.shard_id) && !open(l));
        let released = settled.map(|l| l.release(&self.leases.holder(&l.shard_id), now));
        let released = released.collect::<Result<Vec<Lease>, Error>>()?;
        if released.is_empty() {
            return Ok(false);
        }
        info!(pipe = self.pipe, leases = released.len(), "leases are given back, for another worker to take");
        self.leases.write_each(released).await?;
        self.deps.heartbeat.changed(&self.pipe);
        Ok(true)
    }

    /// Notes which free leases are meant for others, and which stand under this worker's name
    /// without being held: a process that had the name before took them with its last breath, and
    /// nobody else will call their owner dead.
    fn note_unclaimed(&mut self, mine: &BTreeSet<String>) {
        let members = &self.deps.members;
        let own = |l: &Lease| l.owner == self.deps.worker_id && !l.finished() && !self.leases.holds(l);
        let free = self.leases.all().filter(|l| own(l) || free(l, members) && !mine.contains(&l.shard_id));
        let before = std::mem::take(&mut self.unclaimed);
        let since = |id: &String| before.get(id).copied().unwrap_or_else(Instant::now);
        self.unclaimed = free.map(|l| (l.shard_id.clone(), since(&l.shard_id))).collect();
    }

    /// What others were meant to take and did not, or an earlier self took, for a whole lease
    /// duration: anybody may have it.
    fn overdue(&self) -> BTreeSet<String> {
        let patience = self.deps.members.lease_duration();
        let overdue = self.unclaimed.iter().filter(|(_, since)| since.elapsed() > patience);
        overdue.map(|(shard_id, _)| shard_id.clone()).collect()
    }
}

/// Whether a lease may be taken from its owner: there is none, or it is dead.
fn free(lease: &Lease, members: &Members) -> bool {
    !lease.finished() && members.is_nobodys(lease)
}

fn share<'a>(lease: &'a Lease, members: &Members) -> Share<'a> {
    Share {
        shard_id: &lease.shard_id,
        owner: if free(lease, members) { "" } else { &lease.owner },
        bytes_per_second: lease.bytes_per_second,
        batch: lease.batch(),
    }
}
