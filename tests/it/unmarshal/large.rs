//! Events beyond what a Kinesis record could hold for years, in a small memory.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use stack::Bridge;

use super::{FORMATS, Row, records, rows};
use crate::common::seed;
use crate::proxy::{Fault, Proxy, SMALL, large};
use crate::world::{bridge, bridge_in, create_stream, put, sql, stack};
use testkit::tree::{self, Expected, Tree};

const MIB: usize = 1 << 20;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("gzip");
    encoder.finish().expect("gzip")
}

/// A MODIFY of an item with this many attributes of this many bytes. DynamoDB's largest has 400 KB:
/// a few long texts, or many small attributes, whose types make it longer. Compresses well.
fn modify(random: &mut fastrand::Rng, attributes: usize, size: usize) -> (String, Expected) {
    let keys = vec![("id".to_owned(), Tree::S("k".into()))];
    loop {
        let (text, event) = tree::event_of(random, &keys, &mut |random| {
            let word: String = (0..100).map(|_| random.alphanumeric()).collect();
            let text = |n: usize| word.chars().cycle().skip(n % 100).take(size).collect();
            (0..attributes).map(|n| (format!("a{n}"), Tree::S(text(n)))).collect()
        });
        if event.name == "MODIFY" {
            return (text, event);
        }
    }
}

/// Peak memory of a process.
fn most_memory(bridge: &Bridge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.pid())).expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("kB") << 10
}

#[test]
fn the_largest_items_pass_in_a_small_memory() {
    let mut random = fastrand::Rng::with_seed(seed("the_largest_items_pass_in_a_small_memory"));
    let items = [modify(&mut random, 4, 100_000), modify(&mut random, 50_000, 2)];
    assert!(items[1].0.len() > MIB, "{} bytes", items[1].0.len());
    // More than an item can be: nearly the limit of a decompressed record.
    let huge = [modify(&mut random, 1, 7 * MIB)];
    let bridge = bridge("cdc_large", &[("--memory", "32MiB")]);
    for (stream, events) in [("cdc-large", &items[..]), ("cdc-huge", &huge)] {
        create_stream(stream, 1);
        for (n, (text, _)) in events.iter().enumerate() {
            put(stream, [(n.to_string(), gzip(text))]);
            put(stream, [("small".to_owned(), b"no event".to_vec())]);
        }
        let event = |(n, (_, event)): (usize, &(String, Expected))| Row::event(n, event.clone());
        let expected: Vec<Row> = events.iter().enumerate().map(event).collect();
        for format in FORMATS {
            let all = records(&bridge, stream, format, "");
            let found = rows(&all, "_key");
            let (found, small) = found.split_at(events.len());
            assert!(found == expected, "{stream} {format}: {} rows", found.len());
            assert!(small.len() == events.len() && small.iter().all(|row| row.raw == b"no event"), "{stream} {format}");
        }
    }
    // A single column: ClickHouse skips the others without requesting a range.
    for format in FORMATS {
        let all = records(&bridge, "cdc-large", format, "");
        assert_eq!(sql(&format!("SELECT uniqExact(_key), sum(_is_deleted) FROM {all}")), "3\t0\n", "{format}");
        assert_eq!(sql(&format!("SELECT max(_raw_message) FROM {all}")), "no event\n", "{format}");
    }
    let held = most_memory(&bridge);
    println!("{} MiB at most", held / MIB);
    assert!(held < 400 * MIB, "{held} bytes");
}

/// As large as a record can be without compression. The emulators accept no more than 1 MiB, so the
/// responses are changed on the way.
#[test]
fn the_largest_record_that_is_no_event_passes() {
    create_stream("cdc-swollen", 1);
    put("cdc-swollen", ["before", SMALL, "after"].map(|data| ("k".into(), data.as_bytes().to_vec())));
    let proxy = Proxy::start(&stack().kinesis.endpoint(), |call| match call.operation {
        "GetRecords" => Fault::Swell,
        _ => Fault::None,
    });
    let bridge = bridge_in("cdc_swollen", &[("--memory", "32MiB")], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    for format in FORMATS {
        let all = records(&bridge, "cdc-swollen", format, "");
        let lengths =
            sql(&format!("SELECT length(_raw_message), _error != '' FROM {all} ORDER BY toUInt256(_sequence_number)"));
        assert_eq!(lengths, format!("6\t1\n{}\t1\n5\t1\n", large().len()), "{format}");
    }
}

/// Many events with large images, column by column: with buffers of more than 4 MiB ClickHouse
/// would request a range, which is not available.
#[test]
fn each_column_of_events_alone_is_read_without_ranged_requests() {
    let mut random = fastrand::Rng::with_seed(7);
    create_stream("cdc-wide", 2);
    for n in 0..120 {
        put("cdc-wide", [(n.to_string(), modify(&mut random, 2, 50_000).0.into_bytes())]);
    }
    let bridge = bridge("cdc_wide", &[]);
    let all = records(&bridge, "cdc-wide", "ArrowStream", "");
    for (expression, expected) in [
        ("uniqExact(_event_id)", "120"),
        ("uniqExact(_new)", "120"),
        ("uniqExact(_old)", "120"),
        ("sum(length(_attributes))", "360"),
        ("sum(_version) > 0", "1"),
        ("any(_error)", ""),
        ("sum(length(_raw_message))", "0"),
    ] {
        assert_eq!(sql(&format!("SELECT {expression} FROM {all}")).trim(), expected, "{expression}");
    }
    let metrics = crate::world::get(&bridge, "/metrics").text();
    let answers: Vec<&str> = metrics.lines().filter(|line| line.contains("path=\"records\"")).collect();
    assert_eq!(
        answers,
        ["kinesis_bridge_http_requests_total{path=\"records\",status=\"200\"} 14"],
        "HEAD and GET each"
    );
}
