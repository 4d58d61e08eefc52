//! One request at a time: ferrokinesis 0.7.0 holds a lock of a concurrent map while it awaits
//! another lock, and deadlocks permanently when reads and writes of a stream coincide.
//!
//! A subscription lasts for minutes and reads the store again and again. So it is split up: each
//! event is the first one of its own subscription, starting where the last event ended. That is
//! what ferrokinesis does in its loop, but in turn with everything else, and as soon as something
//! was written instead of every 200 ms. It also restores the position, which ferrokinesis 0.7.0
//! drops from a request when it validates it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use ferrokinesis::actions::subscribe_to_shard::execute_streaming;
use ferrokinesis::store::Store;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

/// A subscription request is small.
const SUBSCRIBE_LIMIT: usize = 64 * 1024;
/// How often a subscription gets an event without records, as in ferrokinesis.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// The content type of a subscription's events.
const JSON: &str = "application/x-amz-json-1.1";
/// Least time between two events of a subscription.
const BREATH: Duration = Duration::from_millis(10);

/// Whose turn it is.
#[derive(Clone)]
pub struct Turns {
    store: Store,
    turn: Arc<Semaphore>,
    /// Notified after each request that may have changed something.
    written: watch::Sender<()>,
    /// How long a subscription lives.
    life: Duration,
}

impl Turns {
    pub fn new(store: Store, life: Duration) -> Turns {
        Turns { store, turn: Arc::new(Semaphore::new(1)), written: watch::Sender::new(()), life }
    }

    /// Answers a request when its turn has come.
    pub async fn answer(self, request: Request, next: Next) -> Response {
        let target = request.headers().get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let reads = ["Get", "Describe", "List"].iter().any(|prefix| operation.starts_with(prefix));
        if operation == "SubscribeToShard" {
            return self.subscribe(request, next).await;
        }
        let answer = self.in_turn(request, next).await;
        if !reads {
            self.written.send_replace(());
        }
        answer
    }

    async fn in_turn(&self, request: Request, next: Next) -> Response {
        let _turn = self.turn.acquire().await;
        next.run(request).await
    }

    async fn subscribe(self, request: Request, next: Next) -> Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, SUBSCRIBE_LIMIT).await.unwrap_or_default();
        let asked = serde_json::from_slice(&body).unwrap_or_default();
        // Validating the caller, the consumer and the shard is left to ferrokinesis.
        let begun = self.in_turn(Request::from_parts(head, Body::from(body)), next).await;
        if begun.status() != StatusCode::OK {
            return begun;
        }
        let (answer, _) = begun.into_parts();
        let ends = Instant::now() + self.life;
        let mut subscription = Subscription { written: self.written.subscribe(), turns: self, asked };
        let Some((greeting, first)) = subscription.event().await else {
            return Response::from_parts(answer, Body::empty());
        };
        let (sender, events) = mpsc::channel(1);
        tokio::spawn(async move {
            if sender.send(greeting).await.is_ok() {
                subscription.push(first, &sender, ends).await;
            }
        });
        let body = stream::unfold(events, async |mut events| {
            events.recv().await.map(|event| (Ok::<Bytes, io::Error>(event), events))
        });
        Response::from_parts(answer, Body::from_stream(body))
    }
}

/// A subscription as the client sees it.
struct Subscription {
    turns: Turns,
    written: watch::Receiver<()>,
    asked: Value,
}

/// The contents of an event, as far as needed here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pushed {
    records: Vec<IgnoredAny>,
    continuation_sequence_number: String,
    child_shards: Vec<IgnoredAny>,
}

impl Subscription {
    /// Sends events until the shard or the subscription ends, or the client goes away.
    async fn push(mut self, mut event: Bytes, sender: &mpsc::Sender<Bytes>, ends: Instant) {
        let (mut sent, mut heartbeat) = (Instant::now(), true);
        while let Some(pushed) = parse(&event) {
            if heartbeat || !pushed.records.is_empty() {
                if sender.send(event).await.is_err() {
                    return;
                }
                sent = Instant::now();
            }
            let ended = pushed.records.is_empty() && !pushed.child_shards.is_empty();
            if ended || Instant::now() >= ends {
                return;
            }
            self.asked["StartingPosition"] =
                json!({"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": pushed.continuation_sequence_number});
            sleep_until(sent + BREATH).await;
            heartbeat = timeout_at(sent + HEARTBEAT, self.written.changed()).await.is_err();
            match self.event().await {
                Some((_, next)) => event = next,
                // The stream or the consumer is gone.
                None => return,
            }
        }
    }

    /// The first event after the requested position, and what comes before it.
    async fn event(&mut self) -> Option<(Bytes, Bytes)> {
        let _turn = self.turns.turn.acquire().await;
        // From here on, writes count.
        self.written.mark_unchanged();
        let body = execute_streaming(&self.turns.store, self.asked.clone(), JSON).await.ok()?;
        let mut frames = body.into_data_stream();
        let mut frame = async || frames.next().await?.ok();
        Some((frame().await?, frame().await?))
    }
}

/// Parses an event: prelude (total length, length of the headers, checksum), headers, payload,
/// checksum.
fn parse(frame: &Bytes) -> Option<Pushed> {
    let headers = u32::from_be_bytes(frame.get(4..8)?.try_into().ok()?) as usize;
    serde_json::from_slice(frame.get(12 + headers..frame.len().checked_sub(4)?)?).ok()
}
