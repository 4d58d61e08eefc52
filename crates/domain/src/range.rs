//! Bounded reads: which shards a slice reads, and which records are in a range.

use super::moment::Moment;
use super::names::ShardId;
use super::record::RecordRef;
use super::sequence::{RowPosition, SequenceNumber, compare_digits};
use crate::limits::TIMESTAMP_SLACK_MS;

#[cfg(test)]
mod tests;

/// One end of a range. As requested, its time may be a [`Moment`]; reading needs Unix ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound<T = i64> {
    /// The oldest record, or the newest at the time of the request.
    Open,
    /// An arrival time: inclusive as a start, exclusive as an end.
    Time(T),
    /// A record of one shard, inclusive.
    Sequence(SequenceNumber),
}

impl Bound<Moment> {
    /// The same bound, with its time resolved against the current time.
    pub fn at(&self, now_ms: i64) -> Bound {
        match self {
            Bound::Open => Bound::Open,
            Bound::Time(moment) => Bound::Time(moment.at(now_ms)),
            Bound::Sequence(sequence) => Bound::Sequence(sequence.clone()),
        }
    }
}

/// One of `count` parts that together cover the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceOf {
    /// From 0, below `count`.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl SliceOf {
    /// Whether this part reads the shard. It depends only on the shard's id, so the parts of
    /// parallel requests fit together even when the stream is resharded between them.
    pub fn reads(self, shard_id: &ShardId) -> bool {
        let digits = shard_id.rsplit('-').next().unwrap_or_default();
        let number = digits.parse::<u64>().unwrap_or_else(|_| shard_id.bytes().map(u64::from).sum());
        number % u64::from(self.count.max(1)) == u64::from(self.index)
    }
}

/// Where a record lies relative to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not in the range; later records may be.
    Outside,
    /// In the range.
    Inside,
    /// Beyond the range, and so is everything after it.
    Past,
}

/// Where a pipe starts in a shard, so that a backfill running alongside ends right before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// This row.
    Row(RowPosition),
    /// The first record that arrived at or after this time, Unix ms; it has not arrived yet.
    Time(i64),
}

impl Until {
    /// Whether the whole record lies at or after this point, and thus everything after it.
    pub fn passed_by(&self, record: RecordRef<'_>) -> bool {
        match self {
            Until::Row(row) => {
                let order = compare_digits(record.sequence_number, row.sequence.as_str());
                if row.sub == 0 { order.is_ge() } else { order.is_gt() }
            }
            Until::Time(ms) => record.timestamp_ms >= *ms,
        }
    }

    /// Whether a row lies before this point, given that its record is not entirely after it.
    pub fn follows(&self, row: RecordRef<'_>) -> bool {
        match self {
            Until::Row(first) => row.sequence_number != first.sequence.as_str() || row.sub_sequence < first.sub,
            Until::Time(_) => true,
        }
    }
}

/// Where `record` lies between `from` and `to`. `began_ms` is the time of the request: an open end
/// reads up to then.
pub fn place(record: RecordRef<'_>, from: &Bound, to: &Bound, began_ms: i64) -> Place {
    let early = match from {
        Bound::Open => false,
        Bound::Time(ms) => record.timestamp_ms < *ms,
        Bound::Sequence(first) => compare_digits(record.sequence_number, first.as_str()).is_lt(),
    };
    // Arrival times are approximate: only well past the end is it certain that nothing earlier
    // follows.
    let (late, past) = match to {
        Bound::Open => (false, record.timestamp_ms > began_ms + TIMESTAMP_SLACK_MS),
        Bound::Time(ms) => (record.timestamp_ms >= *ms, record.timestamp_ms > ms + TIMESTAMP_SLACK_MS),
        Bound::Sequence(last) => {
            let beyond = compare_digits(record.sequence_number, last.as_str()).is_gt();
            (beyond, beyond)
        }
    };
    match (past, early || late) {
        (true, _) => Place::Past,
        (false, true) => Place::Outside,
        (false, false) => Place::Inside,
    }
}
