//! This process's own row among the workers: whether the id is free, the heartbeat counter, and the
//! pipes that the process runs, with the seats of views that share one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::broadcast::Broadcast;
use super::members::Members;
use domain::error::Error;
use domain::incarnation::Incarnation;
use domain::limits::{ADMISSION_SHARE, BEATS_PER_LEASE, SHORTEST_BEAT_SHARE};
use domain::names::{PipeName, WorkerId};
use domain::ports::{Clock, StateError, StateStore, Worker};
use domain::seat::{Seat, seat_of};

/// This process among the workers, as seen from one seat. Cheap to clone.
#[derive(Clone)]
pub struct Heartbeat(Arc<Inner>, Seat);

struct Inner {
    clock: Arc<dyn Clock>,
    lease_duration: Duration,
    worker_id: WorkerId,
    own: Mutex<Own>,
    /// Something changed that others should see soon.
    hurry: Notify,
    /// Counts successful heartbeats.
    beats: Broadcast<u64>,
    admission: Broadcast<Admission>,
}

#[derive(Default)]
struct Own {
    /// The pipes that run here, by the names that their seats announce, each with a counter of
    /// changes.
    pipes: BTreeMap<PipeName, u64>,
    /// The row as last written.
    row: Option<Worker>,
    /// When the last successful heartbeat was sent.
    sent: Option<Instant>,
    /// How often more than the lease duration passed between two successful heartbeats.
    lapses: u64,
    /// Why heartbeats fail, since the last successful one.
    failure: Option<String>,
}

/// Whether this process may use its worker id.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Admission {
    /// Not known yet.
    Awaited,
    /// No other process uses it.
    Admitted,
    /// Another process uses it; says what the operator has to do.
    Refused(String),
}

/// Changes whenever leases may have been lost: see [`Heartbeat::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing(u64);

impl Heartbeat {
    /// For a process that has not sent a heartbeat yet.
    pub fn new(clock: Arc<dyn Clock>, lease_duration: Duration, worker_id: &WorkerId) -> Heartbeat {
        let admission = Broadcast::new(Admission::Awaited);
        let (own, hurry, beats) = (Mutex::default(), Notify::new(), Broadcast::new(0));
        let worker_id = worker_id.clone();
        Heartbeat(Arc::new(Inner { clock, lease_duration, worker_id, own, hurry, beats, admission }), Seat::FIRST)
    }

    /// The same from another seat.
    pub fn seated(&self, seat: Seat) -> Heartbeat {
        Heartbeat(self.0.clone(), seat)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces that this pipe runs here from now on, and waits until others can see it: to them,
    /// leases of a pipe that is not announced are nobody's.
    pub async fn join(&self, pipe: &PipeName) -> Result<(), Error> {
        let announced = self.1.announced(pipe);
        self.own().pipes.insert(announced.clone(), 0);
        self.0.hurry.notify_one();
        let mut beats = self.0.beats.subscribe();
        let seen = |_: &u64| self.own().row.as_ref().is_some_and(|row| row.pipes.contains_key(&announced));
        match timeout(self.0.lease_duration, beats.wait_for(seen)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.lapsed()),
        }
    }

    /// Announces that lease rows of this pipe were changed here. Workers that run the pipe reread
    /// them; those that do not run it notice at their next read or write.
    pub fn changed(&self, pipe: &PipeName) {
        let (mut own, announced) = (self.own(), self.1.announced(pipe));
        // An operator's change concerns no seat in particular.
        let any = || own.pipes.keys().find(|name| seat_of(name, pipe).is_some()).cloned();
        let name = if own.pipes.contains_key(&announced) { Some(announced) } else { any() };
        if let Some(changes) = name.and_then(|name| own.pipes.get_mut(&name)) {
            *changes += 1;
            self.0.hurry.notify_one();
        }
    }

