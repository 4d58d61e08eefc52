//! From the put of a record to the query that sees it; for comparison, the same rows by INSERT,
//! without Kinesis and without a bridge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use stack::load::{create_stream, order, order_id};
use stack::{Engine, LocalStack, Service, kinesis_client};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::BenchArgs;
use super::measure::Cpu;
use super::sql::Job;

const SHARDS: i32 = 4;
/// One PutRecords call of [`RECORDS_PER_TICK`] each: 1,000 records a second.
const TICK: Duration = Duration::from_millis(10);
const RECORDS_PER_TICK: u64 = 10;
/// Ticks per INSERT of the floor: 50 ms, like the pipe's `linger_ms`.
const TICKS_PER_INSERT: u64 = 5;
/// Time between two queries of the observer. With 5 ms they take most of a core, and every insert
/// waits for them.
const LOOK: Duration = Duration::from_millis(15);
/// Records put before measuring starts: the pipe has started by then.
const WARM_UP: Duration = Duration::from_secs(3);
/// Longest time for the last record to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way of reading.
#[derive(Clone, Copy)]
struct Way {
    /// Parameters in the view's URL, in addition to those of README's SQL.
    parameters: &'static str,
    /// The pause of the view's own schedule; the example has a different one.
    after: Option<&'static str>,
    /// The name of the stream and the table.
    stream: &'static str,
    /// The target for the median latency.
    aim: &'static str,
}

/// README's SQL.
const DEFAULT: Way = Way { parameters: "", after: None, stream: "latency_default", aim: "< 250 ms" };
/// README's SQL with fan-out.
const DEFAULT_PUSHED: Way = Way { parameters: "&mode=efo", after: None, stream: "latency_efo", aim: "< 100 ms" };
/// What AWS allows a single polling consumer.
const POLLED: Way = Way { parameters: "&linger_ms=50&poll_ms=200", after: None, stream: "latency_polled", aim: "" };
/// More than AWS would allow.
const POLLED_OFTEN: Way =
    Way { parameters: "&linger_ms=50&poll_ms=20", after: None, stream: "latency_polled_often", aim: "< 80 ms" };
/// Fan-out.
const PUSHED: Way = Way { parameters: "&linger_ms=50&mode=efo", after: None, stream: "latency_pushed", aim: "< 60 ms" };
/// The view starts its own refreshes, which only works from 26.7 on.
const AT_ONCE: Way = Way {
    parameters: "&linger_ms=50&poll_ms=20",
    after: Some("REFRESH AFTER 0 SECOND"),
    stream: "latency_at_once",
    aim: "",
};
/// The time that 25.8 LTS may take, as a multiple of that of 26.7.
const OLDER_AIM: &str = "<= 1.5";

