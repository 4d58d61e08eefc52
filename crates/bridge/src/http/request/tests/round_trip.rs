//! Random requests: rendered ones are parsed back, and damaged ones never panic.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::super::*;
use super::get;
use domain::sequence::SequenceNumber;
use domain::unpacking::{Decompress, Split};
use formats::encode::Payload;

fn any_name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_.-]{1,128}"
}

fn any_form(parquet: bool) -> impl Strategy<Value = Form> {
    let inline = Form::new(Format::JsonEachRow, Payload::Inline);
    let formats = || Format::ALL.into_iter().filter(move |f| parquet || *f != Format::Parquet);
    let events = formats().filter_map(|format| Form::new(format, Payload::DynamoDb));
    proptest::sample::select(formats().map(Form::from).chain(inline).chain(events).collect::<Vec<_>>())
}

fn any_unpacking() -> impl Strategy<Value = Unpacking> {
    (proptest::sample::select(&Decompress::ALL[..]), proptest::sample::select(&Split::ALL[..]))
        .prop_map(|(decompress, split)| Unpacking { decompress, split, ..Unpacking::default() })
}

/// The words of both, which name what differs from the default.
fn form_pairs(form: Form, unpacking: Unpacking) -> Vec<(&'static str, String)> {
    let text = form.to_string();
    let word = |name: &'static str| Some((name, text.split_once(&format!(" {name}="))?.1.to_owned()));
    let mut pairs = vec![("format", form.format().name().to_owned())];
    pairs.extend(["payload", "unmarshal"].into_iter().filter_map(word));
    pairs.extend([("decompress", unpacking.decompress.name().into()), ("split", unpacking.split.name().into())]);
    pairs
}

fn any_moment() -> impl Strategy<Value = Moment> {
    let ago = |(count, unit_ms)| Moment::Ago(count * unit_ms);
    let units = prop::sample::select(vec![1_000i64, 60_000, 3_600_000, 86_400_000]);
    prop_oneof![(1_000_000_000_000..10_000_000_000_000i64).prop_map(Moment::At), (1..10_000i64, units).prop_map(ago)]
}

/// A moment as it is written.
fn moment_text(moment: Moment) -> String {
    match moment {
        Moment::At(ms) if ms % 1_000 == 0 => (ms / 1_000).to_string(),
        Moment::At(ms) => ms.to_string(),
        Moment::Ago(ms) if ms % 86_400_000 == 0 => format!("-{}d", ms / 86_400_000),
        Moment::Ago(ms) if ms % 60_000 == 0 => format!("-{}m", ms / 60_000),
        Moment::Ago(ms) => format!("-{}s", ms / 1_000),
    }
}

fn any_start() -> impl Strategy<Value = Beginning> {
    prop_oneof![Just(Beginning::TrimHorizon), Just(Beginning::LATEST), any_moment().prop_map(Beginning::From)]
}

fn any_confirm() -> impl Strategy<Value = Confirm> {
    let part = "[^\\p{Cc}]{1,20}";
    prop_oneof![Just(Confirm::Explicit), (part, part).prop_map(|(database, view)| Confirm::View { database, view })]
}

fn any_next() -> impl Strategy<Value = Request> {
    let ms = Duration::from_millis;
    let waits = (0..=12_000u64, 0..=12_000u64, 5..=10_000u64);
    let limits = (1..=limits::MAX_MAX_ROWS, 1..=limits::MAX_MAX_BYTES);
    let mode = prop_oneof![Just(Mode::Polling), Just(Mode::FanOut)];
    (any_name(), any_name(), any_confirm(), any_start(), limits, waits, mode, (any_form(false), any_unpacking()))
        .prop_map(
            move |(
                pipe,
                stream,
                confirm,
                start,
                (max_rows, max_bytes),
                (linger, wait, poll),
                mode,
                (form, unpacking),
            )| {
                let limits = Limits { max_rows, max_bytes };
                let (linger, wait, poll) = (ms(linger), ms(wait), ms(poll));
                // Only with a view, and here with every one whose name has an even length.
                let isolates = matches!(&confirm, Confirm::View { view, .. } if view.len() % 2 == 0);
                let on_failure = if isolates { OnFailure::Isolate } else { OnFailure::Stop };
                Request::Next(NextRequest {
                    pipe,
                    stream,
                    confirm,
                    start,
                    limits,
                    linger,
                    wait,
                    poll,
                    mode,
                    on_failure,
                    unpacking,
                    form,
                })
            },
        )
}

