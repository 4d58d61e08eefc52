//! Stream first, then the export, then the pipe: whether no change can fall between export and stream.

use super::export::{Export, Span, time};
use crate::generate::plan::shown;
use crate::http::request::Start;
use crate::ports::Stream;

/// What decides it.
pub struct Facts<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// When it was created, Unix ms.
    pub stream_created_ms: i64,
    /// `--start`.
    pub start: &'a str,
    /// In their order.
    pub exports: &'a [Export],
    /// Whether the target exists, so that something may have been loaded before.
    pub target_exists: bool,
    /// Unix ms.
    pub now_ms: i64,
}

/// The notes; the error says what would be lost, and what to do.
pub fn checked(facts: &Facts<'_>) -> Result<Vec<String>, String> {
    let (Some(first), Some(last)) = (facts.exports.first(), facts.exports.last()) else { return Ok(Vec::new()) };
    let (stream, end) = (shown(&facts.stream.name), last.span.end());
    let mut notes = Vec::new();
    if let Span::Incremental { from, .. } = first.span {
        if !facts.target_exists {
            return Err(format!(
                "the export at {} has only the changes from {} on, and there is no target yet that has the items before: also give the full export",
                first.url,
                time(from)
            ));
        }
        notes.push(format!(
            "Without a full export: the target must have everything up to {} already, which is not checked.",
            time(from)
        ));
    }
    if facts.stream_created_ms > end {
        return Err(format!(
            "stream {stream} was created at {}, after the export of {}, so changes between them are lost: export again",
            time(facts.stream_created_ms),
            time(end)
        ));
    }
    let oldest = facts.now_ms - i64::from(facts.stream.retention_hours) * 3_600_000;
    if oldest > end {
        return Err(format!(
            "the export of {} is older than the {} hours that stream {stream} keeps changes for: export again, or give the incremental exports after it",
            time(end),
            facts.stream.retention_hours
        ));
    }
    let late = match Start::parse(facts.start) {
        Ok(Start::Latest) => true,
        Ok(Start::Time(start)) => start > end,
        Ok(Start::TrimHorizon) | Err(_) => false,
    };
    match late {
        true => Err(format!(
            "--start {} leaves out changes after the export of {}: begin earlier, or leave --start out",
            facts.start,
            time(end)
        )),
        false => Ok(notes),
    }
}
