//! The pull protocol in a simulated world, in virtual time: the real pipes, with scripted Kinesis,
//! rows, ClickHouse, clock and chance.
//!
//! `random` runs what a seed decides, with what `outside` does to it; `world` and what it is made
//! of also serve the tests that show one rule each. `ledger` is the account that every run is held
//! to: who wrote what, which bytes were sent, what the tables hold. `remote` and `store` are what
//! one process has of the world; they let it stand still, and lose and delay what it says and
//! hears.

#![cfg(test)]

mod calm;
mod clickhouse;
mod dice;
mod fan_out;
mod follow;
mod handover;
mod identity;
mod isolate;
mod kinesis;
mod ledger;
mod life;
mod names;
mod next;
mod outside;
mod quarantine;
mod random;
mod records;
mod remote;
mod retention;
mod rows;
mod rules;
mod scale;
mod seats;
mod store;
mod world;
mod zombies;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mimalloc::MiMalloc;

/// A seventh of all time went into the system's allocator.
#[global_allocator]
static MEMORY: MiMalloc = MiMalloc;

/// Seeds of one run of the tests.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs many seeds, from the one in the environment variable `SEED` on; `SEEDS` says how many. One
/// seed alone is run with its log.
#[test]
fn every_record_arrives_exactly_once_whatever_happens() {
    let (first, count) = match (number("SEED"), number("SEEDS")) {
        (Some(seed), count) => (seed, count.unwrap_or(1)),
        (None, count) => (1, count.unwrap_or(SEEDS)),
    };
    if count == 1 {
        log();
    }
    let (next, done, began) = (AtomicU64::new(first), AtomicU64::new(0), Instant::now());
    let failed = std::thread::scope(|scope| {
        let run = || run_seeds(&next, first + count, || progress(&done, count, began));
        let threads: Vec<_> = (0..threads()).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).min()
    });
    if let Some((seed, what)) = failed {
        panic!("SEED={seed}: {what}\nonce more, with its log: make simulate SEED={seed}");
    }
}

/// From now on this process writes its log.
fn log() {
    let log = tracing_subscriber::fmt().with_timer(VirtualTime).with_ansi(false).with_test_writer();
    let _ = log.with_max_level(tracing::Level::DEBUG).try_init();
}

/// Time in the log of a run.
struct VirtualTime;

impl tracing_subscriber::fmt::time::FormatTime for VirtualTime {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{:.3?}", dice::elapsed())
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Says how far it is, a hundred times in all.
fn progress(done: &AtomicU64, count: u64, began: Instant) {
    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
    if done.is_multiple_of((count / 100).max(1_000)) {
        println!("{done} of {count} seeds in {:.0?}", began.elapsed());
    }
}

/// Runs seeds below `end` until one fails.
fn run_seeds(next: &AtomicU64, end: u64, done: impl Fn()) -> Option<(u64, String)> {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return None;
        }
        // A panic is a failure of its seed, too.
        let ended =
            std::panic::catch_unwind(|| run(seed, false)).unwrap_or_else(|_| (Err("a panic".into()), Vec::new()));
        if let (Err(what), _) = ended {
            next.store(end, Ordering::Relaxed);
            return Some((seed, what));
        }
        done();
    }
}

/// One seed on a runtime of its own.
fn run(seed: u64, traced: bool) -> (Result<u64, String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(random::run(seed, traced))
}

/// A seed decides everything: twice the same calls with the same arguments and answers at the same
/// virtual times, on whatever thread.
#[test]
fn a_seed_is_the_same_run_every_time() {
    let next = AtomicU64::new(number("SEED").unwrap_or(1));
    let end = next.load(Ordering::Relaxed) + number("SEEDS").unwrap_or(60).min(60);
    let compare = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            // Another thread, and what it has allocated, seeded and hashed before, must not matter.
            let other = std::thread::spawn(move || (run(seed ^ 1, false), run(seed, true)).1);
            let (one, other) = (run(seed, true), other.join().unwrap());
            assert!(one.1.len() > 100, "SEED={seed}: the trace has {} lines", one.1.len());
            let differ = one.1.iter().zip(&other.1).position(|(a, b)| a != b);
            if let Some(line) = differ {
                panic!("SEED={seed}: line {line} is\n{}\nthe first time, and\n{}", one.1[line], other.1[line]);
            }
            assert_eq!((one.0, one.1.len()), (other.0, other.1.len()), "SEED={seed}");
        }
    };
    std::thread::scope(|scope| (0..threads()).for_each(|_| drop(scope.spawn(compare))));
}
