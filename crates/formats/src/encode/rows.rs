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
use super::arrow::{UTC, broken};
use domain::error::Error;
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
    pub pipe: String,
    /// Name of the stream.
    pub stream: String,
    /// Shard id.
    pub shard_id: String,
    /// Worker that holds the lease; empty if nobody does.
    pub owner: String,
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
    pub worker_id: String,
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
    pub stream: String,
    /// Shard id.
    pub shard_id: String,
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

/// Named columns, in the order in which they are written.
type Named = Vec<(&'static str, ArrayRef)>;

/// A kind of row that can be written in any metadata format.
pub trait Row: Sized {
    /// The rows as columns.
    fn columns(rows: &[Self]) -> Named;
}

fn text<R>(rows: &[R], value: impl Fn(&R) -> &str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
}

fn uint32<R>(rows: &[R], value: impl Fn(&R) -> u32) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(rows.iter().map(value)))
}

fn uint64<R>(rows: &[R], value: impl Fn(&R) -> u64) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(rows.iter().map(value)))
}

impl Row for StreamRow {
    fn columns(rows: &[Self]) -> Named {
        vec![
            ("stream", text(rows, |r| &r.name)),
            ("arn", text(rows, |r| &r.arn)),
            ("status", text(rows, |r| &r.status)),
            ("mode", text(rows, |r| &r.mode)),
            ("open_shards", uint32(rows, |r| r.open_shards.max(0).unsigned_abs())),
            ("retention_hours", uint32(rows, |r| r.retention_hours.max(0).unsigned_abs())),
        ]
    }
}

impl Row for ShardRow {
    fn columns(rows: &[Self]) -> Named {
        vec![
            ("shard_id", text(rows, |r| &r.id)),
            ("parent_shard_id", text(rows, |r| &r.parent)),
            ("adjacent_parent_shard_id", text(rows, |r| &r.adjacent_parent)),
            ("starting_hash_key", text(rows, |r| &r.starting_hash_key)),
            ("ending_hash_key", text(rows, |r| &r.ending_hash_key)),
            ("starting_sequence_number", text(rows, |r| &r.starting_sequence_number)),
            ("ending_sequence_number", text(rows, |r| &r.ending_sequence_number)),
        ]
    }
}

impl Row for PipeRow {
    fn columns(rows: &[Self]) -> Named {
        let behind: Int64Array = rows.iter().map(|r| r.millis_behind_latest).collect();
        let commits: TimestampMillisecondArray = rows.iter().map(|r| r.last_commit_time).collect();
        vec![
            ("pipe", text(rows, |r| &r.pipe)),
            ("stream", text(rows, |r| &r.stream)),
            ("shard_id", text(rows, |r| &r.shard_id)),
            ("owner", text(rows, |r| &r.owner)),
            ("epoch", uint64(rows, |r| r.epoch)),
            ("state", text(rows, |r| &r.state)),
            ("sequence_number", text(rows, |r| &r.sequence_number)),
            ("sub_sequence_number", uint32(rows, |r| r.sub_sequence_number)),
            ("millis_behind_latest", Arc::new(behind)),
            ("offered_rows", uint64(rows, |r| r.offered_rows)),
            ("committed_rows", uint64(rows, |r| r.committed_rows)),
            ("failed_attempts", uint64(rows, |r| r.failed_attempts)),
            ("last_error", text(rows, |r| &r.last_error)),
            ("last_commit_time", Arc::new(commits.with_timezone(UTC))),
            ("mode", text(rows, |r| &r.mode)),
            ("warning", text(rows, |r| &r.warning)),
        ]
    }
}

impl Row for PlanRow {
    fn columns(rows: &[Self]) -> Named {
        let times = |value: fn(&PlanRow) -> Option<i64>| -> ArrayRef {
            Arc::new(rows.iter().map(value).collect::<TimestampMillisecondArray>().with_timezone(UTC))
        };
        vec![
            ("stream", text(rows, |r| &r.stream)),
            ("shard_id", text(rows, |r| &r.shard_id)),
            ("open", Arc::new(UInt8Array::from_iter_values(rows.iter().map(|r| u8::from(r.open))))),
            ("first_time", times(|r| r.first_time)),
            ("first_sequence_number", text(rows, |r| &r.first_sequence_number)),
            ("until_time", times(|r| r.until_time)),
            ("until_sequence_number", text(rows, |r| &r.until_sequence_number)),
            ("until_sub_sequence_number", uint32(rows, |r| r.until_sub_sequence_number)),
        ]
    }
}

impl Row for WorkerRow {
    fn columns(rows: &[Self]) -> Named {
        vec![
            ("worker_id", text(rows, |r| &r.worker_id)),
            ("address", text(rows, |r| &r.address)),
            ("version", text(rows, |r| &r.version)),
            ("leases", uint64(rows, |r| r.leases)),
            ("alive", Arc::new(UInt8Array::from_iter_values(rows.iter().map(|r| u8::from(r.alive))))),
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
    // Only these may be null, and a stream must declare it before the first row, so even without
    // rows.
    let nullable =
        |name: &str| matches!(name, "millis_behind_latest" | "last_commit_time" | "first_time" | "until_time");
    let columns = R::columns(rows).into_iter().map(|(name, column)| {
        let column = if format == Format::JsonEachRow { without_zone(column) } else { column };
        (name, column, nullable(name))
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
