//! A Kinesis that misbehaves: an HTTP proxy between the SDK and the emulator, which a test controls
//! call by call.

use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_types::date_time::Format;
use aws_smithy_types::{DateTime, base64};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::world::runtime;

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is passed on.
    None,
    /// It is passed on, late.
    Slow(Duration),
    /// AWS's error of this name, with its status.
    Aws(u16, &'static str),
    /// A status without anything that the SDK understands.
    Status(u16),
    /// The connection is closed without a response.
    Reset,
    /// The connection is closed in the middle of the response.
    Cut,
    /// The connection stays open, and no response comes.
    Silent,
    /// It is passed on, and records in the response whose data is [`SMALL`] get [`large`] instead,
    /// which the emulator does not accept.
    Swell,
    /// This many pieces of a streamed response arrive, then half of one, then nothing more.
    Stall(usize),
}

const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";
/// What [`Fault::Swell`] replaces.
pub const SMALL: &str = "to be swollen";

/// A JSON object of the 10 MiB that a record with a key of one byte may have.
pub fn large() -> String {
    let (before, after) = ("{\"text\":\"", "\"}");
    format!("{before}{}{after}", "x".repeat((10 << 20) - 1 - before.len() - after.len()))
}

/// A call as the script sees it.
pub struct Call<'a> {
    /// `GetRecords` and so on.
    pub operation: &'a str,
    /// From 1: the position of this call among those of its operation.
    pub number: usize,
    headers: &'a HeaderMap,
}

impl Call<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The access key that signed it.
    pub fn key(&self) -> &str {
        let (_, credential) = self.header("authorization").split_once("Credential=").unwrap_or_default();
        credential.split('/').next().unwrap_or_default()
    }

    /// The time of its signature, in Unix seconds.
    pub fn signed_at(&self) -> i64 {
        let time = chrono::NaiveDateTime::parse_from_str(self.header("x-amz-date"), "%Y%m%dT%H%M%SZ");
        time.expect("a time").and_utc().timestamp()
    }
}

type Script = Box<dyn FnMut(&Call<'_>) -> Fault + Send>;

/// A running proxy. It ends when it is dropped.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    script: Mutex<Script>,
    calls: Mutex<HashMap<String, usize>>,
    faults: Mutex<usize>,
    stalled: AtomicBool,
    /// The offset of the dates in responses, in seconds; none: they have no date.
    dates: Mutex<Option<i64>>,
    /// GetRecords returns no record that arrived before this, in Unix ms.
    trimmed: AtomicI64,
    /// Calls in CBOR are passed on, as they are; otherwise they are refused.
    cbor: AtomicBool,
}

