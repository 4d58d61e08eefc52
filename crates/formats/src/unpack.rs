//! The contents of a Kinesis record: KPL aggregates, compressed payloads, several documents in one
//! payload.
//!
//! Pure and deterministic, so that rereading a record gives the same rows with the same numbers
//! (`_sub_sequence_number`, from 0 within each Kinesis record). Anything broken, or beyond the
//! limits, becomes a row unchanged: every record gives at least one row, except CloudWatch's
//! control messages with `split=cloudwatch`.

mod aggregate;
mod inflate;
mod items;
mod split;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::aggregate::Aggregate;
use self::inflate::{Inflated, inflate};
use self::items::{BOM, Items};
use self::split::Envelope;
use domain::limits::{MAX_INFLATED, UNPACKED_CHUNK};
use domain::record::{Chunk, RecordRef};
use domain::sequence::SequenceNumber;
use domain::unpacking::{Decompress, Edition, Split, Unpacking};

/// How the records of a page are unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For all records except that of `begun`.
    pub unpacking: Unpacking,
    /// A record that is partly committed continues the way it was started; otherwise its numbers
    /// would refer to other rows.
    pub begun: Option<(SequenceNumber, Unpacking)>,
}

impl Rules {
    fn of(&self, sequence_number: &str) -> Unpacking {
        match &self.begun {
            Some((sequence, unpacking)) if sequence.as_str() == sequence_number => *unpacking,
            _ => self.unpacking,
        }
    }
}

/// What was encountered, by the label of the metric that counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// KPL aggregates.
    pub aggregates: u64,
    /// Records that start like an aggregate but are not one.
    pub broken_aggregates: u64,
    /// Payloads that were decompressed.
    pub decompressed: u64,
    /// Of these, those with bytes after the compressed data, which were skipped.
    pub trailing_bytes: u64,
    /// Payloads that start like compressed data but could not be decompressed.
    pub not_decompressed: u64,
    /// Payloads that would exceed the limit when decompressed.
    pub too_large: u64,
    /// CloudWatch control messages, which give no row.
    pub control_messages: u64,
    /// Payloads that are not a CloudWatch envelope although `split=cloudwatch`, or not JSON objects
    /// and arrays although `split=json`.
    pub not_split: u64,
}

impl Counts {
    /// Each count with its label.
    pub fn labelled(self) -> [(&'static str, u64); 8] {
        [
            ("aggregate", self.aggregates),
            ("broken_aggregate", self.broken_aggregates),
            ("decompressed", self.decompressed),
            ("trailing_bytes", self.trailing_bytes),
            ("not_decompressed", self.not_decompressed),
            ("too_large", self.too_large),
            ("control_message", self.control_messages),
            ("not_split", self.not_split),
        ]
    }
}

/// Produces the rows of a page of Kinesis records, a chunk at a time, so that neither a
/// decompression bomb nor a million lines exhaust memory.
pub struct Unpacker {
    page: Chunk,
    rules: Rules,
    /// Nothing in the page needs unpacking: it serves as its own rows.
    plain: bool,
    record: usize,
    open: Option<Open>,
    row: Vec<u8>,
    counts: Counts,
}

/// A Kinesis record that is being unpacked.
struct Open {
    unpacking: Unpacking,
    /// The number of the next row.
    sub_sequence: u32,
    /// How much more may be decompressed: the limit applies to the whole Kinesis record.
    allowance: usize,
    /// What follows the document, if the record is an aggregate.
    aggregate: Option<Aggregate>,
    /// The partition key of the document: a range in the record's payload; `None` for the Kinesis
    /// record's own.
    key: Option<Range<usize>>,
    document: Option<Document>,
}

/// A payload that has rows left.
struct Document {
    body: Body,
    rest: Rest,
}

/// Where a document's bytes are.
enum Body {
    /// In the record's payload.
    Within(Range<usize>),
    Inflated(Vec<u8>),
}

/// The rows a document has left.
enum Rest {
    /// It is one row.
    Whole,
    /// This line, and those from this offset on.
    Lines(Range<usize>, usize),
    /// This item, and those after it.
    Items(Range<usize>, Items),
    /// The events from this index on.
    Events(Vec<u8>, Vec<Range<usize>>, usize),
}

impl Body {
    fn of<'a>(&'a self, payload: &'a [u8]) -> &'a [u8] {
        match self {
            Body::Within(range) => payload.get(range.clone()).unwrap_or_default(),
            Body::Inflated(bytes) => bytes,
        }
    }
}

/// The length of the byte order mark before a JSON text, which the earlier edition treats as part
/// of it.
fn mark(text: &[u8], edition: Edition) -> usize {
    if edition != Edition::First && text.starts_with(BOM) { BOM.len() } else { 0 }
}

/// Whether a payload is anything other than one row.
fn is_packed(payload: &[u8], unpacking: Unpacking) -> bool {
    aggregate::claims(payload)
        || unpacking.decompress == Decompress::Auto && inflate::claims(payload, unpacking.edition)
        || unpacking.split != Split::None
}

impl Unpacker {
    /// Starts with the record at index `first` of `page`.
    pub fn new(page: Chunk, first: usize, rules: Rules) -> Unpacker {
        let plain = first == 0 && !page.records().any(|r| is_packed(r.payload, rules.of(r.sequence_number)));
        Unpacker { page, rules, plain, record: first, open: None, row: Vec::new(), counts: Counts::default() }
    }

