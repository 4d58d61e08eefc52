//! Which workers are alive, and what they run: each writes a heartbeat counter, and watches those
//! of the others with its own monotonic clock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::broadcast::Broadcast;
use domain::lease::Lease;
use domain::limits::SEATS_REMEMBERED;
use domain::names::{PipeName, WorkerId};
use domain::ports::{Clock, Worker};
use domain::seat::{seat_of, split_owner};

/// The workers as seen by this one. Cheap to clone.
#[derive(Clone)]
pub struct Members(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    lease_duration: Duration,
    seen: Mutex<Seen>,
    changes: Broadcast<u64>,
}

#[derive(Default)]
struct Seen {
    /// When the rows were last read.
    last: Option<Instant>,
    /// For how long they have been watched. A time without reads counts little, since nobody may
    /// have been able to write, either.
    watched: Duration,
    /// The last row whose counter moved, and the value of `watched` then.
    workers: BTreeMap<WorkerId, (Worker, Duration)>,
    /// The value of `watched` when a worker's row last announced a seat of a pipe, or when somebody
    /// first asked about a seat that it did not announce.
    seats: BTreeMap<WorkerId, BTreeMap<PipeName, Duration>>,
    /// Who was dead at the last read.
    dead: BTreeSet<WorkerId>,
}

/// Who pulls a pipe now, as far as this affects its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circle {
    /// The seats at live workers that run the pipe, by the names that own leases, each with its
    /// counter of changes that others should look at.
    pub workers: BTreeMap<WorkerId, u64>,
    /// All dead workers: their leases are free.
    dead: BTreeSet<WorkerId>,
}

