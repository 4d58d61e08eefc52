//! What this worker knows of the others that share the leases of a pipe, between two looks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::members::{Circle, Members};
use super::rows::Rows;
use domain::lease::Lease;
use domain::limits::BALANCE_EVERY;
use domain::plan::Share;

/// Who shared the leases at the last look, and what nobody took since.
#[derive(Default)]
pub struct Sharing {
    circle: Circle,
    looked: Option<Instant>,
    /// Leases that are free and meant for others, and since when.
    unclaimed: BTreeMap<String, Instant>,
}

impl Sharing {
    /// Who pulled the pipe at the last look.
    pub fn circle(&self) -> &Circle {
        &self.circle
    }

    /// The circle has changed to this one.
    pub fn meet(&mut self, circle: Circle) {
        self.circle = circle;
    }

    /// The next look is due now.
    pub fn hurry(&mut self) {
        self.looked = None;
    }

    /// Whether it is time for the next look though nobody came or went.
    pub fn due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= BALANCE_EVERY)
    }

    /// A look takes place now.
    pub fn looked(&mut self) {
        self.looked = Some(Instant::now());
    }

    /// Notes which free leases are meant for others than `mine` names, and which stand under this
    /// worker's name without being held: a process that had the name before took them with its last
    /// breath, and nobody else will call their owner dead.
    pub fn note_unclaimed(&mut self, rows: &Rows, members: &Members, worker: &str, mine: &BTreeSet<String>) {
        let own = |l: &Lease| l.owner == worker && !l.finished() && !rows.holds(l);
        let unclaimed = rows.all().filter(|l| own(l) || free(l, members) && !mine.contains(&l.shard_id));
        let before = std::mem::take(&mut self.unclaimed);
        let since = |id: &String| before.get(id).copied().unwrap_or_else(Instant::now);
        self.unclaimed = unclaimed.map(|l| (l.shard_id.clone(), since(&l.shard_id))).collect();
    }

    /// What others were meant to take and did not, or an earlier self took, for longer than
    /// `patience`: anybody may have it.
    pub fn overdue(&self, patience: Duration) -> BTreeSet<String> {
        let overdue = self.unclaimed.iter().filter(|(_, since)| since.elapsed() > patience);
        overdue.map(|(shard_id, _)| shard_id.clone()).collect()
    }
}

/// Whether a lease may be taken from its owner: there is none, or it is dead.
pub fn free(lease: &Lease, members: &Members) -> bool {
    !lease.finished() && members.is_nobodys(lease)
}

/// What the plan needs to know of a lease.
pub fn share<'a>(lease: &'a Lease, members: &Members) -> Share<'a> {
    Share {
        shard_id: &lease.shard_id,
        owner: if free(lease, members) { "" } else { &lease.owner },
        bytes_per_second: lease.bytes_per_second,
        batch: lease.batch(),
    }
}
