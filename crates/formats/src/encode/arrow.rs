//! Records as Arrow columns, and as an Arrow IPC stream.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
};
use arrow_buffer::Buffer;
use arrow_ipc::writer::StreamEncoder;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::{Bytes, BytesMut};

use super::events::{EventColumns, broken, entries};
use super::{Columns, Payload};
use domain::columns::{self, Column, Type};
use domain::error::Error;
use domain::limits::{ARROW_BATCH_BYTES, ARROW_BATCH_ROWS};
use domain::names::{BatchId, ShardId};
use domain::record::RecordRef;

/// The time zone of all timestamps.
pub(super) const UTC: &str = "UTC";
/// Length of the end-of-stream marker: the continuation word and a zero length.
const END_OF_STREAM: usize = 8;
/// Column buffers of at least this size are passed on as they are; smaller ones are combined, so
/// that the socket does not get tiny writes.
const SHARED_BUFFER: usize = 64 << 10;
/// Usual length of a sequence number: what a full record batch reserves for each.
const SEQUENCE_DIGITS: usize = 56;

fn schema(with_batch: bool, payload: Payload) -> Schema {
    let columns: Vec<Column> = match payload {
        Payload::DynamoDb => columns::events().collect(),
        Payload::Raw | Payload::Inline => columns::records().collect(),
    };
    let columns = columns.into_iter().chain(with_batch.then_some(columns::BATCH));
    Schema::new(columns.map(|column| Field::new(column.name, data_type(column.ty), false)).collect::<Vec<_>>())
}

fn data_type(ty: Type) -> DataType {
    match ty {
        Type::Text => DataType::Utf8,
        Type::Word => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Type::Bytes => DataType::Binary,
        Type::Time => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
        Type::UInt8 => DataType::UInt8,
        Type::UInt32 => DataType::UInt32,
        Type::Int64 => DataType::Int64,
        Type::Texts => DataType::Map(Arc::new(entries()), false),
    }
}

/// Collects records into columns and cuts record batches by a rule that depends only on the
/// records.
pub(super) struct Table {
    schema: SchemaRef,
    /// Dictionary values; the same arrays in every record batch, so that a stream carries each
    /// dictionary once.
    shards: ArrayRef,
    /// Constant columns, built once and sliced.
    stream: DictionaryArray<Int32Type>,
    batch: Option<StringArray>,
    keys: StringBuilder,
    timestamps: Vec<i64>,
    shard_ids: Vec<i32>,
    sequences: StringBuilder,
    sub_sequences: Vec<u32>,
    events: Option<Box<EventColumns>>,
    payloads: BinaryBuilder,
    /// Bytes of the collected records' payloads, whichever column they went to.
    payload_bytes: usize,
}

