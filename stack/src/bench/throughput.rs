//! The whole pipe at full speed, next to the engine's ceiling, and what it costs.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use stack::{Bridge, Launch, LocalStack, Service, aws_environment, free_port, service::stack_binary};
use tokio::runtime::Runtime;

use super::BenchArgs;
use super::ceiling::{Recorded, Static, record};
use super::measure::{Cpu, number, peak_memory};
use super::shape::Shape;
use super::sql::Job;

/// The stream that is replayed.
pub const STREAM: &str = "orders";
/// Without AWS's pacing, which would dominate the measurement.
pub const UNPACED: &str = "&poll_ms=5&linger_ms=200";
/// Its shards.
pub const SHARDS: u64 = 4;
const POLL: Duration = Duration::from_millis(50);
const READY_DEADLINE: Duration = Duration::from_secs(30);
const RENDER_DEADLINE: Duration = Duration::from_secs(120);
/// Longest time without a new row before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// One round: the pipe, then its ceiling.
pub struct Round {
    /// From CREATE VIEW to the last row being visible, seconds.
    pub pipe_seconds: f64,
    /// The ceiling's INSERTs, seconds.
    pub ceiling_seconds: f64,
    /// Processor seconds of each process while the pipe ran.
    pub cpu: Vec<(&'static str, f64)>,
    /// ClickHouse's processor seconds for the ceiling.
    pub ceiling_cpu: f64,
    /// The bridge's peak resident memory, bytes.
    pub peak_memory: u64,
    /// Batches that the bridge served.
    pub batches: u64,
}

/// All measurements.
pub struct Throughput {
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Batches of the ceiling.
    pub ceiling_batches: usize,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
    /// Records.
    pub records: u64,
    /// Processor seconds of only the bridge, with a client that fetches the batches and discards
    /// them.
    pub alone_cpu: f64,
    /// The same with responses in CBOR.
    pub cbor_cpu: f64,
    /// Processor seconds of the bridge with such a client by enhanced fan-out, and of the floor of
    /// that.
    pub fan_out_cpu: (f64, f64),
    /// Processor seconds of the floor.
    pub floor_cpu: Vec<f64>,
    /// GetRecords calls of one read through the bridge, and of the floor.
    pub calls: (u64, u64),
}

/// A replayed stream in a process of its own.
pub struct Replayed {
    /// The process.
    pub service: Service,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
    port: u16,
    _log: tempfile::TempDir,
}

impl Replayed {
    /// Renders `records` orders of `record_bytes` (0: unpadded) and waits until they are served.
    pub fn start(records: u64, record_bytes: usize) -> Result<Replayed, String> {
        Replayed::of(records, record_bytes, Shape::Plain)
    }

    /// The same in records of this shape.
    pub fn of(orders: u64, order_bytes: usize, shape: Shape) -> Result<Replayed, String> {
        Replayed::with(None, orders, order_bytes, shape)
    }

    /// One for any client, in JSON and CBOR, that takes new records. Until it is released, it
    /// serves one record of each shard.
    pub fn live(orders: u64) -> Result<Replayed, String> {
        Replayed::with(Some("--live"), orders, 0, Shape::Plain)
    }

