//! Which connections stay open when there are more than allowed: those that are being answered, and
//! then those that have been answered before. Silent ones yield.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::{Answer, Broken};
use domain::limits::{MAX_CONNECTIONS, SILENT_GRACE};

/// All connections of a server.
#[derive(Default)]
pub struct Slots(Mutex<All>);

#[derive(Default)]
struct All {
    /// Connections between two requests or before the first, the one that yields first at the
    /// front: those that were never admitted, and then the others, each by how long they wait.
    waiting: BTreeMap<(bool, u64), Waiting>,
    /// Counts up, to order them.
    last: u64,
    /// Requests being answered, except probes.
    answering: usize,
}

struct Waiting {
    since: Instant,
    peer: IpAddr,
    leave: Arc<Notify>,
}

/// A connection.
pub struct Slot {
    slots: Arc<Slots>,
    /// Who is at the other end.
    pub peer: IpAddr,
    leave: Arc<Notify>,
    state: Mutex<State>,
}

/// Where a connection is in [`All::waiting`], and whether a request of it was ever admitted.
#[derive(Default)]
struct State {
    place: Option<(bool, u64)>,
    admitted: bool,
}

impl Slots {
    /// A new connection, which is silent so far.
    pub fn enter(self: &Arc<Slots>, peer: IpAddr) -> Arc<Slot> {
        let slot = Slot { slots: self.clone(), peer, leave: Arc::default(), state: Mutex::default() };
        slot.wait();
        Arc::new(slot)
    }

    /// Closes the connection that yields first, and returns its peer; or returns how long to wait
    /// before one may be closed.
    pub fn make_room(&self) -> Result<IpAddr, Duration> {
        let mut all = self.all();
        let Some(first) = all.waiting.first_entry() else { return Err(SILENT_GRACE) };
        let silent = first.get().since.elapsed();
        if silent < SILENT_GRACE {
            return Err(SILENT_GRACE - silent);
        }
        let first = first.remove();
        first.leave.notify_one();
        Ok(first.peer)
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Returns when this connection has to yield.
    pub async fn left(&self) {
        self.leave.notified().await;
    }

    /// A request has arrived: the connection stays until the response has been sent and the result
    /// is dropped.
    pub fn begin(self: &Arc<Slot>) -> Answering {
        if let Some(place) = self.state().place.take() {
            self.slots.all().waiting.remove(&place);
        }
        Answering { slot: self.clone(), counted: false }
    }

    /// From now on the connection is silent.
    fn wait(&self) {
        let mut state = self.state();
        let mut all = self.slots.all();
        all.last += 1;
        let place = (state.admitted, all.last);
        let waiting = Waiting { since: Instant::now(), peer: self.peer, leave: self.leave.clone() };
        all.waiting.insert(place, waiting);
        state.place = Some(place);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(place) = self.state().place.take() {
            self.slots.all().waiting.remove(&place);
        }
    }
}

/// A request that is being answered.
pub struct Answering {
    slot: Arc<Slot>,
    counted: bool,
}

impl Answering {
    /// The request may be answered. False if that would be one too many.
    pub fn admit(&mut self) -> bool {
        let mut all = self.slot.slots.all();
        if all.answering >= MAX_CONNECTIONS {
            return false;
        }
        all.answering += 1;
        drop(all);
        self.counted = true;
        self.slot.state().admitted = true;
        true
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.counted {
            self.slot.slots.all().answering -= 1;
        }
        self.slot.wait();
    }
}

/// A body that keeps its connection open until it has been sent.
pub struct Sending {
    /// The body.
    pub answer: Answer,
    /// Its request, which ends with it.
    pub _request: Answering,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Pin::new(&mut self.answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.answer.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::Waker;

    use super::*;

    fn has_to_leave(slot: &Slot) -> bool {
        let mut left = std::pin::pin!(slot.left());
        left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_yield_the_oldest_first() {
        let slots = Arc::new(Slots::default());
        let peer = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!(slots.make_room(), Err(SILENT_GRACE), "there is none");
        let known = slots.enter(peer(1));
        let mut request = known.begin();
        assert!(request.admit());
        drop(request);
        let refused = slots.enter(peer(2));
        drop(refused.begin());
        let silent = slots.enter(peer(3));
        let asking = slots.enter(peer(4));
        let asked = asking.begin();
        assert_eq!(slots.make_room(), Err(SILENT_GRACE), "they have just come");
        tokio::time::sleep(SILENT_GRACE).await;
        assert_eq!(slots.make_room(), Ok(peer(2)), "it was not admitted");
        assert_eq!(slots.make_room(), Ok(peer(3)));
        assert_eq!(slots.make_room(), Ok(peer(1)), "only then one that was");
        assert_eq!(slots.make_room(), Err(SILENT_GRACE), "never one that is being answered");
        assert!([&known, &refused, &silent].into_iter().all(|slot| has_to_leave(slot)) && !has_to_leave(&asking));
        drop(asked);
        assert_eq!(slots.make_room(), Err(SILENT_GRACE), "its next request may be on the way");
        drop(asking);
        tokio::time::sleep(SILENT_GRACE).await;
        assert_eq!(slots.make_room(), Err(SILENT_GRACE), "it is gone");
    }

    #[tokio::test]
    async fn requests_are_bounded_too() {
        let slots = Arc::new(Slots::default());
        let peer = IpAddr::from([10, 0, 0, 1]);
        let mut requests: Vec<Answering> = (0..=MAX_CONNECTIONS).map(|_| slots.enter(peer).begin()).collect();
        let admitted = requests.iter_mut().map(Answering::admit).filter(|admitted| *admitted).count();
        assert_eq!(admitted, MAX_CONNECTIONS);
        requests.remove(0);
        assert!(requests.last_mut().is_some_and(Answering::admit));
    }
}
