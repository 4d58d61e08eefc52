//! One pipe pulled by one view, by two and by four.

use std::process::Command;
use std::time::Instant;

use stack::{Bridge, LocalStack, aws_environment};

use super::BenchArgs;
use super::measure::Cpu;
use super::throughput::{Replayed, STREAM, UNPACED, each_once, served_batches, wait_for_rows};

/// Numbers of views, each measured by itself.
const VIEWS: [usize; 3] = [1, 2, 4];
/// Of the records of the other parts: the SELECT that `sql pipe` prints takes several times as long
/// as the README's.
const SHARE: u64 = 4;

/// One measurement.
pub struct Views {
    /// How many views pulled.
    pub views: usize,
    /// From the first CREATE VIEW to the last row being visible, seconds.
    pub seconds: f64,
    /// Rows.
    pub rows: u64,
    /// Batches that the bridge served.
    pub batches: u64,
    /// Processor seconds of each process meanwhile.
    pub cpu: Vec<(&'static str, f64)>,
}

/// Measures each number of views on the same replayed stream.
pub fn run(args: &BenchArgs, stack: &LocalStack) -> Result<Vec<Views>, String> {
    let rows = args.records / SHARE;
    super::step(&format!("one pipe and {VIEWS:?} views, {rows} records"));
    let replayed = Replayed::start(rows, 0)?;
    VIEWS.iter().map(|views| with(args, stack, &replayed, *views, rows)).collect()
}

fn with(args: &BenchArgs, stack: &LocalStack, replayed: &Replayed, views: usize, rows: u64) -> Result<Views, String> {
    let bridge = replayed.start_bridge(args, stack, &[])?;
    let table = format!("views_{views}");
    let script = printed(args, stack, replayed, &bridge, &table, views)?;
    let (paced, unpaced) = ("&view=", format!("{UNPACED}&view="));
    let script = script.replace(paced, &unpaced);
    let cpu = Cpu::start(&[
        ("bridge", &bridge),
        ("ClickHouse", &stack.clickhouse),
        ("replay server", &replayed.service),
        ("ZooKeeper", &stack.zookeeper),
    ]);
    let began = Instant::now();
    stack.clickhouse.run_script(&script)?;
    wait_for_rows(stack, &bridge, &table, rows)?;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu.used());
    each_once(stack, &table, &["count()", "uniqExact(id)"], rows)?;
    let batches = served_batches(&bridge)?;
    for number in 1..=views {
        let suffix = if number == 1 { String::new() } else { format!("_{number}") };
        stack.clickhouse.query(&format!("DROP VIEW {table}_pipe{suffix} SYNC"))?;
    }
    bridge.stop()?;
    Ok(Views { views, seconds, rows, batches, cpu })
}

/// What `sql pipe` prints for this number of views.
fn printed(
    args: &BenchArgs,
    stack: &LocalStack,
    replayed: &Replayed,
    bridge: &Bridge,
    table: &str,
    views: usize,
) -> Result<String, String> {
    let output = Command::new(&args.bridge)
        .args(["sql", "pipe", "--stream", STREAM, "--table", table, "--listen", bridge.address()])
        .args(["--views", &views.to_string()])
        .envs(aws_environment(&replayed.endpoint()))
        .env("KINESIS_BRIDGE_CLICKHOUSE_URL", stack.clickhouse.url())
        .output()
        .map_err(|error| format!("cannot start sql pipe: {error}"))?;
    match output.status.success() {
        true => String::from_utf8(output.stdout).map_err(|error| format!("sql pipe printed no text: {error}")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
