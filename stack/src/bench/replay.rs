//! A Kinesis that only replays: the few calls needed for reading, answered from records rendered
//! beforehand.
//!
//! The emulator needs more processor time per record than the bridge does, so the bridge would be
//! mostly idle next to it. Here a response is a copy out of memory: what remains is the bridge's
//! own work. With `--live` it also serves other clients, and takes new records.

mod push;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_smithy_types::base64;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use ciborium::Value as Cbor;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use stack::REGION;
use stack::load::order_id;
use tokio::net::TcpListener;

use super::shape::Shape;

/// What AWS's Java SDK speaks.
const CBOR: &str = "application/x-amz-cbor-1.1";
/// What the others speak.
const JSON: &str = "application/x-amz-json-1.1";
/// Records returned by GetRecords if no limit is given (AWS).
const MAX_RECORDS: u64 = 10_000;
/// Largest GetRecords response (AWS: 10 MiB), as base64 in JSON.
const MAX_ANSWER: usize = 14 << 20;
/// Prefix of the sequence numbers, which have as many digits as AWS's today: a constant, the shard,
/// the record.
const SEQUENCE_PREFIX: &str = "49650000000000000000000000";
const RECORD_DIGITS: usize = 26;

/// The flags of `stack bench-replay`.
#[derive(clap::Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The TCP port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// The stream, the only one.
    #[arg(long)]
    stream: String,
    /// Its shards.
    #[arg(long, default_value_t = 4)]
    shards: u64,
    /// Its orders, over all shards.
    #[arg(long)]
    records: u64,
    /// Pad each order's JSON to this many bytes; 0 leaves the orders as they are, about 200 bytes.
    #[arg(long, default_value_t = 0)]
    record_bytes: usize,
    /// How orders become records.
    #[arg(long, value_enum, default_value_t = Shape::Plain)]
    shape: Shape,
    /// Answer GetRecords in CBOR, and only in that.
    #[arg(long)]
    cbor: bool,
    /// Answer each client in the encoding it asks for, and hold back all but the first record of
    /// each shard until POST /release.
    #[arg(long, conflicts_with = "cbor")]
    live: bool,
}

/// A stream in memory.
struct Replay {
    stream: String,
    shards: Vec<RwLock<Records>>,
    payload_bytes: u64,
    held_back: AtomicBool,
    calls: AtomicU64,
    served: AtomicU64,
    largest_limit: AtomicU64,
}

/// The records of a shard, in each encoding that is served.
struct Records {
    json: Option<Shard>,
    cbor: Option<Shard>,
}

impl Records {
    fn of(args: &ReplayArgs) -> Records {
        let shard = |commas| Shard { commas, ..Shard::default() };
        Records { json: (!args.cbor).then(|| shard(true)), cbor: (args.cbor || args.live).then(|| shard(false)) }
    }

    fn encoded(&self, cbor: bool) -> Option<&Shard> {
        if cbor { self.cbor.as_ref() } else { self.json.as_ref() }
    }

    fn len(&self) -> usize {
        self.json.as_ref().or(self.cbor.as_ref()).map_or(0, |shard| shard.ends.len())
    }

    fn push(&mut self, sequence: &str, arrival: f64, payload: &[u8], key: &str) -> Result<(), String> {
        if let Some(json) = &mut self.json {
            json.push(&in_json(sequence, arrival, payload, key));
        }
        if let Some(cbor) = &mut self.cbor {
            cbor.push(&in_cbor(sequence, arrival, payload, key)?);
        }
        Ok(())
    }
}

/// Records as they appear in a response; in JSON, separated by commas.
#[derive(Default)]
struct Shard {
    bytes: Vec<u8>,
    /// Where each record ends, without its comma.
    ends: Vec<usize>,
    commas: bool,
}

impl Shard {
    /// Where a response ends that starts with record `start` and has at most `limit` records and
    /// `most` bytes: as with AWS, at least one record.
    fn end(&self, start: usize, limit: usize, most: usize) -> usize {
        let room = start.checked_sub(1).map_or(0, |before| self.ends[before]) + most;
        let fitting = self.ends.partition_point(|end| *end <= room).max(start + 1);
        fitting.min(start + limit).min(self.ends.len())
    }

