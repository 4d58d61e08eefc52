//! Takeover: one of two bridges is killed under load; how long until the other has committed
//! records of each of its shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use stack::load::{create_stream, put_orders};
use stack::{LocalStack, kinesis_client};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::BenchArgs;
use super::sql::Job;
use super::throughput::{verify, wait_ready};

const SHARDS: i32 = 4;
const WORKERS: [&str; 2] = ["takeover_pipe", "takeover_other"];
/// The default of `--lease-duration`.
pub const LEASE: Duration = Duration::from_secs(10);
/// 1,000 records a second.
const STEP: u64 = 100;
const STEP_PAUSE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for any step.
const PATIENCE: Duration = Duration::from_secs(90);

/// The measurements.
pub struct Takeover {
    /// Seconds from each kill until the new owner has made its first commit in every shard.
    pub seconds: Vec<f64>,
    /// Records written during the run, each stored once.
    pub records: u64,
}

/// Kills a bridge in each round.
pub fn run(args: &BenchArgs, runtime: &Runtime, stack: &LocalStack) -> Result<Takeover, String> {
    super::step("takeover: kill -9 of one of two bridges at 1,000 records/s");
    let job = Job::into("takeover");
    let client = runtime.block_on(async {
        let client = kinesis_client(&stack.kinesis.endpoint()).await;
        create_stream(&client, &job.table, SHARDS).await.map(|()| client)
    })?;
    stack.clickhouse.query(&job.create_table()?)?;
    let mut bridges = Vec::new();
    for worker in WORKERS {
        let bridge = stack.start_bridge(&args.bridge, &[("--worker-id", worker)])?;
        wait_ready(&bridge)?;
        let view = job.create_view(&bridge.url(), &job.table, "&linger_ms=50&poll_ms=200")?;
        stack.clickhouse.query(&view.replace(WORKERS[0], worker))?;
        bridges.push(bridge);
    }
    let writing = Writing::start(runtime, client, &job.table);
    let rounds = || {
        let mut seconds = Vec::new();
        for round in 0..args.rounds {
            let victim = round as usize % WORKERS.len();
            wait("both bridges to have shards", || {
                let leases = leases(stack).unwrap_or_default();
                WORKERS.iter().all(|worker| leases.iter().any(|lease| lease.owner == *worker && lease.rows > 0))
            })?;
            bridges[victim].kill();
            let killed = Instant::now();
            let before: Vec<Lease> = leases(stack)?.into_iter().filter(|l| l.owner == WORKERS[victim]).collect();
            wait("commits of the other bridge", || {
                let now = leases(stack).unwrap_or_default();
                let followed = |old: &Lease| {
                    now.iter().any(|new| new.shard == old.shard && new.owner != old.owner && new.rows > old.rows)
                };
                before.iter().all(followed)
            })?;
            seconds.push(killed.elapsed().as_secs_f64());
            bridges[victim].start_again()?;
        }
        Ok(seconds)
    };
    let seconds = rounds();
    let records = writing.stop(runtime)?;
    let seconds: Vec<f64> = seconds.map_err(|error: String| format!("{error}{}", bridges[0].log_tail()))?;
    wait("the last record", || {
        let count = stack.clickhouse.query(&format!("SELECT count() >= {records} FROM {}", job.table));
        count.is_ok_and(|answer| answer == "1\n")
    })?;
    verify(stack, &job.table, records)?;
    for bridge in &bridges {
        bridge.stop()?;
    }
    stack.clickhouse.run_script(&format!("DROP VIEW {} SYNC;\n{}", WORKERS[1], job.drop()))?;
    Ok(Takeover { seconds, records })
}

/// Puts 1,000 orders a second, from order 0 on.
pub struct Writing {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
    task: JoinHandle<Result<(), String>>,
}

impl Writing {
    /// Starts.
    pub fn start(runtime: &Runtime, client: Client, stream: &str) -> Writing {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count, stream) = (stop.clone(), begun.clone(), stream.to_owned());
        let task = runtime.spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let next = count.fetch_add(STEP, Ordering::Relaxed);
                put_orders(&client, &stream, next, STEP).await?;
                tokio::time::sleep(STEP_PAUSE).await;
            }
            Ok(())
        });
        Writing { stop, begun, task }
    }

    /// The first order that it has not begun to put.
    pub fn next(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Stops, and returns how many orders there are now.
    pub fn stop(self, runtime: &Runtime) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(self.task).map_err(|error| format!("the writer failed: {error}"))??;
        Ok(self.begun.load(Ordering::Relaxed))
    }
}

/// A lease row of the pipe.
struct Lease {
    shard: String,
    owner: String,
    rows: u64,
}

fn leases(stack: &LocalStack) -> Result<Vec<Lease>, String> {
    let rows = stack.clickhouse.query(
        "SELECT shard_id, owner, committed_rows FROM kinesis.leases WHERE pipe = 'takeover' FORMAT TabSeparated",
    )?;
    let lease = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        Some(Lease { shard: columns.next()?, owner: columns.next()?, rows: columns.next()?.parse().ok()? })
    };
    Ok(rows.lines().filter_map(lease).collect())
}

fn wait(what: &str, mut came: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !came() {
        if began.elapsed() > PATIENCE {
            return Err(format!("{what} did not come within {} s.", PATIENCE.as_secs()));
        }
        sleep(LOOK);
    }
    Ok(())
}
