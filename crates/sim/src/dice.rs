//! Deterministic randomness and time for a given seed, and the trace used to compare two runs of a
//! seed.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use super::remote::Gate;
use domain::limits::SHARD_REFRESH;
use domain::names::BatchId;
use domain::ports::Clock;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Virtual time elapsed in the run on this thread.
pub fn elapsed() -> Duration {
    BEGAN.get().map(|began| began.elapsed()).unwrap_or_default()
}

/// A boolean that can be waited for. Tokio's `watch` wakes in an order that is itself random.
pub struct Flag {
    is: AtomicBool,
    changed: Notify,
}

impl Flag {
    /// A flag with this initial value.
    pub fn new(is: bool) -> Flag {
        Flag { is: AtomicBool::new(is), changed: Notify::new() }
    }

    /// Sets the value.
    pub fn set(&self, is: bool) {
        self.is.store(is, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// The current value.
    pub fn is(&self) -> bool {
        self.is.load(Ordering::Relaxed)
    }

    /// Returns when it has the wanted value.
    pub async fn until(&self, wanted: bool) {
        // Nearly always it has it.
        while self.is() != wanted {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is() != wanted {
                changed.await;
            }
        }
    }
}

/// The only source of randomness in a run.
pub struct Dice {
    rng: Mutex<fastrand::Rng>,
    calm: Flag,
    rests: AtomicBool,
    /// When the last of what lingers ends.
    lingers: Mutex<Instant>,
    trace: Option<Mutex<Vec<String>>>,
}

impl Dice {
    /// Dice that cause trouble until [`Dice::calm`]. With `traced`, every [`Dice::note`] is kept.
    pub fn new(seed: u64, traced: bool) -> Arc<Dice> {
        // The program's own randomness (jitter) comes from this thread's generator.
        fastrand::seed(seed);
        BEGAN.set(Some(Instant::now()));
        let (rng, trace) = (Mutex::new(fastrand::Rng::with_seed(seed)), traced.then(Mutex::default));
        Arc::new(Dice {
            rng,
            calm: Flag::new(false),
            rests: AtomicBool::new(false),
            lingers: Mutex::new(Instant::now()),
            trace,
        })
    }

    /// From now on nothing goes wrong. What operators changed in rows is seen by the next look at
    /// the shards.
    pub fn calm(&self) {
        let mut lingers = self.lingers.lock().unwrap();
        *lingers = (*lingers).max(Instant::now() + SHARD_REFRESH);
        drop(lingers);
        self.calm.set(true);
    }

    /// Whether nothing goes wrong any more.
    pub fn is_calm(&self) -> bool {
        self.calm.is()
    }

    /// From now on nothing is left to do, either.
    pub fn rest(&self) {
        self.rests.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is left to do.
    pub fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }

    /// Lets time pass, but not into the calm.
    pub async fn trouble_for(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.calm.until(true)).await;
    }

    /// Lets time pass, also into the calm.
    pub async fn linger(&self, time: Duration) {
        let until = Instant::now() + time;
        let last = self.lingers().max(until);
        *self.lingers.lock().unwrap() = last;
        sleep_until(until).await;
    }

    /// When what went wrong last has passed.
    pub fn lingers(&self) -> Instant {
        *self.lingers.lock().unwrap()
    }

    /// A number below `n`.
    pub fn below(&self, n: u64) -> u64 {
        self.rng.lock().unwrap().u64(0..n)
    }

    /// One of these values.
    pub fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// True with this probability, in percent.
    pub fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// True with this probability, in percent, but never once it is calm.
    pub fn trouble(&self, chance: u64) -> bool {
        self.percent(chance) && !self.is_calm()
    }

    /// Less than `most`, uniformly distributed.
    pub fn within(&self, most: Duration) -> Duration {
        Duration::from_millis(self.below(most.as_millis() as u64 + 1))
    }

    /// Lets up to `most_ms` pass; nothing in one of four cases.
    pub async fn delay(&self, most_ms: u64) {
        if !self.percent(25) {
            sleep(Duration::from_millis(self.below(most_ms + 1))).await;
        }
    }

    /// The way of a request or an answer: up to `most_ms` in one of eight cases, nothing in two,
    /// and in the others no time, but whatever else is due comes first. With a timer for each step
    /// of each call, these took most of a run. In the calm none takes time.
    pub async fn travel(&self, most_ms: u64) {
        match self.below(8) {
            0 | 1 => {}
            2 if !self.is_calm() => sleep(Duration::from_millis(self.below(most_ms + 1))).await,
            _ => yield_now().await,
        }
    }

    /// Adds a line to the trace, with the virtual time.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.lock().unwrap().push(format!("{:?} {}", elapsed(), line()));
        }
    }

    /// The trace so far.
    pub fn trace(&self) -> Vec<String> {
        self.trace.as_ref().map(|t| t.lock().unwrap().clone()).unwrap_or_default()
    }
}

/// Virtual time, as kept by tokio, and names that count up. Each process has its own wall clock.
#[derive(Clone)]
pub struct FakeClock {
    began: Instant,
    names: Arc<AtomicU64>,
    skew_ms: Arc<AtomicI64>,
    gate: Arc<Gate>,
}

/// The time at which every run starts, Unix ms.
pub const BEGAN_MS: i64 = 1_795_255_200_000;

impl FakeClock {
    /// A clock that starts now.
    pub fn new() -> Arc<FakeClock> {
        Arc::new(FakeClock {
            began: Instant::now(),
            names: Arc::new(AtomicU64::new(1)),
            skew_ms: Arc::default(),
            gate: Gate::new(),
        })
    }

    /// The same time for a process that pauses at times, with a wall clock that is off by
    /// `skew_ms`.
    pub fn of_process(&self, skew_ms: i64, gate: Arc<Gate>) -> Arc<FakeClock> {
        Arc::new(FakeClock { skew_ms: Arc::new(AtomicI64::new(skew_ms)), gate, ..self.clone() })
    }

    /// Sets the wall clock: from now on it is off by `skew_ms`.
    pub fn jump(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> i64 {
        BEGAN_MS + self.gate.now().duration_since(self.began).as_millis() as i64 + self.skew_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> std::time::Instant {
        self.gate.now().into_std()
    }

    fn batch_id(&self) -> BatchId {
        format!("{:016x}", self.names.fetch_add(1, Ordering::Relaxed)).into()
    }
}
