//! Connections, headers, limits: the part of HTTP that has nothing to do with Kinesis.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming as HyperBody;
use hyper::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, USER_AGENT, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::body::Answer;
use super::error;
use super::guard::{Guard, Refused};
use super::handlers::App;
use super::message::{Caller, Incoming, Reply};
use super::refusals::{Reason, Refusals};
use super::request::{Request, parse, shortened};
use super::slots::{Answering, Sending, Slots};
use domain::error::Error;
use domain::interface::Route;
use domain::limits::{
    ACCEPT_REST, BODY_TIMEOUT, GUESS_DELAY, GUESS_WAITERS, HEADER_TIMEOUT, MAX_BODY_BYTES, MAX_CONNECTIONS,
    MAX_HEADER_BYTES, MAX_HEADERS, SILENT_GRACE, SPARE_CONNECTIONS, USER_AGENT_CHARS,
};

/// What the server needs to answer.
pub struct Server {
    app: Arc<App>,
    guard: Guard,
    slots: Arc<Slots>,
    refusals: Arc<Refusals>,
    /// Requests with a wrong token that wait for their refusal.
    guesses: Semaphore,
}

impl Server {
    /// A server that answers whom `guard` lets in.
    pub fn new(app: Arc<App>, guard: Guard) -> Server {
        let refusals = Refusals::new(app.metrics.refused.clone());
        Server { app, guard, slots: Arc::default(), refusals, guesses: Semaphore::new(GUESS_WAITERS) }
    }

    /// Serves until `stop` becomes true, then lets open responses finish.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS + SPARE_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Beyond the limit, connections wait in the kernel's queue.
            let accepted = tokio::select! {
                permit = this.permit(&permits) => tokio::select! {
                    accepted = listener.accept() => accepted.map(|accepted| (accepted, permit)),
                    () = stopped(&mut stop) => break,
                },
                () = stopped(&mut stop) => break,
            };
            while connections.try_join_next().is_some() {}
            let ((stream, peer), permit) = match accepted {
                Ok(accepted) => accepted,
                Err(failed) => {
                    // Usually out of file descriptors: give other connections time to close.
                    warn!("a connection could not be accepted: {failed}");
                    this.make_room();
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            // Small responses must not wait for Nagle's algorithm.
            let _ = stream.set_nodelay(true);
            let (this, stop) = (this.clone(), stop.clone());
            connections.spawn(async move {
                this.connection(TokioIo::new(stream), peer, stop).await;
                drop(permit);
            });
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Leave for one more connection: while there are too many, the silent ones have to go.
    async fn permit(&self, permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = permits.clone().try_acquire_owned() {
                return permit;
            }
            let pause = self.make_room();
            if let Ok(Ok(permit)) = timeout(pause, permits.clone().acquire_owned()).await {
                return permit;
            }
        }
    }

    /// Closes the connection that has been silent for longest, if it has been for long enough.
    /// Returns when to try again.
    fn make_room(&self) -> Duration {
        match self.slots.make_room() {
            Ok(peer) => {
                self.refusals.count(Reason::Silent, peer);
                SILENT_GRACE
            }
            Err(pause) => pause,
        }
    }

    async fn connection(
        self: Arc<Self>,
        io: TokioIo<tokio::net::TcpStream>,
        peer: SocketAddr,
        mut stop: watch::Receiver<bool>,
    ) {
        let cut = Arc::new(Notify::new());
        let slot = self.slots.enter(peer.ip());
        let service = {
            let (cut, slot) = (cut.clone(), slot.clone());
            service_fn(move |request| {
                let (this, cut, slot) = (self.clone(), cut.clone(), slot.clone());
                async move { Ok::<_, Infallible>(this.answer(request, peer, cut, slot.begin()).await) }
            })
        };
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cut.notified() => return warn!("closed connection: client stopped reading"),
            () = slot.left() => return,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(broken) = ended {
            debug!("a connection ended: {broken}");
        }
    }

    async fn answer(
        &self,
        request: hyper::Request<HyperBody>,
        peer: SocketAddr,
        cut: Arc<Notify>,
        mut answering: Answering,
    ) -> Response<Sending> {
        let path = request.uri().path().to_string();
        let parsed = parse(request.method().as_str(), &path, request.uri().query());
        let probe = matches!(parsed, Ok(Request::Healthz | Request::Readyz));
        let head = *request.method() == Method::HEAD && !probe;
        let result = if head {
            Ok(nothing())
        } else {
            let admitted = if probe { Ok(()) } else { self.admit(&request, peer, &mut answering).await };
            match admitted.and(parsed) {
                Ok(parsed) => self.carry_out(parsed, request, peer, cut).await,
                Err(error) => Err(error),
            }
        };
        let mut response = match result {
            Ok(reply) => success(reply),
            Err(error) => {
                debug!(path, code = error.code(), "{error}");
                failure(&error)
            }
        };
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let label = Route::of(&path).map_or("other", |(route, _)| route.label());
        self.app.metrics.requests.with_label_values(&[label, response.status().as_str()]).inc();
        response.map(|answer| Sending { answer, _request: answering })
    }

    /// Whether the request may be answered at all.
    async fn admit(
        &self,
        request: &hyper::Request<HyperBody>,
        peer: SocketAddr,
        answering: &mut Answering,
    ) -> Result<(), Error> {
        let refused = match self.guard.check(request.uri().authority(), request.headers()) {
            Ok(()) if answering.admit() => return Ok(()),
            Ok(()) => Refused {
                reason: Reason::Busy,
                error: Error::Unavailable(format!(
                    "this bridge is answering {MAX_CONNECTIONS} requests already, which is its limit: send fewer at a time"
                )),
            },
            Err(refused) => refused,
        };
        self.refusals.count(refused.reason, peer.ip());
        if refused.reason == Reason::WrongToken
            && let Ok(_waiting) = self.guesses.try_acquire()
        {
            tokio::time::sleep(GUESS_DELAY).await;
        }
        Err(refused.error)
    }

    async fn carry_out(
        &self,
        parsed: Request,
        request: hyper::Request<HyperBody>,
        peer: SocketAddr,
        cut: Arc<Notify>,
    ) -> Result<Reply, Error> {
        let range = range(request.headers())?;
        let caller = Caller { peer, agent: agent(request.headers()) };
        if matches!(parsed, Request::Healthz | Request::Readyz) {
            // Anyone may send this, so no body is waited for.
            return self.app.answer(parsed, Incoming { body: Bytes::new(), range, caller, cut }).await;
        }
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        let body = match timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return Err(Error::BadRequest(format!(
                    "the request's body is broken or longer than {MAX_BODY_BYTES} bytes: send fewer rows at a time"
                )));
            }
            Err(_) => return Err(Error::BadRequest("the request's body did not arrive in time".into())),
        };
        self.app.answer(parsed, Incoming { body, range, caller, cut }).await
    }
}