    fn with(flag: Option<&str>, orders: u64, order_bytes: usize, shape: Shape) -> Result<Replayed, String> {
        let log = tempfile::Builder::new()
            .prefix("replay-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let port = free_port()?;
        let mut args = vec![
            "bench-replay".to_owned(),
            format!("--port={port}"),
            format!("--stream={STREAM}"),
            format!("--shards={SHARDS}"),
            format!("--records={orders}"),
            format!("--record-bytes={order_bytes}"),
            format!("--shape={}", shape.name()),
        ];
        args.extend(flag.map(str::to_owned));
        let launch = Launch::new(stack_binary()?, args, log.path().join("replay.log")).in_folder(log.path());
        let service = Service::start("the replay server", launch)?;
        let mut payload_bytes = None;
        service.wait_until("the rendered records", RENDER_DEADLINE, || {
            let said = service.log();
            payload_bytes = said
                .split_once(" records, ")
                .and_then(|(_, rest)| rest.split_once(" bytes, on"))
                .and_then(|(bytes, _)| bytes.parse().ok());
            payload_bytes.is_some()
        })?;
        Ok(Replayed { service, payload_bytes: payload_bytes.unwrap_or(0), port, _log: log })
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts a bridge that reads it.
    pub fn start_bridge(&self, args: &BenchArgs, stack: &LocalStack, flags: &[(&str, &str)]) -> Result<Bridge, String> {
        let mut environment = aws_environment(&self.endpoint());
        environment.push(("KINESIS_BRIDGE_CLICKHOUSE_URL".to_owned(), stack.clickhouse.url()));
        let bridge = Bridge::start(&args.bridge, flags, &environment)?;
        wait_ready(&bridge).map(|()| bridge)
    }

    /// Stops holding records back.
    pub fn release(&self) -> Result<(), String> {
        let url = format!("{}/release", self.endpoint());
        ureq::post(&url).send_empty().map(drop).map_err(|error| format!("POST {url}: {error}"))
    }

    /// GetRecords calls so far, records served by them, and the largest requested limit.
    fn asked(&self) -> Result<(u64, u64, u64), String> {
        let url = format!("{}/stats", self.endpoint());
        let mut answer = ureq::get(&url).call().map_err(|error| format!("GET {url}: {error}"))?;
        let text = answer.body_mut().read_to_string().map_err(|error| format!("GET {url}: {error}"))?;
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        match numbers[..] {
            [calls, served, limit] => Ok((calls, served, limit)),
            _ => Err(format!("{url} answered {text:?}")),
        }
    }
}

/// Runs everything.
pub fn run(args: &BenchArgs, runtime: &Runtime, stack: &LocalStack) -> Result<Throughput, String> {
    super::step("the bridge alone, with responses in CBOR");
    let in_cbor = Replayed::with(Some("--cbor"), args.records, 0, Shape::Plain)?;
    let cbor_cpu = alone(args, stack, &in_cbor, "in_cbor", "")?.cpu_seconds;
    drop(in_cbor);
    super::step(&format!("rendering {} records for the replay server", args.records));
    let replayed = Replayed::start(args.records, 0)?;
    super::step("recording the bridge's batches, with a client that only takes them");
    let Recorded { batches, cpu_seconds } = alone(args, stack, &replayed, "recorded", "")?;
    let (bridge_calls, _, limit) = replayed.asked()?;
    super::step("the same by enhanced fan-out, and its floor");
    let pushed = alone(args, stack, &replayed, "pushed", "&mode=efo")?.cpu_seconds;
    let fan_out_cpu = (pushed, floor(&replayed, &["--fan-out"], args.records)?.0);
    let ceiling_batches = batches.len();
    let server = Static::start(runtime, batches)?;

    let (mut rounds, mut floor_cpu, mut floor_calls) = (Vec::new(), Vec::new(), 0);
    for number in 1..=args.rounds {
        super::step(&format!("round {number} of {}: the pipe, its ceiling, the floor of reading", args.rounds));
        rounds.push(round(args, stack, &replayed, &server, number)?);
        let (cpu, calls) = floor(&replayed, &["--limit", &limit.to_string()], args.records)?;
        floor_cpu.push(cpu);
        floor_calls = calls;
    }
    Ok(Throughput {
        rounds,
        ceiling_batches,
        payload_bytes: replayed.payload_bytes,
        records: args.records,
        alone_cpu: cpu_seconds,
        cbor_cpu,
        fan_out_cpu,
        floor_cpu,
        calls: (bridge_calls, floor_calls),
    })
}

/// The bridge with a client that only takes its batches.
fn alone(
    args: &BenchArgs,
    stack: &LocalStack,
    replayed: &Replayed,
    pipe: &str,
    parameters: &str,
) -> Result<Recorded, String> {
    let bridge = replayed.start_bridge(args, stack, &[])?;
    let query = format!("stream={STREAM}&format=ArrowStream{UNPACED}{parameters}");
    let recorded = record(&stack.clickhouse, &bridge, pipe, &query, args.records)?;
    bridge.stop()?;
    Ok(recorded)
}

fn round(
    args: &BenchArgs,
    stack: &LocalStack,
    replayed: &Replayed,
    server: &Static,
    number: u32,
) -> Result<Round, String> {
    let clickhouse = &stack.clickhouse;
    let bridge = replayed.start_bridge(args, stack, &[])?;
    let (through, direct) = (Job::into(format!("orders_{number}")), Job::into(format!("ceiling_{number}")));
    clickhouse.query(&through.create_table()?)?;
    clickhouse.query(&direct.create_table()?)?;
    let cpu = Cpu::start(&[
        ("bridge", &bridge),
        ("ClickHouse", clickhouse),
        ("replay server", &replayed.service),
        ("ZooKeeper", &stack.zookeeper),
    ]);
    let began = Instant::now();
    clickhouse.query(&through.create_view(&bridge.url(), STREAM, UNPACED)?)?;
    wait_for_rows(stack, &bridge, &through.table, args.records)?;
    let pipe_seconds = began.elapsed().as_secs_f64();
    let cpu = cpu.used();
    verify(stack, &through.table, args.records)?;
    let batches = served_batches(&bridge)?;
    let peak_memory = peak_memory(&bridge)?;
    bridge.stop()?;

    let ceiling_cpu = Cpu::start(&[("ClickHouse", clickhouse)]);
    let ceiling_seconds = server.insert(clickhouse, &direct)?;
    let ceiling_cpu = ceiling_cpu.used().iter().map(|(_, seconds)| seconds).sum();
    verify(stack, &direct.table, args.records)?;
    clickhouse.run_script(&through.drop())?;
    clickhouse.run_script(&direct.drop())?;
    Ok(Round { pipe_seconds, ceiling_seconds, cpu, ceiling_cpu, peak_memory, batches })
}

/// Waits until the state tables exist, so that no first pull fails and backs off.
pub fn wait_ready(bridge: &Bridge) -> Result<(), String> {
    let url = format!("{}/readyz", bridge.url());
    bridge.wait_until("/readyz", READY_DEADLINE, || ureq::get(&url).call().is_ok())
}

/// Waits until a table has `records` rows; an error if no row arrives for a while.
pub fn wait_for_rows(stack: &LocalStack, bridge: &Bridge, table: &str, records: u64) -> Result<(), String> {
    let (mut rows, mut moved) = (0, Instant::now());
    loop {
        let now = number(&stack.clickhouse, &format!("SELECT count() FROM {table}"))?;
        if now >= records {
            return Ok(());
        }
        if now > rows {
            (rows, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE || !bridge.is_running() {
            let view = stack.clickhouse.query("SELECT view, status, retry, exception FROM system.view_refreshes");
            return Err(format!(
                "{table} stays at {now} of {records} rows; system.view_refreshes: {}{}",
                view.unwrap_or_else(|error| error),
                bridge.log_tail()
            ));
        }
        sleep(POLL);
    }
}

/// Each record once: neither lost nor duplicated.
pub fn verify(stack: &LocalStack, table: &str, records: u64) -> Result<(), String> {
    each_once(stack, table, &["count()", "uniqExact(_shard_id, _sequence_number)", "uniqExact(id)"], records)
}

/// Checks that each of these counts over a table is `records`.
pub fn each_once(stack: &LocalStack, table: &str, counts: &[&str], records: u64) -> Result<(), String> {
    for what in counts {
        let found = number(&stack.clickhouse, &format!("SELECT {what} FROM {table}"))?;
        if found != records {
            return Err(format!("{what} of {table} is {found} instead of {records}: records were lost or doubled"));
        }
    }
    Ok(())
}

/// Number of distinct batches that a bridge has served.
pub fn served_batches(bridge: &Bridge) -> Result<u64, String> {
    let url = format!("{}/metrics", bridge.url());
    let mut answer = ureq::get(&url).call().map_err(|error| format!("GET {url}: {error}"))?;
    let text = answer.body_mut().read_to_string().map_err(|error| format!("GET {url}: {error}"))?;
    let served = text.lines().filter(|l| l.starts_with("kinesis_bridge_batches_total") && l.contains("\"served\""));
    Ok(served.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

/// The floor's processor seconds and calls.
fn floor(replayed: &Replayed, flags: &[&str], records: u64) -> Result<(f64, u64), String> {
    let output = Command::new(stack_binary()?)
        .args(["bench-floor", "--endpoint", &replayed.endpoint(), "--stream", STREAM])
        .args(flags)
        .output()
        .map_err(|error| format!("cannot start the floor: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [read, calls, cpu, _] if read as u64 == records => Ok((cpu, calls as u64)),
        _ => Err(format!("the floor answered {text:?} {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
