//! Random and hostile events through bounded reads.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{EVENTS, FORMATS, Row, records, rows};
use crate::aggregates::writers::{UserRecord, Writer};
use crate::common::seed;
use crate::world::{bridge, create_stream, get, put, sql};
use testkit::tree::{self, Expected, Tree};

const COUNT: usize = 4_000;

/// What is neither an event nor any other kind of record.
fn hostile(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "{}",
        "[]",
        "null",
        "7",
        "\"INSERT\"",
        "{",
        "\u{0}",
        " ",
        "no json at all",
        "{\"id\": \"o-1\", \"price\": 1.5}",
        "{\"dynamodb\":null}",
        "{\"dynamodb\":{\"Keys\":{}}}",
        "{\"eventName\":\"INSERT\",\"dynamodb\":{}}",
        "{\"eventName\":\"\\u0000\\n\",\"tableName\":\"'\\\"\\\\\"}",
        "{\"Records\":[]}",
        "\u{feff}{}",
        "{\"eventName\":{},\"tableName\":[]}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    all.push((0..=255).collect());
    all.push((0..32).collect());
    all.push(b"{\"eventName\":\"INSERT\",\"tableName\":\"\xff\xfe\"}".to_vec());
    all.push(b"{\"eventName\":\"INSERT\",\"dynamodb\":{\"Keys\":{\"\xc3\x28\":{\"S\":\"\"}}}}".to_vec());
    // The largest size that the emulator accepts.
    let most = 1_000_000;
    all.push(vec![b'x'; most]);
    all.push(vec![b'['; most]);
    all.push(vec![0; most]);
    all.push(format!("{{\"eventName\":\"{}\"}}", "n".repeat(most)).into_bytes());
    all.push(
        format!("{{\"eventName\":\"REMOVE\",\"dynamodb\":{{\"Keys\":{{\"{}\":1}}}}}}", "k".repeat(most)).into_bytes(),
    );
    for _ in 0..200 {
        let text = tree::event(random).0.into_bytes();
        // Half of an event is not an event.
        all.push(text[..random.usize(1..text.len())].to_vec());
        all.push((0..random.usize(1..100)).map(|_| random.u8(..0xF0)).collect());
    }
    all
}

/// Creates a table with the rows of a bounded read.
fn load(table: &str, from: &str) {
    sql(&format!("CREATE TABLE {table} ({EVENTS}) ENGINE = MergeTree ORDER BY _key"));
    sql(&format!("INSERT INTO {table} SELECT * FROM {from}"));
}

#[test]
fn every_event_is_the_same_in_every_format() {
    let mut random = fastrand::Rng::with_seed(seed("every_event_is_the_same_in_every_format"));
    let hostile = hostile(&mut random);
    let mut payloads: Vec<(Vec<u8>, Option<Expected>)> =
        hostile.iter().map(|payload| (payload.clone(), None)).collect();
    for _ in 0..COUNT {
        let (text, event) = tree::event(&mut random);
        payloads.push((text.into_bytes(), Some(event)));
    }
    random.shuffle(&mut payloads);
    create_stream("cdc-fuzz", 2);
    for (from, part) in payloads.chunks(4).enumerate() {
        put("cdc-fuzz", part.iter().zip(from * 4..).map(|((payload, _), n)| (n.to_string(), payload.clone())));
    }
    let bridge = bridge("cdc_fuzz", &[]);
    let mut first: Option<Vec<Row>> = None;
    for format in FORMATS {
        let table = format!("cdc_fuzz_{format}");
        load(&table, &records(&bridge, "cdc-fuzz", format, "&decompress=none"));
        let all = rows(&table, "toUInt32(_key)");
        assert_eq!(all.len(), payloads.len(), "{format}");
        for (n, (row, (payload, event))) in all.iter().zip(&payloads).enumerate() {
            let text = || String::from_utf8_lossy(&payload[..payload.len().min(2_000)]);
            match event {
                Some(event) => assert_eq!(*row, Row::event(n, event.clone()), "{format}: {}", text()),
                None => {
                    let told = row.error.starts_with("the payload is not a DynamoDB change event: ");
                    assert!(told, "{format}: '{}' for {}", row.error, text());
                    assert!(row.raw == *payload, "{format}: another payload than {}", text());
                    let (name, table) = (row.event.name.clone(), row.event.table.clone());
                    assert_eq!(row.event, Expected { name, table, ..Expected::default() }, "{format}: {}", text());
                }
            }
        }
        let first = first.get_or_insert_with(|| all.clone());
        assert!(all == *first, "{format} differs from {}", FORMATS[0]);
        sql(&format!("DROP TABLE {table}"));
    }
    // As ClickHouse reads by default, looking for the ends of rows in advance, and with one thread,
    // as in a pipe.
    for threads in [1, 2] {
        let from = records(&bridge, "cdc-fuzz", "JSONEachRow", "&decompress=none");
        let count = format!(
            "SELECT count(), countIf(_error = ''), sum(length(_attributes)) > 0 FROM {from} SETTINGS max_threads = {threads}"
        );
        assert_eq!(sql(&count), format!("{}\t{COUNT}\t1\n", payloads.len()));
    }
}

