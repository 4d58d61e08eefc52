//! Distributes a pipe's leases among the workers that pull it: this worker's part of the plan.

use std::collections::BTreeSet;

use tracing::info;

use super::changes;
use super::members::Circle;
use super::sharing::{free, share};
use super::work::Work;
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::BALANCE_EVERY;
use domain::names::{BatchId, ShardId, WorkerId};
use domain::plan::{Plan, Share, plan};
use domain::seat::worker_of;

impl Work {
    /// Takes and releases leases according to the plan, if something changed or it is time to look.
    /// True if leases changed hands.
    pub(super) async fn balance(&mut self) -> Result<bool, Error> {
        let circle = self.circle_now();
        let reread = circle != *self.sharing.circle();
        if reread {
            // A worker came, died or announced changed rows.
            self.leases.reload().await?;
            self.sharing.meet(circle);
            self.follow();
        } else if !self.sharing.due() || self.sharing.rests(&self.leases) {
            return Ok(false);
        }
        self.sharing.looked();
        let plan = self.agreed_plan(reread).await?;
        let members = self.deps.members.clone();
        self.sharing.note_unclaimed(&self.leases, &members, &self.deps.worker_id, &plan.take);
        let release = self.sharing.to_release(&plan.release).clone();
        let released = self.give_back(&release).await?;
        let overdue = self.sharing.overdue(members.lease_duration());
        let losses = &self.losses;
        // A finished lease needs an owner only to report that its shard has been replaced.
        let reopened = |l: &Lease| l.finished() && losses.of(l).is_some() && members.is_nobodys(l);
        let meant = |l: &Lease| plan.take.contains(&l.shard_id) || overdue.contains(&l.shard_id);
        let left = |l: &Lease| l.owner == self.deps.worker_id && overdue.contains(&l.shard_id);
        // A lease of the open batch that is not held was lost while this process was suspended. The
        // next pull must see that, so the lease must not be taken back first
        // (**a-zombie-serves-nothing**).
        let missed = |l: &Lease| self.open.as_ref().is_some_and(|open| open.has(&l.shard_id));
        let wanted = |l: &Lease| !missed(l) && (free(l, &members) && meant(l) || left(l) || reopened(l));
        self.look_before_taking(&wanted).await?;
        let taken = self.leases.take(wanted).await?;
        if released || taken {
            self.follow();
        } else if plan == Plan::default() && self.losses.is_empty() {
            self.sharing.rest(&self.leases);
        }
        Ok(released || taken)
    }

    /// The plan, from reread rows if leases are to be released, or are left that others were to
    /// take: what others have committed is not known here, and with other rates they plan otherwise.
    async fn agreed_plan(&mut self, reread: bool) -> Result<Plan, Error> {
        let plan = self.plan();
        self.sharing.asked(&plan.release);
        let releases = !self.sharing.to_release(&plan.release).is_empty();
        if reread || !releases && self.sharing.overdue(BALANCE_EVERY).is_empty() {
            return Ok(plan);
        }
        self.leases.reload().await?;
        self.follow();
        let plan = self.plan();
        self.sharing.asked(&plan.release);
        Ok(plan)
    }

    fn plan(&self) -> Plan {
        let me = &self.deps.worker_id;
        let workers: BTreeSet<WorkerId> = self.sharing.circle().workers.keys().chain([me]).cloned().collect();
        let unfinished = self.leases.all().filter(|l| !l.finished());
        let shares: Vec<Share<'_>> = unfinished.map(|lease| share(lease, &self.deps.members)).collect();
        plan(&shares, &workers, me)
    }

    /// Takes the leases of a batch that this worker holds in part from dead workers.
    pub(super) async fn take_rest_of(&mut self, batch: &BatchId) -> Result<(), Error> {
        let members = self.deps.members.clone();
        let wanted = |lease: &Lease| free(lease, &members) && lease.batch() == Some(batch);
        self.look_before_taking(&wanted).await?;
        self.leases.take(wanted).await?;
        self.follow();
        Ok(())
    }

    /// A worker that came back since the last look may have taken a lease. It sent a heartbeat
    /// before that, so looking at the workers after reading the rows shows it as alive
    /// (**expiry-on-the-observers-clock**).
    async fn look_before_taking(&self, wanted: &(impl Fn(&Lease) -> bool + Sync)) -> Result<(), Error> {
        if self.leases.all().any(|lease| !lease.owner.is_empty() && wanted(lease)) {
            self.deps.members.observe(self.deps.store.workers().await?);
        }
        Ok(())
    }

    /// Rereads the rows after this process was suspended. `Fenced` if the open batch was lost
    /// meanwhile. Otherwise its rows are written once more, so that a take that was decided
    /// meanwhile and is still on its way conflicts.
    pub async fn look_again(&mut self) -> Result<(), Error> {
        self.leases.reload().await?;
        self.follow();
        let kept = self.leases.try_change(|rows, now_ms| {
            let batch = self.open.iter().flat_map(|open| &open.before);
            let kept = batch.map(|(id, _)| match rows.get(id).filter(|lease| rows.holds(lease)) {
                Some(lease) => lease.touch(&rows.holder(id), now_ms),
                None => Err(Error::Fenced(format!(
                    "shard {id} of pipe '{}' went to another worker while '{}' was suspended",
                    self.pipe, self.deps.worker_id
                ))),
            });
            kept.collect::<Result<_, _>>().map(Some)
        });
        match kept.await? {
            true => Ok(()),
            false => Err(self.positions_changed()),
        }
    }

    /// Whether a worker relevant to this pipe came, died or changed rows since the last look.
    /// Activity on other pipes must not cause queries to ClickHouse and Kinesis here.
    pub fn circle_changed(&self) -> bool {
        self.circle_now() != *self.sharing.circle()
    }

    fn circle_now(&self) -> Circle {
        self.deps.members.circle(&self.pipe, &self.deps.worker_id)
    }

    /// Whether other workers pull this pipe.
    pub fn others_pull(&self) -> bool {
        !self.sharing.circle().workers.is_empty()
    }

    /// How many views pull this pipe here: they share the memory.
    pub fn views_here(&self) -> usize {
        let here = worker_of(&self.deps.worker_id);
        let others = self.sharing.circle().workers.keys().filter(|owner| worker_of(owner) == here);
        1 + others.count()
    }

    /// Releases leases without an open batch; the others follow once theirs is settled. True if
    /// there were any.
    async fn give_back(&mut self, release: &BTreeSet<ShardId>) -> Result<bool, Error> {
        let open = |l: &Lease| l.offer.is_some() || self.open.as_ref().is_some_and(|open| open.has(&l.shard_id));
        let settled = |l: &Lease| release.contains(&l.shard_id) && !open(l);
        let mut released = 0;
        let written = self.leases.try_change(|rows, now_ms| {
            let leases = changes::releases(rows, settled, now_ms)?;
            released = leases.len();
            Ok(Some(leases))
        });
        written.await?;
        if released == 0 {
            return Ok(false);
        }
        info!(pipe = self.pipe.as_str(), leases = released, "leases released for another worker");
        self.deps.heartbeat.changed(&self.pipe);
        Ok(true)
    }
}