impl Table {
    pub(super) fn new(columns: &Columns, payload: Payload) -> Result<Table, Error> {
        let stream: ArrayRef = Arc::new(StringArray::from_iter_values([columns.stream.as_str()]));
        let stream = DictionaryArray::try_new(Int32Array::from(vec![0; ARROW_BATCH_ROWS]), stream).map_err(broken)?;
        let repeat = |id: &BatchId| StringArray::from_iter_values(std::iter::repeat_n(id.as_str(), ARROW_BATCH_ROWS));
        Ok(Table {
            schema: Arc::new(schema(columns.batch.is_some(), payload)),
            shards: Arc::new(StringArray::from_iter_values(columns.shards.iter().map(ShardId::as_str))),
            stream,
            batch: columns.batch.as_ref().map(repeat),
            keys: StringBuilder::with_capacity(ARROW_BATCH_ROWS, 0),
            timestamps: Vec::with_capacity(ARROW_BATCH_ROWS),
            shard_ids: Vec::with_capacity(ARROW_BATCH_ROWS),
            sequences: StringBuilder::with_capacity(ARROW_BATCH_ROWS, ARROW_BATCH_ROWS * SEQUENCE_DIGITS),
            sub_sequences: Vec::with_capacity(ARROW_BATCH_ROWS),
            events: (payload == Payload::DynamoDb).then(Box::default),
            payloads: BinaryBuilder::with_capacity(ARROW_BATCH_ROWS, ARROW_BATCH_BYTES),
            payload_bytes: 0,
        })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn rows(&self) -> usize {
        self.timestamps.len()
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Whether the collected rows must be cut before `record` is appended. Keys are bounded like
    /// payloads: they may be long, too.
    #[inline]
    pub(super) fn full_before(&self, record: &RecordRef<'_>) -> bool {
        let over = |held: usize, more: usize| held + more > ARROW_BATCH_BYTES;
        self.rows() >= ARROW_BATCH_ROWS
            || self.rows() > 0
                && (over(self.payload_bytes(), record.payload.len())
                    || over(self.keys.values_slice().len(), record.key.len()))
    }

    #[inline]
    pub(super) fn append(&mut self, record: &RecordRef<'_>, shard: usize) {
        self.keys.append_value(record.key);
        self.timestamps.push(record.timestamp_ms);
        // The cut rejects an index that is not a shard.
        self.shard_ids.push(i32::try_from(shard).unwrap_or(i32::MAX));
        self.sequences.append_value(record.sequence_number);
        self.sub_sequences.push(record.sub_sequence);
        self.payload_bytes += record.payload.len();
        match &mut self.events {
            None => self.payloads.append_value(record.payload),
            Some(events) => self.payloads.append_value(events.append(record.payload)),
        }
    }

    /// Takes the collected rows as a record batch and empties the table. `more` means that rows
    /// will follow, for which memory is reserved.
    pub(super) fn cut(&mut self, more: bool) -> Result<RecordBatch, Error> {
        let rows = self.rows();
        let reserve = if more { rows + rows / 8 } else { 0 };
        let strings = |held: &mut StringBuilder| {
            let bytes = if more { held.values_slice().len() + held.values_slice().len() / 8 } else { 0 };
            Arc::new(std::mem::replace(held, StringBuilder::with_capacity(reserve, bytes)).finish()) as ArrayRef
        };
        let payload_bytes = if more && self.events.is_none() { ARROW_BATCH_BYTES } else { 0 };
        let next = BinaryBuilder::with_capacity(reserve, payload_bytes);
        let payloads = std::mem::replace(&mut self.payloads, next).finish();
        let timestamps = std::mem::replace(&mut self.timestamps, Vec::with_capacity(reserve));
        let shard_ids = std::mem::replace(&mut self.shard_ids, Vec::with_capacity(reserve));
        let sub_sequences = std::mem::replace(&mut self.sub_sequences, Vec::with_capacity(reserve));
        let shard_ids = DictionaryArray::try_new(Int32Array::from(shard_ids), self.shards.clone()).map_err(broken)?;
        let mut columns: Vec<ArrayRef> = vec![
            strings(&mut self.keys),
            Arc::new(TimestampMillisecondArray::from(timestamps).with_timezone(UTC)),
            self.stream.slice(0, rows).into_array(),
            Arc::new(shard_ids),
            strings(&mut self.sequences),
            Arc::new(UInt32Array::from(sub_sequences)),
        ];
        if let Some(events) = &mut self.events {
            columns.extend(events.cut()?);
        }
        columns.push(Arc::new(payloads));
        self.payload_bytes = 0;
        columns.extend(self.batch.as_ref().map(|batch| batch.slice(0, rows).into_array()));
        RecordBatch::try_new(self.schema.clone(), columns).map_err(broken)
    }
}

/// Shorthand for turning a slice into a column.
trait IntoArray: Array + Sized + 'static {
    fn into_array(self) -> ArrayRef {
        Arc::new(self)
    }
}

impl<A: Array + 'static> IntoArray for A {}

/// The format `ArrowStream`.
pub(super) struct ArrowStream {
    table: Table,
    encoder: StreamEncoder,
}

impl ArrowStream {
    pub(super) fn new(columns: &Columns, payload: Payload) -> Result<ArrowStream, Error> {
        let table = Table::new(columns, payload)?;
        let encoder = StreamEncoder::try_new(table.schema()).map_err(broken)?;
        Ok(ArrowStream { table, encoder })
    }

    #[inline]
    pub(super) fn push(
        &mut self,
        record: RecordRef<'_>,
        shard: usize,
        ready: &mut VecDeque<Bytes>,
    ) -> Result<(), Error> {
        if self.table.full_before(&record) {
            let rows = self.table.cut(true)?;
            gather(self.encoder.encode(&rows).map_err(broken)?, ready);
        }
        self.table.append(&record, shard);
        Ok(())
    }

    pub(super) fn finish(mut self, ready: &mut VecDeque<Bytes>) -> Result<Bytes, Error> {
        if self.table.rows() > 0 {
            let rows = self.table.cut(false)?;
            gather(self.encoder.encode(&rows).map_err(broken)?, ready);
        }
        // Without any rows this is the schema and the marker.
        let mut end = VecDeque::new();
        gather(self.encoder.finish().map_err(broken)?, &mut end);
        let mut last = end.pop_back().unwrap_or_default();
        let tail = last.split_off(last.len().saturating_sub(END_OF_STREAM));
        ready.extend(end);
        if !last.is_empty() {
            ready.push_back(last);
        }
        Ok(tail)
    }
}

/// Passes on the buffers of a message: large ones without a copy, runs of small ones combined.
fn gather(buffers: Vec<Buffer>, ready: &mut VecDeque<Bytes>) {
    let mut small = BytesMut::new();
    for buffer in buffers {
        if buffer.len() < SHARED_BUFFER {
            small.extend_from_slice(&buffer);
            continue;
        }
        if !small.is_empty() {
            ready.push_back(small.split().freeze());
        }
        ready.push_back(Bytes::from_owner(buffer));
    }
    if !small.is_empty() {
        ready.push_back(small.freeze());
    }
}
