//! All formats return the same, whatever the session's time zone and whatever bytes a record has.

use super::records;
use crate::engines::on_each_engine;
use crate::world::{NEXT, RECORDS, bridge, create_stream, get, post, put, sql, wait_until};

on_each_engine!(
    all_formats_agree_in_every_time_zone,
    nothing_is_an_answer_in_every_format,
    a_structure_may_name_few_columns_in_any_order,
);

const FORMATS: [&str; 3] = ["ArrowStream", "JSONEachRow", "Parquet"];

/// Payloads that are difficult for encoders: every byte, nothing, quotes, control characters,
/// invalid UTF-8.
fn payloads() -> Vec<Vec<u8>> {
    vec![
        (0..=255).collect(),
        b"\xff\xfe\x00\x80\xc3\x28\xf0\x9f".to_vec(),
        b"{\"a\": \"quoted \\\" and \\\\ and \\n\"}".to_vec(),
        "ünïcödé 🦀 \u{2028}".as_bytes().to_vec(),
        b"\0".to_vec(),
        b"plain".to_vec(),
        vec![b'"'; 100_000],
    ]
}

fn all_formats_agree_in_every_time_zone() {
    create_stream("rec-formats", 2);
    let keys = ["ключ", "a\"b\\c", "tab\there", "k3", "k4", "k5", "k6"];
    put("rec-formats", keys.iter().map(|k| k.to_string()).zip(payloads()));
    let bridge = bridge("rec_formats", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let mut answers = Vec::new();
    for format in FORMATS {
        for zone in ["UTC", "Asia/Tokyo", "America/St_Johns"] {
            let all = records(&bridge, "rec-formats", &format!("format={format}"));
            let answer = sql(&format!(
                "SELECT hex(_key), toUnixTimestamp64Milli(_timestamp), _stream, _shard_id, _sequence_number, _sub_sequence_number, \
                 hex(_raw_message) FROM {all} ORDER BY _shard_id, _sequence_number SETTINGS date_time_input_format = 'best_effort', session_timezone = '{zone}'"
            ));
            assert_eq!(answer.lines().count(), keys.len(), "{format} {zone}");
            answers.push((format!("{format} {zone}"), answer));
        }
    }
    for (name, answer) in &answers {
        assert_eq!(*answer, answers[0].1, "{name} and {}", answers[0].0);
    }
    let hex: String = (0..=255).map(|byte: u8| format!("{byte:02X}")).collect();
    assert!(answers[0].1.contains(&hex));
    // The times are current, not hours off.
    let all = records(&bridge, "rec-formats", "format=JSONEachRow");
    let near = format!("SELECT max(abs(dateDiff('second', _timestamp, now()))) < 3600 FROM {all}");
    assert_eq!(
        sql(&format!("{near} SETTINGS date_time_input_format = 'best_effort', session_timezone = 'Asia/Tokyo'")),
        "1\n"
    );
    sample_and_next_agree(&bridge, &answers[0].1);
    commit_times_agree(&bridge);
}

/// What `sample` and a pipe return, in the formats that they support.
fn sample_and_next_agree(bridge: &stack::Bridge, expected: &str) {
    for format in ["ArrowStream", "JSONEachRow"] {
        let columns = "hex(_key), toUnixTimestamp64Milli(_timestamp), _stream, _shard_id, _sequence_number, _sub_sequence_number, hex(_raw_message)";
        let order = "ORDER BY _shard_id, _sequence_number SETTINGS date_time_input_format = 'best_effort', session_timezone = 'Asia/Tokyo', http_max_tries = 1";
        let url = bridge.url();
        let sample =
            format!("url('{url}/v1/streams/rec-formats/sample?limit=100&format={format}', '{format}', '{RECORDS}')");
        assert_eq!(sql(&format!("SELECT {columns} FROM {sample} {order}")), expected, "sample {format}");
        let query = format!("stream=rec-formats&ack=explicit&format={format}&max_rows=100");
        let next = format!("url('{url}/v1/pipes/rec_{format}/next?{query}', '{format}', '{NEXT}')");
        assert_eq!(sql(&format!("SELECT {columns} FROM {next} {order}")), expected, "next {format}");
    }
}

/// `last_commit_time` of `/v1/pipes` after a commit.
fn commit_times_agree(bridge: &stack::Bridge) {
    let pull = "/v1/pipes/rec_JSONEachRow/next?stream=rec-formats&ack=explicit&format=JSONEachRow";
    let batch = get(bridge, pull).rows()[0]["_batch"].as_str().expect("a batch").to_owned();
    let acknowledged = post(bridge, "/v1/pipes/rec_JSONEachRow/ack", &format!("{{\"batch\": \"{batch}\"}}"));
    assert_eq!(acknowledged.status, 200, "{}", acknowledged.text());
    let times: Vec<String> = ["ArrowStream", "JSONEachRow"]
        .into_iter()
        .map(|format| {
            let structure = "pipe String, last_commit_time Nullable(DateTime64(3))";
            let pipes = format!("url('{}/v1/pipes?format={format}', '{format}', '{structure}')", bridge.url());
            let time = "toUnixTimestamp64Milli(assumeNotNull(max(last_commit_time)))";
            sql(&format!("SELECT {time} FROM {pipes} SETTINGS date_time_input_format = 'best_effort', session_timezone = 'Asia/Tokyo'"))
        })
        .collect();
    assert_eq!(times[0], times[1]);
    assert_ne!(times[0], "0\n");
}

fn nothing_is_an_answer_in_every_format() {
    create_stream("rec-empty", 2);
    create_stream("rec-empty-range", 2);
    put("rec-empty-range", [("k".to_owned(), b"v".to_vec())]);
    let bridge = bridge("rec_empty", &[]);
    for format in FORMATS {
        for (stream, range) in [
            ("rec-empty", ""),
            ("rec-empty", "limit=1"),
            ("rec-empty", "from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z"),
            ("rec-empty-range", "from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z"),
            ("rec-empty-range", "slice=1023%2F1024"),
        ] {
            let none = records(&bridge, stream, &format!("{range}&format={format}"));
            assert_eq!(sql(&format!("SELECT count(), count(_key) FROM {none}")), "0\t0\n", "{stream} {range} {format}");
        }
    }
    for format in ["ArrowStream", "JSONEachRow"] {
        let none =
            format!("url('{}/v1/streams/rec-empty/sample?format={format}', '{format}', '{RECORDS}')", bridge.url());
        assert_eq!(sql(&format!("SELECT count(_key) FROM {none}")), "0\n", "{format}");
    }
}

fn a_structure_may_name_few_columns_in_any_order() {
    create_stream("rec-columns", 1);
    put("rec-columns", (0..100).map(|n| (format!("k-{n}"), vec![b'x'; 100])));
    let bridge = bridge("rec_columns", &[]);
    for format in FORMATS {
        let url = format!("{}/v1/streams/rec-columns/records?format={format}", bridge.url());
        let some = format!("url('{url}', '{format}', '_raw_message String, _key String')");
        assert_eq!(sql(&format!("SELECT sum(length(_raw_message)), uniqExact(_key) FROM {some}")), "10000\t100\n");
        // Without a structure ClickHouse infers it from the response.
        let inferred = format!("url('{url}', '{format}')");
        assert_eq!(sql(&format!("SELECT sum(length(_raw_message)), uniqExact(_key) FROM {inferred}")), "10000\t100\n");
    }
}
