//! The way back: a request as method, path and query, a row of a body as JSON.

use bridge::http::request::{NextRequest, Position, RecordsRequest, Request, SeekRow};
use bridge::pipe::{Confirm, OnFailure};
use bridge::read::records::Range;
use chrono::DateTime;
use domain::moment::Moment;
use domain::range::Bound;
use domain::start::Beginning;
use domain::unpacking::Unpacking;
use formats::encode::Form;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

type Pairs = Vec<(&'static str, String)>;

/// Every parameter is written, the defaults as well.
pub fn request(request: &Request) -> (&'static str, String, String) {
    let format = |format: &formats::encode::Format| vec![("format", format.name().into())];
    let (method, path, pairs) = match request {
        Request::Streams { format: rows } => ("GET", "/v1/streams".into(), format(rows)),
        Request::Shards { stream, format: rows } => ("GET", format!("/v1/streams/{stream}/shards"), format(rows)),
        Request::Sample { stream, limit, unpacking, form } => {
            let mut pairs = form_pairs(*form, *unpacking);
            pairs.push(("limit", limit.to_string()));
            ("GET", format!("/v1/streams/{stream}/sample"), pairs)
        }
        Request::Records(records) => ("GET", format!("/v1/streams/{}/records", records.range.stream), read(records)),
        Request::Plan { range, until_pipe, format: rows } => {
            let pairs = [range_pairs(range, until_pipe.as_deref()), unpacking_pairs(range.unpacking), format(rows)];
            ("GET", format!("/v1/streams/{}/records/plan", range.stream), pairs.concat())
        }
        Request::Next(pull) => ("GET", format!("/v1/pipes/{}/next", pull.pipe), next(pull)),
        Request::Pipes { format: rows } => ("GET", "/v1/pipes".into(), format(rows)),
        Request::Workers { format: rows } => ("GET", "/v1/workers".into(), format(rows)),
        Request::Seek { pipe } => ("POST", of_pipe(pipe, "seek"), vec![]),
        Request::Ack { pipe } => ("POST", of_pipe(pipe, "ack"), vec![]),
        Request::End => ("POST", "/v1/end".into(), vec![]),
        Request::Metrics => ("GET", "/metrics".into(), vec![]),
        Request::Healthz => ("GET", "/healthz".into(), vec![]),
        Request::Readyz => ("GET", "/readyz".into(), vec![]),
    };
    let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let query: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={}", escape(&value))).collect();
    (method, path, query.join("&"))
}

/// A row of `seek`.
pub fn seek(row: &SeekRow) -> String {
    let position = match &row.position {
        Position::Start(start) => beginning(*start),
        Position::Sequence(sequence) => sequence.to_string(),
    };
    let (shard, sub) = (row.shard_id.as_deref().unwrap_or_default(), row.sub_sequence_number);
    let sub = sub.map_or("null".into(), |sub| sub.to_string());
    let pipe = &row.pipe;
    format!(
        "{{\"pipe\":\"{pipe}\",\"shard_id\":\"{shard}\",\"position\":\"{position}\",\"sub_sequence_number\":{sub}}}\n"
    )
}

fn of_pipe(pipe: &str, what: &str) -> String {
    if pipe.is_empty() { format!("/v1/{what}") } else { format!("/v1/pipes/{pipe}/{what}") }
}

fn next(pull: &NextRequest) -> Pairs {
    let mut pairs = vec![("stream", pull.stream.to_string())];
    pairs.push(match &pull.confirm {
        Confirm::Explicit => ("ack", "explicit".into()),
        Confirm::View { database, view } => {
            let quote = |part: &str| format!("`{}`", part.replace('\\', "\\\\").replace('`', "``"));
            ("view", format!("{}.{}", quote(database), quote(view)))
        }
    });
    pairs.extend([("start", beginning(pull.start)), ("mode", pull.mode.name().into())]);
    pairs.extend([("max_rows", pull.limits.max_rows.to_string()), ("max_bytes", pull.limits.max_bytes.to_string())]);
    let times = [("linger_ms", pull.linger), ("wait_ms", Some(pull.wait)), ("poll_ms", pull.poll)];
    pairs.extend(times.into_iter().filter_map(|(name, time)| Some((name, time?.as_millis().to_string()))));
    if pull.on_failure == OnFailure::Isolate {
        pairs.push(("on_failure", "isolate".into()));
    }
    pairs.extend(form_pairs(pull.form, pull.unpacking));
    pairs
}

fn read(records: &RecordsRequest) -> Pairs {
    let mut pairs = range_pairs(&records.range, records.until_pipe.as_deref());
    pairs.extend(records.limit.map(|n| ("limit", n.to_string())));
    pairs.extend(form_pairs(records.form, records.range.unpacking));
    pairs
}

fn range_pairs(range: &Range<Moment>, until_pipe: Option<&str>) -> Pairs {
    let bound = |bound: &Bound<Moment>| match bound {
        Bound::Open => String::new(),
        Bound::Time(time) => moment(*time),
        Bound::Sequence(sequence) => sequence.to_string(),
    };
    let mut pairs = vec![("from", bound(&range.from)), ("to", bound(&range.to))];
    pairs.push(("shard", range.shard.as_deref().unwrap_or_default().to_owned()));
    pairs.extend(range.slice.map(|slice| ("slice", format!("{}/{}", slice.index, slice.count))));
    pairs.push(("until_pipe", until_pipe.unwrap_or_default().into()));
    pairs
}

fn unpacking_pairs(unpacking: Unpacking) -> Pairs {
    vec![("decompress", unpacking.decompress.name().into()), ("split", unpacking.split.name().into())]
}

/// The words of a form, which name what differs from the default.
fn form_pairs(form: Form, unpacking: Unpacking) -> Pairs {
    let text = form.to_string();
    let word = |name: &'static str| Some((name, text.split_once(&format!(" {name}="))?.1.to_owned()));
    let mut pairs = vec![("format", form.format().name().to_owned())];
    pairs.extend(["payload", "unmarshal"].into_iter().filter_map(word));
    pairs.extend(unpacking_pairs(unpacking));
    pairs
}

fn beginning(start: Beginning) -> String {
    match start {
        Beginning::TrimHorizon => "trim_horizon".into(),
        Beginning::From(time) => moment(time),
    }
}

/// Unix times where they are told apart by their digits, else a date.
fn moment(moment: Moment) -> String {
    match moment {
        Moment::At(ms @ 1_000_000_000_000..=9_999_999_999_999) if ms % 1_000 == 0 => (ms / 1_000).to_string(),
        Moment::At(ms @ 1_000_000_000_000..=9_999_999_999_999) => ms.to_string(),
        Moment::At(ms) => {
            DateTime::from_timestamp_millis(ms).expect("a date").format("%Y-%m-%d %H:%M:%S%.3f").to_string()
        }
        Moment::Ago(ms) if ms % 86_400_000 == 0 => format!("-{}d", ms / 86_400_000),
        Moment::Ago(ms) if ms % 60_000 == 0 => format!("-{}m", ms / 60_000),
        Moment::Ago(ms) => format!("-{}s", ms / 1_000),
    }
}