    /// What was encountered so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether all rows have been returned.
    pub fn is_done(&self) -> bool {
        self.record == self.page.len() && self.open.is_none()
    }

    /// Bytes of decompressed data held in addition to the chunks returned so far.
    pub fn memory(&self) -> usize {
        let document = self.open.as_ref().and_then(|open| open.document.as_ref());
        document.map_or(0, |d| if let Body::Inflated(bytes) = &d.body { bytes.capacity() } else { 0 })
    }

    /// The next rows: about [`UNPACKED_CHUNK`] bytes and at most one row more, or the whole page if
    /// it serves as its own rows. `None` at the end.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        if std::mem::take(&mut self.plain) {
            self.record = 0;
            return Some(std::mem::take(&mut self.page)).filter(|page| !page.is_empty());
        }
        let Unpacker { page, rules, record, open, row, counts, .. } = self;
        let mut rows = Chunk::with_capacity(page.len().min(UNPACKED_CHUNK / 256), UNPACKED_CHUNK / 2);
        while rows.size() < UNPACKED_CHUNK && *record < page.len() {
            let whole = page.get(*record);
            let unpacking = rules.of(whole.sequence_number);
            if open.is_none() && !is_packed(whole.payload, unpacking) {
                // A page is at most 10 MiB, and a decompressed row not much more: far from a
                // chunk's limit.
                let _ = rows.push(whole);
                *record += 1;
                continue;
            }
            let current = open.get_or_insert_with(|| Open::new(whole.payload, unpacking, counts));
            if !current.push_row(whole, &mut rows, row, counts) {
                *open = None;
                *record += 1;
            }
        }
        rows.shrink();
        Some(rows).filter(|rows| !rows.is_empty())
    }
}

impl Open {
    fn new(payload: &[u8], unpacking: Unpacking, counts: &mut Counts) -> Open {
        let aggregate = Aggregate::open(payload);
        let mut open =
            Open { unpacking, sub_sequence: 0, allowance: MAX_INFLATED, aggregate, key: None, document: None };
        if open.aggregate.is_some() {
            counts.aggregates += 1;
        } else if aggregate::claims(payload) {
            counts.broken_aggregates += 1;
            open.document = Some(Document { body: Body::Within(0..payload.len()), rest: Rest::Whole });
        } else {
            open.document = open.document(payload, 0..payload.len(), counts);
        }
        open
    }

