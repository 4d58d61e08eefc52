//! One memory budget for all buffers of the process (`--memory`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the bytes that buffers hold. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
    /// Those of this party who wait.
    party: Arc<AtomicUsize>,
}

struct Shared {
    limit: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        let (used, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { limit, used, waiting, freed: Notify::new() });
        Budget { shared, party: Arc::default() }
    }

    /// The same budget for somebody else; the clones of one are one party.
    pub fn for_another(&self) -> Budget {
        Budget { shared: self.shared.clone(), party: Arc::default() }
    }

    /// All of it, in bytes.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Whether another party waits for bytes.
    pub fn is_awaited_by_others(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > self.party.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` fit and holds them. A request is granted when nothing else is held, however large it is, so that one oversized
    /// record cannot stop a shard for ever.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        loop {
            let mut freed = std::pin::pin!(self.shared.freed.notified());
            // Registered before the look, so that a release in between is not missed.
            freed.as_mut().enable();
            if self.try_hold(bytes) {
                return Reservation { budget: self.clone(), bytes };
            }
            let _waiting = (Waiting::new(&self.shared.waiting), Waiting::new(&self.party));
            freed.await;
        }
    }

    /// Holds `bytes` at once, even beyond the limit: for what is in memory already.
    pub fn hold(&self, bytes: usize) -> Reservation {
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: self.clone(), bytes }
    }

    fn try_hold(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.shared.limit).then_some(used + bytes);
        self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// Counts one who waits, also when the wait is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(waiting: &AtomicUsize) -> Waiting<'_> {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that are held until this is dropped.
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Reservation {
    /// Corrects an estimate. Growing never waits: the bytes are there already.
    pub fn resize(&mut self, bytes: usize) {
        let shared = &self.budget.shared;
        match bytes >= self.bytes {
            true => shared.used.fetch_add(bytes - self.bytes, Ordering::Relaxed),
            false => shared.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
        shared.freed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}