    /// Announces that this pipe no longer runs here.
    pub fn left(&self, pipe: &PipeName) {
        let (mut own, announced) = (self.own(), self.1.announced(pipe));
        own.pipes.remove(&announced);
        if let Some(row) = own.row.as_mut() {
            // Whoever joins again waits for a heartbeat of its own.
            row.pipes.remove(&announced);
        }
        self.0.hurry.notify_one();
    }

    /// Some while, by its own clock, nobody can consider this process dead
    /// (**a-zombie-serves-nothing**): its last successful heartbeat was sent less than a lease
    /// duration ago. Two equal values mean that this held all the time in between.
    pub fn standing(&self) -> Option<Standing> {
        let own = self.own();
        let since = self.0.clock.monotonic().saturating_duration_since(own.sent?);
        (since < self.0.lease_duration).then_some(Standing(own.lapses))
    }

    /// The error for a process without a standing.
    pub fn lapsed(&self) -> Error {
        let why = self.own().failure.clone().map_or_else(String::new, |why| format!(" ({why})"));
        Error::Unavailable(format!(
            "the heartbeat of worker '{}' could not be written for the lease duration{why}, so others may read its shards; trying again",
            self.0.worker_id
        ))
    }

    /// Waits until it is certain that no other process uses the worker id.
    pub async fn admitted(&self) -> Result<(), Error> {
        let mut admission = self.0.admission.subscribe();
        let known = timeout(self.0.lease_duration, admission.wait_for(|a| *a != Admission::Awaited)).await;
        match known.as_ref().map(|known| known.as_deref()) {
            Ok(Ok(Admission::Admitted)) => Ok(()),
            Ok(Ok(Admission::Refused(why))) => Err(Error::Unavailable(why.clone())),
            _ => Err(Error::Unavailable(format!(
                "still checking whether another process uses worker id '{}'; trying again",
                self.0.worker_id
            ))),
        }
    }

