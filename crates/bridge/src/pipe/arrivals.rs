//! Totals over a pipe's buffers, which keep them up to date, so that waking the pipe need not visit
//! every buffer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// Shared by all buffers of a pipe.
#[derive(Default)]
pub struct Arrivals {
    /// Wakes the pipe.
    woken: Notify,
    /// Whether a shard was read to its end since the pipe last did its chores.
    ended: AtomicBool,
    sums: Mutex<Sums>,
}

/// Sums over all buffers.
#[derive(Clone, Copy, Default)]
pub struct Sums {
    /// Records.
    pub rows: usize,
    /// Bytes, as counted by [`domain::record::Slice::size`].
    pub bytes: usize,
    /// When the oldest record came.
    oldest: Oldest,
}

#[derive(Clone, Copy)]
enum Oldest {
    /// None if there are no records.
    Known(Option<Instant>),
    /// Records were removed since it was known.
    Unknown,
}

impl Default for Oldest {
    fn default() -> Oldest {
        Oldest::Known(None)
    }
}

impl Arrivals {
    // Nothing panics while holding the lock; if it did, the numbers would still be consistent. No
    // other lock is taken meanwhile.
    fn sums_mut(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds records that came or were put back.
    pub fn add(&self, rows: usize, bytes: usize) {
        let mut sums = self.sums_mut();
        (sums.rows, sums.bytes) = (sums.rows + rows, sums.bytes + bytes);
        if let Oldest::Known(None) = sums.oldest {
            sums.oldest = Oldest::Known(Some(Instant::now()));
        }
        drop(sums);
        self.woken.notify_one();
    }

    /// Subtracts records that were taken or dropped.
    pub fn remove(&self, rows: usize, bytes: usize) {
        let mut sums = self.sums_mut();
        (sums.rows, sums.bytes) = (sums.rows - rows, sums.bytes - bytes);
        sums.oldest = if sums.rows == 0 { Oldest::Known(None) } else { Oldest::Unknown };
    }

    /// Wakes the pipe if there are records: it may have waited for more of them.
    pub fn complete(&self) {
        if self.sums().rows > 0 {
            self.woken.notify_one();
        }
    }

    /// A shard was read to its end.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    /// Whether a shard was read to its end since [`Arrivals::forget_ended`].
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Notes that ended shards are about to be looked at.
    pub fn forget_ended(&self) {
        self.ended.store(false, Ordering::Release);
    }

    /// Resolves when records have come or a shard has ended.
    pub fn woken(&self) -> Notified<'_> {
        self.woken.notified()
    }

    /// The sums now.
    pub fn sums(&self) -> Sums {
        *self.sums_mut()
    }

    /// When the oldest record came; none if there are no records. If records were taken since the
    /// last call, `look` finds it in the buffers.
    pub fn since(&self, look: impl FnOnce() -> Option<Instant>) -> Option<Instant> {
        if let Oldest::Known(since) = self.sums().oldest {
            return since;
        }
        // Records that come during `look` count as well.
        self.sums_mut().oldest = Oldest::Known(None);
        let found = look();
        let mut sums = self.sums_mut();
        let came = match sums.oldest {
            Oldest::Known(came) => came,
            Oldest::Unknown => None,
        };
        let since = [found, came].into_iter().flatten().min();
        sums.oldest = Oldest::Known(since);
        since
    }
}
