//! `stack kinesis`: serves the Kinesis API of the `ferrokinesis` crate.

mod turns;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::serve::ListenerExt;
use ferrokinesis::create_app;
use ferrokinesis::store::{DurableStateOptions, StoreOptions};
use stack::KinesisOptions;
use tokio::net::TcpListener;
use turns::Turns;

/// A PutRecords call of 10 MiB is about 14 MB of JSON with its data in base64; twice that leaves
/// room for keys.
const BODY_LIMIT: usize = 28 * 1024 * 1024;
const SNAPSHOT_INTERVAL_SECONDS: u64 = 60;

/// Serves until the process is terminated.
pub async fn run(listen: SocketAddr, options: KinesisOptions) -> Result<i32, String> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    let (app, store) = create_app(StoreOptions {
        create_stream_ms: options.state_change_ms,
        delete_stream_ms: options.state_change_ms,
        update_stream_ms: options.state_change_ms,
        shard_limit: options.shard_limit,
        iterator_ttl_seconds: options.iterator_ttl_seconds,
        subscribe_to_shard_event_record_limit: options.event_records,
        subscribe_to_shard_session_ms: options.subscription_ms,
        retention_check_interval_secs: options.retention_check_seconds,
        enforce_limits: options.enforce_limits,
        durable: options.state_dir.map(|state_dir| DurableStateOptions {
            state_dir,
            snapshot_interval_secs: SNAPSHOT_INTERVAL_SECONDS,
            max_retained_bytes: None,
        }),
        aws_region: options.region,
        ..StoreOptions::default()
    });
    eprintln!("Kinesis listens on {bound}");
    // Small responses must not wait for the client's delayed acknowledgement.
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let turns = Turns::new(store, Duration::from_millis(options.subscription_ms));
    let in_turn = middleware::from_fn(move |request: Request, next: Next| turns.clone().answer(request, next));
    let serving = axum::serve(listener, app.layer(in_turn).layer(DefaultBodyLimit::max(BODY_LIMIT)));
    tokio::select! {
        ended = serving.into_future() => {
            ended.map_err(|error| format!("the server on {bound} failed: {error}"))?;
        }
        // As the first process of a container it would otherwise ignore the signal.
        signalled = super::termination() => signalled?,
    }
    Ok(0)
}
