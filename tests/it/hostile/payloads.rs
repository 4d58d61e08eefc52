//! Records that contain garbage, bombs and traps, read by a pipe in every possible way into a real
//! table: none of them stops a pipe, and each is accounted for.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::value::RawValue;
use stack::Bridge;

use crate::aggregates::writers::{UserRecord, Writer};
use crate::common::seed;
use crate::proxy::{Fault, Proxy, SMALL, large};
use crate::world::{NEXT, RECORDS, bridge, bridge_in, create_stream, metric, put, sql, stack, wait_until};

const MIB: usize = 1 << 20;

/// Of aggregates, gzip and zstd.
const BEGINNINGS: [&[u8]; 3] = [&[0xF3, 0x89, 0x9A, 0xC2], &[0x1F, 0x8B, 0x08], &[0x28, 0xB5, 0x2F, 0xFD]];

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("gzip");
    encoder.finish().expect("gzip")
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("zlib");
    encoder.finish().expect("zlib")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

fn aggregate(payloads: &[&[u8]]) -> Vec<u8> {
    let records = payloads.iter().map(|data| UserRecord::new("inside", *data)).collect();
    Writer::Python.write(&[records]).remove(0)
}

/// A payload, and its expected outcome.
struct Hostile {
    payload: Vec<u8>,
    /// The rows without `split`: the contents of aggregates and compressed payloads.
    rows: Vec<Vec<u8>>,
    /// How many rows `split=cloudwatch` makes of it.
    events: usize,
    /// Whether it can be inlined in a row.
    inline: bool,
}

impl Hostile {
    /// A payload that no reader may change.
    fn plain(payload: impl Into<Vec<u8>>) -> Hostile {
        let payload = payload.into();
        Hostile { rows: vec![payload.clone()], payload, events: 1, inline: false }
    }

    fn object(payload: impl Into<Vec<u8>>) -> Hostile {
        Hostile { inline: true, ..Hostile::plain(payload) }
    }

    fn packed(self, payload: Vec<u8>) -> Hostile {
        Hostile { payload, ..self }
    }

    /// How many rows `split=lines` makes of it; a broken payload is a single row.
    fn lines(&self) -> usize {
        let broken = |row: &Vec<u8>| *row == self.payload && BEGINNINGS.iter().any(|start| row.starts_with(start));
        let lines =
            |row: &Vec<u8>| row.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        self.rows.iter().map(|row| if broken(row) { 1 } else { lines(row).max(1) }).sum()
    }
}

impl Hostile {
    /// How many rows `split=json` makes of it.
    fn items(&self) -> usize {
        let items = |row: &Vec<u8>| -> Option<usize> {
            let mut items = 0;
            for document in serde_json::Deserializer::from_slice(row).into_iter::<&RawValue>() {
                let document = document.ok()?.get();
                items += match document.as_bytes()[0] {
                    b'{' => 1,
                    b'[' => serde_json::from_str::<Vec<&RawValue>>(document).ok()?.len(),
                    _ => return None,
                };
            }
            Some(items)
        };
        self.rows.iter().map(|row| items(row).unwrap_or(1).max(1)).sum()
    }
}

fn log_events(kind: &str, events: &str) -> String {
    format!(
        "{{\"messageType\":\"{kind}\",\"owner\":\"1\",\"logGroup\":\"g\",\"logStream\":\"s\",\"logEvents\":[{events}]}}"
    )
}

