//! What is really in a Kinesis record: KPL aggregates, compressed payloads, several documents in
//! one payload.
//!
//! Pure and deterministic, so that a record that is read again gives the same rows under the same
//! numbers (`_sub_sequence_number`, from 0 within each Kinesis record). Whatever is broken, or
//! larger than the limits allow, is a row as it is: every record gives at least one row, but for
//! CloudWatch's control messages under `split=cloudwatch`.

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

/// How the records of a page are taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How all of them are, but for the one of `begun`.
    pub unpacking: Unpacking,
    /// A record of which a part is committed already goes on as it was begun, or its numbers would
    /// mean other rows.
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

/// What was met on the way, by the label of the metric that counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// KPL aggregates.
    pub aggregates: u64,
    /// Records that begin as an aggregate and are none.
    pub broken_aggregates: u64,
    /// Payloads that were decompressed.
    pub decompressed: u64,
    /// Those of them with bytes behind the compressed data, which were passed over.
    pub trailing_bytes: u64,
    /// Payloads that begin as compressed data and could not be decompressed.
    pub not_decompressed: u64,
    /// Payloads that would be larger than the limit when decompressed.
    pub too_large: u64,
    /// Control messages of CloudWatch, which give no row.
    pub control_messages: u64,
    /// Payloads that are no CloudWatch envelope although `split=cloudwatch`, or not made of JSON
    /// objects and arrays although `split=json`.
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

/// Gives the rows of a page of Kinesis records, a chunk at a time, so that neither a bomb nor a
/// million lines fill the memory.
pub struct Unpacker {
    page: Chunk,
    rules: Rules,
    /// Nothing in the page needs taking apart: it is its own rows.
    plain: bool,
    record: usize,
    open: Option<Open>,
    row: Vec<u8>,
    counts: Counts,
}

/// A Kinesis record in the middle of being taken apart.
struct Open {
    unpacking: Unpacking,
    /// The number of the next row.
    sub_sequence: u32,
    /// What decompressing may still give: the limit is for the whole Kinesis record.
    allowance: usize,
    /// What follows the document, if the record is an aggregate.
    aggregate: Option<Aggregate>,
    /// The partition key of the document: a place in the record's payload; none for the Kinesis
    /// record's own.
    key: Option<Range<usize>>,
    document: Option<Document>,
}

/// A payload of which rows are left.
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

/// The rows that a document has left.
enum Rest {
    /// It is one row.
    Whole,
    /// This line, and those from this offset on.
    Lines(Range<usize>, usize),
    /// This item, and those behind it.
    Items(Range<usize>, Items),
    /// The events from this number on.
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

/// The length of the byte order mark before a JSON text, which an earlier edition took for a part
/// of it.
fn mark(text: &[u8], edition: Edition) -> usize {
    if edition != Edition::First && text.starts_with(BOM) { BOM.len() } else { 0 }
}

/// Whether a payload is anything but one row.
fn is_packed(payload: &[u8], unpacking: Unpacking) -> bool {
    aggregate::claims(payload)
        || unpacking.decompress == Decompress::Auto && inflate::claims(payload, unpacking.edition)
        || unpacking.split != Split::None
}

impl Unpacker {
    /// Begins with the record at index `first` of `page`.
    pub fn new(page: Chunk, first: usize, rules: Rules) -> Unpacker {
        let plain = first == 0 && !page.records().any(|r| is_packed(r.payload, rules.of(r.sequence_number)));
        Unpacker { page, rules, plain, record: first, open: None, row: Vec::new(), counts: Counts::default() }
    }

    /// What was met so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether all rows have been given.
    pub fn is_done(&self) -> bool {
        self.record == self.page.len() && self.open.is_none()
    }

    /// Bytes that decompressed data holds besides the chunks that were given out.
    pub fn memory(&self) -> usize {
        let document = self.open.as_ref().and_then(|open| open.document.as_ref());
        document.map_or(0, |d| if let Body::Inflated(bytes) = &d.body { bytes.capacity() } else { 0 })
    }

    /// The next rows: about [`UNPACKED_CHUNK`] bytes and one row more at most, or the whole page
    /// where it is its own rows. None at the end.
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
                // A page is 10 MiB at most, and a row that was decompressed not much more: far from
                // a chunk's end.
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

    /// Appends the next row. False: there is none.
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
                // All of it was looked at before the first row.
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

    /// What is in one user record; none when that is no row.
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
                // What is in it cannot be told, so there is nothing to split.
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
