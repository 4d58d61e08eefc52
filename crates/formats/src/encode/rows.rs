//! Metadata rows (streams, shards, pipes, workers): typed rows to columns to bytes.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow_ipc::writer::StreamWriter;
use arrow_json::WriterBuilder;
use arrow_json::writer::LineDelimited;
use bytes::Bytes;

use super::Format;
use super::arrow::UTC;
use super::events::broken;
use domain::error::Error;
use domain::names::{PipeName, ShardId, StreamName, WorkerId};
use domain::ports::Stream;
use domain::shard::Shard;

/// A row of `/v1/streams`.
pub type StreamRow = Stream;
/// A row of `/v1/streams/{stream}/shards`.
pub type ShardRow = Shard;

/// A row of `/v1/pipes`: one shard of one pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipeRow {
    /// Name of the pipe.
    pub pipe: PipeName,
    /// Name of the stream.
    pub stream: StreamName,
    /// Shard id.
    pub shard_id: ShardId,
    /// Worker that holds the lease; empty if nobody does.
    pub owner: WorkerId,
    /// Fencing number of the lease.
    pub epoch: u64,
    /// `reading`, `waiting_for_parent`, `finished`, `gap` or `unowned`.
    pub state: String,
    /// The checkpoint: a sequence number, or the keyword for another position.
    pub sequence_number: String,
    /// Last committed sub-record of `sequence_number`.
    pub sub_sequence_number: u32,
    /// How far reading is behind the tip of the shard, ms; `None` while this worker does not read
    /// it.
    pub millis_behind_latest: Option<i64>,
    /// Rows offered but not settled.
    pub offered_rows: u64,
    /// Rows committed so far.
    pub committed_rows: u64,
    /// Attempts that have failed since the last success.
    pub failed_attempts: u64,
    /// The last error message; empty if none.
    pub last_error: String,
    /// Unix ms of the last commit; `None` before the first.
    pub last_commit_time: Option<i64>,
    /// How this worker reads it: `polling` or `efo`; empty if it does not.
    pub mode: String,
    /// What may be missing in tables below the pipe's table; empty if nothing.
    pub warning: String,
}

/// A row of `/v1/workers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerRow {
    /// Worker id.
    pub worker_id: WorkerId,
    /// Where its HTTP interface listens.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// Number of leases it holds.
    pub leases: u64,
    /// Whether its heartbeat moves.
    pub alive: bool,
}

/// A row of `/v1/streams/{stream}/records/plan`: one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanRow {
    /// Name of the stream.
    pub stream: StreamName,
    /// Shard id.
    pub shard_id: ShardId,
    /// Whether the shard still accepts records.
    pub open: bool,
    /// Arrival of the first record to be read, Unix ms; `None` if there is none now.
    pub first_time: Option<i64>,
    /// Its sequence number; empty if there is none.
    pub first_sequence_number: String,
    /// Reading ends before records that arrive at this time, Unix ms; `None` if a record marks the
    /// end.
    pub until_time: Option<i64>,
    /// The first record left to the pipe; empty if a time marks the end.
    pub until_sequence_number: String,
    /// The first row within that record that is left to the pipe.
    pub until_sub_sequence_number: u32,
}