    fn push(&mut self, record: &[u8]) {
        if self.commas && !self.ends.is_empty() {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// The records `range` as the inside of an array.
    fn slice(&self, range: Range<usize>) -> &[u8] {
        let Some(last) = range.end.checked_sub(1).filter(|_| !range.is_empty()) else { return &[] };
        let start = range.start.checked_sub(1).map_or(0, |before| self.ends[before] + usize::from(self.commas));
        &self.bytes[start..self.ends[last]]
    }
}

/// Renders the records, then serves them until the process is terminated.
pub async fn run(args: ReplayArgs) -> Result<i32, String> {
    let address = SocketAddr::from(([127, 0, 0, 1], args.port));
    let replay = Arc::new(render(&args)?);
    let bytes = replay.payload_bytes;
    let app = Router::new().route("/", post(call)).route("/stats", get(stats)).route("/release", post(release));
    let app = app.with_state(replay);
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    eprintln!("replaying {} records, {bytes} bytes, on {address}", args.records);
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, app).await.map_err(|error| format!("the server on {address} failed: {error}"))?;
    Ok(0)
}

/// Order `number` is row `number / shards` of shard `number % shards`.
fn render(args: &ReplayArgs) -> Result<Replay, String> {
    let arrival = now();
    let mut payload_bytes = 0;
    let mut shards = Vec::new();
    for shard in 0..args.shards {
        let mut records = Records::of(args);
        let orders: Vec<u64> = (shard..args.records).step_by(args.shards.max(1) as usize).collect();
        for (index, numbers) in orders.chunks(args.shape.rows() as usize).enumerate() {
            let payload = args.shape.pack(numbers, args.record_bytes)?;
            payload_bytes += payload.len() as u64;
            records.push(&sequence(shard, index), arrival, &payload, &order_id(numbers[0]))?;
        }
        shards.push(RwLock::new(records));
    }
    Ok(Replay {
        stream: args.stream.clone(),
        shards,
        payload_bytes,
        held_back: args.live.into(),
        calls: AtomicU64::new(0),
        served: AtomicU64::new(0),
        largest_limit: AtomicU64::new(0),
    })
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn in_json(sequence: &str, arrival: f64, payload: &[u8], key: &str) -> Vec<u8> {
    let data = base64::encode(payload);
    format!(
        r#"{{"SequenceNumber":"{sequence}","ApproximateArrivalTimestamp":{arrival:.3},"Data":"{data}","PartitionKey":"{key}"}}"#
    )
    .into_bytes()
}

/// As AWS writes it: times are tagged milliseconds.
fn in_cbor(sequence: &str, arrival: f64, payload: &[u8], key: &str) -> Result<Vec<u8>, String> {
    let time = Cbor::Tag(1, Box::new(Cbor::from((arrival * 1_000.0) as u64)));
    let members: [(&str, Cbor); 4] = [
        ("SequenceNumber", sequence.into()),
        ("ApproximateArrivalTimestamp", time),
        ("Data", Cbor::Bytes(payload.to_vec())),
        ("PartitionKey", key.into()),
    ];
    let record = Cbor::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect());
    let mut bytes = Vec::new();
    ciborium::into_writer(&record, &mut bytes).map_err(|error| format!("a record in CBOR: {error}"))?;
    Ok(bytes)
}

fn sequence(shard: u64, index: usize) -> String {
    format!("{SEQUENCE_PREFIX}{shard:04}{index:0RECORD_DIGITS$}")
}

/// The requests so far.
async fn stats(State(replay): State<Arc<Replay>>) -> String {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    format!("{} {} {}\n", of(&replay.calls), of(&replay.served), of(&replay.largest_limit))
}

/// Stops holding records back.
async fn release(State(replay): State<Arc<Replay>>) {
    replay.held_back.store(false, Ordering::Relaxed);
}

async fn call(State(replay): State<Arc<Replay>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = target.rsplit('.').next().unwrap_or_default();
    let in_cbor = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == CBOR);
    let request: Value = match in_cbor {
        true => ciborium::from_reader(&*body).unwrap_or_default(),
        false => serde_json::from_slice(&body).unwrap_or_default(),
    };
    if name == "SubscribeToShard"
        && let Some(events) = push::subscribe(&replay, &request)
    {
        return events;
    }
    let answer = match name {
        "GetRecords" => replay.get_records(&request, in_cbor),
        "GetShardIterator" => replay.get_shard_iterator(&request).and_then(|answer| encoded(&answer, in_cbor)),
        "DescribeStreamConsumer" => encoded(&replay.consumer(&request), in_cbor),
        "ListShards" => encoded(&replay.list_shards(), in_cbor),
        "DescribeStreamSummary" => encoded(&replay.describe(in_cbor), in_cbor),
        "ListStreams" => encoded(&json!({"StreamNames": [replay.stream], "HasMoreStreams": false}), in_cbor),
        "PutRecords" => replay.put_records(&request).and_then(|answer| encoded(&answer, in_cbor)),
        _ => None,
    };
    match answer {
        Some(answer) => ([(header::CONTENT_TYPE, if in_cbor { CBOR } else { JSON })], answer).into_response(),
        None => {
            let error = json!({"__type": "InvalidArgumentException", "message": format!("{name} is not replayed")});
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, JSON)], error.to_string()).into_response()
        }
    }
}

