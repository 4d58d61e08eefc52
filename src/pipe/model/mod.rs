//! The pull protocol in a simulated world, in virtual time: the real pipes, with scripted Kinesis, rows, ClickHouse, clock and chance.
//!
//! `random` runs what a seed decides; `world` and what it is made of also serve the tests that show one rule each. `ledger` is the account
//! that every run is held to: who wrote what, which bytes were sent, what the tables hold.

mod clickhouse;
mod dice;
mod fan_out;
mod handover;
mod kinesis;
mod ledger;
mod random;
mod rules;
mod store;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

/// Runs from seed 1, or the one in the environment variable `SEED`, with its log; `SEEDS` says how many.
#[test]
fn every_record_arrives_exactly_once_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = match (number("SEED"), number("SEEDS")) {
        (Some(seed), count) => {
            let _ = tracing_subscriber::fmt()
                .with_timer(tracing_subscriber::fmt::time::uptime())
                .with_test_writer()
                .with_max_level(tracing::Level::DEBUG)
                .try_init();
            (seed, count.unwrap_or(1))
        }
        (None, count) => (1, count.unwrap_or(300)),
    };
    let next = AtomicU64::new(first);
    let failed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| run_seeds(&next, first + count))).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).min()
    });
    if let Some((seed, what)) = failed {
        panic!("SEED={seed}: {what}");
    }
}

/// Runs seeds below `end` until one fails.
fn run_seeds(next: &AtomicU64, end: u64) -> Option<(u64, String)> {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return None;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        if let Err(what) = runtime.block_on(random::run(seed)) {
            next.store(end, Ordering::Relaxed);
            return Some((seed, what));
        }
    }
}