/// A column: its name, its values, and whether any may be null, which a stream must declare before
/// the first row, so even without rows.
type Named = (&'static str, ArrayRef, bool);

/// A kind of row that can be written in any metadata format.
pub trait Row: Sized {
    /// The rows as columns, in the order in which they are written.
    fn columns(rows: &[Self]) -> Vec<Named>;
}

fn text<R>(name: &'static str, rows: &[R], value: impl Fn(&R) -> &str) -> Named {
    (name, Arc::new(StringArray::from_iter_values(rows.iter().map(value))), false)
}

fn flag<R>(name: &'static str, rows: &[R], value: impl Fn(&R) -> bool) -> Named {
    (name, Arc::new(UInt8Array::from_iter_values(rows.iter().map(|r| u8::from(value(r))))), false)
}

fn uint32<R>(name: &'static str, rows: &[R], value: impl Fn(&R) -> u32) -> Named {
    (name, Arc::new(UInt32Array::from_iter_values(rows.iter().map(value))), false)
}

fn uint64<R>(name: &'static str, rows: &[R], value: impl Fn(&R) -> u64) -> Named {
    (name, Arc::new(UInt64Array::from_iter_values(rows.iter().map(value))), false)
}

fn int64_or_null<R>(name: &'static str, rows: &[R], value: impl Fn(&R) -> Option<i64>) -> Named {
    (name, Arc::new(rows.iter().map(value).collect::<Int64Array>()), true)
}

fn time_or_null<R>(name: &'static str, rows: &[R], value: impl Fn(&R) -> Option<i64>) -> Named {
    let times: TimestampMillisecondArray = rows.iter().map(value).collect();
    (name, Arc::new(times.with_timezone(UTC)), true)
}

impl Row for StreamRow {
    fn columns(rows: &[Self]) -> Vec<Named> {
        vec![
            text("stream", rows, |r| &r.name),
            text("arn", rows, |r| &r.arn),
            text("status", rows, |r| &r.status),
            text("mode", rows, |r| &r.mode),
            uint32("open_shards", rows, |r| r.open_shards.max(0).unsigned_abs()),
            uint32("retention_hours", rows, |r| r.retention_hours.max(0).unsigned_abs()),
        ]
    }
}

impl Row for ShardRow {
    fn columns(rows: &[Self]) -> Vec<Named> {
        vec![
            text("shard_id", rows, |r| &r.id),
            text("parent_shard_id", rows, |r| &r.parent),
            text("adjacent_parent_shard_id", rows, |r| &r.adjacent_parent),
            text("starting_hash_key", rows, |r| &r.starting_hash_key),
            text("ending_hash_key", rows, |r| &r.ending_hash_key),
            text("starting_sequence_number", rows, |r| &r.starting_sequence_number),
            text("ending_sequence_number", rows, |r| &r.ending_sequence_number),
        ]
    }
}

impl Row for PipeRow {
    fn columns(rows: &[Self]) -> Vec<Named> {
        vec![
            text("pipe", rows, |r| &r.pipe),
            text("stream", rows, |r| &r.stream),
            text("shard_id", rows, |r| &r.shard_id),
            text("owner", rows, |r| &r.owner),
            uint64("epoch", rows, |r| r.epoch),
            text("state", rows, |r| &r.state),
            text("sequence_number", rows, |r| &r.sequence_number),
            uint32("sub_sequence_number", rows, |r| r.sub_sequence_number),
            int64_or_null("millis_behind_latest", rows, |r| r.millis_behind_latest),
            uint64("offered_rows", rows, |r| r.offered_rows),
            uint64("committed_rows", rows, |r| r.committed_rows),
            uint64("failed_attempts", rows, |r| r.failed_attempts),
            text("last_error", rows, |r| &r.last_error),
            time_or_null("last_commit_time", rows, |r| r.last_commit_time),
            text("mode", rows, |r| &r.mode),
            text("warning", rows, |r| &r.warning),
        ]
    }
}

impl Row for PlanRow {
    fn columns(rows: &[Self]) -> Vec<Named> {
        vec![
            text("stream", rows, |r| &r.stream),
            text("shard_id", rows, |r| &r.shard_id),
            flag("open", rows, |r| r.open),
            time_or_null("first_time", rows, |r| r.first_time),
            text("first_sequence_number", rows, |r| &r.first_sequence_number),
            time_or_null("until_time", rows, |r| r.until_time),
            text("until_sequence_number", rows, |r| &r.until_sequence_number),
            uint32("until_sub_sequence_number", rows, |r| r.until_sub_sequence_number),
        ]
    }
}

impl Row for WorkerRow {
    fn columns(rows: &[Self]) -> Vec<Named> {
        vec![
            text("worker_id", rows, |r| &r.worker_id),
            text("address", rows, |r| &r.address),
            text("version", rows, |r| &r.version),
            uint64("leases", rows, |r| r.leases),
            flag("alive", rows, |r| r.alive),
        ]
    }
}

/// The JSON writer knows time zones by offset only; its text format marks UTC with a Z.
fn without_zone(column: ArrayRef) -> ArrayRef {
    match column.as_primitive_opt::<TimestampMillisecondType>() {
        Some(times) => Arc::new(times.clone().with_timezone_opt(None::<Arc<str>>)),
        None => column,
    }
}

/// Writes rows as `JSONEachRow` (nulls are omitted) or `ArrowStream`. `Parquet` is for records
/// only.
pub fn encode_rows<R: Row>(rows: &[R], format: Format) -> Result<Bytes, Error> {
    let columns = R::columns(rows).into_iter().map(|(name, column, nullable)| {
        let column = if format == Format::JsonEachRow { without_zone(column) } else { column };
        (name, column, nullable)
    });
    let batch = RecordBatch::try_from_iter_with_nullable(columns).map_err(broken)?;
    match format {
        Format::JsonEachRow => {
            let mut writer = WriterBuilder::new()
                .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.3fZ".into())
                .build::<_, LineDelimited>(Vec::new());
            writer.write(&batch).and_then(|()| writer.finish()).map_err(broken)?;
            Ok(writer.into_inner().into())
        }
        Format::ArrowStream => {
            let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(broken)?;
            if batch.num_rows() > 0 {
                writer.write(&batch).map_err(broken)?;
            }
            writer.into_inner().map(Bytes::from).map_err(broken)
        }
        Format::Parquet => Err(Error::Internal("metadata rows are not written as Parquet".into())),
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;

    use super::*;

    /// What ClickHouse is told to expect.
    fn structure<R: Row>() -> String {
        let columns = R::columns(&[]).into_iter().map(|(name, values, nullable)| {
            let ty = match values.data_type() {
                DataType::Utf8 => "String",
                DataType::UInt8 => "UInt8",
                DataType::UInt32 => "UInt32",
                DataType::UInt64 => "UInt64",
                DataType::Int64 => "Int64",
                DataType::Timestamp(..) => "DateTime64(3)",
                other => panic!("{name} is {other}"),
            };
            if nullable { format!("{name} Nullable({ty})") } else { format!("{name} {ty}") }
        });
        format!("structure = '{}'", columns.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn the_views_expect_the_columns_of_the_rows() {
        let views = include_str!("../../../../sql/setup/03_views.sql");
        for expected in [structure::<StreamRow>(), structure::<ShardRow>(), structure::<PipeRow>()] {
            assert!(views.contains(&expected), "{expected}");
        }
    }
}