fn all(random: &mut fastrand::Rng) -> Vec<Hostile> {
    let mut noise = |length: usize| (0..length).map(|_| random.u8(..)).collect::<Vec<u8>>();
    // Such a beginning would have a meaning.
    let mut all: Vec<Hostile> = (0..40).map(|n| Hostile::plain([b"~", &noise(n * 7)[..]].concat())).collect();
    all.push(Hostile::plain([b"~", &noise(MIB - 100)[..]].concat()));
    for start in BEGINNINGS.into_iter().chain([&[0x1F][..], &[0xF3]]) {
        all.push(Hostile::plain(start));
        all.push(Hostile::plain([start, &noise(500)].concat()));
    }
    for text in [
        "",
        " ",
        "\n",
        "\n\r\n\n",
        "\0",
        "{",
        "}",
        "{\"a\":1",
        "{\"a\":1}}",
        "{\"a\":1}{\"b\":2}",
        "[]",
        "null",
        "7",
        "\"text\"",
        "{\"a\":}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":1,}",
        "{\"a\":1,\"a\":2}",
        "{\"x\":{\"a\":1,\"\\u0061\":2}}",
        "{\"n\":1e999}",
        "{\"n\":-1e400}",
        "{\"s\":\"\\ud800\"}",
        "{\"s\":\"\\udc00\\ud800\"}",
        "{\"\\ud800\":1}",
        "{\"s\":\"\u{1}\"}",
        "{\"_key\":\"mine\"}",
        "{\"_raw_message\":1,\"_error\":2}",
        "{\"_SHARD_ID\":1}",
        "{\"_batch\":{}}",
        "{\"s\":\"a\0b\"}",
        "{\"a\":1}\u{feff}",
        "x^2 + 1",
        "[{\"n\":1},{\"n\":2}]",
        "[{\"n\":1},2] {\"n\":3}\n[]",
        "[1,{\"n\":2}",
        "SELECT 1; DROP TABLE x",
        "<xml/>",
    ] {
        all.push(Hostile::plain(text));
    }
    for text in [
        "{}",
        "\u{feff}{\"a\":1}",
        " {\n}\n",
        "{\"n\":0}",
        "{\"n\":9223372036854775807,\"s\":\"\\u0000\\ud83d\\ude00\"}",
        "{\"\":1,\" \":2,\"\\u0000\":3}",
        "{\n  \"n\": 5,\n  \"s\": \"x\"\n}",
        "{\"x\":1e308,\"y\":-0,\"z\":1E-400}",
        "{\"s\":\"}\\n{\\\"\"}",
        "{\"s\":{\"nested\":[1,{}]}}",
    ] {
        all.push(Hostile::object(text));
    }
    all.push(Hostile::object(format!("{{\"x\":{}}}", "9".repeat(300))));
    all.push(Hostile::plain(format!("{{\"x\":{}}}", "9".repeat(400))));
    all.push(Hostile::object(format!("{{\"{}\":1}}", "k".repeat(500_000))));
    all.push(Hostile::object(format!("{{\"x\":{}{}}}", "[".repeat(100), "]".repeat(100))));
    for levels in [200, 150_000] {
        all.push(Hostile::plain(format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels))));
        all.push(Hostile::plain("{\"x\":".repeat(levels)));
    }
    for invalid in [
        &b"\xff\xfe"[..],
        b"{\"s\":\"\xff\"}",
        b"{\"\xc3\":1}",
        b"{\"s\":\"\xed\xa0\x80\"}",
        b"\xf8\x88\x80\x80\x80\n\xc0\x80",
    ] {
        all.push(Hostile::plain(invalid));
    }
    let object = || Hostile::object("{\"n\":7,\"s\":\"packed\"}");
    let text = object().payload;
    all.push(object().packed(gzip(&text)));
    all.push(object().packed(zstd(&text)));
    all.push(object().packed([gzip(&text[..5]), gzip(&text[5..])].concat()));
    all.push(Hostile::plain("").packed(gzip(b"")));
    // Compressed twice: only one layer is removed.
    all.push(Hostile::plain(gzip(&text)).packed(gzip(&gzip(&text))));
    for whole in [gzip(&text), zstd(&text)] {
        all.push(Hostile::plain(&whole[..whole.len() - 3]));
        all.push(object().packed([&whole[..], b"and more"].concat()));
    }
    all.push(object().packed(zlib(&text)));
    all.push(object().packed([&zlib(&text)[..], b"\n"].concat()));
    all.push(Hostile::plain([&zlib(&text)[..], b"and more"].concat()));
    all.push(Hostile::plain(&zlib(&text)[..9]));
    all.push(Hostile::plain(gzip(&vec![0; 40 * MIB])));
    let long = "l\n".repeat(50_000);
    all.push(Hostile::plain(long.as_bytes()).packed(gzip(long.as_bytes())));
    let control = log_events("CONTROL_MESSAGE", "{\"id\":\"\"}");
    all.push(Hostile { events: 0, ..Hostile::object(control.as_bytes()) }.packed(gzip(control.as_bytes())));
    let logs = log_events(
        "DATA_MESSAGE",
        "{\"id\":\"1\",\"message\":\"{\\\"n\\\":1}\"},{},{\"id\":\"3\",\"owner\":\"twice\"}",
    );
    all.push(Hostile { events: 3, ..Hostile::object(logs.as_bytes()) }.packed(gzip(logs.as_bytes())));
    for no_envelope in [log_events("DATA_MESSAGE", ""), log_events("DATA_MESSAGE", "1"), log_events("OTHER", "{}")] {
        all.push(Hostile::object(no_envelope));
    }
    let parts: [&[u8]; 4] = [&text, &gzip(&text), b"", &[0xF3, 0x89, 0x9A, 0xC2]];
    let rows = [&text[..], &text, b"", &[0xF3, 0x89, 0x9A, 0xC2]].map(<[u8]>::to_vec).into();
    all.push(Hostile { payload: aggregate(&parts), rows, events: 4, inline: false });
    let mut broken = aggregate(&parts);
    broken[9] ^= 4;
    all.push(Hostile::plain(broken));
    all
}

