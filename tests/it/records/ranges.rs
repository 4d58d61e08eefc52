//! From and to, by time and by sequence number; slices; limits.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{keys, records};
use crate::engines::on_each_engine;
use crate::proxy::{Fault, Proxy};
use crate::world::{bridge, bridge_in, create_stream, metric, put, put_numbered, sql, stack, wait_until};

on_each_engine!(
    a_time_range_begins_with_from_and_ends_before_to,
    a_sequence_range_holds_both_its_ends,
    slices_are_disjoint_and_together_the_whole,
    a_stream_of_many_pages_is_read_to_its_end,
    a_limit_in_sql_ends_the_reading,
);

/// Records one second apart: the emulator keeps arrival times in whole seconds.
fn put_in_three_seconds(stream: &str) {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    for prefix in ["a", "b", "c"] {
        put_numbered(stream, prefix, 3);
        let put_at = second();
        wait_until("the next second", || second() > put_at);
    }
}

fn a_time_range_begins_with_from_and_ends_before_to() {
    of_time("rec-time");
}

/// For the stream `name`, with a bridge of that name.
pub fn of_time(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 2);
    put_in_three_seconds(name);
    let bridge = bridge(id, &[]);
    let all = records(&bridge, name, "");
    // A group may have been written across the boundary of two seconds, so the boundaries are taken
    // from what was read back.
    let bound = |function: &str, key: &str, format: &str| {
        let time = format!("{function}(toTimeZone(_timestamp, 'UTC'))");
        let sql = sql(&format!("SELECT {} FROM {all} WHERE startsWith(_key, '{key}')", format.replace("{}", &time)));
        sql.trim().to_owned()
    };
    let iso = "formatDateTime({}, '%Y-%m-%dT%H:%i:%S.000Z')";
    let plain = "formatDateTime({}, '%Y-%m-%d+%H:%i:%S')";
    let ms = "toUnixTimestamp64Milli({})";
    let [a, b, c] = [["a-0", "a-1", "a-2"], ["b-0", "b-1", "b-2"], ["c-0", "c-1", "c-2"]];
    let seconds = "toUnixTimestamp({})";
    for format in [iso, plain, ms, seconds] {
        let (b_first, c_first) = (bound("min", "b", format), bound("min", "c", format));
        let c_last = bound("max", "c", format);
        assert_eq!(keys(&bridge, name, &format!("from={b_first}&to={c_first}")), b, "{format}");
        assert_eq!(keys(&bridge, name, &format!("to={b_first}")), a, "{format}");
        assert_eq!(keys(&bridge, name, &format!("from={b_first}&to=")), [b, c].concat(), "{format}");
        assert_eq!(keys(&bridge, name, &format!("from={b_first}&to={b_first}")), [""; 0], "{format}");
        assert!(!keys(&bridge, name, &format!("from={c_last}")).is_empty(), "{format}");
    }
    let last = bound("max", "c", ms).parse::<i64>().expect("a number");
    assert_eq!(keys(&bridge, name, &format!("from={}", last + 1)), [""; 0]);
    assert_eq!(keys(&bridge, name, &format!("to={}", last + 1)).len(), 9);
    assert_eq!(keys(&bridge, name, "from=&to=").len(), 9);
    for (range, expected) in
        [("from=-1h", 9), ("from=-7d&to=now", 9), ("from=-60m&to=-30m", 0), ("from=now", 0), ("to=-1d", 0)]
    {
        assert_eq!(keys(&bridge, name, range).len(), expected, "{range}");
    }
    assert_eq!(
        keys(&bridge, name, "from=-1h&slice=0%2F2").len() + keys(&bridge, name, "from=-1h&slice=1%2F2").len(),
        9
    );
    // Read twice, the same.
    let digest = format!("SELECT groupBitXor(cityHash64(*)) FROM {all}");
    assert_eq!(sql(&digest), sql(&digest));
}

fn a_sequence_range_holds_both_its_ends() {
    of_sequence_numbers("rec-sequence");
}

