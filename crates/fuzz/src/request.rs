//! Requests of the HTTP interface: method, path, query and body.

mod generated;
mod printed;

use bridge::http::request::{Request, parse, parse_ack, parse_end, parse_seek};
use domain::error::Error;
use domain::limits;
use domain::moment::Moment;
use domain::range::Bound;
use domain::start::Beginning;
use formats::encode::Format;
use proptest::prelude::*;

use super::input::{Checked, fuzz};
use domain::names::PipeName;

const WORDS: &[&[u8]] = &[
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"DELETE ",
    b"/v1/",
    b"streams",
    b"pipes",
    b"workers",
    b"/orders",
    b"/shards",
    b"/sample",
    b"/records",
    b"/records/plan",
    b"/next",
    b"/seek",
    b"/ack",
    b"/end",
    b"/",
    b"?",
    b"&",
    b"=",
    b"%",
    b"+",
    b"%00",
    b"%0a",
    b"%26",
    b"%3D",
    b"%60",
    b"%ff",
    b"%e2%82",
    b"%e2%82%ac",
    b"stream=",
    b"view=",
    b"ack=explicit",
    b"start=",
    b"mode=efo",
    b"on_failure=isolate",
    b"max_rows=",
    b"max_bytes=",
    b"linger_ms=",
    b"wait_ms=",
    b"poll_ms=",
    b"decompress=none",
    b"split=json",
    b"payload=inline",
    b"unmarshal=dynamodb",
    b"format=",
    b"ArrowStream",
    b"JSONEachRow",
    b"Parquet",
    b"from=",
    b"to=",
    b"shard=",
    b"slice=",
    b"until_pipe=",
    b"limit=",
    b"0",
    b"1",
    b"-1",
    b"1/8",
    b"4294967295",
    b"18446744073709551616",
    b"9223372036854775807",
    b"-90s",
    b"-7d",
    b"now",
    b"latest",
    b"trim_horizon",
    b"1795255200",
    b"1795255200000",
    b"49590338271490256608559692538361571095921575989136588898",
    b"2026-11-21T10:00:00.000Z",
    b"1970-01-01T00:00:00Z",
    b"2026-06-30 23:59:60",
    b"+262142-12-31 23:59:59",
    b"2026-11-21T10:00:00+14:00",
    b"a.b",
    b"`a.b`.`c`",
    b"`",
    b"``",
    b"\\",
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b"\xc3\xa9",
    b"{",
    b"}",
    b"\"",
    b":",
    b",",
    b"\"pipe\":\"orders\"",
    b"\"shard_id\":\"shardId-000000000000\"",
    b"\"position\":",
    b"\"sub_sequence_number\":",
    b"\"batch\":\"0123456789abcdef\"",
    b"null",
    b"[",
    b"1e999",
    b"\\u0000",
    b"\\ud800",
];

/// A request line without its version, and the body after it.
fn check(input: &[u8]) -> Checked {
    let (line, body) = input
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or((input, &b""[..]), |end| (&input[..end], &input[end + 1..]));
    let line = String::from_utf8_lossy(line);
    let (method, target) = line.split_once(' ').unwrap_or(("GET", &line));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let pipe = match parse(method, path, query) {
        Ok(request) => {
            within_limits(&request)?;
            let (method, path, query) = printed::request(&request);
            let again = parse(method, &path, Some(&query));
            prop_assert_eq!(again.as_ref(), Ok(&request), "{} {}?{}", method, path, query);
            match request {
                Request::Seek { pipe } | Request::Ack { pipe } => pipe,
                _ => PipeName::default(),
            }
        }
        Err(error) => {
            refused(&error)?;
            PipeName::default()
        }
    };
    bodies(body, &pipe)
}

