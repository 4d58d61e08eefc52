//! The sample of the stream, and how it is passed to ClickHouse. The only place where the contents
//! of Kinesis become rows.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

use super::message;
use adapters::clock::SystemClock;
use adapters::kinesis::AwsKinesis;
use bridge::metrics::Metrics;
use bridge::read::budget::Budget;
use bridge::read::records::Reading;
use config::Config;
use domain::error::Error;
use domain::limits::{PIPE_SAMPLE, PIPE_SAMPLE_BYTES};
use domain::names::{ShardId, StreamName};
use domain::unpacking::{Split, Unpacking};
use sql::quote::literal;

/// Rows as a pipe would bring them, oldest first.
pub struct Sample {
    stream: StreamName,
    split: Split,
    rows: Vec<Row>,
}

struct Row {
    key: String,
    timestamp_ms: i64,
    shard_id: ShardId,
    sequence_number: String,
    sub_sequence: u32,
    payload: Vec<u8>,
}

impl Sample {
    /// Reads the newest records.
    pub async fn take(config: &Config, stream: &StreamName) -> Result<Sample, Error> {
        let metrics = Metrics::new()?;
        let kinesis = Arc::new(AwsKinesis::from_environment(metrics.kinesis_errors).await?);
        let reading = Reading { kinesis, clock: Arc::new(SystemClock), budget: Budget::new(config.memory) };
        let whole = read(&reading, stream, Split::None).await?;
        let split = split_of(whole.iter().map(|row| &*row.payload));
        let mut rows = if split == Split::None { whole } else { read(&reading, stream, split).await? };
        let mut bytes = 0;
        let fitting = rows.iter().rev().take_while(|row| {
            bytes += row.payload.len();
            bytes <= PIPE_SAMPLE_BYTES
        });
        let left_out = rows.len().saturating_sub(fitting.count().max(1));
        rows.drain(..left_out);
        Ok(Sample { stream: stream.clone(), split, rows })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// How the pipe must split payloads.
    pub fn split(&self) -> Split {
        self.split
    }

    /// The payloads of the rows.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| &*row.payload)
    }

    /// Merges each log event with its message into one object. Returns the number of messages that
    /// are objects.
    pub fn merge_messages(&mut self) -> usize {
        let mut objects = 0;
        for row in &mut self.rows {
            if let Some(merged) = std::str::from_utf8(&row.payload).ok().and_then(message::merged) {
                objects += usize::from(merged.is_object);
                row.payload = merged.text.into_bytes();
            }
        }
        objects
    }

    /// How many log events have an object as their message.
    pub fn messages(&self) -> usize {
        let texts = self.payloads().filter_map(|payload| std::str::from_utf8(payload).ok());
        texts.filter_map(message::merged).filter(|merged| merged.is_object).count()
    }

    /// The newest rows as a subquery with the columns of `/v1/pipes/{pipe}/next`. It reads no table
    /// function, so it needs no privilege.
    pub fn source(&self, newest: usize) -> String {
        let skip = self.rows.len().saturating_sub(newest);
        let rows: Vec<_> = self.rows[skip..]
            .iter()
            .map(|row| {
                json!({"k": row.key, "t": row.timestamp_ms, "s": row.shard_id.as_str(), "n": row.sequence_number, "u": row.sub_sequence,
                       "m": String::from_utf8_lossy(&row.payload)})
            })
            .collect();
        let rows = literal(&json!(rows).to_string());
        let stream = literal(&self.stream);
        format!(
            "(SELECT s.k AS _key, fromUnixTimestamp64Milli(s.t) AS _timestamp, {stream} AS _stream, s.s AS _shard_id, s.n AS _sequence_number, \
             s.u AS _sub_sequence_number, s.m AS _raw_message, '' AS _batch FROM (SELECT arrayJoin(JSONExtract({rows}, \
             'Array(Tuple(k String, t Int64, s String, n String, u UInt32, m String))')) AS s))"
        )
    }
}

async fn read(reading: &Reading, stream: &StreamName, split: Split) -> Result<Vec<Row>, Error> {
    let unpacking = Unpacking { split, ..Unpacking::default() };
    let (shards, chunks) = reading.sample(stream, PIPE_SAMPLE, unpacking).await?;
    let mut rows = Vec::new();
    for (shard, chunk) in &chunks {
        rows.extend(chunk.records().map(|record| Row {
            key: record.key.into(),
            timestamp_ms: record.timestamp_ms,
            shard_id: shards.get(*shard).cloned().unwrap_or_default(),
            sequence_number: record.sequence_number.into(),
            sub_sequence: record.sub_sequence,
            payload: record.payload.into(),
        }));
    }
    Ok(rows)
}

