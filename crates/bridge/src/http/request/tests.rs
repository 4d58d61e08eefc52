use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;
use domain::sequence::SequenceNumber;
use domain::unpacking::{Decompress, Split};
use formats::encode::Payload;

const STEM: &str = "stream=orders&view=default.orders_pipe";

fn get(path: &str, query: &str) -> Result<Request, Error> {
    parse("GET", path, Some(query))
}

fn next_of(query: &str) -> NextRequest {
    match get("/v1/pipes/orders/next", query) {
        Ok(Request::Next(next)) => next,
        other => panic!("{query}: {other:?}"),
    }
}

fn records_of(query: &str) -> RecordsRequest {
    match get("/v1/streams/orders/records", query) {
        Ok(Request::Records(records)) => records,
        other => panic!("{query}: {other:?}"),
    }
}

/// The message of a refusal.
#[track_caller]
fn refused(path: &str, query: &str) -> String {
    match get(path, query) {
        Err(Error::BadRequest(message)) => message,
        other => panic!("{path}?{query}: {other:?}"),
    }
}

#[test]
fn a_pull_has_the_defaults_of_the_contract() {
    let next = next_of(STEM);
    let view = Confirm::View { database: "default".into(), view: "orders_pipe".into() };
    let ms = Duration::from_millis;
    assert_eq!(
        next,
        NextRequest {
            pipe: "orders".into(),
            stream: "orders".into(),
            confirm: view,
            start: Beginning::TrimHorizon,
            limits: Limits { max_rows: 500_000, max_bytes: 67_108_864 },
            linger: None,
            wait: ms(10_000),
            mode: Mode::Polling,
            on_failure: OnFailure::Stop,
            poll: None,
            unpacking: Unpacking::default(),
            form: Format::ArrowStream.into(),
        }
    );
    assert_eq!(next_of(&format!("{STEM}&start=&max_rows=&mode=")), next, "empty counts as not given");
    assert_eq!(next_of(&format!("&{STEM}&mode=polling&")), next);
    assert_eq!(next_of(&format!("{STEM}&mode=efo")), NextRequest { mode: Mode::FanOut, ..next.clone() });
    assert_eq!(next_of(&format!("{STEM}&on_failure=stop")), next);
    let isolates = NextRequest { on_failure: OnFailure::Isolate, ..next.clone() };
    assert_eq!(next_of(&format!("{STEM}&on_failure=isolate")), isolates);
    assert_eq!(parse("HEAD", "/v1/pipes/orders/next", Some(STEM)), Ok(Request::Next(next)));
}

#[test]
fn a_pull_takes_its_parameters() {
    let all = "stream=a&ack=explicit&start=latest&max_rows=1&max_bytes=2&linger_ms=0&wait_ms=12000&poll_ms=5&\
               decompress=none&split=cloudwatch&format=JSONEachRow&payload=inline";
    let next = next_of(all);
    assert_eq!((next.confirm, next.start), (Confirm::Explicit, Beginning::LATEST));
    assert_eq!(next.limits, Limits { max_rows: 1, max_bytes: 2 });
    assert_eq!((next.linger, next.wait, next.poll), (Some(Duration::ZERO), limits::MAX_WAIT, Some(limits::MIN_POLL)));
    assert_eq!(
        next.unpacking,
        Unpacking { decompress: Decompress::None, split: Split::CloudWatch, ..Unpacking::default() }
    );
    assert_eq!(Some(next.form), Form::new(Format::JsonEachRow, Payload::Inline));
}

