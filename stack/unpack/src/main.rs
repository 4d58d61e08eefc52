//! Reads a stream and unpacks its records like the bridge. Prints the rows, the processor seconds
//! of unpacking alone, and for comparison those of the MD5 of all payloads, which the KPL aggregate
//! format requires.
//!
//! Both happen on one thread, page by page, so that a page is as warm in the caches as in the
//! bridge.

use std::collections::VecDeque;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use adapters::kinesis::AwsKinesis;
use bridge::metrics::Metrics;
use bridge::read::cursor::Cursor;
use domain::names::StreamName;
use domain::ports::{IteratorStart, KinesisApi};
use domain::unpacking::{Edition, Unpacking};
use formats::unpack::{Rules, Unpacker};
use md5::{Digest, Md5};
use rustix::time::{ClockId, clock_gettime};

/// Chunks that are kept before the oldest is freed: about what the bridge holds, so that memory has
/// the same cost here as there.
const HELD: usize = 128;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [stream, unpacking] => {
            run(&stream.as_str().into(), Unpacking { edition: Edition::default(), ..Unpacking::within(unpacking) })
        }
        _ => Err("usage: bench-unpack STREAM UNPACKING, such as: bench-unpack orders 'split=lines'".to_owned()),
    };
    match outcome {
        Ok((rows, seconds, digests)) => {
            println!("{rows} {seconds} {digests}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-unpack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(stream: &StreamName, unpacking: Unpacking) -> Result<(usize, f64, f64), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(read(stream, unpacking))
}

async fn read(stream: &StreamName, unpacking: Unpacking) -> Result<(usize, f64, f64), String> {
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    let kinesis = AwsKinesis::from_environment(metrics.kinesis_errors).await.map_err(|error| error.to_string())?;
    let kinesis: Arc<dyn KinesisApi> = Arc::new(kinesis);
    let rules = Rules { unpacking, begun: None };
    let (mut rows, mut seconds, mut digests, mut held) = (0, 0.0, 0.0, VecDeque::new());
    for shard in kinesis.shards(stream).await.map_err(|error| error.to_string())? {
        let mut cursor = Cursor::new(kinesis.clone(), stream, &shard.id, IteratorStart::TrimHorizon);
        loop {
            let page = cursor.page(cursor.limit()).await;
            let page = page.map_err(|error| format!("cannot read {}: {error:?}", shard.id))?;
            let began = thread_seconds();
            page.records.records().for_each(|record| _ = black_box(Md5::digest(record.payload)));
            digests += thread_seconds() - began;
            let began = thread_seconds();
            let mut unpacker = Unpacker::new(page.records, 0, rules.clone());
            while let Some(chunk) = unpacker.next_chunk() {
                rows += chunk.len();
                held.push_back(chunk);
                if held.len() > HELD {
                    held.pop_front();
                }
            }
            seconds += thread_seconds() - began;
            if page.millis_behind_latest == 0 {
                break;
            }
        }
    }
    Ok((rows, seconds, digests))
}

/// Processor seconds of this thread.
fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
