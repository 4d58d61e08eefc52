//! Requests that are right: what is printed is read back.

use std::time::Duration;

use bridge::http::request::{NextRequest, RecordsRequest, Request, parse};
use bridge::pipe::{Confirm, Mode, OnFailure};
use bridge::read::records::Range;
use domain::batch::Limits;
use domain::limits;
use domain::moment::Moment;
use domain::range::{Bound, SliceOf};
use domain::sequence::SequenceNumber;
use domain::start::Beginning;
use domain::unpacking::{Decompress, Split, Unpacking};
use formats::encode::{Form, Format, Payload};
use proptest::prelude::*;

use super::printed;

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

fn any_moment() -> impl Strategy<Value = Moment> {
    let ago = |(count, unit_ms)| Moment::Ago(count * unit_ms);
    let units = prop::sample::select(vec![1_000i64, 60_000, 3_600_000, 86_400_000]);
    prop_oneof![(1_000_000_000_000..10_000_000_000_000i64).prop_map(Moment::At), (1..10_000i64, units).prop_map(ago)]
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
    let waits = (proptest::option::of(0..=12_000u64), 0..=12_000u64, proptest::option::of(5..=10_000u64));
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
                let (linger, wait, poll) = (linger.map(ms), ms(wait), poll.map(ms));
                // Only with a view, and here with every one whose name has an even length.
                let isolates = matches!(&confirm, Confirm::View { view, .. } if view.len() % 2 == 0);
                let on_failure = if isolates { OnFailure::Isolate } else { OnFailure::Stop };
                Request::Next(NextRequest {
                    pipe: pipe.into(),
                    stream: stream.into(),
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
                stream: stream.into(),
                from: sequence.map_or(bound(from), Bound::Sequence),
                to: bound(to),
                shard: shard.map(|(id, _)| id.into()),
                slice: slice.map(|(index, count)| SliceOf { index, count }),
                unpacking,
            };
            let until_pipe = limit.filter(|limit| limit % 2 == 0).map(|limit| format!("pipe-{limit}").into());
            Request::Records(RecordsRequest { range, until_pipe, limit, form })
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_is_read_back(request in prop_oneof![any_next(), any_records()]) {
        let (method, path, query) = printed::request(&request);
        prop_assert_eq!(parse(method, &path, Some(&query)), Ok(request));
    }
}
