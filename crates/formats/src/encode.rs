//! Records and metadata rows as bytes: pure, deterministic, and streaming with constant memory.
//!
//! The bytes of a batch are a function of its records and the format alone
//! (**same-batch-same-bytes**): record batches, row groups and rows are cut by the records
//! themselves, never by how a reader happened to receive them. So a batch that is read again, by
//! this process or another, gives the same answer byte for byte, and a `Range` is answered by
//! encoding again and skipping.
//!
//! The end of a body is split off as the *tail*: the pull protocol holds it back until ClickHouse
//! has said how the refresh ended.

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
use domain::record::RecordRef;

pub use rows::{PipeRow, PlanRow, Row, ShardRow, StreamRow, WorkerRow, encode_rows};

/// A format of answers, named as ClickHouse names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Arrow IPC stream.
    ArrowStream,
    /// One JSON object a line.
    JsonEachRow,
    /// Parquet file; for bounded reads only.
    Parquet,
}

impl Format {
    /// All formats, in the order in which messages list them.
    pub const ALL: [Format; 3] = [Format::ArrowStream, Format::JsonEachRow, Format::Parquet];

    /// Reads ClickHouse's name, exactly.
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

/// What becomes of a record's payload in its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Payload {
    /// It stands in the column `_raw_message`.
    #[default]
    Raw,
    /// Its own fields stand beside the other columns, if it is a JSON object; `_error` says why it
    /// is not, and `_raw_message` holds it then.
    Inline,
    /// It is taken for a change event of DynamoDB, which has columns of its own; `_error` says why
    /// it is none, and `_raw_message` holds it then.
    DynamoDb,
}

impl Payload {
    /// The words of the parameter `payload`, in the order in which messages list them.
    pub const PLACES: [(&str, Payload); 2] = [("raw", Payload::Raw), ("inline", Payload::Inline)];
    /// The words of the parameter `unmarshal`.
    pub const UNMARSHALS: [(&str, Payload); 2] = [("none", Payload::Raw), ("dynamodb", Payload::DynamoDb)];
}

/// How records are written: the format, and what becomes of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    format: Format,
    payload: Payload,
}

impl Form {
    /// None where the format has no place for such payloads: only in `JSONEachRow` rows may differ
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

/// As in a URL; the default is not said.
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

/// What is the same for all records of an answer, known before the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The column `_batch`; none leaves the column out (`records`, `sample`).
    pub batch: Option<String>,
    /// The column `_stream`.
    pub stream: String,
    /// All values that the column `_shard_id` may have. Records name theirs by its index; the order
    /// is part of the bytes.
    pub shards: Vec<String>,
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

/// Turns records into bytes, a record at a time.
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

    /// The next piece that is finished; together they are under about 2 MiB, or as large as the one
    /// record in them, and twice that for events, whose columns say some of it twice (a Parquet row
    /// group comes out as a whole, in pieces). Take all there are after each `push` to keep memory
    /// constant.
    #[inline]
    pub fn take(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Ends the answer: the pieces still to be sent, and the tail. For `ArrowStream` the tail is
    /// the 8 bytes of the end-of-stream marker, for `JSONEachRow` the newline of the last row
    /// (nothing without rows), for `Parquet` the footer.
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

/// The pieces of a batch in order, encoded as they are asked for. The last one is exactly the tail,
/// which may be empty.
///
/// After an error it ends.
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

/// The length of the encoded batch, tail included, by encoding it once and counting.
pub fn encoded_len(batch: &Batch, form: impl Into<Form>) -> Result<u64, Error> {
    let mut length = 0;
    for piece in encode_batch(batch, form)? {
        length += piece?.len() as u64;
    }
    Ok(length)
}

impl<B: Borrow<Batch>> Pieces<B> {
    /// Feeds the encoder from where it stopped until a piece is there, or the batch ends and the
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
