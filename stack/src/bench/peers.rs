//! Other movers beside the bridge: the same stream into the same table.
//!
//! Each mover is started once, on a stream that seems to hold one record per shard. Once these are
//! in the table, the backlog appears all at once, so start-up does not count as work. Records at a
//! steady rate follow, first to measure latency, then while the mover is killed twice.

mod mover;
mod report;

use std::thread::sleep;
use std::time::{Duration, Instant};

use stack::load::order_id;
use stack::{LocalStack, MiniStack, kinesis_client};
use tokio::runtime::Runtime;

pub use self::mover::installed;
use self::mover::{Kind, Mover};
pub use self::report::report;
use super::BenchArgs;
use super::latency::{Flow, flow};
use super::measure::{Cpu, number, peak_memory};
use super::takeover::Writing;
use super::throughput::{Replayed, SHARDS, STREAM, verify};

/// Most records of the backlog. They are in memory in two encodings, 0.8 kB each.
const MAX_RECORDS: u64 = 1_000_000;
/// How often each mover is killed.
const KILLS: usize = 2;
/// How long records flow before each kill.
const PEACE: Duration = Duration::from_secs(5);
/// Longest time without a new row. The KCL needs minutes to take over the leases of a dead worker.
const PATIENCE: Duration = Duration::from_secs(400);
/// How long a table that holds every record must stay unchanged before its duplicates are counted.
const QUIET: Duration = Duration::from_secs(5);
/// Time between two queries of the table.
const LOOK: Duration = Duration::from_millis(50);
/// The same before a kill, which is to hit rows that are inserted but perhaps not checkpointed.
const SHORT_LOOK: Duration = Duration::from_millis(1);
/// The same where queries take longer, or their processor time would show.
const LONG_LOOK: Duration = Duration::from_millis(500);
/// What is counted.
const ROWS: &str = "count()";
const ORDERS: &str = "uniqExact(id)";

/// What one mover did.
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// From its start to a row of each shard: seconds, and its processor seconds.
    pub start: (f64, f64),
    /// The backlog.
    pub backlog: Backlog,
    /// Its peak resident memory so far, bytes.
    pub peak_memory: u64,
    /// Latency at 1,000 records a second.
    pub flow: Flow,
    /// What the kills did.
    pub kills: Kills,
}

/// A backlog and what it took to move it.
pub struct Backlog {
    /// The records.
    pub rows: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// From their appearance to the last row, seconds.
    pub seconds: f64,
    /// Processor seconds of the mover.
    pub cpu: f64,
    /// Processor seconds of ClickHouse.
    pub engine_cpu: f64,
}

/// What became of the records that were put while a mover was killed.
pub struct Kills {
    /// How many there were.
    pub records: u64,
    /// Records without a row.
    pub lost: u64,
    /// Rows beyond the first for the same record.
    pub doubled: u64,
    /// Seconds from each kill to a row of a record that was put after it.
    pub seconds: Vec<f64>,
}

/// The bridge, then the others.
pub fn run(args: &BenchArgs, runtime: &Runtime, stack: &LocalStack) -> Result<Vec<Peer>, String> {
    let dynamodb = MiniStack::start()?;
    Kind::ALL.into_iter().map(|kind| one(args, runtime, stack, &dynamodb, kind)).collect()
}

fn one(
    args: &BenchArgs,
    runtime: &Runtime,
    stack: &LocalStack,
    dynamodb: &MiniStack,
    kind: Kind,
) -> Result<Peer, String> {
    let (name, job) = (kind.name(), kind.job());
    super::step(&format!("{name}: starting, until a row of each shard is in the table"));
    let source = Replayed::live(args.records.min(MAX_RECORDS))?;
    stack.clickhouse.query(&job.create_table()?)?;
    let began = Instant::now();
    let mover = Mover::start(kind, args, stack, &source, dynamodb)?;
    let watch = Watch { stack, mover: &mover, table: &job.table };
    watch.wait(ROWS, SHARDS, LOOK)?;
    let start = (began.elapsed().as_secs_f64(), mover.cpu_seconds());

    super::step(&format!("{name}: a backlog, after {:.0} s", start.0));
    let backlog = backlog(args, &source, &watch)?;
    let peak_memory = peak_memory(&mover)?;

    super::step(&format!("{name}: latency at 1,000 records/s"));
    let client = runtime.block_on(kinesis_client(&source.endpoint()));
    watch.empty()?;
    let flow = flow(args, runtime, stack, (client.clone(), STREAM, &job.table), &[])
        .map_err(|error| format!("{error}{}", mover.log_tail()))?;

    super::step(&format!("{name}: {KILLS} times kill -9 at 1,000 records/s"));
    watch.empty()?;
    let writing = Writing::start(runtime, client, STREAM);
    let seconds = watch.kill(&writing);
    let records = writing.stop(runtime)?;
    let seconds = seconds?;
    let (rows, orders) = watch.settle(records)?;
    let kills = Kills { records, lost: records.saturating_sub(orders), doubled: rows.saturating_sub(orders), seconds };
    mover.kill();
    stack.clickhouse.run_script(&job.drop())?;
    Ok(Peer { name, start, backlog, peak_memory, flow, kills })
}

