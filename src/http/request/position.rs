//! Times and positions as people write them.

use chrono::{DateTime, NaiveDateTime};

use super::query::quoted;
use crate::domain::error::Error;
use crate::domain::range::Bound;
use crate::domain::sequence::SequenceNumber;

/// A whole number with fewer digits is a time in milliseconds (the year 5138 has 14, this leaves room), one with as many or more is a
/// sequence number (Kinesis gives 56).
const SEQUENCE_DIGITS: usize = 17;
/// What a message says about times.
const TIMES: &str = "a time as 2026-11-21T10:00:00.000Z, 2026-11-21 10:00:00 (UTC) or Unix milliseconds";

/// Where a pipe without a checkpoint begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest record.
    TrimHorizon,
    /// What comes from now on.
    Latest,
    /// Unix ms: what arrived then or later.
    Time(i64),
}

/// Where a checkpoint is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// A start that has a meaning for any shard.
    Start(Start),
    /// A sequence number of one shard.
    Sequence(SequenceNumber),
}

/// Reads the value of `from` or `to`.
pub(super) fn bound(parameter: &str, text: &str, one_shard: bool) -> Result<Bound, Error> {
    match position(text) {
        Some(Position::Start(Start::Time(ms))) => Ok(Bound::Time(ms)),
        Some(Position::Sequence(sequence)) if one_shard => Ok(Bound::Sequence(sequence)),
        Some(Position::Sequence(_)) => Err(Error::BadRequest(format!(
            "{parameter}={} is a sequence number, which has a meaning within one shard only: add shard=",
            quoted(text)
        ))),
        _ => Err(Error::BadRequest(format!(
            "{parameter}={} is refused: it must be {TIMES}, or with shard= a sequence number",
            quoted(text)
        ))),
    }
}

impl Start {
    /// Reads the value of `start`.
    pub fn parse(text: &str) -> Result<Start, Error> {
        match position(text) {
            Some(Position::Start(start)) => Ok(start),
            _ => Err(Error::BadRequest(format!(
                "start={} is refused: it must be trim_horizon, latest or {TIMES}",
                quoted(text)
            ))),
        }
    }
}

impl Position {
    /// Reads the position of a row of `seek`.
    pub(super) fn parse(text: &str) -> Result<Position, String> {
        position(text).ok_or_else(|| {
            format!("the position {} must be trim_horizon, latest, {TIMES}, or a sequence number", quoted(text))
        })
    }
}

fn position(text: &str) -> Option<Position> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let start = match text {
        word if word.eq_ignore_ascii_case("trim_horizon") => Start::TrimHorizon,
        word if word.eq_ignore_ascii_case("latest") => Start::Latest,
        number if digits && number.len() >= SEQUENCE_DIGITS => {
            return SequenceNumber::parse(number).map(Position::Sequence);
        }
        number if digits => Start::Time(number.parse().ok()?),
        time => Start::Time(time_ms(time)?),
    };
    Some(Position::Start(start))
}

/// Unix ms of a time in text; parts of a millisecond are dropped.
fn time_ms(text: &str) -> Option<i64> {
    let plain = || NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map(|t| t.and_utc().timestamp_millis());
    DateTime::parse_from_rfc3339(text).map(|t| t.timestamp_millis()).or_else(|_| plain()).ok()
}
