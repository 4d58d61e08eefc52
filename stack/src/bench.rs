//! `stack bench`: the measurements, each next to its ceiling or floor, from the same run.
//!
//! No time makes it pass or fail: it fails if something breaks, or if a record is lost or
//! duplicated.

mod ceiling;
pub mod floor;
mod formats;
mod idle;
mod latency;
mod measure;
mod memory;
mod payloads;
mod peers;
pub mod replay;
mod report;
mod shape;
mod sql;
mod takeover;
mod throughput;
mod views;

use std::path::PathBuf;

use clap::ValueEnum;
use stack::{Engine, LocalStack};

/// The flags of `stack bench`.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// The clickhouse-kinesis-bridge program to measure, a release build.
    #[arg(long)]
    bridge: PathBuf,
    /// How many records each throughput run loads.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    records: u64,
    /// Rounds of throughput and of takeover; the median is reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of each latency run, in seconds.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=90))]
    latency_seconds: u64,
    /// How many MiB of records the memory run loads.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(16..))]
    memory_mib: u64,
    /// Run only these parts. `peers` runs only if it is named: it takes a quarter of an hour.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "throughput,views,payloads,formats,latency,memory,idle,takeover"
    )]
    only: Vec<Part>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The whole pipe, its ceiling, processor time.
    Throughput,
    /// Several views of one pipe.
    Views,
    /// Aggregates, compressed payloads, lines, inline JSON, events of DynamoDB.
    Payloads,
    /// Other formats, and the steps of ClickHouse's statement.
    Formats,
    /// From put to queryable.
    Latency,
    /// A stream of 1 GiB in 64 MiB.
    Memory,
    /// Shards without records.
    Idle,
    /// A bridge is killed, another one goes on.
    Takeover,
    /// Other movers of records beside the bridge.
    Peers,
}

/// Runs the requested parts and prints the table.
pub fn run(args: &BenchArgs) -> Result<i32, String> {
    let runtime = crate::commands::runtime()?;
    let wanted = |part| args.only.contains(&part);
    if wanted(Part::Peers) {
        peers::installed()?;
    }
    step("starting ZooKeeper, ClickHouse and the Kinesis emulator");
    let stack = LocalStack::start(Engine::V26_7)?;
    let throughput = wanted(Part::Throughput).then(|| throughput::run(args, &runtime, &stack)).transpose()?;
    let views = wanted(Part::Views).then(|| views::run(args, &stack)).transpose()?;
    let payloads = wanted(Part::Payloads).then(|| payloads::run(args, &stack)).transpose()?;
    let formats = wanted(Part::Formats).then(|| formats::run(args, &stack)).transpose()?;
    // The emulator's records stay in its memory, so each run has a stream of its own.
    let latencies = wanted(Part::Latency).then(|| latency::all(args, &runtime, &stack)).transpose()?;
    let memory = wanted(Part::Memory).then(|| memory::run(args, &stack)).transpose()?;
    let idle = wanted(Part::Idle).then(|| idle::run(args, &runtime, &stack)).transpose()?;
    let takeover = wanted(Part::Takeover).then(|| takeover::run(args, &runtime, &stack)).transpose()?;
    let peers = wanted(Part::Peers).then(|| peers::run(args, &runtime, &stack)).transpose()?;
    let version = stack.clickhouse.query("SELECT version()")?;
    report::print(&report::Figures {
        clickhouse: version.trim(),
        throughput,
        views: views.unwrap_or_default(),
        payloads,
        formats: formats.unwrap_or_default(),
        latencies: latencies.unwrap_or_default(),
        memory,
        idle,
        takeover,
        peers: peers.unwrap_or_default(),
    });
    Ok(0)
}

/// Reports the current step on standard error; only the table goes to standard output.
fn step(what: &str) {
    eprintln!("== {what}");
}