/// Without a structure ClickHouse infers the columns from the response: their names, order and
/// types.
#[test]
fn the_columns_are_those_of_the_documentation() {
    create_stream("cdc-columns", 1);
    put("cdc-columns", [("k".to_owned(), b"x".to_vec())]);
    let bridge = bridge("cdc_columns", &[]);
    let streams = format!("{}/v1/streams/cdc-columns", bridge.url());
    let next = format!(
        "{}/v1/pipes/cdc_columns/next?stream=cdc-columns&ack=explicit&unmarshal=dynamodb&format=",
        bridge.url()
    );
    let plain = |structure: &str| -> Vec<String> {
        let types =
            structure.replace("LowCardinality(String)", "String").replace("DateTime64(3, 'UTC')", "DateTime64(3)");
        types.split(", ").map(|column| column.trim().to_owned()).collect()
    };
    // The map's type contains a comma, too.
    let expected = plain(EVENTS);
    for (url, format, batch) in [
        (format!("{streams}/records?unmarshal=dynamodb&format="), "ArrowStream", ""),
        (format!("{streams}/records?unmarshal=dynamodb&format="), "Parquet", ""),
        (format!("{streams}/sample?unmarshal=dynamodb&format="), "ArrowStream", ""),
        (next, "ArrowStream", ", _batch String"),
    ] {
        let told = sql(&format!(
            "DESCRIBE TABLE url('{url}{format}', '{format}') SETTINGS schema_inference_make_columns_nullable = 0 FORMAT TSVRaw"
        ));
        let told: Vec<String> =
            told.lines().map(|line| line.split('\t').take(2).collect::<Vec<_>>().join(" ")).collect();
        let expected = [expected.clone(), plain(batch.trim_start_matches(", "))].concat();
        let expected: Vec<String> = expected.into_iter().filter(|column| !column.is_empty()).collect();
        assert_eq!(plain(&told.join(", ")), expected, "{url}{format}");
    }
}

/// A record is unpacked before it is taken for an event.
#[test]
fn events_may_be_packed() {
    let mut random = fastrand::Rng::with_seed(seed("events_may_be_packed"));
    // A line is a row, so no event has a line feed between its fields.
    let mut events = Vec::new();
    while events.len() < 6 {
        let (text, event) = tree::event(&mut random);
        if !text.contains(['\n', '\r']) {
            events.push((text, event));
        }
    }
    let texts: Vec<&[u8]> = events.iter().map(|(text, _)| text.as_bytes()).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(texts[0]).expect("gzip");
    let users = texts[1..4].iter().map(|text| UserRecord::new("k", *text)).collect();
    let payloads = [
        gzip.finish().expect("gzip"),
        Writer::Python.write(&[users]).remove(0),
        [texts[4], b"\n", texts[5], b"\n"].concat(),
    ];
    create_stream("cdc-packed", 1);
    put("cdc-packed", payloads.map(|payload| ("k".to_owned(), payload)));
    let bridge = bridge("cdc_packed", &[]);
    for format in FORMATS {
        let from = records(&bridge, "cdc-packed", format, "&split=lines");
        let found = rows(&from, "toUInt256(_sequence_number), _sub_sequence_number");
        let expected: Vec<Row> = events.iter().map(|(_, event)| Row::event("k", event.clone())).collect();
        assert_eq!(found, expected, "{format}");
    }
    let sample = get(&bridge, "/v1/streams/cdc-packed/sample?split=lines&unmarshal=dynamodb&format=JSONEachRow").rows();
    let ids: Vec<_> = sample.iter().map(|row| row["_event_id"].as_str().expect("an id")).collect();
    assert_eq!(ids, events.iter().map(|(_, event)| &*event.id).collect::<Vec<_>>());
}