/// The result of one run. Times are in ms.
pub struct Latency {
    /// How it read, and on which engine if it was another one.
    pub how: String,
    /// What it is compared with: a name, and sorted times.
    pub beside: (&'static str, Vec<f64>),
    /// The target for the median latency, or for its ratio.
    pub aim: &'static str,
    /// Records measured.
    pub records: usize,
    /// Put sent to seen by a query, sorted.
    pub seen: Vec<f64>,
    /// Put sent to put acknowledged, sorted.
    pub acknowledged: Vec<f64>,
    /// Processor seconds of each process.
    pub cpu: Vec<(&'static str, f64)>,
    /// The seconds over which they were counted.
    pub seconds: f64,
    /// Batches per second.
    pub batches_per_second: f64,
}

/// All ways on `stack`, compared with the floor; a view that starts its own refreshes, compared
/// with one that the bridge starts; and 25.8 compared with 26.7.
pub fn all(args: &BenchArgs, runtime: &Runtime, stack: &LocalStack) -> Result<Vec<Latency>, String> {
    let floor = floor(args, stack)?;
    let run = |stack: &LocalStack, way, label, peer: &Vec<f64>| one(args, runtime, stack, way, (label, peer.clone()));
    let mut all = Vec::new();
    for way in [DEFAULT, DEFAULT_PUSHED, POLLED, POLLED_OFTEN, PUSHED] {
        all.push(run(stack, way, "INSERT every 50 ms, no Kinesis", &floor)?);
    }
    let [.., often, pushed] = &all[..] else { return Err("five ways have five results".into()) };
    let (often, pushed) = (often.seen.clone(), pushed.seen.clone());
    all.push(run(stack, AT_ONCE, "REFRESH AFTER 2 SECOND", &often)?);
    let older = LocalStack::start(Engine::V25_8)?;
    for (way, peer) in [(POLLED_OFTEN, &often), (PUSHED, &pushed)] {
        let found = run(&older, way, "26.7", peer)?;
        all.push(Latency { how: format!("25.8, {}", found.how), aim: OLDER_AIM, ..found });
    }
    Ok(all)
}

/// One run.
fn one(
    args: &BenchArgs,
    runtime: &Runtime,
    stack: &LocalStack,
    way: Way,
    beside: (&'static str, Vec<f64>),
) -> Result<Latency, String> {
    let parameters = way.parameters.split('&').filter(|parameter| !parameter.is_empty());
    let mut how = parameters.chain(way.after).collect::<Vec<_>>().join(", ");
    if way.parameters.is_empty() {
        how = "README's SQL".into();
    }
    super::step(&format!("latency at 1,000 records/s: {how}"));
    let stream = way.stream.to_owned();
    let client = runtime.block_on(async {
        let client = kinesis_client(&stack.kinesis.endpoint()).await;
        create_stream(&client, &stream, SHARDS).await.map(|()| client)
    })?;
    let bridge = stack.start_bridge(&args.bridge, &[])?;
    super::throughput::wait_ready(&bridge)?;
    let job = Job::into(stream.clone());
    stack.clickhouse.query(&job.create_table()?)?;
    let view = job.create_view(&bridge.url(), &stream, way.parameters)?;
    let view = match way.after {
        Some(after) => view.replace("REFRESH AFTER 2 SECOND", after),
        None => view,
    };
    stack.clickhouse.query(&view)?;

    let processes: [(&str, &Service); 4] = [
        ("bridge", &bridge),
        ("ClickHouse", &stack.clickhouse),
        ("emulator", &stack.kinesis),
        ("ZooKeeper", &stack.zookeeper),
    ];
    let flow = flow(args, runtime, stack, (client, &stream, &job.table), &processes)
        .map_err(|error| format!("{error}{}", bridge.log_tail()))?;
    let batches = super::throughput::served_batches(&bridge)?;
    bridge.stop()?;
    stack.clickhouse.run_script(&job.drop())?;
    Ok(Latency {
        how,
        beside,
        aim: way.aim,
        records: flow.seen.len(),
        seen: flow.seen,
        acknowledged: flow.acknowledged,
        cpu: flow.cpu,
        seconds: flow.seconds,
        batches_per_second: batches as f64 / flow.seconds,
    })
}

/// Records at a steady rate, and when they were seen. Times are in ms, sorted.
pub struct Flow {
    /// Put sent to seen by a query.
    pub seen: Vec<f64>,
    /// Put sent to put acknowledged.
    pub acknowledged: Vec<f64>,
    /// Processor seconds of each process.
    pub cpu: Vec<(&'static str, f64)>,
    /// The seconds over which they were counted.
    pub seconds: f64,
}

/// Puts 1,000 records a second into a stream, from order 0 on, and watches them come into an empty
/// table, each once.
pub fn flow(
    args: &BenchArgs,
    runtime: &Runtime,
    stack: &LocalStack,
    (client, stream, table): (Client, &str, &str),
    processes: &[(&'static str, &Service)],
) -> Result<Flow, String> {
    let (skipped, total) = (ticks(WARM_UP) * RECORDS_PER_TICK, total(args));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = runtime.spawn(write(client, stream.to_owned(), total, stop.clone()));
    let cpu = Cpu::start(processes);
    let began = Instant::now();
    let seen = observe(stack, table, total);
    stop.store(seen.is_err(), Ordering::Relaxed);
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu.used());
    let puts = runtime.block_on(writing).map_err(|error| format!("the writer failed: {error}"))??;
    let seen = seen?;
    super::throughput::verify(stack, table, total)?;

    let measured = puts.iter().filter(|put| put.first >= skipped);
    let acknowledged = measured.clone().map(|put| ms(put.sent, put.acknowledged)).collect();
    let of_put = |put: &Put| {
        let (sent, numbers) = (put.sent, put.first..put.first + RECORDS_PER_TICK);
        seen[numbers.start as usize..numbers.end as usize].iter().map(move |seen| ms(sent, *seen)).collect::<Vec<_>>()
    };
    let seen = sorted(measured.flat_map(of_put).collect());
    Ok(Flow { seen, acknowledged: sorted(acknowledged), cpu, seconds })
}

/// The floor: an INSERT every 50 ms of the rows of that interval, seen by the same observer. Sorted
/// ms.
fn floor(args: &BenchArgs, stack: &LocalStack) -> Result<Vec<f64>, String> {
    super::step("latency of an INSERT every 50 ms, without Kinesis and without a bridge");
    let job = Job::into("latency_floor");
    stack.clickhouse.query(&job.create_table()?)?;
    let (skipped, total) = (ticks(WARM_UP) * RECORDS_PER_TICK, total(args));
    let began = Instant::now();
    // The time at which a row is due, not when a delayed loop gets to it.
    let due = |number: u64| began + TICK * (number / RECORDS_PER_TICK) as u32;
    let seen = scope(|threads| {
        let inserting = threads.spawn(|| insert(stack, &job, total, due));
        let seen = observe(stack, &job.table, total);
        match inserting.join() {
            Ok(inserted) => inserted.and(seen),
            Err(_) => Err("the inserting thread failed".to_owned()),
        }
    })?;
    super::throughput::verify(stack, &job.table, total)?;
    stack.clickhouse.run_script(&job.drop())?;
    Ok(sorted((skipped..total).map(|number| ms(due(number), seen[number as usize])).collect()))
}

fn insert(stack: &LocalStack, job: &Job, total: u64, due: impl Fn(u64) -> Instant) -> Result<(), String> {
    for first in (0..total).step_by((RECORDS_PER_TICK * TICKS_PER_INSERT) as usize) {
        let numbers = first..total.min(first + RECORDS_PER_TICK * TICKS_PER_INSERT);
        sleep(due(numbers.end).saturating_duration_since(Instant::now()));
        let rows: Vec<String> =
            numbers.map(|n| format!("('{}',{n},1.5,now64(3),'shard','{n}')", order_id(n))).collect();
        let columns = "id, user_id, price, _timestamp, _shard_id, _sequence_number";
        stack.clickhouse.query(&format!("INSERT INTO {} ({columns}) VALUES {}", job.table, rows.join(",")))?;
    }
    Ok(())
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

/// Number of records in a run, including the warm-up.
fn total(args: &BenchArgs) -> u64 {
    ticks(WARM_UP + Duration::from_secs(args.latency_seconds)) * RECORDS_PER_TICK
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1_000.0
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// One PutRecords call.
struct Put {
    first: u64,
    sent: Instant,
    acknowledged: Instant,
}

/// Puts orders at a steady rate, whatever the duration of a call.
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

/// When each record first appeared in a query's result.
fn observe(stack: &LocalStack, table: &str, total: u64) -> Result<Vec<Instant>, String> {
    let mut seen: Vec<Option<Instant>> = vec![None; total as usize];
    // Everything before it has been seen; `user_id` is the order's number, and comes first in the
    // table's sorting key.
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
            return Err(format!("order {next} of {total} does not come into {table}."));
        }
    }
    Ok(seen.into_iter().flatten().collect())
}
