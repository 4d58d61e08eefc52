//! Records and metadata rows as bytes: pure, deterministic, and streaming with constant memory.
//!
//! The bytes of a batch depend only on its records and the format (**same-batch-same-bytes**):
//! record batches, row groups and rows are cut by the records themselves, never by how a reader
//! happened to receive them. So when a batch is read again, by this process or another, the
//! response is identical byte for byte, and a `Range` is answered by encoding again and skipping.
//!
//! The end of a body is split off as the *tail*: the pull protocol holds it back until `SYSTEM WAIT
//! VIEW` has been issued.

mod arrow;
mod events;
mod inline;
mod json;
mod parquet;
mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use domain::batch::Batch;
use domain::error::Error;
use domain::names::{BatchId, ShardId, StreamName};
use domain::record::RecordRef;

pub use rows::{PipeRow, PlanRow, Row, ShardRow, StreamRow, WorkerRow, encode_rows};

/// A response format, named as in ClickHouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Arrow IPC stream.
    ArrowStream,
    /// One JSON object per line.
    JsonEachRow,
    /// Parquet file; for bounded reads only.
    Parquet,
}

impl Format {
    /// All formats, in the order in which messages list them.
    pub const ALL: [Format; 3] = [Format::ArrowStream, Format::JsonEachRow, Format::Parquet];

    /// Parses ClickHouse's name, exactly.
    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|f| f.name() == name)
    }

    /// ClickHouse's name.
    pub fn name(self) -> &'static str {
        match self {
            Format::ArrowStream => "ArrowStream",
            Format::JsonEachRow => "JSONEachRow",
            Format::Parquet => "Parquet",
        }
    }

    /// The value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::ArrowStream => "application/vnd.apache.arrow.stream",
            Format::JsonEachRow => "application/x-ndjson",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// How a record's payload appears in its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Payload {
    /// In the column `_raw_message`.
    #[default]
    Raw,
    /// If it is a JSON object, its fields become columns next to the others; otherwise `_error`
    /// says why and `_raw_message` contains it.
    Inline,
    /// As a DynamoDB change event, with columns of its own; if it is not one, `_error` says why and
    /// `_raw_message` contains it.
    DynamoDb,
}

impl Payload {
    /// The values of the parameter `payload`, in the order in which messages list them.
    pub const PLACES: [(&str, Payload); 2] = [("raw", Payload::Raw), ("inline", Payload::Inline)];
    /// The values of the parameter `unmarshal`.
    pub const UNMARSHALS: [(&str, Payload); 2] = [("none", Payload::Raw), ("dynamodb", Payload::DynamoDb)];
}

/// How records are written: the format, and the treatment of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    format: Format,
    payload: Payload,
}

impl Form {
    /// `None` if the format cannot represent such payloads: only in `JSONEachRow` may rows differ
    /// in their columns.
    pub fn new(format: Format, payload: Payload) -> Option<Form> {
        (payload != Payload::Inline || format == Format::JsonEachRow).then_some(Form { format, payload })
    }

    /// The format.
    pub fn format(self) -> Format {
        self.format
    }
}

impl From<Format> for Form {
    fn from(format: Format) -> Form {
        Form { format, payload: Payload::Raw }
    }
}

/// As in a URL; defaults are omitted.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format.name())?;
        match self.payload {
            Payload::Raw => Ok(()),
            Payload::Inline => f.write_str(" payload=inline"),
            Payload::DynamoDb => f.write_str(" unmarshal=dynamodb"),
        }
    }
}

/// What is the same for all records of a response, known before the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The column `_batch`; `None` omits it (`records`, `sample`).
    pub batch: Option<BatchId>,
    /// The column `_stream`.
    pub stream: StreamName,
    /// All values of the column `_shard_id`. Records refer to theirs by index; the order is part of
    /// the bytes.
    pub shards: Vec<ShardId>,
}

impl Columns {
    /// The columns of a frozen batch.
    pub fn of(batch: &Batch) -> Columns {
        Columns {
            batch: Some(batch.id.clone()),
            stream: batch.stream.clone(),
            shards: batch.ranges.iter().map(|r| r.shard_id.clone()).collect(),
        }
    }
}

/// Turns records into bytes, one record at a time.
pub struct Encoder {
    kind: Kind,
    ready: VecDeque<Bytes>,
}

enum Kind {
    Arrow(Box<arrow::ArrowStream>),
    Json(Box<json::Json>),
    Parquet(Box<parquet::Parquet>),
}

