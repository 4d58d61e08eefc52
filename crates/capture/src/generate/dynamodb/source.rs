//! What DynamoDB and Kinesis report about the table and its stream.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::items::Event;
use crate::dynamodb::{Destination, DynamoDb, KeyAttribute, KeyType, Table};
use crate::error::CommandError;
use crate::flags::DynamoDbFlags;
use crate::generate::plan::shown;
use adapters::clock::SystemClock;
use adapters::kinesis::AwsKinesis;
use bridge::metrics::Metrics;
use bridge::read::budget::Budget;
use bridge::read::records::{Range, Reading, Span};
use config::Config;
use domain::error::Error;
use domain::limits::PIPE_SAMPLE;
use domain::ports::{KinesisApi, Stream, kinesis_now_ms};
use domain::range::Bound;
use domain::unpacking::Unpacking;

/// Where the changes come from.
pub struct Source {
    /// Partition key, then sort key.
    pub keys: Vec<KeyAttribute>,
    /// What DynamoDB reports; `None` if it could not be queried.
    pub table: Option<Table>,
    /// Where the changes go; `None` if DynamoDB could not be queried.
    pub destinations: Option<Vec<Destination>>,
    /// The stream.
    pub stream: Stream,
    /// When it was created, Unix ms.
    pub stream_created_ms: i64,
    /// When it was queried, Kinesis time, Unix ms.
    pub now_ms: i64,
    /// Notes about what could not be queried.
    pub notes: Vec<String>,
}

/// The table's changes do not reach the stream. Part of a sentence.
#[derive(Debug, thiserror::Error)]
#[error("the changes of DynamoDB table {table} do not go to stream {stream}{now}")]
pub struct NotStreamed {
    table: String,
    stream: String,
    /// What has become of the destination, if there is one.
    now: String,
}

impl Source {
    /// Queries both.
    pub async fn ask(flags: &DynamoDbFlags) -> Result<Source, CommandError> {
        let given = flags.key.iter().map(|text| parse_key(text)).collect::<Result<Vec<_>, _>>()?;
        if given.len() > 2 {
            return Err(CommandError::Refused(
                "--key is given more than twice: a table has a partition key and at most one sort key".into(),
            ));
        }
        let dynamodb = DynamoDb::from_environment().await?;
        let mut notes = Vec::new();
        let table = match dynamodb.table(&flags.table).await {
            Ok(table) => Some(table),
            Err(why) if given.is_empty() => {
                return Err(CommandError::Refused(format!(
                    "{why}; if DynamoDB is not accessible, name the keys with --key NAME:TYPE (TYPE is S, N or B)"
                )));
            }
            Err(why) => {
                notes.push(format!(
                    "DynamoDB is not accessible, so keys, streaming and the table's identity were not checked: {why}"
                ));
                None
            }
        };
        let keys = match &table {
            Some(table) if given.is_empty() || given == table.keys => table.keys.clone(),
            Some(table) => {
                return Err(CommandError::Refused(format!(
                    "--key says {}, but the keys of DynamoDB table {} are {}",
                    spelled(&given),
                    shown(&flags.table),
                    spelled(&table.keys)
                )));
            }
            None => given,
        };
        let destinations = match &table {
            Some(_) => match dynamodb.destinations(&flags.table).await {
                Ok(destinations) => Some(destinations),
                Err(why) => {
                    notes.push(format!("It is not known whether the table's changes go to the stream: {why}"));
                    None
                }
            },
            None => None,
        };
        let kinesis = kinesis().await?;
        let stream = kinesis.stream(&flags.stream).await?;
        let (stream_created_ms, now_ms) = (stream.created_ms, kinesis_now_ms(&kinesis, &SystemClock));
        Ok(Source { keys, table, destinations, stream, stream_created_ms, now_ms, notes })
    }

    /// The destination that carries the table's changes to the stream, or what is wrong; `None` if
    /// DynamoDB could not be queried.
    pub fn destination(&self, table: &str) -> Option<Result<&Destination, NotStreamed>> {
        let to_stream = self.destinations.as_ref()?.iter().filter(|d| d.stream_arn == self.stream.arn);
        // Removed ones stay on the list for a while.
        let best = to_stream.max_by_key(|destination| destination.status == "ACTIVE");
        let now = match best {
            Some(destination) if destination.status == "ACTIVE" => return Some(Ok(destination)),
            Some(destination) => format!(" now: its destination is {}", destination.status),
            None => String::new(),
        };
        Some(Err(NotStreamed { table: shown(table), stream: shown(&self.stream.name), now }))
    }
}

/// Whether a change of the table arrived before `end_ms`, among the first records that the stream
/// still has.
pub async fn has_change_before(config: &Config, flags: &DynamoDbFlags, end_ms: i64) -> Result<bool, Error> {
    let reading = Reading {
        kinesis: Arc::new(kinesis().await?),
        clock: Arc::new(SystemClock),
        budget: Budget::new(config.memory),
    };
    let range = Range {
        stream: flags.stream.clone(),
        from: Bound::Open,
        to: Bound::Time(end_ms),
        shard: None,
        slice: None,
        unpacking: Unpacking::default(),
    };
    let shards = reading.shards(&range).await?;
    let spans = shards.into_iter().map(|shard| Span { shard, until: None }).collect();
    let (sender, mut receiver) = mpsc::channel(1);
    let read = tokio::spawn(reading.run(range, spans, sender));
    let mut looked_at = 0;
    while let Some(found) = receiver.recv().await {
        let (_, chunk) = found?;
        if chunk.records().any(|r| Event::parse(r.payload).is_some_and(|event| event.is_of(&flags.table))) {
            return Ok(true);
        }
        looked_at += chunk.len();
        if looked_at >= PIPE_SAMPLE {
            break;
        }
    }
    drop(receiver);
    drop(read);
    Ok(false)
}

async fn kinesis() -> Result<AwsKinesis, Error> {
    let metrics = Metrics::new()?;
    AwsKinesis::from_environment(metrics.kinesis_errors).await
}

/// `--key`: an attribute and its type.
fn parse_key(text: &str) -> Result<KeyAttribute, CommandError> {
    let ty = |ty: &str| match ty {
        "S" => Some(KeyType::S),
        "N" => Some(KeyType::N),
        "B" => Some(KeyType::B),
        _ => None,
    };
    let key = text.rsplit_once(':').filter(|(name, _)| !name.is_empty());
    let key = key.and_then(|(name, code)| Some(KeyAttribute { name: name.into(), ty: ty(code)? }));
    key.ok_or_else(|| {
        let why = format!("--key is '{text}': write an attribute, a colon and S, N or B, as in --key id:S");
        CommandError::Refused(why)
    })
}

fn spelled(keys: &[KeyAttribute]) -> String {
    keys.iter().map(|key| format!("{}:{:?}", key.name, key.ty)).collect::<Vec<_>>().join(", ")
}
