//! From the put of a record to the query that sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use stack::load::{create_stream, order, order_id};
use stack::{Bridge, LocalStack, kinesis_client};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::BenchArgs;
use super::measure::{Cpu, percentile};
use super::sql::Job;

const SHARDS: i32 = 4;
/// One PutRecords call of [`RECORDS_PER_TICK`] each: 1,000 records a second.
const TICK: Duration = Duration::from_millis(10);
const RECORDS_PER_TICK: u64 = 10;
/// Between two looks of the observer.
const LOOK: Duration = Duration::from_millis(5);
/// Put before the clock counts: the pipe has started by then.
const WARM_UP: Duration = Duration::from_secs(3);
/// Longest time for the last record to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run found. Times are in ms.
pub struct Latency {
    /// Time between GetRecords calls of a shard, ms.
    pub poll_ms: u64,
    /// Records measured.
    pub records: usize,
    /// Put sent to seen by a query, sorted.
    pub seen: Vec<f64>,
    /// Put sent to put acknowledged, sorted.
    pub acknowledged: Vec<f64>,
    /// Processor seconds of each process.
    pub cpu: Vec<(&'static str, f64)>,
    /// Seconds they were counted.
    pub seconds: f64,
    /// Batches a second.
    pub batches_per_second: f64,
}

/// One run with this `poll_ms`.
pub fn run(args: &BenchArgs, runtime: &Runtime, stack: &LocalStack, poll_ms: u64) -> Result<Latency, String> {
    super::step(&format!("latency at 1,000 records/s with linger_ms=50 and poll_ms={poll_ms}"));
    let stream = format!("latency_{poll_ms}");
    let client = runtime.block_on(async {
        let client = kinesis_client(&stack.kinesis.endpoint()).await;
        create_stream(&client, &stream, SHARDS).await.map(|()| client)
    })?;
    let bridge = stack.start_bridge(&args.bridge, &[])?;
    super::throughput::wait_ready(&bridge)?;
    let job = Job::into(stream.clone());
    stack.clickhouse.query(&job.create_table()?)?;
    let parameters = format!("&linger_ms=50&poll_ms={poll_ms}");
    stack.clickhouse.query(&job.create_view(&bridge.url(), &stream, &parameters)?)?;

    let warm_up = WARM_UP.as_millis() as u64;
    let total = (warm_up + args.latency_seconds * 1_000) / TICK.as_millis() as u64 * RECORDS_PER_TICK;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = runtime.spawn(write(client, stream.clone(), total, stop.clone()));
    let cpu = Cpu::start(&[
        ("bridge", &bridge),
        ("ClickHouse", &stack.clickhouse),
        ("emulator", &stack.kinesis),
        ("ZooKeeper", &stack.zookeeper),
    ]);
    let began = Instant::now();
    let seen = observe(stack, &bridge, &job.table, total);
    stop.store(seen.is_err(), Ordering::Relaxed);
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu.used());
    let puts = runtime.block_on(writing).map_err(|error| format!("the writer failed: {error}"))??;
    let seen = seen?;
    super::throughput::verify(stack, &job.table, total)?;
    let batches = super::throughput::served_batches(&bridge)?;
    bridge.stop()?;
    stack.clickhouse.run_script(&job.drop())?;

    let skipped = warm_up / TICK.as_millis() as u64 * RECORDS_PER_TICK;
    let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1_000.0;
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let measured = puts.iter().filter(|put| put.first >= skipped);
    let acknowledged = measured.clone().map(|put| ms(put.sent, put.acknowledged)).collect();
    let of_put = |put: &Put| {
        let (sent, numbers) = (put.sent, put.first..put.first + RECORDS_PER_TICK);
        seen[numbers.start as usize..numbers.end as usize].iter().map(move |seen| ms(sent, *seen)).collect::<Vec<_>>()
    };
    let latencies = sorted(measured.flat_map(of_put).collect());
    Ok(Latency {
        poll_ms,
        records: latencies.len(),
        seen: latencies,
        acknowledged: sorted(acknowledged),
        cpu,
        seconds,
        batches_per_second: batches as f64 / seconds,
    })
}

/// One PutRecords call.
struct Put {
    first: u64,
    sent: Instant,
    acknowledged: Instant,
}

/// Puts orders at a steady rate, whatever the time a call takes.
async fn write(client: Client, stream: String, total: u64, stop: Arc<AtomicBool>) -> Result<Vec<Put>, String> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut calls, mut puts) = (JoinSet::new(), Vec::new());
    for first in (0..total).step_by(RECORDS_PER_TICK as usize) {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        calls.spawn(put(client.clone(), stream.clone(), first));
        while let Some(done) = calls.try_join_next() {
            puts.push(done.map_err(|error| error.to_string())??);
        }
    }
    while let Some(done) = calls.join_next().await {
        puts.push(done.map_err(|error| error.to_string())??);
    }
    Ok(puts)
}

async fn put(client: Client, stream: String, first: u64) -> Result<Put, String> {
    let entry = |number: u64| {
        let data = Blob::new(order(number).into_bytes());
        PutRecordsRequestEntry::builder().partition_key(order_id(number)).data(data).build()
    };
    let entries = (first..first + RECORDS_PER_TICK).map(entry).collect::<Result<Vec<_>, _>>();
    let entries = entries.map_err(|error| format!("cannot build a record: {error}"))?;
    let call = client.put_records().stream_name(stream).set_records(Some(entries));
    let sent = Instant::now();
    let answer = call.send().await.map_err(|error| format!("cannot put records: {error:?}"))?;
    match answer.failed_record_count() {
        None | Some(0) => Ok(Put { first, sent, acknowledged: Instant::now() }),
        Some(refused) => Err(format!("{refused} records were refused")),
    }
}

/// When each record was first in a query's answer.
fn observe(stack: &LocalStack, bridge: &Bridge, table: &str, total: u64) -> Result<Vec<Instant>, String> {
    let mut seen: Vec<Option<Instant>> = vec![None; total as usize];
    // All before it have been seen; `user_id` is the order's number, and leads the table's sorting key.
    let (mut next, mut moved) = (0, Instant::now());
    while next < seen.len() {
        sleep(LOOK);
        let answer = stack.clickhouse.query(&format!("SELECT user_id FROM {table} WHERE user_id >= {next}"))?;
        let now = Instant::now();
        for number in answer.lines().filter_map(|line| line.parse::<usize>().ok()) {
            if let Some(first) = seen.get_mut(number) {
                first.get_or_insert(now);
            }
        }
        let before = next;
        while seen.get(next).is_some_and(Option::is_some) {
            next += 1;
        }
        if next > before {
            moved = now;
        } else if moved.elapsed() > PATIENCE {
            return Err(format!("order {next} of {total} does not come into {table}.{}", bridge.log_tail()));
        }
    }
    Ok(seen.into_iter().flatten().collect())
}

impl Latency {
    /// The latency below which `share` of the records stayed.
    pub fn at(&self, share: f64) -> f64 {
        percentile(&self.seen, share)
    }
}