/// A pipe that reads the stream in one of these ways.
struct Way {
    pipe: &'static str,
    parameters: &'static str,
    format: &'static str,
    /// The rows expected from a record.
    rows: fn(&Hostile) -> usize,
}

const WAYS: [Way; 7] = [
    Way { pipe: "hostile_arrow", parameters: "", format: "ArrowStream", rows: |h| h.rows.len() },
    Way { pipe: "hostile_json", parameters: "", format: "JSONEachRow", rows: |h| h.rows.len() },
    Way { pipe: "hostile_inline", parameters: "&payload=inline", format: "JSONEachRow", rows: |h| h.rows.len() },
    Way { pipe: "hostile_lines", parameters: "&split=lines", format: "ArrowStream", rows: Hostile::lines },
    Way { pipe: "hostile_items", parameters: "&split=json", format: "JSONEachRow", rows: Hostile::items },
    Way { pipe: "hostile_logs", parameters: "&split=cloudwatch", format: "ArrowStream", rows: |h| h.events },
    Way {
        pipe: "hostile_both",
        parameters: "&split=lines&payload=inline",
        format: "JSONEachRow",
        rows: Hostile::lines,
    },
];

impl Way {
    /// The table, and the view that fills it. `n` and `s` are fields of payloads, where these are
    /// inline.
    fn create(&self, bridge: &Bridge, stream: &str) {
        let Way { pipe, parameters, format, .. } = self;
        let inline = parameters.contains("inline");
        let structure = if inline { format!("{NEXT}, _error String, n Int64, s String") } else { NEXT.to_owned() };
        let own = if inline { "_error, n, s" } else { "'' AS _error, 0 AS n, '' AS s" };
        sql(&format!(
            "CREATE TABLE {pipe} (_key String, _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _error String, n Int64, s String) \
             ENGINE = MergeTree ORDER BY _key SETTINGS non_replicated_deduplication_window = 1000"
        ));
        let url = format!(
            "{}/v1/pipes/{pipe}/next?stream={stream}&view=default.{pipe}_view&format={format}&linger_ms=100&wait_ms=1000&poll_ms=50{parameters}",
            bridge.url()
        );
        sql(&format!(
            "CREATE MATERIALIZED VIEW {pipe}_view REFRESH AFTER 2 SECOND \
             SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 1000 APPEND TO {pipe} AS \
             SELECT _key, _sequence_number, _sub_sequence_number, _raw_message, {own} FROM url('{url}', '{format}', '{structure}') \
             ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
        ));
    }

    /// Waits until this many rows are committed.
    fn wait(&self, database: &str, rows: usize) {
        let pipe = self.pipe;
        let committed =
            format!("SELECT sum(committed_rows) FROM {database}.leases WHERE pipe = '{pipe}' AND offered_batch = ''");
        wait_until(&format!("{rows} rows of {pipe}"), || {
            let exception =
                sql(&format!("SELECT exception FROM system.view_refreshes WHERE view = '{pipe}_view' FORMAT TSVRaw"));
            assert!(
                !exception.contains("CANNOT_PARSE") && !exception.contains("INCORRECT_DATA"),
                "{pipe}: {exception}"
            );
            // The first pull creates the state tables.
            stack().clickhouse.query(&committed).is_ok_and(|sum| sum.trim() == rows.to_string())
        });
        sql(&format!("DROP TABLE {pipe}_view"));
        assert_eq!(sql(&format!("SELECT count() FROM {pipe}")).trim(), rows.to_string(), "{pipe}");
    }
}

