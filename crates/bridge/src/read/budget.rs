//! One memory budget for all buffers of the process (`--memory`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Counts the bytes that buffers hold. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
    party: Arc<Party>,
}

struct Shared {
    limit: usize,
    used: AtomicUsize,
    queue: Mutex<Queue>,
}

/// One user of the budget, such as one bounded read.
#[derive(Default)]
struct Party {
    /// Bytes granted to it so far.
    granted: AtomicU64,
}

/// Requests that wait. Whoever was granted least so far comes first, then whoever asked first: a new
/// read does not wait behind several that take memory and do not read. Requests that fit pass larger
/// ones that do not: what one pipe holds while nobody pulls it must not stop the others.
#[derive(Default)]
struct Queue {
    asked: u64,
    waiting: BTreeMap<(u64, u64), Request>,
}

struct Request {
    budget: Budget,
    bytes: usize,
    since: Instant,
    grant: oneshot::Sender<Reservation>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        let shared = Arc::new(Shared { limit, used: AtomicUsize::new(0), queue: Mutex::default() });
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

    /// For how long another party has been waiting for bytes, at most; none if no other is.
    pub fn awaited_by_others(&self) -> Option<Duration> {
        let queue = self.shared.queue();
        let others = queue.waiting.values().filter(|request| !Arc::ptr_eq(&request.budget.party, &self.party));
        others.map(|request| request.since.elapsed()).max()
    }

    /// Waits until `bytes` fit, and holds them. A request is granted when nothing else is held,
    /// however large it is, so that one oversized record cannot stop a shard for ever.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let (grant, granted) = oneshot::channel();
        let _turn = Turn::new(self, bytes, grant);
        self.shared.grant();
        // A request is dropped only with its turn.
        granted.await.unwrap_or_else(|_| self.hold(bytes))
    }

    /// Holds `bytes` immediately, even beyond the limit: for what is already in memory.
    pub fn hold(&self, bytes: usize) -> Reservation {
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: self.clone(), bytes }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while holding the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_hold(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.limit).then_some(used + bytes);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Grants, in their order, the requests that fit.
    fn grant(&self) {
        let mut queue = self.queue();
        let fitting: Vec<_> = queue.waiting.extract_if(.., |_, request| self.try_hold(request.bytes)).collect();
        drop(queue);
        for (_, Request { budget, bytes, grant, .. }) in fitting {
            budget.party.granted.fetch_add(bytes as u64, Ordering::Relaxed);
            // Nobody awaits it any more: it is returned at once.
            drop(grant.send(Reservation { budget, bytes }));
        }
    }
}

/// A request's place in the queue until it is dropped, even if it gives up.
struct Turn<'a> {
    budget: &'a Budget,
    key: (u64, u64),
}

impl Turn<'_> {
    fn new(budget: &Budget, bytes: usize, grant: oneshot::Sender<Reservation>) -> Turn<'_> {
        let mut queue = budget.shared.queue();
        queue.asked += 1;
        let key = (budget.party.granted.load(Ordering::Relaxed), queue.asked);
        queue.waiting.insert(key, Request { budget: budget.clone(), bytes, since: Instant::now(), grant });
        Turn { budget, key }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.budget.shared.queue().waiting.remove(&self.key);
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
        shared.grant();
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
    #[tokio::test(start_paused = true)]
    async fn whoever_was_granted_least_comes_first() {
        let budget = Budget::new(100);
        let (first, second, third) = (budget.for_another(), budget.for_another(), budget.for_another());
        drop(second.reserve(50).await);
        let held = first.reserve(100).await;
        let mut by_second = std::pin::pin!(second.reserve(100));
        assert!(by_second.as_mut().now_or_never().is_none());
        let mut by_third = std::pin::pin!(third.reserve(60));
        assert!(by_third.as_mut().now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(third.awaited_by_others(), Some(Duration::from_secs(3)));
        drop(held);
        assert!(by_second.as_mut().now_or_never().is_none());
        let held = by_third.now_or_never().unwrap();
        // What fits passes what does not.
        drop(budget.for_another().reserve(40).now_or_never().unwrap());
        // A request that gives up leaves its turn to the next.
        let fourth = budget.for_another();
        let mut gives_up = Box::pin(fourth.reserve(100));
        assert!(gives_up.as_mut().now_or_never().is_none());
        drop(held);
        assert!(by_second.as_mut().now_or_never().is_none());
        drop(gives_up);
        assert_eq!(by_second.now_or_never().unwrap().bytes, 100);
        assert_eq!(first.awaited_by_others(), None);
    }
}
