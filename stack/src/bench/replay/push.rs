//! SubscribeToShard of the replay server: a shard's records as events, as fast as they are taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;

use super::{Replay, sequence};

/// Bytes of records in an event, about half a second of what AWS pushes of a shard (2 MB a second).
const EVENT_BYTES: usize = 1 << 20;
/// The pause between events without records.
const QUIET: Duration = Duration::from_secs(1);

/// Where a subscription is.
struct Position {
    replay: Arc<Replay>,
    shard: usize,
    next: usize,
    begun: bool,
}

/// The events of a shard from the requested position on; none if the request is not understood.
pub fn subscribe(replay: &Arc<Replay>, request: &Value) -> Option<Response> {
    let (shard, next) = replay.position(request["ShardId"].as_str()?, &request["StartingPosition"], "Type")?;
    let position = Position { replay: replay.clone(), shard, next, begun: false };
    let events = stream::unfold(position, |mut position| async move {
        let event = position.event().await;
        Some((event, position))
    });
    let kind = [(header::CONTENT_TYPE, "application/vnd.amazon.eventstream")];
    Some((kind, Body::from_stream(events)).into_response())
}

impl Position {
    async fn event(&mut self) -> Result<Bytes, String> {
        if !self.begun {
            self.begun = true;
            return framed("initial-response", b"{}");
        }
        if self.next == self.visible() {
            tokio::time::sleep(QUIET).await;
        }
        self.records()
    }

    fn visible(&self) -> usize {
        self.replay.records(self.shard).map_or(0, |records| self.replay.visible(&records))
    }

    /// The next event. Fan-out is served in JSON only.
    fn records(&mut self) -> Result<Bytes, String> {
        let records = self.replay.records(self.shard).ok_or("the shard is not there")?;
        let (visible, records) =
            (self.replay.visible(&records), records.encoded(false).ok_or("the records are served in CBOR only")?);
        let start = self.next.min(visible);
        let next = if start < visible { records.end(start, visible - start, EVENT_BYTES) } else { start };
        self.replay.served.fetch_add((next - start) as u64, Ordering::Relaxed);
        let behind = if next < visible { 1_000 } else { 0 };
        let last = sequence(self.shard as u64, next.saturating_sub(1));
        let rest = format!(r#"],"ContinuationSequenceNumber":"{last}","MillisBehindLatest":{behind}}}"#);
        let payload = [b"{\"Records\":[", records.slice(start..next), rest.as_bytes()].concat();
        self.next = next;
        framed("SubscribeToShardEvent", &payload)
    }
}

fn framed(event: &'static str, payload: &[u8]) -> Result<Bytes, String> {
    let header = |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
    let message = Message::new(Bytes::copy_from_slice(payload))
        .add_header(header(":message-type", "event"))
        .add_header(header(":event-type", event))
        .add_header(header(":content-type", "application/x-amz-json-1.1"));
    let mut frame = Vec::new();
    write_message_to(&message, &mut frame).map_err(|error| format!("an event cannot be framed: {error}"))?;
    Ok(frame.into())
}
