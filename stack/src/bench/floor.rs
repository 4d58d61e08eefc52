//! The floor of reading Kinesis: GetRecords or SubscribeToShard through aws-sdk-kinesis, the
//! records dropped. In its own process, so that its processor time is exactly that.

use std::time::Instant;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use stack::kinesis_client;
use tokio::task::JoinSet;

use super::measure::own_cpu_seconds;

/// The bridge's first limit for a shard, before it knows the size of the records.
const FIRST_LIMIT: i32 = 250;

/// The flags of `stack bench-floor`.
#[derive(clap::Args, Clone, Debug)]
pub struct FloorArgs {
    /// The URL of the Kinesis to read.
    #[arg(long)]
    endpoint: String,
    /// The stream.
    #[arg(long)]
    stream: String,
    /// How many records to request per call.
    #[arg(long, default_value_t = 10_000)]
    limit: i32,
    /// Read by enhanced fan-out.
    #[arg(long)]
    fan_out: bool,
}

/// Reads every shard to its tip, all of them concurrently, and prints records, calls, processor
/// seconds and seconds.
pub async fn run(args: FloorArgs) -> Result<i32, String> {
    let client = kinesis_client(&args.endpoint).await;
    let listed = client
        .list_shards()
        .stream_name(&args.stream)
        .send()
        .await
        .map_err(|error| format!("cannot list the shards of {}: {error:?}", args.stream))?;
    let (began, before) = (Instant::now(), own_cpu_seconds()?);
    let mut shards = JoinSet::new();
    for shard in listed.shards.unwrap_or_default() {
        let (client, args, shard) = (client.clone(), args.clone(), shard.shard_id);
        match args.fan_out {
            true => shards.spawn(async move { receive(client, &shard).await }),
            false => shards.spawn(read(client, args, shard)),
        };
    }
    let (mut records, mut calls) = (0, 0);
    while let Some(done) = shards.join_next().await {
        let (of_shard, asked) = done.map_err(|error| format!("a reader failed: {error}"))??;
        (records, calls) = (records + of_shard, calls + asked);
    }
    println!("{records} {calls} {} {}", own_cpu_seconds()? - before, began.elapsed().as_secs_f64());
    Ok(0)
}

async fn read(client: Client, args: FloorArgs, shard: String) -> Result<(usize, usize), String> {
    let iterator = client
        .get_shard_iterator()
        .stream_name(&args.stream)
        .shard_id(&shard)
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await
        .map_err(|error| format!("no iterator for {shard}: {error:?}"))?;
    let mut iterator = iterator.shard_iterator;
    let (mut records, mut calls, mut limit) = (0, 0, FIRST_LIMIT.min(args.limit));
    while let Some(current) = iterator {
        let answer = client.get_records().shard_iterator(current).limit(limit).send().await;
        let answer = answer.map_err(|error| format!("cannot read {shard}: {error:?}"))?;
        records += answer.records.len();
        calls += 1;
        limit = args.limit;
        iterator = answer.next_shard_iterator.filter(|_| answer.millis_behind_latest != Some(0));
    }
    Ok((records, calls))
}

/// The same with SubscribeToShard, until an event is not behind; the calls are events. The replay
/// server does not look at the consumer.
async fn receive(client: Client, shard: &str) -> Result<(usize, usize), String> {
    let failed = |error: String| format!("cannot subscribe to {shard}: {error}");
    let start = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build();
    let call = client.subscribe_to_shard().consumer_arn("arn:aws:kinesis:any").shard_id(shard);
    let answer = call.starting_position(start.map_err(|error| failed(error.to_string()))?).send().await;
    let mut events = answer.map_err(|error| failed(format!("{error:?}")))?.event_stream;
    let (mut records, mut received) = (0, 0);
    while let Some(event) = events.recv().await.map_err(|error| failed(format!("{error:?}")))? {
        if let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event {
            (records, received) = (records + event.records.len(), received + 1);
            if event.millis_behind_latest == 0 {
                break;
            }
        }
    }
    Ok((records, received))
}