    /// Returns when this process must not use its worker id: what the operator has to do.
    pub async fn refused(&self) -> String {
        let mut admission = self.0.admission.subscribe();
        match admission.wait_for(|a| matches!(a, Admission::Refused(_))).await.map(|a| a.clone()) {
            Ok(Admission::Refused(why)) => why,
            // The sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }

    /// Waits until the worker id is free, then sends heartbeats and watches those of others, until
    /// another process has the id. Waits while the store is unavailable. `address` is where the
    /// process listens; for `place` see [`Incarnation::after`].
    pub async fn run(self, store: Arc<dyn StateStore>, members: Members, address: String, place: String) {
        let beat = self.0.lease_duration / BEATS_PER_LEASE;
        let before = match self.watch_predecessor(&*store, &members, &address, &place).await {
            Ok(before) => before,
            Err(why) => return self.refuse(why),
        };
        let incarnation = Incarnation::after(before.as_deref(), &self.0.clock.batch_id(), &place);
        let mut me = Worker {
            worker_id: self.0.worker_id.clone(),
            incarnation: incarnation.to_string(),
            address,
            version: env!("CARGO_PKG_VERSION").into(),
            heartbeat: 0,
            pipes: BTreeMap::new(),
        };
        let mut well = true;
        loop {
            let sent = self.0.clock.monotonic();
            (me.heartbeat, me.pipes) = (me.heartbeat + 1, self.own().pipes.clone());
            let done = match self.patiently(store.heartbeat(&me)).await {
                Ok(()) => {
                    self.arrived(sent, &me);
                    self.patiently(store.workers()).await
                }
                Err(error) => {
                    self.own().failure = Some(Error::from(error.clone()).to_string());
                    Err(error)
                }
            };
            match done {
                Ok(rows) => {
                    if let Some(other) = rows.iter().find(|r| self.is_later(r, &incarnation)) {
                        return self.refuse(self.used_by(&other.address));
                    }
                    members.observe(rows);
                    well = true;
                }
                Err(error) if well => {
                    warn!("cannot write the heartbeat: {}", Error::from(error));
                    well = false;
                }
                Err(_) => {}
            }
            sleep(self.0.lease_duration / SHORTEST_BEAT_SHARE).await;
            let _ =
                timeout(beat - beat.min(self.0.lease_duration / SHORTEST_BEAT_SHARE), self.0.hurry.notified()).await;
        }
    }

    /// Marks the row as that of a stopped process, so that nobody waits for its heartbeat. Not to
    /// be called while [`Heartbeat::run`] runs.
    pub async fn end(&self, store: &dyn StateStore) {
        let Some(mut row) = self.own().row.take() else { return };
        row.incarnation = Incarnation::parse(&row.incarnation).end().to_string();
        row.pipes.clear();
        if let Err(error) = self.patiently(store.heartbeat(&row)).await {
            warn!(
                "cannot announce that this worker has stopped, so the others will wait for its heartbeat: {}",
                Error::from(error)
            );
        }
    }

    /// Checks, before the first heartbeat, whether an earlier process with this id still sends its
    /// own. Returns that process's incarnation.
    async fn watch_predecessor(
        &self,
        store: &dyn StateStore,
        members: &Members,
        address: &str,
        place: &str,
    ) -> Result<Option<String>, String> {
        let mut first: Option<(Worker, Instant)> = None;
        loop {
            if let Ok(rows) = self.patiently(store.workers()).await {
                let row = rows.iter().find(|r| r.worker_id == self.0.worker_id).cloned();
                members.observe(rows);
                let Some(row) = row else { return Ok(None) };
                let before = Incarnation::parse(&row.incarnation);
                // This process has its address, so the other one is gone.
                let replaced = !place.is_empty() && before.place() == place && row.address == address;
                if before.ended() || replaced {
                    return Ok(Some(row.incarnation));
                }
                match &first {
                    None => {
                        info!(
                            worker = self.0.worker_id.as_str(),
                            "waiting to see whether another process still uses this worker id"
                        );
                        first = Some((row, self.0.clock.monotonic()));
                    }
                    Some((first, _)) if (first.heartbeat, &first.incarnation) != (row.heartbeat, &row.incarnation) => {
                        return Err(self.used_by(&row.address));
                    }
                    Some((_, since)) => {
                        let watched = self.0.clock.monotonic().saturating_duration_since(*since);
                        if watched >= self.0.lease_duration / ADMISSION_SHARE {
                            return Ok(Some(row.incarnation));
                        }
                    }
                }
            }
            sleep(self.0.lease_duration / BEATS_PER_LEASE / 2).await;
        }
    }

    /// A store that does not answer must not keep the next heartbeat from being sent in time.
    async fn patiently<T>(&self, asked: impl Future<Output = Result<T, StateError>>) -> Result<T, StateError> {
        let late = |_| Err(StateError::Unavailable("the state store did not answer in time".into()));
        timeout(self.0.lease_duration / 2, asked).await.unwrap_or_else(late)
    }

    fn arrived(&self, sent: Instant, row: &Worker) {
        let lapse = self.0.lease_duration;
        let mut own = self.own();
        (own.row, own.failure) = (Some(row.clone()), None);
        // The process may have been paused between reading the clock and sending: what others saw
        // lies between the last sending and this response.
        let answered = self.0.clock.monotonic();
        if own.sent.is_some_and(|before| answered.saturating_duration_since(before) >= lapse) {
            warn!(
                worker = self.0.worker_id.as_str(),
                "no heartbeat arrived for {lapse:?}; others may hold the leases now; rereading them"
            );
            own.lapses += 1;
        }
        own.sent = Some(sent);
        drop(own);
        self.0.beats.change(|beats| beats + 1);
        self.0.admission.set(Admission::Admitted);
    }

    fn is_later(&self, row: &Worker, own: &Incarnation) -> bool {
        row.worker_id == self.0.worker_id && Incarnation::parse(&row.incarnation) > *own
    }

    fn used_by(&self, address: &str) -> String {
        format!(
            "worker id '{}' is used by another running bridge (listening on {address}): give each bridge its own --worker-id",
            self.0.worker_id
        )
    }

    fn refuse(&self, why: String) {
        self.0.admission.set(Admission::Refused(why));
    }
}