/// Returns when `stop` becomes true, or its owner is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// `Range: bytes=N-` or `bytes=N-M`. Other units are ignored, as HTTP requires; several ranges are
/// refused.
fn range(headers: &HeaderMap) -> Result<Option<(u64, Option<u64>)>, Error> {
    let Some(text) = headers.get(RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let parsed = text.split_once('-').and_then(|(first, last)| {
        let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
        Some((first.parse().ok()?, last))
    });
    match parsed {
        Some((first, last)) if last.is_none_or(|last: u64| last >= first) => Ok(Some((first, last))),
        _ => Err(Error::RangeNotSatisfiable("a Range must be bytes=N- or bytes=N-M".into())),
    }
}

/// What the client calls itself, cut short.
fn agent(headers: &HeaderMap) -> String {
    headers
        .get(USER_AGENT)
        .map(|agent| shortened(&String::from_utf8_lossy(agent.as_bytes()), USER_AGENT_CHARS))
        .unwrap_or_default()
}

/// The answer to HEAD, which has no effect (**head-has-no-effect**) and no body, so an error could
/// not be read: the GET that follows reports it. No length is announced, or ClickHouse would read
/// ranges in parallel.
fn nothing() -> Reply {
    let (_, body) = super::body::Sender::new(Arc::default(), HEADER_TIMEOUT);
    Reply { body, content_type: "application/octet-stream", part: None }
}

fn success(reply: Reply) -> Response<Answer> {
    let mut response = Response::new(reply.body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if let Some(part) = reply.part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {}-{}/{}", part.first, part.last, part.total);
        if let Ok(range) = HeaderValue::from_str(&range) {
            response.headers_mut().insert(CONTENT_RANGE, range);
        }
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(part.last - part.first + 1));
    }
    response
}

fn failure(error: &Error) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(Bytes::from(error::body(error)))));
    *response.status_mut() = error::status(error);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if matches!(error, Error::Unauthorized(_)) {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
