//! Sequence numbers and positions in a shard.

use std::cmp::Ordering;
use std::fmt;

use crate::limits::MAX_SEQUENCE_NUMBER_DIGITS;

/// The sequence number of a Kinesis record: a decimal integer of up to 128 bits and more, unique within its shard.
///
/// Ordered as an integer, never as text. The text is kept as it was given, because some implementations write leading zeros and
/// want them back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Box<str>);

impl SequenceNumber {
    /// Reads decimal digits. Anything else, nothing at all, or more than [`MAX_SEQUENCE_NUMBER_DIGITS`] is refused.
    pub fn parse(text: &str) -> Option<SequenceNumber> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (digits && text.len() <= MAX_SEQUENCE_NUMBER_DIGITS).then(|| SequenceNumber(text.into()))
    }

    /// The text as Kinesis gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Compares two runs of decimal digits as integers; equal integers with different leading zeros are ordered by length.
pub fn compare_digits(left: &str, right: &str) -> Ordering {
    let (l, r) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    (l.len().cmp(&r.len())).then_with(|| l.cmp(r)).then_with(|| left.len().cmp(&right.len()))
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_digits(&self.0, &other.0)
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a shard has been committed, so also where reading goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing yet; the oldest record comes next.
    TrimHorizon,
    /// Nothing yet; the first record that arrived at or after this time (Unix ms) comes next. `start=latest` becomes this at once,
    /// so that a restart before the first commit skips nothing.
    AtTimestamp(i64),
    /// All records up to and including this one (and this sub-record of an aggregate) are in ClickHouse.
    After(SequenceNumber, u32),
    /// The shard is closed and wholly committed. Greater than every other position.
    ShardEnd,
}

const TRIM_HORIZON: &str = "TRIM_HORIZON";
const SHARD_END: &str = "SHARD_END";
const AT_TIMESTAMP: &str = "AT_TIMESTAMP:";

impl Checkpoint {
    /// The text of the lease column `sequence_number`: digits, `TRIM_HORIZON`, `AT_TIMESTAMP:<unix ms>` or `SHARD_END`.
    pub fn sequence_text(&self) -> String {
        match self {
            Checkpoint::TrimHorizon => TRIM_HORIZON.into(),
            Checkpoint::AtTimestamp(ms) => format!("{AT_TIMESTAMP}{ms}"),
            Checkpoint::After(sequence, _) => sequence.as_str().into(),
            Checkpoint::ShardEnd => SHARD_END.into(),
        }
    }

    /// The lease column `sub_sequence_number`.
    pub fn sub_sequence(&self) -> u32 {
        match self {
            Checkpoint::After(_, sub) => *sub,
            _ => 0,
        }
    }

    /// Reads the two lease columns back. The error says what is allowed, because people edit these rows by hand.
    pub fn from_columns(sequence: &str, sub_sequence: u32) -> Result<Checkpoint, String> {
        let parsed = match sequence {
            TRIM_HORIZON => Some(Checkpoint::TrimHorizon),
            SHARD_END => Some(Checkpoint::ShardEnd),
            other => match other.strip_prefix(AT_TIMESTAMP) {
                Some(ms) => ms.parse().ok().map(Checkpoint::AtTimestamp),
                None => SequenceNumber::parse(other).map(|s| Checkpoint::After(s, sub_sequence)),
            },
        };
        parsed.ok_or_else(|| {
            format!(
                "'{sequence}' is no position: write a sequence number, TRIM_HORIZON, AT_TIMESTAMP:<unix ms> or SHARD_END"
            )
        })
    }

    /// Whether moving from `self` to `next` goes forward. Positions that are not sequence numbers stand before all that are.
    pub fn precedes(&self, next: &Checkpoint) -> bool {
        match (self, next) {
            (Checkpoint::ShardEnd, _) => false,
            (_, Checkpoint::ShardEnd) => true,
            (Checkpoint::After(a, x), Checkpoint::After(b, y)) => (a, x) < (b, y),
            (_, Checkpoint::After(..)) => true,
            (_, _) => false,
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sequence_text())
    }
}
