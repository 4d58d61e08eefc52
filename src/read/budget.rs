//! One memory budget for all buffers of the process (`--memory`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the bytes that buffers hold. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget(Arc::new(Shared { limit, used: AtomicUsize::new(0), freed: Notify::new() }))
    }

    /// All of it, in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` fit and holds them. A request is granted when nothing else is held, however large it is, so that one oversized
    /// record cannot stop a shard for ever.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // Registered before the look, so that a release in between is not missed.
            freed.as_mut().enable();
            if self.try_hold(bytes) {
                return Reservation { budget: self.clone(), bytes };
            }
            freed.await;
        }
    }

    /// Holds `bytes` at once, even beyond the limit: for what is in memory already.
    pub fn hold(&self, bytes: usize) -> Reservation {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: self.clone(), bytes }
    }

    fn try_hold(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.0.limit).then_some(used + bytes);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
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
        let shared = &self.budget.0;
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
