//! The same orders in every kind of payload that the bridge unpacks, each compared with records of
//! one order each.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use stack::{LocalStack, aws_environment, service::stack_binary};

use super::BenchArgs;
use super::ceiling::record;
use super::measure::{Cpu, median};
use super::shape::Shape;
use super::sql::{Job, Reading};
use super::throughput::{Replayed, STREAM, UNPACED, each_once, wait_for_rows};

/// Uses 1/N of the orders of the throughput runs: there are many kinds.
const SHARE: u64 = 4;

/// A kind of payload.
pub struct Kind {
    /// Its name in the report.
    pub name: &'static str,
    shape: Shape,
    /// The unpacking parameters in the bridge's URL.
    unpacking: &'static str,
    reading: Reading,
}

impl Kind {
    /// Whether a record is more than its row.
    pub fn is_packed(&self) -> bool {
        !matches!(self.shape, Shape::Plain | Shape::Event)
    }

    /// Whether the records are KPL aggregates.
    pub fn is_aggregate(&self) -> bool {
        self.shape == Shape::Aggregate
    }
}

const fn kind(name: &'static str, shape: Shape, unpacking: &'static str, reading: Reading) -> Kind {
    Kind { name, shape, unpacking, reading }
}

/// The first is the baseline for the others.
const KINDS: [Kind; 8] = [
    kind("plain", Shape::Plain, "", Reading::Payload),
    kind("KPL aggregates of 100", Shape::Aggregate, "", Reading::Payload),
    kind("gzip, 1 order", Shape::Gzip, "", Reading::Payload),
    kind("100 lines", Shape::Lines, "split=lines", Reading::Payload),
    kind("gzip, 100 lines", Shape::GzipLines, "split=lines", Reading::Payload),
    kind("plain, inline JSON", Shape::Plain, "", Reading::Inline),
    kind("DynamoDB events, taken apart in SQL", Shape::Event, "", Reading::EventPayload),
    kind("DynamoDB events, unmarshalled", Shape::Event, "", Reading::EventColumns),
];

/// The measurements of one kind, in seconds for all orders; the median of the rounds.
pub struct Found {
    /// The kind.
    pub kind: &'static Kind,
    /// From CREATE VIEW to the last row being visible.
    pub pipe_seconds: f64,
    /// ClickHouse's processor time during that.
    pub engine_cpu: f64,
    /// The bridge's processor time while a client fetched the batches and discarded them.
    pub bridge_cpu: f64,
    /// The processor time of only unpacking the same records.
    pub unpack_cpu: f64,
    /// The processor time of the MD5 of all payloads, which the KPL aggregate format requires.
    pub digest_cpu: f64,
    /// Bytes of the payloads as stored in Kinesis.
    pub payload_bytes: u64,
}

/// All measurements.
pub struct Payloads {
    /// Number of orders of each kind.
    pub rows: u64,
    /// The kinds, the plain one first.
    pub kinds: Vec<Found>,
}

/// Measures all kinds.
pub fn run(args: &BenchArgs, stack: &LocalStack) -> Result<Payloads, String> {
    let rows = (args.records / SHARE).max(1_000);
    let kinds = KINDS.iter().enumerate().map(|(number, kind)| measure(args, stack, kind, number, rows));
    Ok(Payloads { rows, kinds: kinds.collect::<Result<_, _>>()? })
}

fn measure(
    args: &BenchArgs,
    stack: &LocalStack,
    kind: &'static Kind,
    number: usize,
    rows: u64,
) -> Result<Found, String> {
    super::step(&format!("payloads: {rows} orders, {}", kind.name));
    let replayed = Replayed::of(rows, 0, kind.shape)?;
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let name = format!("payloads_{number}_{round}");
        let job = Job::reading(kind.reading, name);
        let options = match kind.unpacking {
            "" => UNPACED.to_owned(),
            words => format!("&{words}{UNPACED}"),
        };
        let bridge = replayed.start_bridge(args, stack, &[])?;
        let query = format!("stream={STREAM}&{}{options}", job.format());
        let alone = record(&stack.clickhouse, &bridge, &format!("{}_alone", job.table), &query, rows)?;
        bridge.stop()?;

        let bridge = replayed.start_bridge(args, stack, &[])?;
        stack.clickhouse.query(&job.create_table()?)?;
        let (cpu, began) = (Cpu::start(&[("ClickHouse", &stack.clickhouse)]), Instant::now());
        stack.clickhouse.query(&job.create_view(&bridge.url(), STREAM, &options)?)?;
        wait_for_rows(stack, &bridge, &job.table, rows)?;
        let pipe_seconds = began.elapsed().as_secs_f64();
        let engine_cpu = cpu.used().iter().map(|(_, seconds)| seconds).sum::<f64>();
        each_once(stack, &job.table, &["count()", "uniqExact(id)"], rows)?;
        bridge.stop()?;
        stack.clickhouse.run_script(&job.drop())?;
        let (unpack_cpu, digest_cpu) = unpack(&replayed, kind, rows)?;
        rounds.push([pipe_seconds, engine_cpu, alone.cpu_seconds, unpack_cpu, digest_cpu]);
    }
    let [pipe_seconds, engine_cpu, bridge_cpu, unpack_cpu, digest_cpu] =
        std::array::from_fn(|figure| median(rounds.iter().map(|round| round[figure])));
    let payload_bytes = replayed.payload_bytes;
    Ok(Found { kind, pipe_seconds, engine_cpu, bridge_cpu, unpack_cpu, digest_cpu, payload_bytes })
}

/// The processor seconds of unpacking the stream's records, from the program that only does that,
/// and of their MD5.
fn unpack(replayed: &Replayed, kind: &Kind, rows: u64) -> Result<(f64, f64), String> {
    let program: PathBuf = stack_binary()?.with_file_name("bench-unpack");
    let output = Command::new(&program)
        .args([STREAM, kind.unpacking])
        .envs(aws_environment(&replayed.endpoint()))
        .output()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [found, unpacking, digests] if found as u64 == rows => Ok((unpacking, digests)),
        _ => Err(format!("bench-unpack answered {text:?} {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
