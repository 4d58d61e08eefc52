//! Sequence numbers and positions in a shard.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::moment::Moment;
use crate::limits::MAX_SEQUENCE_NUMBER_DIGITS;

/// The sequence number of a Kinesis record: a decimal integer of 128 bits or more, unique within
/// its shard.
///
/// Ordered as an integer, never as text. The text is kept verbatim, because some implementations
/// write leading zeros and expect them back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Arc<str>);

impl SequenceNumber {
    /// Parses decimal digits. Anything else, an empty string, or more than
    /// [`MAX_SEQUENCE_NUMBER_DIGITS`] digits is refused.
    pub fn parse(text: &str) -> Option<SequenceNumber> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (digits && text.len() <= MAX_SEQUENCE_NUMBER_DIGITS).then(|| SequenceNumber(text.into()))
    }

    /// The text as Kinesis gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Compares two strings of decimal digits as integers; equal integers with different leading zeros
/// are ordered by length.
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

/// A row of a shard: a Kinesis record, and which of the rows it becomes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowPosition {
    /// The record.
    pub sequence: SequenceNumber,
    /// Number of the row within its record, from 0; `u32::MAX` stands for the last, whatever its
    /// number.
    pub sub: u32,
}

impl RowPosition {
    /// A row of a record.
    pub fn new(sequence: SequenceNumber, sub: u32) -> RowPosition {
        RowPosition { sequence, sub }
    }
}

/// How far a shard has been committed, and thus where reading resumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing yet; the oldest record comes next.
    TrimHorizon,
    /// Nothing yet; the first record that arrived at or after this time (Unix ms) comes next.
    /// `start=latest` is converted to this immediately, so that a restart before the first commit
    /// skips nothing.
    AtTimestamp(i64),
    /// All rows up to and including this one are in ClickHouse.
    After(RowPosition),
    /// The shard is closed and fully committed. Greater than every other position.
    ShardEnd,
}

/// A text in the lease column `sequence_number` that is none of [`Checkpoint`]. Says what is
/// allowed, because operators edit these rows by hand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a position: write a sequence number, TRIM_HORIZON, AT_TIMESTAMP:<unix ms> or SHARD_END")]
pub struct NotAPosition(String);

const TRIM_HORIZON: &str = "TRIM_HORIZON";
const SHARD_END: &str = "SHARD_END";
const AT_TIMESTAMP: &str = "AT_TIMESTAMP:";

impl Checkpoint {
    /// The text of the lease column `sequence_number`: digits, `TRIM_HORIZON`, `AT_TIMESTAMP:<unix
    /// ms>` or `SHARD_END`.
    pub fn sequence_text(&self) -> String {
        match self {
            Checkpoint::TrimHorizon => TRIM_HORIZON.into(),
            // In early 1970 ten digits, which would be read as seconds; eleven are milliseconds.
            Checkpoint::AtTimestamp(ms @ 1_000_000_000..10_000_000_000) => format!("{AT_TIMESTAMP}0{ms}"),
            Checkpoint::AtTimestamp(ms) => format!("{AT_TIMESTAMP}{ms}"),
            Checkpoint::After(row) => row.sequence.as_str().into(),
            Checkpoint::ShardEnd => SHARD_END.into(),
        }
    }

    /// The lease column `sub_sequence_number`.
    pub fn sub_sequence(&self) -> u32 {
        match self {
            Checkpoint::After(row) => row.sub,
            _ => 0,
        }
    }

    /// Parses the two lease columns.
    pub fn from_columns(sequence: &str, sub_sequence: u32) -> Result<Checkpoint, NotAPosition> {
        let parsed = match sequence {
            TRIM_HORIZON => Some(Checkpoint::TrimHorizon),
            SHARD_END => Some(Checkpoint::ShardEnd),
            other => match other.strip_prefix(AT_TIMESTAMP) {
                // Operators write seconds here, too.
                Some(time) => match Moment::unix(time) {
                    Some(moment) => Some(Checkpoint::AtTimestamp(moment.at(0))),
                    None => time.parse().ok().map(Checkpoint::AtTimestamp),
                },
                None => SequenceNumber::parse(other).map(|s| Checkpoint::After(RowPosition::new(s, sub_sequence))),
            },
        };
        parsed.ok_or_else(|| NotAPosition(sequence.into()))
    }

