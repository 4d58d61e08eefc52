//! A scripted HTTP peer in place of the bridge: answers ClickHouse's requests and records them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use domain::record::RecordRef;
use formats::encode::{Columns, Encoder, Format};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Records in each batch and each bounded read.
pub const RECORDS: u64 = 1_000;

/// A request as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub body: String,
}

/// The peer and what it has seen.
pub struct Peer {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Peer {
    /// Listens on a free port for as long as the runtime lives.
    pub async fn start() -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let seen = Arc::clone(&noting);
                let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(connection), service));
            }
        });
        Peer { port, seen }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// The targets of the GET requests so far; clears them.
    pub fn take_gets(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.seen.lock().expect("no panic"));
        seen.into_iter().filter(|request| request.method == "GET").map(|request| request.target).collect()
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Mutex<Vec<Seen>>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(String::from);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let target = head.uri.to_string();
    let served = {
        let mut seen = seen.lock().expect("no panic");
        let served = seen.iter().filter(|s| s.method == "GET" && s.target == target).count();
        seen.push(Seen {
            method: head.method.to_string(),
            target,
            authorization,
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        served
    };
    if head.method != Method::GET {
        return Ok(Response::new(Full::default()));
    }
    let query: HashMap<&str, &str> =
        head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let bytes = match head.uri.path().rsplit('/').next() {
        // The same batch twice, as after a failure; then nothing, slowly.
        Some("next") if served < 2 => records(Some("0123456789abcdef"), 0..RECORDS, Format::ArrowStream),
        Some("next") => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            records(Some(""), 0..0, Format::ArrowStream)
        }
        Some("records") => {
            let slice = query.get("slice").and_then(|slice| slice.split_once('/'));
            let (i, n) = slice.map_or((0, 1), |(i, n)| (i.parse().expect("i"), n.parse().expect("n")));
            records(None, RECORDS * i / n..RECORDS * (i + 1) / n, Format::ArrowStream)
        }
        Some("healthz") => "ok\n".into(),
        Some("sample") => records(None, 0..10, Format::JsonEachRow),
        Some("pipes") => concat!(
            r#"{"pipe":"orders","state":"reading","millis_behind_latest":null,"last_commit_time":null}"#,
            "\n",
            r#"{"pipe":"orders","state":"reading","millis_behind_latest":7,"last_commit_time":"2026-11-21 10:00:00.000"}"#,
            "\n",
            r#"{"pipe":"orders","shard_id":"shardId-2","state":"gap","millis_behind_latest":5,"last_error":"is gone"}"#,
            "\n",
        )
        .into(),
        Some("streams") => r#"{"stream":"orders","arn":"arn","status":"ACTIVE","mode":"ON_DEMAND","open_shards":4,"retention_hours":24}"#.into(),
        Some("shards") => r#"{"shard_id":"shardId-000000000000","parent_shard_id":""}"#.into(),
        other => panic!("{other:?}"),
    };
    Ok(Response::new(Full::new(bytes)))
}

/// Orders of the usual load, from two shards.
fn records(batch: Option<&str>, numbers: std::ops::Range<u64>, format: Format) -> Bytes {
    let columns = Columns {
        batch: batch.map(Into::into),
        stream: "orders".into(),
        shards: vec!["shardId-000000000000".into(), "shardId-000000000001".into()],
    };
    let mut encoder = Encoder::new(format, &columns).expect("an encoder");
    for n in numbers {
        let (key, sequence, payload) = (stack::load::order_id(n), format!("4966{n:052}"), stack::load::order(n));
        let record = RecordRef {
            key: &key,
            timestamp_ms: 1_795_255_200_000 + n as i64,
            sequence_number: &sequence,
            sub_sequence: 0,
            payload: payload.as_bytes(),
        };
        encoder.push(record, n as usize % 2).expect("a record");
    }
    let mut bytes = Vec::new();
    while let Some(piece) = encoder.take() {
        bytes.extend_from_slice(&piece);
    }
    let (rest, tail) = encoder.finish().expect("an end");
    rest.iter().chain([&tail]).for_each(|piece| bytes.extend_from_slice(piece));
    bytes.into()
}
