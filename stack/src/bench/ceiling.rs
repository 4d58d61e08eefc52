//! The engine's ceiling: the exact bytes that the bridge sends, from a static server on loopback,
//! inserted with the same SELECT into the same kind of table, one INSERT per batch of the bridge.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::stream;
use stack::{Bridge, ClickHouse};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::measure::{Cpu, number};
use super::sql::Job;

/// Bytes of one write: about what the bridge passes to a connection at a time.
const PIECE: usize = 1 << 20;
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What the bridge sent for the whole stream, batch by batch.
pub struct Recorded {
    /// The bodies.
    pub batches: Vec<Bytes>,
    /// Processor seconds of the bridge while the bodies went to a client that only stores them.
    pub cpu_seconds: f64,
}

/// Pulls a stream from a bridge with the parameters in `query` and explicit acknowledgement, and
/// keeps the bodies.
pub fn record(
    clickhouse: &ClickHouse,
    bridge: &Bridge,
    pipe: &str,
    query: &str,
    records: u64,
) -> Result<Recorded, String> {
    let url = format!("{}/v1/pipes/{pipe}", bridge.url());
    let (next, ack) = (format!("{url}/next?ack=explicit&{query}"), format!("{url}/ack"));
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(READ_TIMEOUT)).proxy(None).build().into();
    let cpu = Cpu::start(&[("bridge", bridge)]);
    let (mut batches, mut rows) = (Vec::new(), 0);
    while rows < records {
        let mut answer = agent.get(&next).call().map_err(|error| format!("GET {next}: {error}"))?;
        let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec();
        batches.push(Bytes::from(body.map_err(|error| format!("GET {next}: {error}"))?));
        let of_pipe = format!("FROM kinesis.leases WHERE pipe = '{pipe}' AND offered_batch != ''");
        rows += number(clickhouse, &format!("SELECT sum(offered_rows) {of_pipe}"))?;
        let batch = clickhouse.query(&format!("SELECT any(offered_batch) {of_pipe}"))?;
        let acknowledged = format!("{{\"batch\": \"{}\"}}\n", batch.trim());
        agent.post(&ack).send(&acknowledged).map_err(|error| format!("POST {ack}: {error}"))?;
    }
    if rows != records {
        return Err(format!("the bridge served {rows} rows instead of {records}"));
    }
    let cpu_seconds = cpu.used().iter().map(|(_, seconds)| seconds).sum();
    Ok(Recorded { batches, cpu_seconds })
}

/// The static server.
pub struct Static {
    address: SocketAddr,
    batches: usize,
}

impl Static {
    /// Serves the bodies for as long as `runtime` lives.
    pub fn start(runtime: &Runtime, batches: Vec<Bytes>) -> Result<Static, String> {
        let failed = |error: std::io::Error| format!("cannot start the static server: {error}");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let count = batches.len();
        let app = Router::new().route("/{batch}", get(serve)).with_state(Arc::new(batches));
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Static { address, batches: count })
    }

    /// Inserts everything, batch by batch; returns the seconds it took.
    pub fn insert(&self, clickhouse: &ClickHouse, job: &Job) -> Result<f64, String> {
        let began = Instant::now();
        for batch in 0..self.batches {
            clickhouse.query(&job.insert(&format!("http://{}/{batch}", self.address))?)?;
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

/// In pieces and without a length, like the bridge: with a length ClickHouse would read ranges in
/// parallel.
async fn serve(State(batches): State<Arc<Vec<Bytes>>>, Path(batch): Path<usize>) -> Response {
    let Some(body) = batches.get(batch).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let pieces = (0..body.len()).step_by(PIECE).map(move |at| {
        let end = body.len().min(at + PIECE);
        Ok::<_, Infallible>(body.slice(at..end))
    });
    let kind = [(header::CONTENT_TYPE, "application/vnd.apache.arrow.stream")];
    (kind, Body::from_stream(stream::iter(pieces))).into_response()
}