fn encoded(answer: &Value, cbor: bool) -> Option<Vec<u8>> {
    if !cbor {
        return Some(answer.to_string().into_bytes());
    }
    let mut bytes = Vec::new();
    ciborium::into_writer(answer, &mut bytes).ok().map(|()| bytes)
}

impl Replay {
    fn shard_id(index: usize) -> String {
        format!("shardId-{index:012}")
    }

    fn records(&self, shard: usize) -> Option<RwLockReadGuard<'_, Records>> {
        Some(self.shards.get(shard)?.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many of a shard's records are served so far.
    fn visible(&self, records: &Records) -> usize {
        if self.held_back.load(Ordering::Relaxed) { records.len().min(1) } else { records.len() }
    }

    fn describe(&self, cbor: bool) -> Value {
        // Seconds in JSON, milliseconds in CBOR.
        let created = 1_700_000_000_u64 * if cbor { 1_000 } else { 1 };
        json!({"StreamDescriptionSummary": {
            "StreamName": self.stream,
            "StreamARN": format!("arn:aws:kinesis:{REGION}:000000000000:stream/{}", self.stream),
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": created,
            "EnhancedMonitoring": [],
            "OpenShardCount": self.shards.len(),
        }})
    }

    fn list_shards(&self) -> Value {
        let shard = |index: usize| {
            let last = self.first_hash(index + 1).wrapping_sub(1);
            json!({
                "ShardId": Replay::shard_id(index),
                "HashKeyRange": {
                    "StartingHashKey": self.first_hash(index).to_string(),
                    "EndingHashKey": last.to_string(),
                },
                "SequenceNumberRange": {"StartingSequenceNumber": sequence(index as u64, 0)},
            })
        };
        json!({"Shards": (0..self.shards.len()).map(shard).collect::<Vec<_>>()})
    }

    /// A consumer of any name exists.
    fn consumer(&self, request: &Value) -> Value {
        let (stream, name) = (&request["StreamARN"], &request["ConsumerName"]);
        let arn = format!("{}/consumer/{}:1", stream.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
        json!({"ConsumerDescription": {
            "ConsumerName": name,
            "ConsumerARN": arn,
            "ConsumerStatus": "ACTIVE",
            "ConsumerCreationTimestamp": 1_700_000_000,
            "StreamARN": stream,
        }})
    }

    /// Where a shard's range of hash keys starts. Together they are complete, as the KCL demands.
    /// After the last shard this is 2^128, which wraps to 0.
    fn first_hash(&self, shard: usize) -> u128 {
        (((shard as u128) << 64) / self.shards.len().max(1) as u128) << 64
    }

    /// Appends records, each to the shard of its key.
    fn put_records(&self, request: &Value) -> Option<Value> {
        let mut results = Vec::new();
        for record in request["Records"].as_array()? {
            let key = record["PartitionKey"].as_str()?;
            let payload = base64::decode(record["Data"].as_str()?).ok()?;
            let hash = u128::from_be_bytes(Md5::digest(key.as_bytes()).into());
            let shard = (0..self.shards.len()).rev().find(|shard| self.first_hash(*shard) <= hash)?;
            let mut records = self.shards.get(shard)?.write().unwrap_or_else(PoisonError::into_inner);
            let sequence = sequence(shard as u64, records.len());
            records.push(&sequence, now(), &payload, key).ok()?;
            results.push(json!({"ShardId": Replay::shard_id(shard), "SequenceNumber": sequence}));
        }
        Some(json!({"FailedRecordCount": 0, "Records": results}))
    }

    /// A shard's index and the number of the record at a position, whose kind has this name in the
    /// request.
    fn position(&self, id: &str, at: &Value, kind: &str) -> Option<(usize, usize)> {
        let shard = (0..self.shards.len()).find(|index| Replay::shard_id(*index) == id)?;
        let named = || {
            let sequence = at["StartingSequenceNumber"].as_str().or_else(|| at["SequenceNumber"].as_str())?;
            sequence.get(sequence.len().checked_sub(RECORD_DIGITS)?..)?.parse::<usize>().ok()
        };
        let position = match at[kind].as_str()? {
            "TRIM_HORIZON" | "AT_TIMESTAMP" => 0,
            "LATEST" => self.visible(&*self.records(shard)?),
            "AT_SEQUENCE_NUMBER" => named()?,
            "AFTER_SEQUENCE_NUMBER" => named()?.checked_add(1)?,
            _ => return None,
        };
        Some((shard, position))
    }

    /// An iterator is `shard/record`; it never expires.
    fn get_shard_iterator(&self, request: &Value) -> Option<Value> {
        let (shard, position) = self.position(request["ShardId"].as_str()?, request, "ShardIteratorType")?;
        Some(json!({"ShardIterator": format!("{shard}/{position}")}))
    }

    /// `None` if the encoding is not served.
    fn get_records(&self, request: &Value, cbor: bool) -> Option<Vec<u8>> {
        let (shard, position) = request["ShardIterator"].as_str()?.split_once('/')?;
        let (shard, position) = (shard.parse::<usize>().ok()?, position.parse::<usize>().ok()?);
        let records = self.records(shard)?;
        let (visible, records) = (self.visible(&records), records.encoded(cbor)?);
        let limit = request["Limit"].as_u64().unwrap_or(MAX_RECORDS).min(MAX_RECORDS);
        let start = position.min(visible);
        let end = records.end(start, limit as usize, MAX_ANSWER).min(visible);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.served.fetch_add((end - start) as u64, Ordering::Relaxed);
        self.largest_limit.fetch_max(limit, Ordering::Relaxed);
        let behind = if end < visible { 1_000 } else { 0 };
        let (before, after) = match cbor {
            true => {
                let mut rest = Vec::new();
                let next = Cbor::from(format!("{shard}/{end}"));
                for value in ["NextShardIterator".into(), next, "MillisBehindLatest".into(), Cbor::from(behind)] {
                    ciborium::into_writer(&value, &mut rest).ok()?;
                }
                (&b"\xbf\x67Records\x9f"[..], [b"\xff", &rest[..], b"\xff"].concat())
            }
            false => {
                let rest = format!(r#"],"NextShardIterator":"{shard}/{end}","MillisBehindLatest":{behind}}}"#);
                (&b"{\"Records\":["[..], rest.into_bytes())
            }
        };
        Some([before, records.slice(start..end), &after].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn a_slice_is_the_inside_of_an_array() {
        let shard = Shard { bytes: b"{1},{22},{333}".to_vec(), ends: vec![3, 8, 14], commas: true };
        assert_eq!(shard.slice(0..3), b"{1},{22},{333}");
        assert_eq!(shard.slice(1..2), b"{22}");
        assert_eq!(shard.slice(1..3), b"{22},{333}");
        assert_eq!(shard.slice(3..3), b"");
    }
    #[test]
    fn an_answer_ends_at_its_limit_or_where_it_would_be_too_large() {
        let shard =
            Shard { bytes: Vec::new(), commas: true, ends: (1..=10).map(|n| n * super::MAX_ANSWER / 3).collect() };
        assert_eq!(shard.end(0, 2, super::MAX_ANSWER), 2);
        assert_eq!(shard.end(0, 100, super::MAX_ANSWER), 3);
        assert_eq!(shard.end(8, 100, super::MAX_ANSWER), 10);
        assert_eq!(shard.end(10, 100, super::MAX_ANSWER), 10);
        let large = Shard { bytes: Vec::new(), commas: true, ends: vec![2 * super::MAX_ANSWER] };
        assert_eq!(large.end(0, 100, super::MAX_ANSWER), 1);
    }
}
