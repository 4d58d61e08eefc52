//! Which workers live: each writes a heartbeat counter, and everybody watches the others' on its own monotonic clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::ports::{Clock, StateStore, Worker};

/// Heartbeats in one lease duration, so that two lost ones in a row kill nobody.
const BEATS_PER_LEASE: u32 = 3;

/// The workers as this one sees them. Cheap to clone.
#[derive(Clone)]
pub struct Members(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    lease_duration: Duration,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Since when this worker has been watching.
    since: Option<Instant>,
    /// Heartbeat and when it last moved.
    workers: HashMap<String, (Worker, Instant)>,
}

impl Members {
    /// Nobody seen yet.
    pub fn new(clock: Arc<dyn Clock>, lease_duration: Duration) -> Members {
        let seen = Mutex::new(Seen { since: None, workers: HashMap::new() });
        Members(Arc::new(Inner { clock, lease_duration, seen }))
    }

    /// Notes the rows of `kinesis.workers`.
    pub fn observe(&self, rows: Vec<Worker>) {
        let now = self.0.clock.monotonic();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.since.get_or_insert(now);
        for row in rows {
            let moved = seen
                .workers
                .get(&row.worker_id)
                .is_none_or(|(old, _)| old.heartbeat != row.heartbeat || old.incarnation != row.incarnation);
            if moved {
                seen.workers.insert(row.worker_id.clone(), (row, now));
            }
        }
    }

    /// Whether a worker's counter has stood still for the lease duration, as measured here (**expiry-on-the-observers-clock**). A worker that
    /// never wrote one is dead once this one has watched for that long.
    pub fn is_dead(&self, worker_id: &str) -> bool {
        let now = self.0.clock.monotonic();
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = seen.workers.get(worker_id).map(|(_, moved)| *moved).or(seen.since);
        moved.is_some_and(|moved| now.duration_since(moved) >= self.0.lease_duration)
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

    /// A clock that stands still until it is told.
    struct Watch(Mutex<Instant>);

    impl Clock for Watch {
        fn now_ms(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Instant {
            *self.0.lock().unwrap()
        }

        fn batch_id(&self) -> String {
            String::new()
        }
    }

    fn worker(heartbeat: u64, incarnation: &str) -> Worker {
        let text = String::from;
        Worker { worker_id: text("w"), incarnation: text(incarnation), address: text(""), version: text(""), heartbeat }
    }

    #[test]
    fn expiry_on_the_observers_clock() {
        let clock = Arc::new(Watch(Mutex::new(Instant::now())));
        let pass = |seconds| *clock.0.lock().unwrap() += Duration::from_secs(seconds);
        let members = Members::new(clock.clone(), Duration::from_secs(10));
        assert!(!members.is_dead("w"), "nobody is dead before anybody was watched");
        members.observe(vec![worker(5, "a")]);
        pass(9);
        assert!(!members.is_dead("w"));
        // The same counter again is no sign of life, however often it is read.
        members.observe(vec![worker(5, "a")]);
        pass(1);
        assert!(members.is_dead("w") && members.is_dead("never seen"));
        // A counter that moves is one, even backwards: the process started anew.
        members.observe(vec![worker(1, "b")]);
        assert!(!members.is_dead("w"));
        members.observe(vec![worker(1, "c")]);
        pass(9);
        assert!(!members.is_dead("w"));
    }
}
