//! The load: orders, with the same bytes for the same numbers, and the calls that put them into a
//! stream.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamStatus};
use tokio::task::JoinSet;

use crate::Result;

/// Most records per PutRecords call.
const RECORDS_PER_CALL: u64 = 500;
/// Enough to keep a local server busy; more would only wait.
const CALLS_IN_FLIGHT: usize = 6;
/// A record refused this often will not be accepted any more.
const MAX_TRIES: u32 = 50;
const ACTIVE_DEADLINE: Duration = Duration::from_secs(30);

const STATUSES: [&str; 4] = ["created", "paid", "shipped", "delivered"];
const NOTES: [&str; 4] = [
    "please leave the parcel at the side door",
    "gift wrap, and no receipt in the parcel",
    "call half an hour before you arrive",
    "fragile: glass, keep this side up, please",
];

/// Statistics of a put.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PutStats {
    /// Records that the stream accepted.
    pub records: u64,
    /// Bytes of their data, without keys.
    pub bytes: u64,
    /// PutRecords calls made.
    pub calls: u64,
    /// Records that were refused and retried.
    pub retried: u64,
    /// The time it took.
    pub elapsed: Duration,
}

/// The id of order `number`, which is also its partition key.
pub fn order_id(number: u64) -> String {
    format!("order-{number:09}")
}

