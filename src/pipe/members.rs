//! Which workers live: each writes a heartbeat counter, and everybody watches the others' on its own monotonic clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::limits::BEATS_PER_LEASE;
use crate::ports::{Clock, StateStore, Worker};

/// The workers as this one sees them. Cheap to clone.
#[derive(Clone)]
pub struct Members(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    lease_duration: Duration,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When the rows were last looked at.
    last: Option<Instant>,
    /// For how long they have been watched. A time without a look counts little: then nobody may have been able to write, either.
    watched: Duration,
    /// Heartbeat, and how much of `watched` had gone by when it last moved.
    workers: HashMap<String, (Worker, Duration)>,
}

impl Members {
    /// Nobody seen yet.
    pub fn new(clock: Arc<dyn Clock>, lease_duration: Duration) -> Members {
        Members(Arc::new(Inner { clock, lease_duration, seen: Mutex::default() }))
    }

    /// Notes the rows of `kinesis.workers`.
    pub fn observe(&self, rows: Vec<Worker>) {
        let now = self.0.clock.monotonic();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = seen.last.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        seen.watched += since.min(self.0.lease_duration / 2);
        let watched = seen.watched;
        for row in rows {
            let moved = seen
                .workers
                .get(&row.worker_id)
                .is_none_or(|(old, _)| old.heartbeat != row.heartbeat || old.incarnation != row.incarnation);
            if moved {
                seen.workers.insert(row.worker_id.clone(), (row, watched));
            }
        }
    }

    /// Whether a worker's counter has stood still for the lease duration, as measured here (**expiry-on-the-observers-clock**). A worker that
    /// never wrote one is dead once this one has watched for that long. Whoever cannot look calls nobody dead.
    pub fn is_dead(&self, worker_id: &str) -> bool {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = seen.workers.get(worker_id).map_or(Duration::ZERO, |(_, moved)| *moved);
        seen.watched - moved >= self.0.lease_duration
    }

    /// All workers seen.
    pub fn all(&self) -> Vec<Worker> {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workers: Vec<Worker> = seen.workers.values().map(|(w, _)| w.clone()).collect();
        workers.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        workers
    }

    /// Beats and watches for ever. The store being away is waited out.
    pub async fn run(self, store: Arc<dyn StateStore>, mut me: Worker) {
        let mut well = true;
        loop {
            me.heartbeat += 1;
            let done = match store.heartbeat(&me).await {
                Ok(()) => store.workers().await,
                Err(error) => Err(error),
            };
            match done {
                Ok(rows) => {
                    self.observe(rows);
                    well = true;
                }
                Err(error) if well => {
                    warn!("the heartbeat cannot be written: {}", crate::domain::error::Error::from(error));
                    well = false;
                }
                Err(_) => {}
            }
            tokio::time::sleep(self.0.lease_duration / BEATS_PER_LEASE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that shows what it is told, and a wall clock that cannot be trusted.
    struct Told(Mutex<Instant>);

    impl Clock for Told {
        fn now_ms(&self) -> i64 {
            fastrand::i64(..)
        }

        fn monotonic(&self) -> Instant {
            *self.0.lock().unwrap()
        }

        fn batch_id(&self) -> String {
            String::new()
        }
    }

    const LEASE: Duration = Duration::from_secs(9);
    const BEAT: Duration = Duration::from_secs(3);

    struct Observer {
        clock: Arc<Told>,
        members: Members,
    }

    impl Observer {
        fn new() -> Observer {
            let clock = Arc::new(Told(Mutex::new(Instant::now())));
            Observer { members: Members::new(clock.clone(), LEASE), clock }
        }

        fn looks(&self, after: Duration, rows: &[(&str, &str, u64)]) {
            *self.clock.0.lock().unwrap() += after;
            let worker = |(id, incarnation, heartbeat): &(&str, &str, u64)| Worker {
                worker_id: (*id).into(),
                incarnation: (*incarnation).into(),
                address: String::new(),
                version: String::new(),
                heartbeat: *heartbeat,
                pipes: BTreeMap::new(),
            };
            self.members.observe(rows.iter().map(worker).collect());
        }
    }

    #[test]
    fn expiry_on_the_observers_clock() {
        let observer = Observer::new();
        assert!(!observer.members.is_dead("a") && !observer.members.is_dead("never seen"));
        for beat in 0..3 {
            observer.looks(BEAT, &[("a", "", 7), ("b", "", beat)]);
            assert!(!observer.members.is_dead("a"), "seen for {beat} beats");
        }
        observer.looks(BEAT, &[("a", "", 7), ("b", "", 3)]);
        assert!(
            observer.members.is_dead("a") && !observer.members.is_dead("b") && observer.members.is_dead("never seen")
        );
        // A counter that moves, wherever to, is a life; and so is another process with that name.
        observer.looks(BEAT, &[("a", "", 2), ("b", "", 3)]);
        assert!(!observer.members.is_dead("a"));
        for _ in 0..3 {
            observer.looks(BEAT, &[("a", "", 2), ("b", "", 3)]);
        }
        assert!(observer.members.is_dead("a") && observer.members.is_dead("b"));
        observer.looks(BEAT, &[("a", "another", 2), ("b", "", 3)]);
        assert!(!observer.members.is_dead("a") && observer.members.is_dead("b"));
    }

    #[test]
    fn a_time_in_which_nobody_could_write_kills_nobody() {
        let observer = Observer::new();
        observer.looks(BEAT, &[("a", "", 1)]);
        // The store was away for all. The clock alone says nothing.
        *observer.clock.0.lock().unwrap() += 100 * LEASE;
        assert!(!observer.members.is_dead("a"));
        observer.looks(BEAT, &[("a", "", 1)]);
        assert!(!observer.members.is_dead("a"));
        observer.looks(BEAT, &[("a", "", 2)]);
        assert!(!observer.members.is_dead("a"));
        // It comes back without the other.
        for _ in 0..3 {
            observer.looks(100 * LEASE, &[("a", "", 2)]);
        }
        assert!(observer.members.is_dead("a"));
    }
}