fn any_records() -> impl Strategy<Value = Request> {
    let times = || proptest::option::of(any_moment());
    let sequences = "[0-9]{17,56}";
    let shard = proptest::option::of((any_name(), proptest::option::of(sequences)));
    let slice = proptest::option::of((1..=limits::MAX_SLICES).prop_flat_map(|count| (0..count, Just(count))));
    (any_name(), times(), times(), shard, slice, proptest::option::of(1..usize::MAX), (any_form(true), any_unpacking()))
        .prop_map(|(stream, from, to, shard, slice, limit, (form, unpacking))| {
            let now_ms = 1_795_255_200_000;
            let late = |t: Option<Moment>| t.map(|moment| moment.at(now_ms));
            let (from, to) = if to.is_some() && late(from) > late(to) { (to, from) } else { (from, to) };
            let bound = |t: Option<Moment>| t.map_or(Bound::Open, Bound::Time);
            let sequence = shard.as_ref().and_then(|(_, s)| s.as_deref()).and_then(SequenceNumber::parse);
            let range = Range {
                stream,
                from: sequence.map_or(bound(from), Bound::Sequence),
                to: bound(to),
                shard: shard.map(|(id, _)| id),
                slice: slice.map(|(index, count)| SliceOf { index, count }),
                unpacking,
            };
            let until_pipe = limit.filter(|limit| limit % 2 == 0).map(|limit| format!("pipe-{limit}"));
            Request::Records(RecordsRequest { range, until_pipe, limit, form })
        })
}

/// The other way: a request as path and query.
fn rendered(request: &Request) -> (String, String) {
    let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let path = match request {
        Request::Next(n) => {
            pairs.push(("stream", n.stream.clone()));
            pairs.push(match &n.confirm {
                Confirm::Explicit => ("ack", "explicit".into()),
                Confirm::View { database, view } => {
                    let quote = |part: &str| format!("`{}`", part.replace('\\', "\\\\").replace('`', "``"));
                    ("view", format!("{}.{}", quote(database), quote(view)))
                }
            });
            let start = match n.start {
                Beginning::TrimHorizon => "trim_horizon".into(),
                Beginning::LATEST => "latest".into(),
                Beginning::From(moment) => moment_text(moment),
            };
            pairs.extend([("start", start), ("max_rows", n.limits.max_rows.to_string())]);
            pairs.push(("max_bytes", n.limits.max_bytes.to_string()));
            pairs.extend(
                [("linger_ms", n.linger), ("wait_ms", n.wait), ("poll_ms", n.poll)]
                    .map(|(k, v)| (k, v.as_millis().to_string())),
            );
            pairs.push(("mode", n.mode.name().into()));
            pairs.extend(form_pairs(n.form, n.unpacking));
            if n.on_failure == OnFailure::Isolate {
                pairs.push(("on_failure", "isolate".into()));
            }
            format!("/v1/pipes/{}/next", n.pipe)
        }
        Request::Records(r) => {
            let bound = |b: &Bound<Moment>| match b {
                Bound::Open => String::new(),
                Bound::Time(moment) => moment_text(*moment),
                Bound::Sequence(sequence) => sequence.to_string(),
            };
            pairs.extend([
                ("from", bound(&r.range.from)),
                ("to", bound(&r.range.to)),
                ("shard", r.range.shard.clone().unwrap_or_default()),
            ]);
            pairs.extend(r.range.slice.map(|s| ("slice", format!("{}/{}", s.index, s.count))));
            pairs.extend(r.until_pipe.clone().map(|pipe| ("until_pipe", pipe)));
            pairs.extend(r.limit.map(|n| ("limit", n.to_string())));
            pairs.extend(form_pairs(r.form, r.range.unpacking));
            format!("/v1/streams/{}/records", r.range.stream)
        }
        other => panic!("{other:?}"),
    };
    let query: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={}", escape(&v))).collect();
    (path, query.join("&"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_rendered_is_read_back(request in prop_oneof![any_next(), any_records()]) {
        let (path, query) = rendered(&request);
        prop_assert_eq!(get(&path, &query), Ok(request));
    }

    #[test]
    fn mutated_requests_never_panic(
        request in prop_oneof![any_next(), any_records()],
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[%&=+./`\\\\0-9a-zA-Zé\u{0}]{0,3}"), 1..6),
        method in "GET|HEAD|POST|[A-Z]{0,7}",
    ) {
        let (path, query) = rendered(&request);
        let mut line: Vec<char> = format!("{path}?{query}").chars().collect();
        for (at, text) in edits {
            let at = at.index(line.len());
            line.splice(at..(at + 1).min(line.len()), text.chars());
            if line.is_empty() {
                line.push('/');
            }
        }
        let line: String = line.into_iter().collect();
        let (path, query) = line.split_once('?').unwrap_or((&line, ""));
        if let Err(error) = parse(&method, path, Some(query)) {
            prop_assert!(matches!(error, Error::BadRequest(_) | Error::NotFound(_)));
            prop_assert!(!error.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn random_requests_never_panic(
        path in ".{0,40}|/v1/(pipes|streams)/.{0,20}/(next|records|seek)",
        query in ".{0,60}|((stream|view|start|from|slice|limit)=.{0,20}&){0,4}",
        body in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = parse("GET", &path, Some(&query));
        let _ = (parse_seek(&body, ""), parse_ack(&body));
        let row = format!("{{\"shard_id\":\"a\",\"position\":{query:?}}}");
        let _ = parse_seek(row.as_bytes(), "a");
    }
}
