//! Times and positions as users write them: the only place where they are parsed.

use chrono::{DateTime, NaiveDateTime};

use super::query::quoted;
use domain::error::Error;
use domain::moment::Moment;
use domain::range::Bound;
use domain::sequence::SequenceNumber;
use domain::start::Beginning;

/// A whole number with as many digits or more is a sequence number (Kinesis gives 56); Unix times
/// have 10 or 13.
const SEQUENCE_DIGITS: usize = 17;
/// How messages describe times.
const TIMES: &str = "a time such as 2026-11-21T10:00:00.000Z, 2026-11-21 10:00:00 (UTC), Unix seconds (10 digits) or \
                     milliseconds (13 digits), now, or a time ago such as -90s, -30m, -1h, -7d";

/// Where to move a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// A position that is meaningful in any shard.
    Start(Beginning),
    /// A sequence number of one shard.
    Sequence(SequenceNumber),
}

/// Parses the value of `from` or `to`.
pub(super) fn bound(parameter: &str, text: &str, one_shard: bool) -> Result<Bound<Moment>, Error> {
    if let Some(moment) = moment(text) {
        return Ok(Bound::Time(moment));
    }
    match sequence(text) {
        Some(sequence) if one_shard => Ok(Bound::Sequence(sequence)),
        Some(_) => Err(Error::BadRequest(format!(
            "{parameter}={} is a sequence number, which is meaningful only within one shard: add shard=",
            quoted(text)
        ))),
        None => Err(Error::BadRequest(format!(
            "{parameter}={} is refused: it must be {TIMES}, or with shard= a sequence number",
            quoted(text)
        ))),
    }
}

/// Parses the value of `start`.
pub fn beginning(text: &str) -> Result<Beginning, Error> {
    start(text).ok_or_else(|| {
        Error::BadRequest(format!("start={} is refused: it must be trim_horizon, latest or {TIMES}", quoted(text)))
    })
}

impl Position {
    /// Parses the position of a row of `seek`.
    pub(super) fn parse(text: &str) -> Result<Position, Error> {
        start(text).map(Position::Start).or_else(|| sequence(text).map(Position::Sequence)).ok_or_else(|| {
            Error::BadRequest(format!(
                "the position {} must be trim_horizon, latest, {TIMES}, or a sequence number",
                quoted(text)
            ))
        })
    }
}

/// `now` means the same as `latest`.
fn start(text: &str) -> Option<Beginning> {
    match text {
        word if word.eq_ignore_ascii_case("trim_horizon") => Some(Beginning::TrimHorizon),
        word if word.eq_ignore_ascii_case("latest") => Some(Beginning::LATEST),
        time => moment(time).map(Beginning::From),
    }
}

fn moment(text: &str) -> Option<Moment> {
    Moment::unix(text).or_else(|| Moment::relative(text)).or_else(|| dated(text))
}

fn sequence(text: &str) -> Option<SequenceNumber> {
    SequenceNumber::parse(text).filter(|_| text.len() >= SEQUENCE_DIGITS)
}

/// A date with a time, from 1970 on; fractions of a millisecond are dropped.
fn dated(text: &str) -> Option<Moment> {
    let plain = || NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map(|t| t.and_utc().timestamp_millis());
    let ms = DateTime::parse_from_rfc3339(text).map(|t| t.timestamp_millis()).or_else(|_| plain()).ok()?;
    Some(Moment::At(ms)).filter(|_| ms >= 0)
}
