//! What this worker remembers between two looks about the others that share a pipe's leases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::members::{Circle, Members};
use super::rows::Rows;
use domain::lease::Lease;
use domain::limits::{BALANCE_EVERY, BALANCE_PATIENCE};
use domain::names::{BatchId, ShardId, WorkerId};
use domain::plan::Share;

/// The workers that shared the leases at the last look, and the leases that nobody has taken since.
#[derive(Default)]
pub struct Sharing {
    circle: Circle,
    looked: Option<Instant>,
    /// Free leases that the plan gives to others, and since when.
    unclaimed: BTreeMap<ShardId, Instant>,
    /// Workers came or left since the last plan.
    reshuffles: bool,
    /// Leases that the first plan after that asked for and later ones still do: released at once,
    /// or when their batch is settled.
    owed: BTreeSet<ShardId>,
    /// Since when the plan has asked this worker to release leases.
    uneven: Option<Instant>,
    /// The rows, as [`Rows::changes`] counts them, of which nothing was to be taken or released.
    at_rest: Option<u64>,
}

impl Sharing {
    /// The workers that pulled the pipe at the last look.
    pub fn circle(&self) -> &Circle {
        &self.circle
    }

    /// Notes the current circle.
    pub fn meet(&mut self, circle: Circle) {
        self.reshuffles |= !circle.workers.keys().eq(self.circle.workers.keys());
        self.circle = circle;
        self.at_rest = None;
    }

    /// Notes which leases the plan asks this worker to release.
    pub fn asked(&mut self, to_release: &BTreeSet<ShardId>) {
        match std::mem::take(&mut self.reshuffles) {
            true => self.owed.clone_from(to_release),
            false => self.owed.retain(|id| to_release.contains(id)),
        }
        match to_release.is_empty() {
            true => self.uneven = None,
            false => _ = self.uneven.get_or_insert_with(Instant::now),
        }
    }

    /// Which of these leases, last asked for, may be released now. The rates differ for a moment
    /// whenever one worker commits before another one, most of all when all have just begun, and
    /// records of a moved lease are read again.
    pub fn to_release<'a>(&'a self, asked: &'a BTreeSet<ShardId>) -> &'a BTreeSet<ShardId> {
        match self.uneven.is_some_and(|since| since.elapsed() >= BALANCE_PATIENCE) {
            true => asked,
            false => &self.owed,
        }
    }

    /// Notes that the plan for these rows changes nothing. It will not, either, while the rows and
    /// the circle stay the same, if each unfinished lease has an owner in the circle: nobody else's
    /// death is noticed there.
    pub fn rest(&mut self, rows: &Rows) {
        let shared = |l: &Lease| l.finished() || rows.holds(l) || self.circle.workers.contains_key(&l.owner);
        self.at_rest = rows.all().all(shared).then(|| rows.changes());
    }

    /// Whether looking at these rows again would change nothing.
    pub fn rests(&self, rows: &Rows) -> bool {
        self.at_rest == Some(rows.changes())
    }

    /// Makes the next look due now.
    pub fn hurry(&mut self) {
        self.looked = None;
        self.at_rest = None;
    }

    /// Whether the next look is due even if nobody came or went.
    pub fn due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= BALANCE_EVERY)
    }

    /// Notes a look.
    pub fn looked(&mut self) {
        self.looked = Some(Instant::now());
    }

    /// Notes the free leases that are not in `mine`, and those under this worker's name that are
    /// not held: an earlier process of that name took them just before it died, and no other worker
    /// will consider their owner dead.
    pub fn note_unclaimed(&mut self, rows: &Rows, members: &Members, worker: &WorkerId, mine: &BTreeSet<ShardId>) {
        let own = |l: &Lease| l.owner == *worker && !l.finished() && !rows.holds(l);
        let unclaimed = rows.all().filter(|l| own(l) || free(l, members) && !mine.contains(&l.shard_id));
        let before = std::mem::take(&mut self.unclaimed);
        let since = |id: &ShardId| before.get(id).copied().unwrap_or_else(Instant::now);
        self.unclaimed = unclaimed.map(|l| (l.shard_id.clone(), since(&l.shard_id))).collect();
    }

    /// Leases noted as unclaimed for longer than `patience`; any worker may take them.
    pub fn overdue(&self, patience: Duration) -> BTreeSet<ShardId> {
        let overdue = self.unclaimed.iter().filter(|(_, since)| since.elapsed() > patience);
        overdue.map(|(shard_id, _)| shard_id.clone()).collect()
    }
}

/// Whether a lease may be taken: it is unfinished and has no live owner.
pub fn free(lease: &Lease, members: &Members) -> bool {
    !lease.finished() && members.is_nobodys(lease)
}

/// What the plan needs to know about a lease.
pub fn share<'a>(lease: &'a Lease, members: &Members) -> Share<'a> {
    Share {
        shard_id: &lease.shard_id,
        owner: if free(lease, members) { "" } else { &lease.owner },
        bytes_per_second: lease.bytes_per_second,
        batch: lease.batch().map(BatchId::as_str),
    }
}
