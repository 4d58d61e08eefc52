//! Memory: a stream of 1 GiB through a bridge with 64 MiB of buffers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use stack::LocalStack;

use super::BenchArgs;
use super::measure::peak_memory;
use super::sql::Job;
use super::throughput::{Replayed, STREAM, verify, wait_for_rows};

const RECORD_BYTES: u64 = 1_024;
const BUDGET: &str = "64MiB";
const SAMPLE: Duration = Duration::from_millis(20);

/// The result of the run. Sizes are in bytes.
pub struct Memory {
    /// Payload bytes that went through.
    pub payload_bytes: u64,
    /// Peak resident memory, according to the kernel.
    pub peak: u64,
    /// Largest of the samples.
    pub sampled_peak: u64,
    /// Mean of the samples.
    pub sampled_mean: u64,
    /// Seconds from CREATE VIEW to the last row.
    pub seconds: f64,
}

/// Ingests the stream and samples the memory.
pub fn run(args: &BenchArgs, stack: &LocalStack) -> Result<Memory, String> {
    let records = args.memory_mib * 1_048_576 / RECORD_BYTES;
    super::step(&format!("memory: {} MiB of {RECORD_BYTES}-byte records through --memory {BUDGET}", args.memory_mib));
    let replayed = Replayed::start(records, RECORD_BYTES as usize)?;
    let bridge = replayed.start_bridge(args, stack, &[("--memory", BUDGET)])?;
    let job = Job::into("memory");
    stack.clickhouse.query(&job.create_table()?)?;
    let (done, largest, sum, samples) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    stack.clickhouse.query(&job.create_view(&bridge.url(), STREAM, "&poll_ms=5")?)?;
    let arrived = scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let now = bridge.rss_bytes();
                largest.fetch_max(now, Ordering::Relaxed);
                sum.fetch_add(now, Ordering::Relaxed);
                samples.fetch_add(1, Ordering::Relaxed);
                sleep(SAMPLE);
            }
        });
        let arrived = wait_for_rows(stack, &bridge, &job.table, records);
        done.store(true, Ordering::Relaxed);
        arrived
    });
    arrived?;
    let seconds = began.elapsed().as_secs_f64();
    verify(stack, &job.table, records)?;
    let peak = peak_memory(&bridge)?;
    bridge.stop()?;
    stack.clickhouse.run_script(&job.drop())?;
    Ok(Memory {
        payload_bytes: replayed.payload_bytes,
        peak,
        sampled_peak: largest.into_inner(),
        sampled_mean: sum.into_inner() / samples.into_inner().max(1),
        seconds,
    })
}