/// When a stream changes from milliseconds to microseconds, versions continue in order, and each
/// table has its own events.
#[test]
fn precision_may_change_and_tables_may_be_several() {
    let precision = |micros: i64| match micros >= 1_795_255_200_000_000 {
        true => (micros, ",\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\""),
        false => (micros / 1_000, ""),
    };
    let event = |table: &str, id: usize, micros: i64, value: &str| {
        let (time, word) = precision(micros);
        let new = format!("\"NewImage\":{{\"id\":{{\"N\":\"{id}\"}},\"v\":{{\"S\":\"{value}\"}}}},");
        let (name, new) = if value.is_empty() { ("REMOVE", "") } else { ("MODIFY", &*new) };
        format!(
            "{{\"eventName\":\"{name}\",\"eventID\":\"e\",\"tableName\":\"{table}\",\"dynamodb\":{{\"Keys\":{{\"id\":{{\"N\":\"{id}\"}}}},{new}\
             \"ApproximateCreationDateTime\":{time}{word}}}}}"
        )
    };
    let began = 1_795_255_199_999_000;
    let mut events = Vec::new();
    for id in 0..50 {
        for table in ["users", "orders"] {
            // The last one in milliseconds, then two in microseconds.
            events.push(event(table, id, began, "old"));
            events.push(event(table, id, began + 1_000 + id as i64, &format!("{table}-{id}")));
            if id % 5 == 0 {
                events.push(event(table, id, began + 2_000, ""));
            }
        }
    }
    // They arrive in any order.
    fastrand::Rng::with_seed(seed("precision_may_change_and_tables_may_be_several")).shuffle(&mut events);
    create_stream("cdc-precision", 4);
    put("cdc-precision", events.iter().enumerate().map(|(n, event)| (n.to_string(), event.clone().into_bytes())));
    let bridge = bridge("cdc_precision", &[]);
    for table in ["users", "orders"] {
        let name = format!("cdc_{table}");
        sql(&format!(
            "CREATE TABLE {name} (id Int64, v String, version Int64, is_deleted UInt8) ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY id"
        ));
        sql(&format!(
            "INSERT INTO {name} SELECT toInt64(_attributes['id']), JSONExtractString(_new, 'v'), _version, _is_deleted FROM {} WHERE _table = '{table}'",
            records(&bridge, "cdc-precision", "ArrowStream", "")
        ));
        let expected: String = (0..50).filter(|id| id % 5 != 0).map(|id| format!("{id}\t{table}-{id}\n")).collect();
        assert_eq!(sql(&format!("SELECT id, v FROM {name} FINAL ORDER BY id")), expected);
        sql(&format!("DROP TABLE {name}"));
    }
}

/// The emptiest possible items, next to the deepest.
#[test]
fn items_of_one_attribute_and_of_thirty_levels_pass() {
    let mut random = fastrand::Rng::with_seed(seed("items_of_one_attribute_and_of_thirty_levels_pass"));
    let mut events = Vec::new();
    for levels in [0, 1, 30] {
        for _ in 0..20 {
            let keys = vec![("id".to_owned(), Tree::B("AA==".into()))];
            events.push(tree::event_of(&mut random, &keys, &mut |_| {
                let deepest = Tree::M(vec![("n".into(), Tree::N("1".into()))]);
                let tree = (0..levels).fold(deepest, |tree, _| Tree::L(vec![tree, Tree::Null]));
                if levels == 0 { Vec::new() } else { vec![("deep".into(), tree)] }
            }));
        }
    }
    create_stream("cdc-deep", 1);
    put("cdc-deep", events.iter().enumerate().map(|(n, (text, _))| (n.to_string(), text.clone().into_bytes())));
    let bridge = bridge("cdc_deep", &[]);
    let expected: Vec<Row> = events.iter().enumerate().map(|(n, (_, event))| Row::event(n, event.clone())).collect();
    for format in FORMATS {
        assert_eq!(rows(&records(&bridge, "cdc-deep", format, ""), "toUInt32(_key)"), expected, "{format}");
    }
}