#[test]
fn views_may_be_quoted() {
    let view = |text: &str| {
        let query = format!("stream=a&view={}", utf8_percent_encode(text, NON_ALPHANUMERIC));
        match next_of(&query).confirm {
            Confirm::View { database, view } => (database, view),
            Confirm::Explicit => panic!("{text}"),
        }
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(view("a.b"), pair("a", "b"));
    assert_eq!(view("`a.x`.`b`"), pair("a.x", "b"));
    assert_eq!(view("`a``x`.b"), pair("a`x", "b"));
    assert_eq!(view(r"`a\`x`.`b\\`"), pair("a`x", r"b\"));
    assert_eq!(view("daß.`ein Ort`"), pair("daß", "ein Ort"));
}

#[test]
fn times_and_positions_are_read() {
    let ms = 1_795_255_200_000;
    for text in [
        "2026-11-21T10:00:00.000Z",
        "2026-11-21T10:00:00Z",
        "2026-11-21%2010:00:00",
        "2026-11-21+10:00:00.000",
        "1795255200000",
        "1795255200",
        "2026-11-21T11:00:00%2B01:00",
    ] {
        assert_eq!(records_of(&format!("from={text}")).range.from, Bound::Time(Moment::At(ms)), "{text}");
        assert_eq!(next_of(&format!("{STEM}&start={text}")).start, Beginning::From(Moment::At(ms)), "{text}");
    }
    assert_eq!(records_of("to=2026-11-21+10:00:00.123").range.to, Bound::Time(Moment::At(ms + 123)));
    let ago = records_of("from=-1h&to=now").range;
    assert_eq!((&ago.from, &ago.to), (&Bound::Time(Moment::Ago(3_600_000)), &Bound::Time(Moment::Ago(0))));
    let ago = ago.at(ms).unwrap();
    assert_eq!((ago.from, ago.to), (Bound::Time(ms - 3_600_000), Bound::Time(ms)));
    assert_eq!(next_of(&format!("{STEM}&start=-30m")).start, Beginning::From(Moment::Ago(1_800_000)));
    assert_eq!(next_of(&format!("{STEM}&start=now")).start, Beginning::LATEST);
    // Whether such a range is reversed is known only when it is read.
    let range = records_of("from=now&to=2026-11-21+10:00:00").range;
    assert!(range.clone().at(ms).is_ok() && matches!(range.at(ms + 1), Err(Error::BadRequest(_))));
    assert_eq!(records_of("from=&to=").range.from, Bound::Open);
    let digits = "49590338271490256608559692538361571095921575989136588898";
    let sequence = SequenceNumber::parse(digits).map(Bound::Sequence);
    assert_eq!(Some(records_of(&format!("shard=shardId-1&from={digits}")).range.from), sequence);
    let read = records_of("slice=7/8&limit=5&format=Parquet&shard=shardId-000000000001");
    assert_eq!(read.range.slice, Some(SliceOf { index: 7, count: 8 }));
    assert_eq!((read.limit, read.form), (Some(5), Format::Parquet.into()));
    assert_eq!(read.range.shard.as_deref(), Some("shardId-000000000001"));
}

#[test]
fn every_refusal_says_what_is_allowed() {
    let next = "/v1/pipes/orders/next";
    let records = "/v1/streams/orders/records";
    let cases = [
        (next, "view=a.b".to_owned(), "stream is required"),
        (next, "stream=a".into(), "either view or ack is required"),
        (next, format!("{STEM}&ack=explicit"), "view and ack are both given"),
        (next, "stream=a&ack=yes".into(), "ack='yes' is refused: the only value is ack=explicit"),
        (next, "stream=a&view=b".into(), "qualify it with its database, as in view=default.orders_pipe"),
        (next, "stream=a&view=a.b.c".into(), "more parts than a database and a name"),
        (next, "stream=a&view=`a.b".into(), "backquotes"),
        (next, "stream=a&view=.b".into(), "write <database>.<view>"),
        (next, "stream=a%2Fb&view=a.b".into(), "the stream 'a/b' is not a valid name"),
        (next, format!("{STEM}&mode=fast"), "must be polling or efo"),
        (next, format!("{STEM}&on_failure=skip"), "on_failure='skip' is refused: it must be stop or isolate"),
        (next, "stream=a&ack=explicit&on_failure=isolate".into(), "on_failure is refused with ack=explicit"),
        (next, format!("{STEM}&start=5678901234567890123"), "start='5678901234567890123' is refused"),
        (next, format!("{STEM}&start=soon"), "must be trim_horizon, latest or a time"),
        (next, format!("{STEM}&start=179587116"), "Unix seconds (10 digits) or milliseconds (13 digits)"),
        (next, format!("{STEM}&start=1795871163000000"), "start='1795871163000000' is refused"),
        (next, format!("{STEM}&start=-1795871163"), "now, or a time ago such as -90s, -30m, -1h, -7d"),
        (next, format!("{STEM}&start=-1"), "start='-1' is refused"),
        (next, format!("{STEM}&start=1969-12-31+23:59:59"), "start='1969-12-31 23:59:59' is refused"),
        (records, "from=1&to=".into(), "from='1' is refused"),
        (records, "from=-1w".into(), "from='-1w' is refused"),
        (records, "from=-1h&to=-2h".into(), "from is later than to"),
        (next, format!("{STEM}&max_rows=0"), "max_rows='0' is refused: it must be a whole number from 1 to 1048448"),
        (next, format!("{STEM}&max_bytes=1e6"), "a whole number from 1 to 134217728"),
        (next, format!("{STEM}&wait_ms=30000"), "a whole number from 0 to 12000"),
        (next, format!("{STEM}&linger_ms=-1"), "a whole number from 0 to 12000"),
        (next, format!("{STEM}&poll_ms=1"), "a whole number from 5 to 10000"),
        (next, format!("{STEM}&format=Parquet"), "format=Parquet is for /v1/streams/{stream}/records only"),
        (next, format!("{STEM}&split=words"), "split='words' is refused: it must be none, lines, json or cloudwatch"),
        (next, format!("{STEM}&decompress=gzip"), "it must be auto or none"),
        (next, format!("{STEM}&payload=inline"), "payload=inline is for format=JSONEachRow only"),
        (next, format!("{STEM}&unmarshal=dynamo"), "unmarshal='dynamo' is refused: it must be none or dynamodb"),
        (
            records,
            "format=JSONEachRow&payload=inline&unmarshal=dynamodb".into(),
            "payload=inline and unmarshal=dynamodb",
        ),
        (records, "payload=raw&unmarshal=dynamodb".into(), ""),
        (next, format!("{STEM}&format=CSV"), "it must be ArrowStream or JSONEachRow"),
        (
            next,
            format!("{STEM}&max_row=1"),
            "'max_row' is not a parameter of /v1/pipes/{pipe}/next; the nearest is max_rows",
        ),
        (next, format!("{STEM}&stream=a"), "stream is given twice"),
        (next, "%FF=1".into(), "is not valid UTF-8"),
        (records, "format=CSV".into(), "it must be ArrowStream, JSONEachRow or Parquet"),
        (records, "from=49590338271490256".into(), "add shard="),
        (records, "to=latest".into(), "it must be a time such as 2026-11-21T10:00:00.000Z"),
        (records, "from=2026-11-21+10:00:01&to=2026-11-21+10:00:00".into(), "from is later than to"),
        (records, "shard=s&from=49590338271490257&to=49590338271490256".into(), "from is later than to"),
        (records, "slice=8/8".into(), "write i/n with i from 0 to n-1"),
        (records, "slice=0/1025".into(), "n from 1 to 1024"),
        (records, "slice=1".into(), "such as slice=0/8"),
        (records, "shard=".into(), ""),
        (records, "shard=a+b".into(), "the shard 'a b' is not a valid name"),
        (records, "limit=0".into(), "limit='0' is refused"),
        ("/v1/streams/orders/sample", "limit=10001".into(), "from 1 to 10000"),
        ("/v1/streams/o%20rders/sample", String::new(), "the stream 'o rders' is not a valid name"),
        ("/v1/pipes//next", STEM.into(), "the pipe '' is not a valid name"),
        ("/v1/workers", "format=Parquet".into(), "/v1/workers gives ArrowStream or JSONEachRow"),
        ("/healthz", "verbose=1".into(), "'verbose' is not a parameter of /healthz, which takes none"),
    ];
    for (path, query, expected) in cases {
        if expected.is_empty() {
            assert!(get(path, &query).is_ok());
            continue;
        }
        let message = refused(path, &query);
        assert!(message.contains(expected), "{path}?{query}: {message}");
        assert!(message.len() < 400 && !message.ends_with('.'), "{message}");
    }
}

#[test]
fn paths_and_methods_are_told_apart() {
    let unknown = |path: &str| match get(path, "") {
        Err(Error::NotFound(message)) => message,
        other => panic!("{path}: {other:?}"),
    };
    assert!(unknown("/v1/stream").ends_with("the nearest is /v1/streams"));
    assert!(unknown("/v1/pipes/orders/nxt").ends_with("the nearest is /v1/pipes/{pipe}/next"));
    assert!(unknown("/v1/streams/orders/record").ends_with("the nearest is /v1/streams/{stream}/records"));
    assert!(unknown("").starts_with("there is no path ''"));
    assert!(unknown("/v1/streams/").ends_with("/v1/streams"));
    for (method, path, right) in [
        ("POST", "/v1/pipes/orders/next", "takes GET"),
        ("GET", "/v1/pipes/orders/seek", "takes POST"),
        ("HEAD", "/v1/pipes/orders/ack", "takes POST"),
        ("GET", "/v1/end", "takes POST"),
        ("DELETE", "/v1/end", "takes POST"),
        ("PUT", "/metrics", "takes GET"),
    ] {
        assert!(matches!(parse(method, path, None), Err(Error::BadRequest(m)) if m.contains(right)), "{method} {path}");
    }
    assert_eq!(parse("POST", "/v1/pipes/a.b/seek", None), Ok(Request::Seek { pipe: "a.b".into() }));
    assert_eq!(parse("POST", "/v1/pipes/a/ack", None), Ok(Request::Ack { pipe: "a".into() }));
    assert_eq!(parse("HEAD", "/healthz", None), Ok(Request::Healthz));
    let format = Format::JsonEachRow;
    assert_eq!(get("/v1/streams", ""), Ok(Request::Streams { format }));
    assert_eq!(get("/v1/streams/a%2Eb/shards", ""), Ok(Request::Shards { stream: "a.b".into(), format }));
    let sample = Request::Sample {
        stream: "a".into(),
        limit: 10,
        unpacking: Unpacking::default(),
        form: Format::ArrowStream.into(),
    };
    assert_eq!(get("/v1/streams/a/sample", ""), Ok(sample));
}

#[test]
fn seek_reads_its_rows() {
    let digits = "49590338271490256608559692538361571095921575989136588898";
    let body = format!(
        "{{\"shard_id\":\"\",\"position\":\"TRIM_HORIZON\"}}\n{{\"position\":\"latest\"}}\n\
         {{\"shard_id\":\"s-1\",\"position\":\"{digits}\"}}\n{{\"position\":1795255200000}}\n\
         {{\"position\":1795255200}}{{\"position\":\"-1h\"}}{{\"position\":\"now\"}}"
    );
    let rows = parse_seek(body.as_bytes(), "a").unwrap();
    let positions: Vec<_> = rows.iter().map(|r| r.position.clone()).collect();
    let expected = [
        Position::Start(Beginning::TrimHorizon),
        Position::Start(Beginning::LATEST),
        Position::Sequence(SequenceNumber::parse(digits).unwrap()),
        Position::Start(Beginning::From(Moment::At(1_795_255_200_000))),
        Position::Start(Beginning::From(Moment::At(1_795_255_200_000))),
        Position::Start(Beginning::From(Moment::Ago(3_600_000))),
        Position::Start(Beginning::LATEST),
    ];
    assert_eq!(positions, expected);
    assert_eq!((rows[0].shard_id.as_deref(), rows[2].shard_id.as_deref()), (None, Some("s-1")));
    assert_eq!(parse_seek(b"", "a"), Ok(Vec::new()));
    for (body, expected) in [
        (&b"{\"position\":\"soon\"}"[..], "row 1 of the body is refused: the position 'soon' must be trim_horizon"),
        (b"{\"position\":\"\"}", "the position '' must be"),
        (b"{\"position\":179525520}", "the position '179525520' must be trim_horizon, latest, a time such as"),
        (b"{\"position\":-1795255200}", "the position '-1795255200' must be"),
        (b"{\"position\":\"12345678901234567\"}", "name the shard in shard_id"),
        (b"{\"shard_id\":\"a b\",\"position\":\"latest\"}", "the shard_id 'a b' is not a valid name"),
        (b"{\"position\":\"latest\"}\n{\"shard_id\":\"\"}", "row 2 of the body is refused: missing field `position`"),
        (b"{\"shard\":\"\",\"position\":\"latest\"}", "unknown field `shard`"),
        (b"\xff", "rows look like"),
    ] {
        let Err(Error::BadRequest(message)) = parse_seek(body, "a") else { panic!("{body:?}") };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn ack_reads_each_batch_once() {
    let body = b"{\"batch\":\"00112233445566FF\"}\n{\"batch\":\"00112233445566ff\"}{\"batch\":\"0000000000000001\"}";
    assert_eq!(parse_ack(body).unwrap(), ["0000000000000001", "00112233445566ff"]);
    assert_eq!(parse_ack(b"\n"), Ok(Vec::new()));
    for body in [&b"{\"batch\":\"xyz\"}"[..], b"{\"batch\":\"+011223344556677\"}", b"{\"batch\":1}", b"[]", b"{"] {
        assert!(matches!(parse_ack(body), Err(Error::BadRequest(_))), "{body:?}");
    }
}

#[test]
fn end_names_its_pipes() {
    assert_eq!(parse_end(b"{\"pipe\":\"a\"}\n"), Ok(["a".into()].into()));
    assert_eq!(parse_end(b""), Ok([].into()));
    for (body, expected) in [
        (&b"{\"pipe\":\"a\"}{\"pipe\":\"\"}"[..], "row 2 of the body is refused"),
        (b"{}", "missing field `pipe` at line 1 column 2; rows look like {\"pipe\": \"orders\"}"),
    ] {
        let Err(Error::BadRequest(message)) = parse_end(body) else { panic!("{body:?}") };
        assert!(message.contains(expected), "{message}");
    }
}
