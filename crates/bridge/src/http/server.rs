//! Connections, headers, limits: the part of HTTP that has nothing to do with Kinesis.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming as HyperBody;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::body::Answer;
use super::error;
use super::handlers::{App, Incoming, Reply};
use super::request::{Request, parse};
use domain::error::Error;
use domain::interface::Route;
use domain::limits::{
    ACCEPT_REST, BODY_TIMEOUT, HEADER_TIMEOUT, MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_HEADER_BYTES, MAX_HEADERS,
};
use domain::secret::Secret;

/// What the server needs to answer.
pub struct Server {
    /// The handlers.
    pub app: Arc<App>,
    /// The bearer token that every request but the probes must carry.
    pub token: Option<Secret>,
}

impl Server {
    /// Serves until `stop` becomes true, then lets open responses finish.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Beyond the limit, connections wait in the kernel's queue.
            let Ok(permit) = permits.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
            };
            while connections.try_join_next().is_some() {}
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(failed) => {
                    // Usually out of file descriptors: give other connections time to close.
                    warn!("a connection could not be accepted: {failed}");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            // Small responses must not wait for Nagle's algorithm.
            let _ = stream.set_nodelay(true);
            let (this, stop) = (this.clone(), stop.clone());
            connections.spawn(async move {
                this.connection(TokioIo::new(stream), stop).await;
                drop(permit);
            });
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self: Arc<Self>, io: TokioIo<tokio::net::TcpStream>, mut stop: watch::Receiver<bool>) {
        let cut = Arc::new(Notify::new());
        let service = {
            let cut = cut.clone();
            service_fn(move |request| {
                let (this, cut) = (self.clone(), cut.clone());
                async move { Ok::<_, Infallible>(this.answer(request, cut).await) }
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
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(broken) = ended {
            debug!("a connection ended: {broken}");
        }
    }

    async fn answer(&self, request: hyper::Request<HyperBody>, cut: Arc<Notify>) -> Response<Answer> {
        let head = *request.method() == Method::HEAD;
        let path = request.uri().path().to_string();
        let parsed = parse(request.method().as_str(), &path, request.uri().query());
        let probe = matches!(parsed, Ok(Request::Healthz | Request::Readyz));
        let allowed = if probe { Ok(()) } else { self.allowed(request.headers()) };
        let result = match allowed.and(parsed) {
            Ok(parsed) if !head || probe => self.carry_out(parsed, request, cut).await,
            Ok(_) => Ok(Reply { body: Answer::Whole(None), content_type: "application/octet-stream", part: None }),
            Err(error) => Err(error),
        };
        let mut response = match result {
            Ok(reply) => success(reply),
            Err(error) => {
                if !head {
                    debug!(path, code = error.code(), "{error}");
                }
                failure(&error)
            }
        };
        if head && !probe {
            // HEAD has no effect (**head-has-no-effect**) and no body, so an error could not be
            // read: the GET that follows reports it. No length is announced, or ClickHouse would
            // read ranges in parallel.
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(CONTENT_LENGTH);
            let (_, body) = super::body::Sender::new(Arc::default(), HEADER_TIMEOUT);
            *response.body_mut() = body;
        }
        let label = Route::of(&path).map_or("other", |(route, _)| route.label());
        self.app.metrics.requests.with_label_values(&[label, response.status().as_str()]).inc();
        response
    }

    async fn carry_out(
        &self,
        parsed: Request,
        request: hyper::Request<HyperBody>,
        cut: Arc<Notify>,
    ) -> Result<Reply, Error> {
        let range = range(request.headers())?;
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
        self.app.answer(parsed, Incoming { body, range, cut }).await
    }

    fn allowed(&self, headers: &HeaderMap) -> Result<(), Error> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(|v| v.strip_prefix(b"Bearer "));
        match given {
            Some(given) if token.matches(given) => Ok(()),
            Some(_) => Err(Error::Unauthorized(
                "the bearer token is not this bridge's: use the one in its --token-file, and run `clickhouse-kinesis-bridge \
                 sql setup` with that file again to update the named collection"
                    .into(),
            )),
            None => Err(Error::Unauthorized(
                "this bridge requires a bearer token: pass headers('Authorization' = 'Bearer …') to url(), or use the named collection".into(),
            )),
        }
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
    response
}
