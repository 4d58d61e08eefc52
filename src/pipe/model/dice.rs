//! Chance and time, the same for the same seed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::ports::Clock;

/// The one source of chance of a run.
pub struct Dice {
    rng: Mutex<fastrand::Rng>,
    calm: AtomicBool,
}

impl Dice {
    /// Dice that bring trouble until [`Dice::calm`].
    pub fn new(seed: u64) -> Arc<Dice> {
        // What the program itself leaves to chance (jitter) is taken from this thread's generator.
        fastrand::seed(seed);
        Arc::new(Dice { rng: Mutex::new(fastrand::Rng::with_seed(seed)), calm: AtomicBool::new(false) })
    }

    /// From now on nothing goes wrong.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// A number below `n`.
    pub fn below(&self, n: u64) -> u64 {
        self.rng.lock().unwrap().u64(0..n)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// True so many times in a hundred.
    pub fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// True so many times in a hundred, and never once it is calm.
    pub fn trouble(&self, chance: u64) -> bool {
        self.percent(chance) && !self.calm.load(Ordering::Relaxed)
    }

    /// Lets up to `most_ms` pass; nothing, every fourth time.
    pub async fn delay(&self, most_ms: u64) {
        if !self.percent(25) {
            sleep(Duration::from_millis(self.below(most_ms + 1))).await;
        }
    }
}

/// Virtual time, as tokio keeps it, and names that count up.
pub struct FakeClock {
    began: Instant,
    names: AtomicU64,
}

/// The time at which every run begins, Unix ms.
pub const BEGAN_MS: i64 = 1_795_255_200_000;

impl FakeClock {
    /// A clock that starts now.
    pub fn new() -> Arc<FakeClock> {
        Arc::new(FakeClock { began: Instant::now(), names: AtomicU64::new(1) })
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> i64 {
        BEGAN_MS + self.began.elapsed().as_millis() as i64
    }

    fn monotonic(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn batch_id(&self) -> String {
        format!("{:016x}", self.names.fetch_add(1, Ordering::Relaxed))
    }
}