impl Encoder {
    /// An encoder that has written nothing yet.
    pub fn new(form: impl Into<Form>, columns: &Columns) -> Result<Encoder, Error> {
        let form = form.into();
        let kind = match form.format {
            Format::ArrowStream => Kind::Arrow(Box::new(arrow::ArrowStream::new(columns, form.payload)?)),
            Format::JsonEachRow => Kind::Json(Box::new(json::Json::new(columns, form.payload))),
            Format::Parquet => Kind::Parquet(Box::new(parquet::Parquet::new(columns, form.payload)?)),
        };
        Ok(Encoder { kind, ready: VecDeque::new() })
    }

    /// Appends a record of the shard at index `shard` of [`Columns::shards`].
    #[inline]
    pub fn push(&mut self, record: RecordRef<'_>, shard: usize) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Arrow(arrow) => arrow.push(record, shard, &mut self.ready),
            Kind::Json(json) => json.push(record, shard, &mut self.ready),
            Kind::Parquet(parquet) => parquet.push(record, shard, &mut self.ready),
        }
    }

    /// The next finished piece. Together, the pieces are under about 2 MiB, or as large as a single
    /// record in them, and twice that for events, whose columns repeat some data (a Parquet row
    /// group comes out as a whole, in pieces). Take all available pieces after each `push` to keep
    /// memory constant.
    #[inline]
    pub fn take(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Ends the response: returns the pieces still to be sent, and the tail. For `ArrowStream` the
    /// tail is the 8 bytes of the end-of-stream marker, for `JSONEachRow` the newline of the last
    /// row (empty without rows), for `Parquet` the footer.
    pub fn finish(self) -> Result<(VecDeque<Bytes>, Bytes), Error> {
        let mut ready = self.ready;
        let tail = match self.kind {
            Kind::Arrow(arrow) => arrow.finish(&mut ready)?,
            Kind::Json(json) => json.finish(&mut ready),
            Kind::Parquet(parquet) => parquet.finish(&mut ready)?,
        };
        Ok((ready, tail))
    }
}

/// The pieces of a batch in order, encoded on demand. The last one is exactly the tail, which may
/// be empty.
///
/// Ends after an error.
pub struct Pieces<B> {
    batch: B,
    encoder: Option<Encoder>,
    ready: VecDeque<Bytes>,
    range: usize,
    slice: usize,
    record: usize,
}

/// Encodes a frozen batch, which may be borrowed or shared.
pub fn encode_batch<B: Borrow<Batch>>(batch: B, form: impl Into<Form>) -> Result<Pieces<B>, Error> {
    let encoder = Encoder::new(form, &Columns::of(batch.borrow()))?;
    Ok(Pieces { batch, encoder: Some(encoder), ready: VecDeque::new(), range: 0, slice: 0, record: 0 })
}

/// The length of the encoded batch, tail included, found by encoding it once and counting.
pub fn encoded_len(batch: &Batch, form: impl Into<Form>) -> Result<u64, Error> {
    let mut length = 0;
    for piece in encode_batch(batch, form)? {
        length += piece?.len() as u64;
    }
    Ok(length)
}

impl<B: Borrow<Batch>> Pieces<B> {
    /// Feeds the encoder from where it stopped until there is a piece, or the batch ends and the
    /// tail is there too.
    fn advance(&mut self) -> Result<(), Error> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        let batch: &Batch = self.batch.borrow();
        while let Some(range) = batch.ranges.get(self.range) {
            while let Some(slice) = range.slices.get(self.slice) {
                let (_, rest) = slice.split_at(self.record);
                for record in rest.records() {
                    encoder.push(record, self.range)?;
                    self.record += 1;
                    if let Some(piece) = encoder.take() {
                        self.ready.push_back(piece);
                        self.ready.extend(std::iter::from_fn(|| encoder.take()));
                        self.encoder = Some(encoder);
                        return Ok(());
                    }
                }
                (self.slice, self.record) = (self.slice + 1, 0);
            }
            (self.range, self.slice) = (self.range + 1, 0);
        }
        let (rest, tail) = encoder.finish()?;
        self.ready.extend(rest);
        self.ready.push_back(tail);
        Ok(())
    }
}

impl<B: Borrow<Batch>> Iterator for Pieces<B> {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty()
            && let Err(error) = self.advance()
        {
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}