impl Proxy {
    /// A proxy in front of `upstream`, such as `http://127.0.0.1:4567`.
    pub fn start(upstream: &str, script: impl FnMut(&Call<'_>) -> Fault + Send + 'static) -> Proxy {
        let state = Arc::new(State {
            upstream: upstream.into(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            script: Mutex::new(Box::new(script)),
            calls: Mutex::default(),
            faults: Mutex::default(),
            stalled: AtomicBool::new(false),
            dates: Mutex::new(Some(0)),
            trimmed: AtomicI64::new(0),
            cbor: AtomicBool::new(false),
        });
        let (listener, shared) = (listen(0), state.clone());
        let port = listener.local_addr().expect("an address").port();
        let task = runtime().spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.expect("a connection");
                let state = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| state.clone().pass(request));
                    // What is broken on purpose ends in an error here.
                    let mut server = http1::Builder::new();
                    let _ = server.auto_date_header(false).serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        Proxy { port, state, task }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// While this is set, streamed responses stop for good in the middle of an event.
    pub fn stall(&self, stalled: bool) {
        self.state.stalled.store(stalled, Ordering::Relaxed);
    }

    /// From now on Kinesis' time, as shown by the dates of its responses, is this many seconds
    /// later; none: they have no date.
    pub fn date(&self, seconds: Option<i64>) {
        *self.state.dates.lock().expect("dates") = seconds;
    }

    /// From now on polling gets no record that arrived before this, in Unix ms: it has expired.
    pub fn trim(&self, ms: i64) {
        self.state.trimmed.store(ms, Ordering::Relaxed);
    }

    /// From now on calls in CBOR are passed on.
    pub fn speak_cbor(&self) {
        self.state.cbor.store(true, Ordering::Relaxed);
    }

    /// Calls of an operation so far; `GetRecords in CBOR` are those that were passed on.
    pub fn calls(&self, operation: &str) -> usize {
        self.state.calls.lock().expect("calls").get(operation).copied().unwrap_or(0)
    }

    /// Calls that were not simply passed on.
    pub fn faults(&self) -> usize {
        *self.state.faults.lock().expect("faults")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    /// What happens to a call, with a date.
    async fn pass(
        self: Arc<State>,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, String>>, String> {
        let mut answer = self.clone().answer(request).await?;
        let seconds = *self.dates.lock().expect("dates");
        answer.headers_mut().remove("date");
        if let Some(seconds) = seconds {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs() as i64;
            let date = DateTime::from_secs(now + seconds).fmt(Format::HttpDate).map_err(|e| e.to_string())?;
            answer.headers_mut().insert("date", date.parse().expect("a header"));
        }
        Ok(answer)
    }

    /// The records of a response that have not expired.
    fn kept(&self, body: Bytes) -> Bytes {
        let bound = self.trimmed.load(Ordering::Relaxed);
        let Ok(mut answer) = serde_json::from_slice::<serde_json::Value>(&body) else { return body };
        match answer.get_mut("Records").and_then(|records| records.as_array_mut()) {
            Some(records) if bound > 0 => {
                records.retain(|r| r["ApproximateArrivalTimestamp"].as_f64().is_none_or(|s| s * 1e3 >= bound as f64));
                answer.to_string().into()
            }
            _ => body,
        }
    }

    async fn answer(
        self: Arc<State>,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, String>>, String> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        let target = head.headers.get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let in_cbor = head.headers.get("content-type").is_some_and(|form| form == CBOR);
        if in_cbor && !self.cbor.load(Ordering::Relaxed) {
            return response(400, JSON, "{\"__type\":\"SerializationException\"}".into(), usize::MAX);
        }
        let operation = if in_cbor { &format!("{operation} in CBOR") } else { operation };
        let number = {
            let mut calls = self.calls.lock().expect("calls");
            let number = calls.entry(operation.into()).or_default();
            *number += 1;
            *number
        };
        let fault = self.script.lock().expect("the script")(&Call { operation, number, headers: &head.headers });
        if !matches!(fault, Fault::None) {
            *self.faults.lock().expect("faults") += 1;
        }
        match fault {
            Fault::None | Fault::Swell | Fault::Cut | Fault::Stall(_) => {}
            Fault::Silent => pending().await,
            Fault::Slow(time) => tokio::time::sleep(time).await,
            Fault::Aws(status, name) => {
                let text = format!("{{\"__type\":\"{name}\",\"message\":\"said by the test\"}}");
                return response(status, JSON, text.into(), usize::MAX);
            }
            Fault::Status(status) => return response(status, JSON, "<html>no</html>".into(), usize::MAX),
            Fault::Reset => return Err("reset on purpose".into()),
        }
        let mut forwarded = Request::post(format!("{}/", self.upstream));
        for (name, value) in &head.headers {
            forwarded = forwarded.header(name, value);
        }
        let forwarded = forwarded.body(Full::new(body)).map_err(|e| e.to_string())?;
        let answer = self.client.request(forwarded).await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        if operation == "SubscribeToShard" {
            let (head, body) = answer.into_parts();
            let left = match fault {
                Fault::Stall(pieces) => pieces,
                Fault::Cut => 3,
                _ => usize::MAX,
            };
            let cut = matches!(fault, Fault::Cut);
            return Ok(Response::from_parts(
                head,
                Pushed { body, left, cut, halted: false, state: self }.boxed_unsync(),
            ));
        }
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        let body = match fault {
            Fault::Swell => {
                let data = |text: &str| format!("\"{}\"", base64::encode(text));
                String::from_utf8_lossy(&body).replace(&data(SMALL), &data(&large())).into()
            }
            _ if operation == "GetRecords" => self.kept(body),
            _ => body,
        };
        let sent = if matches!(fault, Fault::Cut) { body.len() / 2 } else { usize::MAX };
        response(status, if in_cbor { CBOR } else { JSON }, body, sent)
    }
}

fn response(
    status: u16,
    form: &str,
    body: Bytes,
    sent: usize,
) -> Result<Response<UnsyncBoxBody<Bytes, String>>, String> {
    let length = body.len();
    let part = Part { left: Some(body.slice(..sent.min(length))), cut: sent < length };
    Response::builder()
        .status(status)
        .header("content-type", form)
        .header("content-length", length)
        .body(part.boxed_unsync())
        .map_err(|e| e.to_string())
}

/// A body that may break before its end.
struct Part {
    left: Option<Bytes>,
    cut: bool,
}

impl Body for Part {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        Poll::Ready(match self.left.take() {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.cut => Some(Err("cut on purpose".into())),
            None => None,
        })
    }
}

/// A body that is passed on as it arrives, until it stops.
struct Pushed {
    body: Incoming,
    left: usize,
    cut: bool,
    halted: bool,
    state: Arc<State>,
}

impl Body for Pushed {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        if self.halted && self.cut {
            return Poll::Ready(Some(Err("cut on purpose".into())));
        }
        // Whatever still arrives is discarded, so that this is polled again and notices when the
        // client is gone.
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        while self.halted && frame.is_some() {
            frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        }
        let Some(frame) = frame else { return if self.halted { Poll::Pending } else { Poll::Ready(None) } };
        let piece = frame.map_err(|e| e.to_string())?.into_data().unwrap_or_default();
        if self.left == 0 || self.state.stalled.load(Ordering::Relaxed) {
            self.halted = true;
            return Poll::Ready(Some(Ok(Frame::data(piece.slice(..piece.len() / 2)))));
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// A TCP relay that is down until it is enabled, and can go down again.
pub struct Relay {
    port: u16,
    target: String,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Relay {
    /// A relay to `target`, a URL, that accepts no connections yet.
    pub fn new(target: &str) -> Relay {
        let target = target.trim_start_matches("http://").to_string();
        Relay { port: stack::free_port().expect("a port"), target, task: Mutex::default() }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts accepting connections.
    pub fn open(&self) {
        let (listener, target) = (listen(self.port), self.target.clone());
        let task = runtime().spawn(async move {
            // Dropped with the task, which ends all connections.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.expect("a connection");
                let target = target.clone();
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        *self.task.lock().expect("the task") = Some(task);
    }

    /// Ends all connections and accepts no more.
    pub fn close(&self) {
        if let Some(task) = self.task.lock().expect("the task").take() {
            task.abort();
            let _ = runtime().block_on(task);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
    }
}

fn listen(port: u16) -> TcpListener {
    runtime().block_on(TcpListener::bind(("127.0.0.1", port))).expect("a listener")
}