/// What most payloads are: CloudWatch Logs envelopes, lines that are each an object, or several
/// objects otherwise. An object written over several lines must not be split into lines.
fn split_of<'p>(payloads: impl Iterator<Item = &'p [u8]>) -> Split {
    let (mut envelopes, mut lines, mut several, mut over_lines, mut others) = (0, 0, 0, 0, 0);
    for payload in payloads {
        let payload = payload.strip_prefix("\u{feff}".as_bytes()).unwrap_or(payload);
        match serde_json::from_slice::<HashMap<String, IgnoredAny>>(payload) {
            Ok(object) if ["messageType", "logGroup", "logEvents"].iter().all(|field| object.contains_key(*field)) => {
                envelopes += 1;
            }
            // On one line, splitting makes no difference.
            Ok(_) if !payload.trim_ascii().contains(&b'\n') => {}
            Ok(_) => over_lines += 1,
            Err(_) if are_objects(payload) => lines += 1,
            Err(_) if holds_objects(payload) => several += 1,
            Err(_) => others += 1,
        }
    }
    match () {
        () if envelopes > lines + several + over_lines + others => Split::CloudWatch,
        // Lines are objects in sequence, too.
        () if several > 0 && lines + several > envelopes + others => Split::Json,
        () if several == 0 && lines > envelopes + over_lines + others => Split::Lines,
        () => Split::None,
    }
}

/// Whether it consists of objects in sequence, or arrays of objects; at least one.
fn holds_objects(payload: &[u8]) -> bool {
    let mut objects = 0;
    for document in serde_json::Deserializer::from_slice(payload).into_iter::<&RawValue>() {
        let Ok(document) = document.map(RawValue::get) else { return false };
        objects += match document.starts_with('{') {
            true => 1,
            false => match serde_json::from_str::<Vec<HashMap<String, IgnoredAny>>>(document) {
                Ok(elements) => elements.len(),
                Err(_) => return false,
            },
        };
    }
    objects > 0
}

fn are_objects(payload: &[u8]) -> bool {
    let lines = payload.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let mut lines = lines.map(serde_json::from_slice::<HashMap<String, IgnoredAny>>).peekable();
    lines.peek().is_some() && lines.all(|line| line.is_ok())
}

#[cfg(test)]
mod tests {
    use domain::columns::{BATCH, records};

    use super::*;

    #[test]
    fn the_source_has_the_columns_of_a_pull() {
        let source = Sample { stream: "s".into(), split: Split::None, rows: Vec::new() }.source(1);
        for column in records().chain([BATCH]) {
            assert!(source.contains(&format!(" AS {}", column.name)), "{source}");
        }
    }

    #[test]
    fn payloads_are_split_when_most_of_them_need_it() {
        let split = |payloads: &[&str]| split_of(payloads.iter().map(|payload| payload.as_bytes()));
        let envelope =
            r#"{"messageType": "DATA_MESSAGE", "logGroup": "g", "logStream": "s", "owner": "o", "logEvents": []}"#;
        assert_eq!(split(&[envelope]), Split::CloudWatch);
        assert_eq!(split(&["{\"a\": 1}\n{\"a\": 2}\r\n", "{\"a\": 3}"]), Split::Lines);
        assert_eq!(split(&["{\n\"a\": 1\n}"]), Split::None);
        assert_eq!(split(&["{\"a\": 1}\n"]), Split::None);
        assert_eq!(split(&["no", "{\"a\": 1}\nno", "{}\n{}"]), Split::None);
        assert_eq!(split(&["", "5"]), Split::None);
        assert_eq!(split(&["{\"a\": 1}{\"a\": 2}"]), Split::Json);
        assert_eq!(split(&["[{\"a\": 1}]", "{\n\"a\": 1\n}", "{}\n{}"]), Split::Json);
        assert_eq!(split(&["\u{feff}{\"a\": 1} {\n\"a\": 2\n}", "5"]), Split::None);
        assert_eq!(split(&["[1, 2]", "[]"]), Split::None);
        assert_eq!(split(&["\u{feff}{}\n{}"]), Split::Lines);
    }
}