/// Whatever was asked for, this is what others rely on.
fn within_limits(request: &Request) -> Checked {
    let is_time = |moment: &Moment| !matches!(moment, Moment::At(ms) | Moment::Ago(ms) if *ms < 0);
    let (range, names) = match request {
        Request::Next(pull) => {
            prop_assert!((1..=limits::MAX_MAX_ROWS).contains(&pull.limits.max_rows), "{:?}", pull);
            prop_assert!((1..=limits::MAX_MAX_BYTES).contains(&pull.limits.max_bytes), "{:?}", pull);
            prop_assert!(pull.linger.is_none_or(|linger| linger <= limits::MAX_WAIT), "{:?}", pull);
            prop_assert!(pull.wait <= limits::MAX_WAIT, "{:?}", pull);
            prop_assert!(
                pull.poll.is_none_or(|poll| (limits::MIN_POLL..=limits::MAX_POLL).contains(&poll)),
                "{:?}",
                pull
            );
            prop_assert!(!matches!(&pull.start, Beginning::From(moment) if !is_time(moment)), "{:?}", pull);
            prop_assert!(pull.form.format() != Format::Parquet);
            (None, vec![&*pull.pipe, &*pull.stream])
        }
        Request::Records(records) => {
            prop_assert!(records.limit != Some(0));
            (Some(&records.range), vec![&*records.range.stream])
        }
        Request::Plan { range, .. } => (Some(range), vec![&*range.stream]),
        Request::Sample { stream, limit, .. } => {
            prop_assert!((1..=limits::MAX_SAMPLE).contains(limit));
            (None, vec![&**stream])
        }
        Request::Shards { stream, .. } => (None, vec![&**stream]),
        _ => (None, vec![]),
    };
    if let Some(range) = range {
        prop_assert!(range.slice.is_none_or(|s| s.index < s.count && s.count <= limits::MAX_SLICES), "{:?}", range);
        for bound in [&range.from, &range.to] {
            prop_assert!(!matches!(bound, Bound::Time(moment) if !is_time(moment)), "{:?}", range);
            prop_assert!(range.shard.is_some() || !matches!(bound, Bound::Sequence(_)), "{:?}", range);
        }
    }
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    prop_assert!(names.iter().all(|name| (1..=limits::MAX_NAME).contains(&name.len()) && plain(name)), "{:?}", names);
    Ok(())
}

/// The same body for each request that has one.
fn bodies(body: &[u8], pipe: &str) -> Checked {
    match parse_seek(body, pipe) {
        Ok(rows) => {
            prop_assert!(pipe.is_empty() || rows.iter().all(|row| row.pipe == pipe));
            let again: String = rows.iter().map(printed::seek).collect();
            prop_assert_eq!(parse_seek(again.as_bytes(), pipe), Ok(rows), "{}", again);
        }
        Err(error) => refused(&error)?,
    }
    match parse_end(body) {
        Ok(pipes) => {
            let again: String = pipes.iter().map(|pipe| format!("{{\"pipe\":\"{pipe}\"}}\n")).collect();
            prop_assert_eq!(parse_end(again.as_bytes()), Ok(pipes), "{}", again);
        }
        Err(error) => refused(&error)?,
    }
    match parse_ack(body) {
        Ok(batches) => {
            let again: String = batches.iter().map(|batch| format!("{{\"batch\":\"{batch}\"}}\n")).collect();
            prop_assert_eq!(parse_ack(again.as_bytes()), Ok(batches), "{}", again);
        }
        Err(error) => refused(&error)?,
    }
    Ok(())
}

/// One sentence for whoever asked: of any length that was sent it repeats a little, and nothing
/// that a terminal would obey.
fn refused(error: &Error) -> Checked {
    let told = error.to_string();
    prop_assert!(matches!(error, Error::BadRequest(_) | Error::NotFound(_)), "{:?}", error);
    prop_assert!(!told.is_empty() && told.chars().count() < 1_000, "{}", told);
    prop_assert!(!told.contains(char::is_control), "{:?}", told);
    Ok(())
}

#[test]
fn any_request_is_read_or_refused() {
    fuzz("request", WORDS, 50_000, check);
}