fn unpacked(bridge: &Bridge, stream: &str, outcome: &str) -> f64 {
    metric(bridge, &format!("kinesis_bridge_unpacked_total{{outcome=\"{outcome}\",stream=\"{stream}\"}}"))
        .unwrap_or(0.0)
}

/// Peak memory of a process.
fn most_memory(bridge: &Bridge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.pid())).expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("kB") << 10
}

#[test]
fn every_payload_is_accounted_for() {
    let seed = seed("every_payload_is_accounted_for");
    let all = all(&mut fastrand::Rng::with_seed(seed));
    create_stream("hostile", 1);
    for (n, hostile) in all.iter().enumerate() {
        // One per call: together they exceed the limit of a call.
        put("hostile", [(n.to_string(), hostile.payload.clone())]);
    }
    let bridge = bridge("hostile_payloads", &[]);
    WAYS.iter().for_each(|way| way.create(&bridge, "hostile"));
    for way in WAYS {
        way.wait("hostile_payloads", all.iter().map(way.rows).sum());
        let pipe = way.pipe;
        let counted = sql(&format!(
            "SELECT count(), max(_sub_sequence_number) FROM {pipe} GROUP BY _sequence_number ORDER BY toUInt256(_sequence_number)"
        ));
        let wanted: Vec<String> =
            all.iter().map(way.rows).filter(|rows| *rows > 0).map(|rows| format!("{rows}\t{}", rows - 1)).collect();
        assert_eq!(counted.lines().collect::<Vec<_>>(), wanted, "{pipe}");
    }
    let wanted: Vec<String> = all
        .iter()
        .flat_map(|hostile| &hostile.rows)
        .map(|row| row.iter().map(|byte| format!("{byte:02X}")).collect())
        .collect();
    for pipe in ["hostile_arrow", "hostile_json"] {
        let rows = sql(&format!(
            "SELECT hex(_raw_message) FROM {pipe} ORDER BY toUInt256(_sequence_number), _sub_sequence_number"
        ));
        assert!(rows.lines().eq(wanted.iter().map(String::as_str)), "{pipe}: other payloads");
    }
    // Inline, a payload is either its fields or itself, with a reason.
    let rows = sql(
        "SELECT _error = '', hex(_raw_message) FROM hostile_inline ORDER BY toUInt256(_sequence_number), _sub_sequence_number",
    );
    let mut rows = rows.lines().map(|line| line.split_once('\t').expect("two columns"));
    for hostile in &all {
        for row in &hostile.rows {
            let (taken, raw) = rows.next().expect("a row");
            let hex: String = row.iter().map(|byte| format!("{byte:02X}")).collect();
            let short = String::from_utf8_lossy(&row[..row.len().min(80)]);
            // The rows of the aggregate are of both kinds.
            if hostile.rows.len() == 1 {
                assert_eq!(taken == "1", hostile.inline, "{short}");
            }
            assert!(raw == if taken == "1" { "" } else { &hex }, "{short}");
        }
    }
    assert_eq!(sql("SELECT n, s FROM hostile_inline WHERE s = 'packed'"), "7\tpacked\n".repeat(9));
    let told = sql(
        "SELECT DISTINCT _error FROM hostile_inline WHERE _error != '' AND NOT startsWith(_error, 'the payload is not a JSON object that makes a row: ')",
    );
    assert_eq!(told, "");
    for pipe in WAYS.map(|way| way.pipe) {
        sql(&format!("DROP TABLE {pipe}"));
    }
}

#[test]
fn what_was_met_is_counted() {
    create_stream("hostile-counts", 1);
    let control = gzip(log_events("CONTROL_MESSAGE", "{}").as_bytes());
    let logs = gzip(log_events("DATA_MESSAGE", "{}").as_bytes());
    let cut = &logs[..logs.len() - 9];
    let mut broken = aggregate(&[b"x", b"y"]);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let bomb = gzip(&vec![b' '; 33 * MIB]);
    let trailed = [&logs[..], b"tail"].concat();
    let payloads: [&[u8]; 11] = [
        &trailed,
        &control,
        &control,
        &logs,
        cut,
        &broken,
        &broken,
        &broken,
        &bomb,
        b"no log",
        &aggregate(&[&logs, &control, b"no log"]),
    ];
    put("hostile-counts", payloads.map(|payload| ("k".into(), payload.to_vec())));
    let bridge = bridge("hostile_counts", &[]);
    // Three events, and what is not an envelope: a truncated one, three broken aggregates, the
    // bomb, two texts.
    let rows = crate::read::pull_all(&bridge, "hostile_counts", "stream=hostile-counts&split=cloudwatch", 10);
    assert_eq!(rows.len(), 10);
    for (outcome, count) in [
        ("aggregate", 1.0),
        ("broken_aggregate", 3.0),
        ("decompressed", 6.0),
        ("trailing_bytes", 1.0),
        ("not_decompressed", 1.0),
        ("too_large", 1.0),
        ("control_message", 3.0),
        ("not_split", 2.0),
    ] {
        wait_until(&format!("{count} of {outcome}"), || unpacked(&bridge, "hostile-counts", outcome) == count);
    }
}