    /// Appends the next row. Returns false if there is none.
    fn push_row(&mut self, whole: RecordRef<'_>, rows: &mut Chunk, scratch: &mut Vec<u8>, counts: &mut Counts) -> bool {
        let payload = whole.payload;
        while self.document.is_none() {
            let Some(next) = self.aggregate.as_mut().and_then(|aggregate| aggregate.next(payload)) else {
                return false;
            };
            self.key = Some(next.key);
            self.document = self.document(payload, next.data, counts);
        }
        let Some(document) = &mut self.document else { return false };
        let text = document.body.of(payload);
        let (row, more) = match &mut document.rest {
            Rest::Whole => (text, false),
            Rest::Lines(line, after) => {
                let row = text.get(line.clone()).unwrap_or_default();
                let next = split::line(text, *after);
                let more = next.is_some();
                if let Some(next) = next {
                    (*line, *after) = next;
                }
                (row, more)
            }
            Rest::Items(item, behind) => {
                let row = text.get(item.clone()).unwrap_or_default();
                // All of it was validated before the first row.
                let next = behind.next(text).ok().flatten();
                let more = next.is_some();
                *item = next.unwrap_or_default();
                (row, more)
            }
            Rest::Events(head, events, at) => {
                scratch.clear();
                let inside = events.get(*at).and_then(|event| text.get(event.clone())).unwrap_or_default();
                split::event_row(head, inside, scratch);
                *at += 1;
                (scratch.as_slice(), *at < events.len())
            }
        };
        let key = self.key.as_ref().and_then(|key| std::str::from_utf8(payload.get(key.clone())?).ok());
        let _ = rows.push(RecordRef {
            key: key.unwrap_or(whole.key),
            sub_sequence: self.sub_sequence,
            payload: row,
            ..whole
        });
        self.sub_sequence = self.sub_sequence.saturating_add(1);
        if !more {
            self.document = None;
        }
        true
    }

    /// The contents of one user record; `None` if it gives no row.
    fn document(&mut self, payload: &[u8], range: Range<usize>, counts: &mut Counts) -> Option<Document> {
        let stored = payload.get(range.clone()).unwrap_or_default();
        let (mut body, mut split) = (Body::Within(range), self.unpacking.split);
        let edition = self.unpacking.edition;
        if self.unpacking.decompress == Decompress::Auto && inflate::claims(stored, edition) {
            match inflate(stored, self.allowance, edition) {
                Inflated::Whole(bytes, trailing) => {
                    counts.decompressed += 1;
                    counts.trailing_bytes += u64::from(trailing);
                    self.allowance -= bytes.len().min(self.allowance);
                    body = Body::Inflated(bytes);
                }
                // Its contents are unknown, so there is nothing to split.
                Inflated::Broken => (counts.not_decompressed, split) = (counts.not_decompressed + 1, Split::None),
                Inflated::TooLarge => (counts.too_large, split) = (counts.too_large + 1, Split::None),
                Inflated::Plain => {}
            }
        }
        let rest = match split {
            Split::None => Rest::Whole,
            Split::Lines => {
                split::line(body.of(payload), 0).map_or(Rest::Whole, |(line, after)| Rest::Lines(line, after))
            }
            Split::Json => {
                let text = body.of(payload);
                let first = Items::open(text).and_then(|mut items| Some((items.next(text).ok()??, items)));
                match first {
                    Some((item, behind)) => Rest::Items(item, behind),
                    None => {
                        counts.not_split += 1;
                        Rest::Whole
                    }
                }
            }
            Split::CloudWatch => match split::envelope(body.of(payload), mark(body.of(payload), edition)) {
                Some(Envelope::Data { head, events }) => Rest::Events(head, events, 0),
                Some(Envelope::Control) => {
                    counts.control_messages += 1;
                    return None;
                }
                None => {
                    counts.not_split += 1;
                    Rest::Whole
                }
            },
        };
        Some(Document { body, rest })
    }
}