/// Makes the backlog appear and waits for its last row.
fn backlog(args: &BenchArgs, source: &Replayed, watch: &Watch<'_>) -> Result<Backlog, String> {
    let records = args.records.min(MAX_RECORDS);
    let cpu = Cpu::start(&[("mover", watch.mover), ("ClickHouse", &watch.stack.clickhouse)]);
    let began = Instant::now();
    source.release()?;
    watch.wait(ROWS, records, LONG_LOOK)?;
    let (seconds, used) = (began.elapsed().as_secs_f64(), cpu.used());
    verify(watch.stack, watch.table, records)?;
    let [(_, cpu), (_, engine_cpu)] = used[..] else { return Err("two processes have two times".into()) };
    Ok(Backlog { rows: records - SHARDS, payload_bytes: source.payload_bytes, seconds, cpu, engine_cpu })
}

/// A mover at work on a table.
struct Watch<'a> {
    stack: &'a LocalStack,
    mover: &'a Mover,
    table: &'a str,
}

impl Watch<'_> {
    fn count(&self, what: &str) -> Result<u64, String> {
        number(&self.stack.clickhouse, &format!("SELECT {what} FROM {}", self.table))
    }

    /// Waits until a count is `wanted`; an error if it does not grow for a while.
    fn wait(&self, what: &str, wanted: u64, look: Duration) -> Result<(), String> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let now = self.count(what)?;
            if now >= wanted {
                return Ok(());
            }
            if now > last {
                (last, moved) = (now, Instant::now());
            }
            self.check(moved, &format!("{what} {now} instead of {wanted}"))?;
            sleep(look);
        }
    }

    /// An error if nothing has moved for too long, or the mover has ended.
    fn check(&self, moved: Instant, state: &str) -> Result<(), String> {
        if self.mover.is_running() && moved.elapsed() <= PATIENCE {
            return Ok(());
        }
        Err(format!("{} stays at {state}.{}", self.table, self.mover.log_tail()))
    }

    fn empty(&self) -> Result<(), String> {
        self.stack.clickhouse.query(&format!("TRUNCATE TABLE {}", self.table)).map(drop)
    }

    /// Kills the mover as soon as a query sees new rows, and starts it again, several times.
    fn kill(&self, writing: &Writing) -> Result<Vec<f64>, String> {
        let mut seconds = Vec::new();
        for _ in 0..KILLS {
            sleep(PEACE);
            self.wait(ROWS, self.count(ROWS)? + 1, SHORT_LOOK)?;
            self.mover.kill();
            let (killed, next) = (Instant::now(), writing.next());
            self.mover.start_again()?;
            self.wait(&format!("countIf(id >= '{}')", order_id(next)), 1, LOOK)?;
            seconds.push(killed.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }

    /// The final numbers of rows and of distinct orders.
    fn settle(&self, records: u64) -> Result<(u64, u64), String> {
        let (mut found, mut moved) = ((0, 0), Instant::now());
        loop {
            let now = (self.count(ROWS)?, self.count(ORDERS)?);
            if now != found {
                (found, moved) = (now, Instant::now());
            }
            let quiet = if found.1 >= records { QUIET } else { PATIENCE };
            if moved.elapsed() > quiet {
                return Ok(found);
            }
            self.check(moved, &format!("{ORDERS} {} instead of {records}", found.1))?;
            sleep(LONG_LOOK);
        }
    }
}