impl Members {
    /// No worker seen yet.
    pub fn new(clock: Arc<dyn Clock>, lease_duration: Duration) -> Members {
        let changes = Broadcast::new(0);
        Members(Arc::new(Inner { clock, lease_duration, seen: Mutex::default(), changes }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a counter may stay the same.
    pub fn lease_duration(&self) -> Duration {
        self.0.lease_duration
    }

    /// Notes the rows of `kinesis.workers`.
    pub fn observe(&self, rows: Vec<Worker>) {
        let now = self.0.clock.monotonic();
        let mut seen = self.seen();
        let since = seen.last.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        seen.watched += since.min(self.0.lease_duration / 2);
        let (watched, mut changed) = (seen.watched, false);
        for row in rows {
            let old = seen.workers.get(&row.worker_id).map(|(old, _)| old);
            if old.is_none_or(|old| old.heartbeat != row.heartbeat || old.incarnation != row.incarnation) {
                changed |= old.is_none_or(|old| old.pipes != row.pipes);
                let seats = seen.seats.entry(row.worker_id.clone()).or_default();
                seats.extend(row.pipes.keys().map(|name| (name.clone(), watched)));
                seats.retain(|_, at| watched - *at < SEATS_REMEMBERED * self.0.lease_duration);
                seen.workers.insert(row.worker_id.clone(), (row, watched));
            }
        }
        let dead = seen.workers.keys().filter(|id| self.dead_in(&seen, id)).cloned().collect();
        if changed || dead != seen.dead {
            seen.dead = dead;
            self.0.changes.change(|version| version + 1);
        }
    }

    /// Whether a worker's counter has not moved for the lease duration, as measured here
    /// (**expiry-on-the-observers-clock**). A worker that never wrote one is dead once this one has
    /// watched for that long. A worker that cannot read the rows considers nobody dead.
    pub fn is_dead(&self, worker_id: &str) -> bool {
        self.dead_in(&self.seen(), worker_id)
    }

    /// Whether no live worker holds the lease: its owner is dead, or has not announced for the lease
    /// duration that it runs the pipe at that seat.
    pub fn is_nobodys(&self, lease: &Lease) -> bool {
        let (worker, seat) = split_owner(&lease.owner);
        let mut seen = self.seen();
        if worker.is_empty() || self.dead_in(&seen, worker) {
            return true;
        }
        let watched = seen.watched;
        let name =
            if seat.is_empty() { Cow::Borrowed(&*lease.pipe) } else { Cow::Owned(format!("{}{seat}", lease.pipe)) };
        match seen.seats.get(worker).and_then(|seats| seats.get(&*name)) {
            Some(at) => watched - *at >= self.0.lease_duration,
            None => {
                // The row may have been written late, over that of the next process.
                seen.seats.entry(worker.into()).or_default().insert(name.as_ref().into(), watched);
                false
            }
        }
    }

    fn dead_in(&self, seen: &Seen, worker_id: &str) -> bool {
        // A row that marks its process as ended proves nothing: it may have been written late, over
        // the row of the next process.
        let moved = seen.workers.get(worker_id).map_or(Duration::ZERO, |(_, moved)| *moved);
        seen.watched - moved >= self.0.lease_duration
    }

    /// Who pulls `pipe`, besides the owner `me`.
    pub fn circle(&self, pipe: &PipeName, me: &str) -> Circle {
        let seen = self.seen();
        let living = seen.workers.values().filter(|(row, _)| !seen.dead.contains(&row.worker_id));
        let pulling = living.flat_map(|(row, _)| {
            let names = row.pipes.range(pipe.clone()..).take_while(|(name, _)| name.starts_with(pipe.as_str()));
            let seats = names.filter_map(|(name, changes)| Some((seat_of(name, pipe)?, *changes)));
            seats.map(|(seat, changes)| (WorkerId::from(format!("{}{seat}", row.worker_id)), changes))
        });
        Circle { workers: pulling.filter(|(owner, _)| owner != me).collect(), dead: seen.dead.clone() }
    }

    /// Notified whenever a worker appeared, died, or changed something that others should look at.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::names::BatchId;
    use domain::sequence::Checkpoint;

    /// A clock that is set by the test, and a wall clock that cannot be trusted.
    struct Told(Mutex<Instant>);

    impl Clock for Told {
        fn now_ms(&self) -> i64 {
            fastrand::i64(..)
        }

        fn monotonic(&self) -> Instant {
            *self.0.lock().unwrap()
        }

        fn batch_id(&self) -> BatchId {
            BatchId::default()
        }
    }

    const LEASE: Duration = Duration::from_secs(9);
    const BEAT: Duration = Duration::from_secs(3);

    struct Observer {
        clock: Arc<Told>,
        members: Members,
    }

    impl Observer {
        #[expect(clippy::disallowed_methods, reason = "an Instant to begin at; the test moves it on by hand")]
        fn new() -> Observer {
            let clock = Arc::new(Told(Mutex::new(Instant::now())));
            Observer { members: Members::new(clock.clone(), LEASE), clock }
        }

        fn looks(&self, after: Duration, rows: &[(&str, &str, u64)]) {
            let rows: Vec<_> = rows.iter().map(|(id, process, beat)| (*id, *process, *beat, &[][..])).collect();
            self.looks_at(after, &rows);
        }

        /// Each row with what it announces.
        fn looks_at(&self, after: Duration, rows: &[(&str, &str, u64, &[&str])]) {
            *self.clock.0.lock().unwrap() += after;
            let worker = |(id, incarnation, heartbeat, seats): &(&str, &str, u64, &[&str])| Worker {
                worker_id: (*id).into(),
                incarnation: format!("0-{incarnation}"),
                address: String::new(),
                version: String::new(),
                heartbeat: *heartbeat,
                pipes: seats.iter().map(|seat| ((*seat).into(), 0)).collect(),
            };
            self.members.observe(rows.iter().map(worker).collect());
        }
    }

    #[test]
    fn expiry_on_the_observers_clock() {
        let observer = Observer::new();
        assert!(!observer.members.is_dead("a") && !observer.members.is_dead("never seen"));
        for beat in 0..3 {
            observer.looks(BEAT, &[("a", "x", 7), ("b", "x", beat)]);
            assert!(!observer.members.is_dead("a"), "seen for {beat} beats");
        }
        observer.looks(BEAT, &[("a", "x", 7), ("b", "x", 3)]);
        assert!(
            observer.members.is_dead("a") && !observer.members.is_dead("b") && observer.members.is_dead("never seen")
        );
        // A counter that moves, in either direction, shows life; and so does another process with
        // that name.
        observer.looks(BEAT, &[("a", "x", 2), ("b", "x", 3)]);
        assert!(!observer.members.is_dead("a"));
        for _ in 0..3 {
            observer.looks(BEAT, &[("a", "x", 2), ("b", "x", 3)]);
        }
        assert!(observer.members.is_dead("a") && observer.members.is_dead("b"));
        observer.looks(BEAT, &[("a", "another", 2), ("b", "x", 3)]);
        assert!(!observer.members.is_dead("a") && observer.members.is_dead("b"));
    }

    #[test]
    fn the_leases_of_a_seat_that_is_not_announced_are_nobodys() {
        let observer = Observer::new();
        let free = Lease::new(&"orders".into(), &"s".into(), &"1".into(), vec![], Checkpoint::TrimHorizon, 0);
        let nobodys = |owner: &str| observer.members.is_nobodys(&Lease { owner: owner.into(), ..free.clone() });
        let mut beat = 0;
        let mut looks = |seats: &[&str]| {
            beat += 1;
            observer.looks_at(BEAT, &[("a", "x", beat, seats)]);
        };
        looks(&["orders", "orders/2", "clicks"]);
        assert!(!nobodys("a") && !nobodys("a/2"));
        // The second view is gone, and another pipe has one.
        looks(&["orders", "clicks/2"]);
        looks(&["orders", "clicks/2"]);
        assert!(!nobodys("a") && !nobodys("a/2"));
        looks(&["orders", "clicks/2"]);
        assert!(!nobodys("a") && nobodys("a/2"));
        // A row that lacks what was never seen may have been written late.
        assert!(!nobodys("a/3"));
        looks(&[]);
        looks(&["orders", "orders/3"]);
        looks(&["orders"]);
        assert!(!nobodys("a") && !nobodys("a/3"));
        // Whether the worker lives or not decides about all its seats.
        for _ in 0..3 {
            observer.looks_at(BEAT, &[("a", "x", beat, &["orders", "orders/3"])]);
        }
        assert!(nobodys("a") && nobodys("a/2") && nobodys("a/3") && nobodys(""));
    }

    #[test]
    fn a_time_in_which_nobody_could_write_kills_nobody() {
        let observer = Observer::new();
        observer.looks(BEAT, &[("a", "x", 1)]);
        // The store was unavailable for all. The clock alone proves nothing.
        *observer.clock.0.lock().unwrap() += 100 * LEASE;
        assert!(!observer.members.is_dead("a"));
        observer.looks(BEAT, &[("a", "x", 1)]);
        assert!(!observer.members.is_dead("a"));
        observer.looks(BEAT, &[("a", "x", 2)]);
        assert!(!observer.members.is_dead("a"));
        // The store is back, without the other worker.
        for _ in 0..3 {
            observer.looks(100 * LEASE, &[("a", "x", 2)]);
        }
        assert!(observer.members.is_dead("a"));
    }
}