/// For the stream `name`, with a bridge of that name.
pub fn of_sequence_numbers(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 1);
    put(name, (0..10).map(|n| (format!("k-{n}"), vec![b'x'; n])));
    let bridge = bridge(id, &[]);
    let sequence = |key: &str| {
        let all = records(&bridge, name, "");
        sql(&format!("SELECT _sequence_number FROM {all} WHERE _key = '{key}'")).trim().to_owned()
    };
    let (third, seventh) = (sequence("k-3"), sequence("k-7"));
    let of_shard = |range: String| keys(&bridge, name, &format!("shard=shardId-000000000000&{range}"));
    assert_eq!(of_shard(format!("from={third}&to={seventh}")), ["k-3", "k-4", "k-5", "k-6", "k-7"]);
    assert_eq!(of_shard(format!("from={third}&to={third}")), ["k-3"]);
    assert_eq!(of_shard(format!("to={third}")), ["k-0", "k-1", "k-2", "k-3"]);
    assert_eq!(of_shard(format!("from={seventh}")), ["k-7", "k-8", "k-9"]);
    assert_eq!(of_shard(String::new()).len(), 10);
}

fn slices_are_disjoint_and_together_the_whole() {
    create_stream("rec-slices", 7);
    put_numbered("rec-slices", "k", 3_000);
    let bridge = bridge("rec_slices", &[]);
    let mut shards = BTreeSet::new();
    for slice in 0..3 {
        let slice = records(&bridge, "rec-slices", &format!("slice={slice}%2F3"));
        let of_slice = sql(&format!("SELECT DISTINCT _shard_id FROM {slice}"));
        for shard in of_slice.lines() {
            assert!(shards.insert(shard.to_owned()), "{shard} is in two slices");
        }
    }
    assert_eq!(shards.len(), 7);
    // All at once, like a parallel backfill.
    let together = records(&bridge, "rec-slices", "slice={0..2}%2F3");
    assert_eq!(sql(&format!("SELECT count(), uniqExact(_key) FROM {together}")), "3000\t3000\n");
}

fn a_stream_of_many_pages_is_read_to_its_end() {
    create_stream("rec-pages", 1);
    put_numbered("rec-pages", "k", 25_000);
    let bridge = bridge("rec_pages", &[]);
    let all = records(&bridge, "rec-pages", "");
    assert_eq!(sql(&format!("SELECT count(), uniqExact(_key) FROM {all}")), "25000\t25000\n");
    // One shard, so the order is that of the writes.
    let ordered = format!("SELECT _key FROM {all} LIMIT 3");
    assert_eq!(sql(&ordered), "k-0\nk-1\nk-2\n");
    assert_eq!(keys(&bridge, "rec-pages", "limit=1500").len(), 1_500);
    assert_eq!(keys(&bridge, "rec-pages", "limit=1"), ["k-0"]);
}

fn a_limit_in_sql_ends_the_reading() {
    create_stream("rec-early", 4);
    put("rec-early", (0..30_000).map(|n| (format!("k-{n}"), vec![b'x'; 1_000])));
    let proxy = Proxy::start(&stack().kinesis.endpoint(), |_| Fault::None);
    let bridge = bridge_in("rec_early", &[], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    let all = records(&bridge, "rec-early", "");
    assert_eq!(sql(&format!("SELECT count() FROM {all}")), "30000\n");
    let whole = proxy.calls("GetRecords");
    assert!(whole >= 16, "{whole} calls");
    let rows = sql(&format!("SELECT _raw_message FROM {all} LIMIT 5 SETTINGS max_block_size = 100, max_threads = 1"));
    assert_eq!(rows.lines().count(), 5);
    // A reader holds memory from before its first call until its last record is sent.
    wait_until("the end of the reading", || metric(&bridge, "kinesis_bridge_memory_used_bytes") == Some(0.0));
    let calls = proxy.calls("GetRecords") - whole;
    assert!(calls < whole, "{calls} calls for 5 rows, {whole} for all");
}
