//! Large responses: column by column, and within a small memory.

use std::sync::atomic::{AtomicBool, Ordering};

use super::records;
use crate::engines::on_each_engine;
use crate::world::{bridge, create_stream, get, metric, put, sql};

on_each_engine!(each_column_alone_is_read_without_ranged_requests, a_small_memory_is_enough_for_a_large_stream,);

const MIB: usize = 1 << 20;

/// Writes `count` records of `size` bytes, in calls that Kinesis accepts.
fn put_large(stream: &str, count: usize, size: usize) {
    let per_call = 4 * MIB / size;
    for from in (0..count).step_by(per_call) {
        let to = count.min(from + per_call);
        // No two payloads are equal, and none compresses well.
        put(stream, (from..to).map(|n| (format!("k-{n}"), payload(n, size))));
    }
}

fn payload(number: usize, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number as u64);
    (0..size).map(|_| random.alphanumeric() as u8).collect()
}

/// ClickHouse's reader skips what a query does not use; with large buffers it does so by a ranged
/// request, which a stream that is produced while it is sent cannot answer. So the pieces must be
/// small enough that it never does.
fn each_column_alone_is_read_without_ranged_requests() {
    create_stream("rec-columns-large", 4);
    put_large("rec-columns-large", 660, 100 << 10);
    let bridge = bridge("rec_columns_large", &[]);
    let all = records(&bridge, "rec-columns-large", "");
    for (expression, expected) in [
        ("uniqExact(_key)", "660"),
        ("min(_timestamp) > '2020-01-01'", "1"),
        ("any(_stream)", "rec-columns-large"),
        ("uniqExact(_shard_id)", "4"),
        ("uniqExact(_sequence_number)", "660"),
        ("sum(_sub_sequence_number)", "0"),
        ("sum(length(_raw_message))", "67584000"),
        ("count()", "660"),
    ] {
        assert_eq!(sql(&format!("SELECT {expression} FROM {all}")).trim(), expected, "{expression}");
    }
    let metrics = get(&bridge, "/metrics").text();
    let answers: Vec<&str> = metrics.lines().filter(|l| l.contains("path=\"records\"")).collect();
    assert_eq!(
        answers,
        ["kinesis_bridge_http_requests_total{path=\"records\",status=\"200\"} 16"],
        "HEAD and GET each"
    );
}

fn a_small_memory_is_enough_for_a_large_stream() {
    create_stream("rec-memory", 8);
    put_large("rec-memory", 100_000, 2_000);
    let bridge = bridge("rec_memory", &[("--memory", "32MiB")]);
    let all = records(&bridge, "rec-memory", "");
    let done = AtomicBool::new(false);
    let (most, resident) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut most, mut resident) = (0.0_f64, 0);
            while !done.load(Ordering::Relaxed) {
                most = most.max(metric(&bridge, "kinesis_bridge_memory_used_bytes").expect("the metric"));
                resident = resident.max(bridge.rss_bytes() as usize);
            }
            (most, resident)
        });
        let digest = sql(&format!(
            "SELECT count(), uniqExact(_key), uniqExact(_raw_message), sum(length(_raw_message)) FROM {all}"
        ));
        done.store(true, Ordering::Relaxed);
        assert_eq!(digest, "100000\t100000\t100000\t200000000\n");
        watch.join().expect("the watch")
    });
    assert_eq!(metric(&bridge, "kinesis_bridge_memory_limit_bytes"), Some((32 * MIB) as f64));
    assert!(most > 0.0 && most <= (32 * MIB) as f64, "{most} bytes held of 32 MiB");
    assert!(resident <= 200 * MIB, "{resident} bytes resident");
    assert_eq!(metric(&bridge, "kinesis_bridge_memory_used_bytes"), Some(0.0), "all is given back");
}