    /// Whether moving from `self` to `next` is a move forward. Positions that are not sequence
    /// numbers come before all that are.
    pub fn precedes(&self, next: &Checkpoint) -> bool {
        match (self, next) {
            (Checkpoint::ShardEnd, _) => false,
            (_, Checkpoint::ShardEnd) => true,
            (Checkpoint::After(this), Checkpoint::After(next)) => this < next,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> SequenceNumber {
        SequenceNumber::parse(text).unwrap()
    }

    /// Compares integers of any length by a different method: padded with zeros to a common width,
    /// text orders as numbers do.
    fn as_integers(left: &str, right: &str) -> Ordering {
        format!("{left:0>128}").cmp(&format!("{right:0>128}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn short_numbers_order_as_integers(left: u128, right: u128, shift in 0..120u32) {
            let (left, right) = (left >> shift, right >> shift);
            prop_assert_eq!(number(&left.to_string()).cmp(&number(&right.to_string())), left.cmp(&right));
        }

        #[test]
        fn long_numbers_order_as_integers(left in "[0-9]{1,128}", right in "[0-9]{1,128}", common in "[0-9]{0,40}") {
            for (left, right) in [(left.clone(), right.clone()), (common.clone() + &left, common + &right)] {
                if let (Some(l), Some(r)) = (SequenceNumber::parse(&left), SequenceNumber::parse(&right)) {
                    prop_assert_eq!(l.cmp(&r), as_integers(&left, &right).then(left.len().cmp(&right.len())));
                    prop_assert_eq!(l.cmp(&r), r.cmp(&l).reverse());
                    prop_assert_eq!(l == r, l.cmp(&r) == Ordering::Equal);
                }
            }
        }

        #[test]
        fn more_digits_are_more(digits in "[1-9][0-9]{0,126}", last in "[0-9]") {
            prop_assert!(number(&digits) < number(&(digits.clone() + &last)));
        }

        #[test]
        fn text_is_kept_and_nothing_else_is_read(text in "[0-9]{1,128}", other in ".{0,20}") {
            prop_assert_eq!(number(&text).to_string(), text);
            prop_assert_eq!(SequenceNumber::parse(&other).is_some(), !other.is_empty() && other.bytes().all(|b| b.is_ascii_digit()));
        }

        #[test]
        fn checkpoints_are_read_back(digits in "[0-9]{1,128}", sub: u32, ms: i64, shift in 0..64u32) {
            // Of any length: that of seconds is not that of milliseconds.
            let (ms, after) = (ms >> shift, Checkpoint::After(RowPosition::new(number(&digits), sub)));
            for checkpoint in [after, Checkpoint::TrimHorizon, Checkpoint::ShardEnd, Checkpoint::AtTimestamp(ms)] {
                let read = Checkpoint::from_columns(&checkpoint.sequence_text(), checkpoint.sub_sequence());
                prop_assert_eq!(read, Ok(checkpoint));
            }
        }

        #[test]
        fn checkpoints_only_move_forward(
            left in ("[0-9]{1,3}", 0..3u32),
            right in ("[0-9]{1,3}", 0..3u32),
        ) {
            let after = |(digits, sub): &(String, u32)| Checkpoint::After(RowPosition::new(number(digits), *sub));
            let (l, r) = (after(&left), after(&right));
            prop_assert_eq!(usize::from(l.precedes(&r)) + usize::from(r.precedes(&l)) + usize::from(l == r), 1);
            prop_assert!(Checkpoint::TrimHorizon.precedes(&l) && l.precedes(&Checkpoint::ShardEnd));
            prop_assert!(!Checkpoint::ShardEnd.precedes(&l) && !l.precedes(&Checkpoint::TrimHorizon));
        }
    }

    #[test]
    fn a_time_in_1970_is_not_read_back_as_seconds() {
        for ms in [0, 999_999_999, 1_000_000_000, 2_678_400_000, 9_999_999_999, 10_000_000_000] {
            let checkpoint = Checkpoint::AtTimestamp(ms);
            assert_eq!(Checkpoint::from_columns(&checkpoint.sequence_text(), 0), Ok(checkpoint));
        }
        assert_eq!(Checkpoint::AtTimestamp(1_795_255_200_000).sequence_text(), "AT_TIMESTAMP:1795255200000");
    }

    #[test]
    fn too_long_is_no_number() {
        let longest = "9".repeat(MAX_SEQUENCE_NUMBER_DIGITS);
        assert!(SequenceNumber::parse(&longest).is_some());
        assert_eq!(SequenceNumber::parse(&(longest + "9")), None);
        for text in ["", "-1", "+1", "1 ", "٣"] {
            assert_eq!(SequenceNumber::parse(text), None, "{text}");
        }
    }
}