#[test]
fn bombs_do_not_fill_the_memory() {
    create_stream("hostile-bombs", 1);
    let zeros = vec![0; 40 * MIB];
    let bombs = [gzip(&zeros), zstd(&zeros)];
    // Within the limit, with lines and without.
    let most = gzip(format!("{{\"s\":\"{}\"}}", "m".repeat(14 * MIB)).as_bytes());
    let lines = gzip("line\n".repeat(100_000).as_bytes());
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    for n in 0..16 {
        payloads.push(bombs[usize::from(n % 4 == 0)].clone());
    }
    payloads.push(aggregate(&[&bombs[1], &most, &most, &bombs[1]]));
    payloads.extend([most.clone(), most, lines.clone(), lines]);
    // Six times as long in JSON.
    payloads.extend(vec![gzip(&zeros[..16 * MIB]); 3]);
    for some in payloads.chunks(8) {
        put("hostile-bombs", some.iter().map(|payload| ("k".into(), payload.clone())));
    }
    let bridge = bridge("hostile_bombs", &[("--memory", "32MiB")]);
    let way = Way {
        pipe: "hostile_bombs",
        parameters: "&split=lines&payload=inline",
        format: "JSONEachRow",
        rows: |_| unreachable!("said below"),
    };
    way.create(&bridge, "hostile-bombs");
    way.wait("hostile_bombs", 16 + 4 + 2 + 200_000 + 3);
    // One record of the aggregate is decompressed; the other would exceed the limit of the record.
    assert_eq!(
        sql("SELECT countIf(length(s) = 14680064), countIf(_raw_message = 'line') FROM hostile_bombs"),
        "3\t200000\n"
    );
    let whole = format!("url('{}/v1/streams/hostile-bombs/records', 'ArrowStream', '{RECORDS}')", bridge.url());
    assert_eq!(sql(&format!("SELECT count() FROM {whole}")), "27\n");
    assert_eq!(unpacked(&bridge, "hostile-bombs", "too_large"), 16.0 + 3.0);
    let held = most_memory(&bridge);
    println!("{} MiB at most", held / MIB);
    assert!(held < 400 * MIB, "{held} bytes");
    sql("DROP TABLE hostile_bombs");
}

/// As large as a record can be. The emulators accept no more than 1 MiB, so the responses are
/// changed on the way.
#[test]
fn the_largest_record_passes_in_a_small_memory() {
    create_stream("hostile-large", 1);
    put("hostile-large", ["before", SMALL, SMALL, "after"].map(|data| ("k".into(), data.as_bytes().to_vec())));
    let proxy = Proxy::start(&stack().kinesis.endpoint(), |call| match call.operation {
        "GetRecords" => Fault::Swell,
        _ => Fault::None,
    });
    let bridge = bridge_in("hostile_large", &[("--memory", "32MiB")], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    for (pipe, parameters, format, length) in [
        ("large_arrow", "", "ArrowStream", "length(_raw_message)"),
        ("large_lines", "&split=lines", "JSONEachRow", "length(_raw_message)"),
    ] {
        let way = Way { pipe, parameters, format, rows: |h| h.rows.len() };
        way.create(&bridge, "hostile-large");
        way.wait("hostile_large", 4);
        let large = large().len();
        let lengths = sql(&format!("SELECT {length} FROM {pipe} ORDER BY toUInt256(_sequence_number)"));
        assert_eq!(lengths, format!("6\n{large}\n{large}\n5\n"), "{pipe}");
        sql(&format!("DROP TABLE {pipe}"));
    }
    let held = most_memory(&bridge);
    println!("{} MiB at most", held / MIB);
    assert!(held < 400 * MIB, "{held} bytes");
}