/// Order `number` as JSON, about 200 bytes. `user_id` is `number` modulo 100,003, `price` is in
/// whole cents.
pub fn order(number: u64) -> String {
    // A multiplicative hash: values look random, and are the same in every run.
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let cents = mixed % 100_000 + 1;
    let pick = |values: [&'static str; 4], shift: u32| values[(mixed >> shift) as usize % 4];
    format!(
        r#"{{"id":"{id}","user_id":{user},"price":{whole}.{rest:02},"status":"{status}","items":[{{"sku":"sku-{sku:05}","quantity":{quantity}}},{{"sku":"sku-{second:05}","quantity":1}}],"note":"{note}"}}"#,
        id = order_id(number),
        user = number % 100_003,
        whole = cents / 100,
        rest = cents % 100,
        status = pick(STATUSES, 3),
        sku = mixed % 99_991,
        quantity = mixed % 9 + 1,
        second = (mixed >> 7) % 99_991,
        note = pick(NOTES, 11),
    )
}

/// The orders `from .. from + count`, in order.
pub fn orders(from: u64, count: u64) -> impl Iterator<Item = String> {
    (from..from + count).map(order)
}

/// Creates a stream and waits until it is ACTIVE.
pub async fn create_stream(client: &Client, name: &str, shards: i32) -> Result<()> {
    client
        .create_stream()
        .stream_name(name)
        .shard_count(shards)
        .send()
        .await
        .map_err(|error| format!("cannot create the stream {name}: {}", explain(&error)))?;
    wait_active(client, name).await
}

/// Creates a stream unless it exists, and waits until it is ACTIVE.
pub async fn ensure_stream(client: &Client, name: &str, shards: i32) -> Result<()> {
    let request = client.describe_stream_summary().stream_name(name);
    match request.send().await {
        Ok(_) => wait_active(client, name).await,
        Err(error) if error.code() == Some("ResourceNotFoundException") => create_stream(client, name, shards).await,
        Err(error) => Err(format!("cannot describe the stream {name}: {}", explain(&error))),
    }
}

/// Waits until a stream is ACTIVE, as after its creation or a reshard.
pub async fn wait_active(client: &Client, name: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let summary = client
            .describe_stream_summary()
            .stream_name(name)
            .send()
            .await
            .map_err(|error| format!("cannot describe the stream {name}: {}", explain(&error)))?;
        let status = summary.stream_description_summary().map(|summary| summary.stream_status());
        if status == Some(&StreamStatus::Active) {
            return Ok(());
        }
        if started.elapsed() > ACTIVE_DEADLINE {
            let seconds = ACTIVE_DEADLINE.as_secs();
            return Err(format!("the stream {name} is not ACTIVE after {seconds} s but {status:?}"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Puts the orders `from .. from + count` into a stream, with several calls in flight, so not in
/// order. Records that the stream refuses are retried.
pub async fn put_orders(client: &Client, stream: &str, from: u64, count: u64) -> Result<PutStats> {
    let started = Instant::now();
    let end = from + count;
    let mut next = from;
    let mut calls = JoinSet::new();
    let mut stats = PutStats::default();
    loop {
        while next < end && calls.len() < CALLS_IN_FLIGHT {
            let batch = next..end.min(next + RECORDS_PER_CALL);
            next = batch.end;
            let (client, stream) = (client.clone(), stream.to_owned());
            calls.spawn(async move {
                let records = batch.map(|number| (order_id(number), order(number).into_bytes()));
                put_batch(&client, &stream, records.collect()).await
            });
        }
        let Some(done) = calls.join_next().await else {
            stats.elapsed = started.elapsed();
            return Ok(stats);
        };
        stats.add(done.map_err(|error| format!("a PutRecords task failed: {error}"))??);
    }
}

/// Puts records, each a partition key and its data, call after call and thus in order; refused ones
/// are retried after the others of their call.
pub async fn put_records(
    client: &Client,
    stream: &str,
    records: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> Result<PutStats> {
    let started = Instant::now();
    let mut stats = PutStats::default();
    let mut batch = Vec::new();
    for record in records {
        batch.push(record);
        if batch.len() as u64 == RECORDS_PER_CALL {
            stats.add(put_batch(client, stream, std::mem::take(&mut batch)).await?);
        }
    }
    if !batch.is_empty() {
        stats.add(put_batch(client, stream, batch).await?);
    }
    stats.elapsed = started.elapsed();
    Ok(stats)
}

impl PutStats {
    fn add(&mut self, other: PutStats) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.calls += other.calls;
        self.retried += other.retried;
    }
}

/// One PutRecords call, repeated for as long as some records are refused.
async fn put_batch(client: &Client, stream: &str, records: Vec<(String, Vec<u8>)>) -> Result<PutStats> {
    let mut stats = PutStats {
        records: records.len() as u64,
        bytes: records.iter().map(|(_, data)| data.len() as u64).sum(),
        ..PutStats::default()
    };
    let mut entries = Vec::with_capacity(records.len());
    for (key, data) in records {
        let entry = PutRecordsRequestEntry::builder()
            .partition_key(key)
            .data(Blob::new(data))
            .build()
            .map_err(|error| format!("cannot build a record: {error}"))?;
        entries.push(entry);
    }
    for attempt in 1..=MAX_TRIES {
        let output = client
            .put_records()
            .stream_name(stream)
            .set_records(Some(entries.clone()))
            .send()
            .await
            .map_err(|error| format!("cannot put records into the stream {stream}: {}", explain(&error)))?;
        stats.calls += 1;
        let mut results = output.records().iter();
        entries.retain(|_| results.next().is_some_and(|result| result.error_code().is_some()));
        if entries.is_empty() {
            return Ok(stats);
        }
        stats.retried += entries.len() as u64;
        tokio::time::sleep(Duration::from_millis(20) * attempt).await;
    }
    Err(format!("the stream {stream} refused {} records {MAX_TRIES} times", entries.len()))
}

/// Kinesis' error message, or why it could not be reached.
fn explain<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => DisplayErrorContext(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{order, orders};

    #[test]
    fn an_order_is_the_same_in_every_run() {
        assert_eq!(
            order(7),
            concat!(
                r#"{"id":"order-000000007","user_id":7,"price":53.61,"status":"shipped","#,
                r#""items":[{"sku":"sku-83283","quantity":9},{"sku":"sku-34241","quantity":1}],"#,
                r#""note":"please leave the parcel at the side door"}"#
            )
        );
    }

    #[test]
    fn an_order_is_about_200_bytes() {
        let sizes: Vec<usize> = orders(1_000_000, 1000).map(|order| order.len()).collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((190..=215).contains(&mean), "mean size {mean}");
    }
}
