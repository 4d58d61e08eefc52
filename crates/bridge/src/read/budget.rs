//! One memory budget for all buffers of the process (`--memory`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the bytes that buffers hold. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
    /// How many of this party are waiting.
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

    /// The same budget for another party; clones belong to the same party.
    pub fn for_another(&self) -> Budget {
        Budget { shared: self.shared.clone(), party: Arc::default() }
    }

    /// The whole budget, in bytes.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Bytes held at the moment.
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Whether another party is waiting for bytes.
    pub fn is_awaited_by_others(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > self.party.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` fit and holds them. A request is granted when nothing else is held,
    /// however large it is, so that one oversized record cannot stop a shard for ever.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        loop {
            let mut freed = std::pin::pin!(self.shared.freed.notified());
            // Registered before the check, so that a release in between is not missed.
            freed.as_mut().enable();
            if self.try_hold(bytes) {
                return Reservation { budget: self.clone(), bytes };
            }
            let _waiting = (Waiting::new(&self.shared.waiting), Waiting::new(&self.party));
            freed.await;
        }
    }

    /// Holds `bytes` immediately, even beyond the limit: for what is already in memory.
    pub fn hold(&self, bytes: usize) -> Reservation {
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: self.clone(), bytes }
    }

    fn try_hold(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.shared.limit).then_some(used + bytes);
        self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// Counts a waiting task until it is dropped, even if it gives up.
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

/// Bytes held until this is dropped.
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Reservation {
    /// Corrects an estimate. Growing never waits: the bytes are already in memory.
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    /// An operation on the budget.
    #[derive(Clone, Debug)]
    enum Op {
        Reserve(usize),
        Hold(usize),
        Resize(usize, usize),
        Drop(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..150usize).prop_map(Op::Reserve),
            1 => (0..150usize).prop_map(Op::Hold),
            2 => (any::<usize>(), 0..150usize).prop_map(|(which, bytes)| Op::Resize(which, bytes)),
            4 => any::<usize>().prop_map(Op::Drop),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Reserving never exceeds the limit, except for a single holder; and everything is
        /// returned.
        #[test]
        fn no_more_than_the_limit_is_reserved(ops in prop::collection::vec(op(), 0..60)) {
            let budget = Budget::new(100);
            let mut held: Vec<Reservation> = Vec::new();
            for op in ops {
                let before = budget.used();
                match op {
                    Op::Reserve(bytes) => match budget.reserve(bytes).now_or_never() {
                        Some(granted) => {
                            prop_assert!(before == 0 || before + bytes <= 100);
                            held.push(granted);
                        }
                        None => prop_assert!(before > 0 && before + bytes > 100),
                    },
                    Op::Hold(bytes) => held.push(budget.hold(bytes)),
                    Op::Resize(which, bytes) if !held.is_empty() => {
                        let which = which % held.len();
                        held[which].resize(bytes);
                    }
                    Op::Drop(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                    Op::Resize(..) | Op::Drop(_) => {}
                }
                prop_assert_eq!(budget.used(), held.iter().map(|r| r.bytes).sum::<usize>());
            }
            drop(held);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_by_what_is_returned() {
        let budget = Budget::new(100);
        let first = budget.reserve(80).await;
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move { drop(budget.reserve(60).await) })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(waiting.iter().all(|w| !w.is_finished()));
        drop(first);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(budget.used(), 0);
        // One that is larger than all of it gets it when nobody else holds any.
        assert_eq!(budget.reserve(1_000).await.bytes, 1_000);
    }
}
