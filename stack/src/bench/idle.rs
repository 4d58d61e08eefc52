//! What shards cost in which nothing arrives.

use std::thread::sleep;
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use stack::load::create_stream;
use stack::{LocalStack, kinesis_client};
use tokio::runtime::Runtime;

use super::BenchArgs;
use super::measure::{Cpu, number, own_cpu_seconds};
use super::sql::Job;
use super::throughput::wait_ready;

/// Shards of the stream.
pub const SHARDS: i32 = 200;
/// After this long without a record a shard is asked once a second.
const QUIET: Duration = Duration::from_secs(30);
/// How long processor time is counted.
const COUNTED: Duration = Duration::from_secs(20);
/// Longest time until all shards have leases.
const PATIENCE: Duration = Duration::from_secs(60);

/// The measurements.
pub struct Idle {
    /// Processor seconds of the bridge per second.
    pub share: f64,
    /// Processor seconds of one GetRecords call through the SDK that returns nothing.
    pub call: f64,
}

/// Measures a bridge, then the SDK alone.
pub fn run(args: &BenchArgs, runtime: &Runtime, stack: &LocalStack) -> Result<Idle, String> {
    super::step(&format!("{SHARDS} idle shards"));
    let job = Job::into("idle");
    let client = runtime.block_on(async {
        let client = kinesis_client(&stack.kinesis.endpoint()).await;
        create_stream(&client, &job.table, SHARDS).await.map(|()| client)
    })?;
    let bridge = stack.start_bridge(&args.bridge, &[])?;
    wait_ready(&bridge)?;
    stack.clickhouse.query(&job.create_table()?)?;
    stack.clickhouse.query(&job.create_view(&bridge.url(), &job.table, "")?)?;
    let began = Instant::now();
    let held = "SELECT count() FROM kinesis.leases WHERE pipe = 'idle' AND owner != ''";
    while number(&stack.clickhouse, held)? < SHARDS as u64 {
        if began.elapsed() > PATIENCE {
            return Err(format!("the pipe does not hold its {SHARDS} shards{}", bridge.log_tail()));
        }
        sleep(Duration::from_millis(100));
    }
    sleep(QUIET);
    let cpu = Cpu::start(&[("bridge", &bridge)]);
    sleep(COUNTED);
    let share = cpu.used().iter().map(|(_, seconds)| seconds).sum::<f64>() / COUNTED.as_secs_f64();
    bridge.stop()?;
    stack.clickhouse.run_script(&job.drop())?;
    let call = runtime.block_on(empty_calls(&client, &job.table))?;
    Ok(Idle { share, call })
}

/// Processor seconds of this process for one call that returns nothing.
async fn empty_calls(client: &Client, stream: &str) -> Result<f64, String> {
    const CALLS: u32 = 2_000;
    let asked = client.get_shard_iterator().stream_name(stream).shard_id("shardId-000000000000");
    let answer = asked.shard_iterator_type(ShardIteratorType::Latest).send().await;
    let mut iterator = answer.map_err(|error| format!("no iterator: {error:?}"))?.shard_iterator;
    let before = own_cpu_seconds()?;
    for _ in 0..CALLS {
        let answer = client.get_records().set_shard_iterator(iterator).limit(1_000).send().await;
        iterator = answer.map_err(|error| format!("cannot read: {error:?}"))?.next_shard_iterator;
    }
    Ok((own_cpu_seconds()? - before) / f64::from(CALLS))
}
