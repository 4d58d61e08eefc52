//! Stream first, then the export, then the pipe: checks that no change can be lost between export
//! and stream.

use super::export::{Export, Span, time};
use crate::error::CommandError;
use crate::generate::plan::shown;
use bridge::http::request::beginning;
use domain::moment::Moment;
use domain::ports::Stream;
use domain::start::Beginning;

/// The facts it depends on.
pub struct Facts<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// When it was created, Unix ms.
    pub stream_created_ms: i64,
    /// `--start`.
    pub start: &'a str,
    /// In order.
    pub exports: &'a [Export],
    /// Whether the target exists, so that something may have been loaded before.
    pub target_exists: bool,
    /// Unix ms.
    pub now_ms: i64,
}

/// Returns notes; the error says what would be lost, and what to do.
pub fn checked(facts: &Facts<'_>) -> Result<Vec<String>, CommandError> {
    let (Some(first), Some(last)) = (facts.exports.first(), facts.exports.last()) else { return Ok(Vec::new()) };
    let (stream, end) = (shown(&facts.stream.name), last.span.end());
    let mut notes = Vec::new();
    if let Span::Incremental { from, .. } = first.span {
        if !facts.target_exists {
            return Err(CommandError::Refused(format!(
                "the export at {} has only the changes from {} on, and there is no target yet that has the items before: also give the full export",
                first.url,
                time(from)
            )));
        }
        notes.push(format!(
            "Without a full export: the target must have everything up to {} already, which is not checked.",
            time(from)
        ));
    }
    if facts.stream_created_ms > end {
        return Err(CommandError::Refused(format!(
            "stream {stream} was created at {}, after the export of {}, so changes between them are lost: export again",
            time(facts.stream_created_ms),
            time(end)
        )));
    }
    let oldest = facts.now_ms - i64::from(facts.stream.retention_hours) * 3_600_000;
    if oldest > end {
        return Err(CommandError::Refused(format!(
            "the export of {} is older than the {} hours that stream {stream} keeps changes for: export again, or give the incremental exports after it",
            time(end),
            facts.stream.retention_hours
        )));
    }
    let start = beginning(facts.start);
    let late = match start {
        Ok(Beginning::LATEST) => true,
        Ok(Beginning::From(moment)) => moment.at(facts.now_ms) > end,
        Ok(Beginning::TrimHorizon) | Err(_) => false,
    };
    if let Ok(Beginning::From(Moment::Ago(ms @ 1..))) = start {
        notes.push(format!(
            "--start {} counts from the first pull: create the view before {}, or changes after the export are left out.",
            shown(facts.start),
            time(end.saturating_add(ms))
        ));
    }
    match late {
        true => Err(CommandError::Refused(format!(
            "--start {} leaves out changes after the export of {}: begin earlier, or leave --start out",
            facts.start,
            time(end)
        ))),
        false => Ok(notes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn said(span: Span, created: i64, start: &str, target_exists: bool) -> Result<Vec<String>, CommandError> {
        let stream = Stream {
            name: "s".into(),
            arn: String::new(),
            created_ms: 0,
            status: String::new(),
            mode: String::new(),
            open_shards: 1,
            retention_hours: 24,
        };
        let exports = [Export::with_span(span)];
        let facts =
            Facts { stream: &stream, stream_created_ms: created, start, exports: &exports, target_exists, now_ms: NOW };
        checked(&facts)
    }

    #[test]
    fn no_change_may_fall_between_export_and_stream() {
        let full = |hours: i64| Span::Full { at: NOW - hours * HOUR };
        assert_eq!(said(full(1), NOW - 2 * HOUR, "trim_horizon", false).unwrap(), [""; 0]);
        assert_eq!(said(full(1), NOW - HOUR, "2027-01-15T06:00:00Z", false).unwrap(), [""; 0]);
        let refused = |span, created, start: &str, expected: &str| {
            let why = said(span, created, start, false).unwrap_err().to_string();
            assert!(why.contains(expected), "{why}");
        };
        refused(full(1), NOW - HOUR + 1, "trim_horizon", "was created at 2027-01-15T07:00:00.001Z, after the export");
        refused(
            full(25),
            0,
            "trim_horizon",
            "is older than the 24 hours that stream \"s\" keeps changes for: export again",
        );
        refused(full(1), 0, "LATEST", "--start LATEST leaves out changes after the export of 2027-01-15T07:00:00.000Z");
        refused(full(1), 0, "1799996400001", "--start 1799996400001 leaves out changes");
        refused(full(1), 0, "1799996401", "--start 1799996401 leaves out changes");
        refused(full(2), 0, "-119m", "--start -119m leaves out changes after the export of 2027-01-15T06:00:00.000Z");
        let notes = said(full(2), 0, "-3h", false).unwrap();
        assert!(notes[0].starts_with(
            "--start \"-3h\" counts from the first pull: create the view before 2027-01-15T09:00:00.000Z"
        ));
        let later = Span::Incremental { from: NOW - 2 * HOUR, to: NOW - HOUR };
        refused(later, 0, "trim_horizon", "also give the full export");
        assert_eq!(said(later, 0, "trim_horizon", true).unwrap().len(), 1);
        // The full one may be older than the stream if incremental ones reach into it.
        assert_eq!(said(later, NOW - HOUR, "trim_horizon", true).unwrap().len(), 1);
    }
}
