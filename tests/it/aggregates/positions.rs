//! A checkpoint inside an aggregate: other processes, operators and other views continue exactly
//! after it, or report that they cannot.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use stack::Bridge;

use super::{Given, Put, aggregated, expected, given, put_all, selected};
use crate::aggregates::writers::UserRecord;
use crate::read::{acknowledge, offered, pull_all};
use crate::records::reshard::shard_id;
use crate::world::{NEXT, bridge, create_stream, get, post, sql, wait_for, wait_until};

/// An aggregate of `count` records, between plain ones; then the same from the other writer.
fn two_aggregates(count: usize) -> Vec<Put> {
    let records =
        |w: usize| (0..count).map(|n| UserRecord::new(format!("key-{n}"), format!("{w}-{n}"))).collect::<Vec<_>>();
    let mut all = vec![Put::plain("first", "plain 0")];
    for (n, put) in aggregated(&[records(0), records(1)]).into_iter().enumerate() {
        all.push(put);
        all.push(Put::plain("between", format!("plain {}", n + 1)));
    }
    all
}

/// The sequence number of the record that has the row at this index.
fn sequence_number(bridge: &Bridge, stream: &str, row: usize) -> String {
    let rows = get(bridge, &format!("/v1/streams/{stream}/records?format=JSONEachRow")).rows();
    rows[row]["_sequence_number"].as_str().expect("a number").to_owned()
}

fn seek(bridge: &Bridge, pipe: &str, sequence: &str, sub_sequence: impl std::fmt::Display) {
    let shard = shard_id(0);
    let row =
        format!("{{\"shard_id\": \"{shard}\", \"position\": \"{sequence}\", \"sub_sequence_number\": {sub_sequence}}}");
    let answer = post(bridge, &format!("/v1/pipes/{pipe}/seek"), &row);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn one_lease(database: &str, columns: &str) -> String {
    sql(&format!("SELECT {columns} FROM {database}.leases")).trim().to_owned()
}

#[test]
fn a_batch_within_an_aggregate_is_taken_over() {
    create_stream("agg-taken", 1);
    let all = two_aggregates(9);
    put_all("agg-taken", &all);
    let query = "stream=agg-taken&max_rows=4";
    let bridges = ["a", "b"].map(|id| bridge("agg_taken", &[("--worker-id", id), ("--lease-duration", "1s")]));
    let batch =
        |bridge: &Bridge| wait_for("a batch", || Some(offered(bridge, "agg_taken", query)).filter(|b| !b.is_empty()));
    let mut rows = pull_all(&bridges[0], "agg_taken", query, 4);
    assert_eq!(one_lease("agg_taken", "sub_sequence_number"), "2");
    // The next batch begins and ends inside the same aggregate.
    let open = batch(&bridges[0]);
    assert_eq!(one_lease("agg_taken", "offered_first_sub, offered_through_sub, offered_rows"), "3\t6\t4");
    bridges[0].kill();
    let again = batch(&bridges[1]);
    assert_eq!(again, open);
    acknowledge(&bridges[1], "agg_taken", &again[0]);
    rows.extend(again);
    rows.extend(pull_all(&bridges[1], "agg_taken", query, expected(&all).len() - 8));
    assert_eq!(given(&rows), expected(&all));
}

#[test]
fn seek_goes_on_behind_a_row() {
    create_stream("agg-seek", 1);
    let all = two_aggregates(6);
    put_all("agg-seek", &all);
    let mut rows = expected(&all);
    let bridge = bridge("agg_seek", &[]);
    let pull = |enough: usize| given(&pull_all(&bridge, "agg_seek", "stream=agg-seek", enough));
    assert_eq!(pull(rows.len()), rows);
    // The first aggregate has the rows 1 to 6.
    let sequence = sequence_number(&bridge, "agg-seek", 1);
    for sub_sequence in 0..6 {
        seek(&bridge, "agg_seek", &sequence, sub_sequence);
        let left = &rows[sub_sequence + 2..];
        assert_eq!(pull(left.len()), left, "behind row {sub_sequence}");
    }
    for whole in ["null", "6", "4294967295"] {
        seek(&bridge, "agg_seek", &sequence, whole);
        assert_eq!(pull(rows.len() - 7), rows[7..], "{whole}");
    }
    // A restarted process finds the same place.
    seek(&bridge, "agg_seek", &sequence, 2);
    bridge.restart().expect("the bridge comes back");
    assert_eq!(pull(rows.len() - 4), rows[4..]);
    // With SQL; a batch that is being made notices it.
    let edit = format!(
        "ALTER TABLE agg_seek.leases UPDATE sequence_number = '{sequence}', sub_sequence_number = 3 WHERE pipe = 'agg_seek'"
    );
    sql(&edit);
    let more = [Put::plain("last", "behind the edit")];
    put_all("agg-seek", &more);
    rows.extend(expected(&more));
    assert_eq!(pull(rows.len() - 5), rows[5..]);
}

/// Rows that are lines have numbers, too; what was committed before a seek may have been split in
/// another way, or not at all.
#[test]
fn seek_knows_the_rows_of_the_view() {
    create_stream("agg-lines", 1);
    let lines = |from: usize| (from..from + 3).map(|n| format!("line {n}\n")).collect::<String>();
    let mut all = vec![Put::plain("plain", lines(0) + &lines(3))];
    all.extend(aggregated(&[vec![UserRecord::new("a", lines(6)), UserRecord::new("b", lines(9))]]));
    put_all("agg-lines", &all);
    let bridge = bridge("agg_lines", &[]);
    let payloads =
        |rows: &[Value]| given(rows).into_iter().map(|row| String::from_utf8(row.2).expect("text")).collect::<Vec<_>>();
    let wanted = |from: usize| (from..12).map(|n| format!("line {n}")).collect::<Vec<_>>();
    let first = sequence_number(&bridge, "agg-lines", 0);
    let second = sequence_number(&bridge, "agg-lines", 1);
    let query = "stream=agg-lines&split=lines";
    // The pipe exists, and nothing of it is committed.
    wait_until("a batch", || !offered(&bridge, "agg_lines", query).is_empty());
    seek(&bridge, "agg_lines", &first, 1);
    assert_eq!(payloads(&pull_all(&bridge, "agg_lines", query, 10)), wanted(2));
    seek(&bridge, "agg_lines", &second, 3);
    assert_eq!(payloads(&pull_all(&bridge, "agg_lines", query, 2)), wanted(10));
    // A different `split` since the position was committed.
    let whole = "stream=agg-lines&split=none";
    seek(&bridge, "agg_lines", &second, 0);
    assert_eq!(payloads(&pull_all(&bridge, "agg_lines", whole, 1)), [lines(9)]);
    seek(&bridge, "agg_lines", &first, 4);
    assert_eq!(payloads(&pull_all(&bridge, "agg_lines", query, 7)), wanted(5));
}

/// The items of `split=json` have them, too.
#[test]
fn seek_goes_on_behind_an_item() {
    create_stream("agg-items", 1);
    let plain = Put::plain("plain", "{\"n\":0}{\"n\":1}\n[{\"n\":2}, 3]");
    let inside = [UserRecord::new("a", "[\"4\",[5]]"), UserRecord::new("b", "{} [6,"), UserRecord::new("c", "{ }{}")];
    let all: Vec<Put> = [plain].into_iter().chain(aggregated(&[inside.to_vec()])).collect();
    put_all("agg-items", &all);
    let items = ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}", "3", "\"4\"", "[5]", "{} [6,", "{ }", "{}"];
    let bridge = bridge("agg_items", &[]);
    let query = "stream=agg-items&split=json";
    let pull = |enough: usize| {
        let rows = given(&pull_all(&bridge, "agg_items", query, enough));
        rows.into_iter().map(|row| String::from_utf8(row.2).expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(pull(items.len()), items);
    for (record, first, count) in [(0, 0, 4), (1, 4, 5)] {
        let sequence = sequence_number(&bridge, "agg-items", record);
        for sub in 0..count {
            seek(&bridge, "agg_items", &sequence, sub);
            let left = &items[first + sub + 1..];
            if !left.is_empty() {
                assert_eq!(pull(left.len()), left, "behind item {sub} of record {record}");
            }
        }
    }
}

/// A lease without an edition was written by an older bridge, for which a compressed record
/// followed by a line end was one row.
#[test]
fn a_record_that_an_earlier_bridge_began_goes_on_with_its_rows() {
    create_stream("agg-edition", 1);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"a\nb\nc").expect("gzip");
    let packed = [encoder.finish().expect("gzip"), b"\n".to_vec()].concat();
    put_all("agg-edition", &[Put::plain("k", packed), Put::plain("k", "x\ny")]);
    let bridge = bridge("agg_edition", &[]);
    let query = "stream=agg-edition&split=lines";
    let pull = |enough: usize| {
        let rows = given(&pull_all(&bridge, "agg_edition", query, enough));
        rows.into_iter().map(|row| String::from_utf8(row.2).expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(pull(5), ["a", "b", "c", "x", "y"]);
    assert_eq!(one_lease("agg_edition", "unpacking"), "decompress=auto split=lines edition=2");
    let first = sequence_number(&bridge, "agg-edition", 0);
    for (unpacking, left) in [
        ("decompress=auto split=lines", &["x", "y"][..]),
        ("decompress=auto split=lines edition=2", &["b", "c", "x", "y"]),
        ("", &["b", "c", "x", "y"]),
    ] {
        bridge.kill();
        sql(&format!(
            "ALTER TABLE agg_edition.leases UPDATE sequence_number = '{first}', sub_sequence_number = 0, unpacking = '{unpacking}' WHERE pipe = 'agg_edition'"
        ));
        bridge.start_again().expect("the bridge comes back");
        wait_until("readiness", || get(&bridge, "/readyz").status == 200);
        assert_eq!(pull(left.len()), left, "{unpacking}");
    }
}

/// A view that splits its rows in another way, in another format, finishes the record that was
/// begun.
#[test]
fn a_record_goes_on_as_it_was_begun() {
    let two = |n: usize| UserRecord::new(format!("key-{n}"), format!("a{n}\nb{n}"));
    let payload = aggregated(&[(0..5).map(two).collect()]);
    for (begun, then, committed) in [("none", "lines", 2), ("lines", "none", 3)] {
        let name = format!("agg_begun_{begun}");
        let stream = format!("agg-begun-{begun}");
        create_stream(&stream, 1);
        for _ in 0..2 {
            put_all(&stream, &payload);
        }
        let rows = |split: &str| -> Vec<Given> {
            let whole = (0..5).map(|n| (format!("key-{n}"), format!("a{n}\nb{n}")));
            let lines =
                (0..10).map(|n| (format!("key-{}", n / 2), format!("{}{}", if n % 2 == 0 { 'a' } else { 'b' }, n / 2)));
            let all: Vec<(String, String)> = if split == "none" { whole.collect() } else { lines.collect() };
            all.into_iter().zip(0..).map(|((key, text), sub)| (key, sub, text.into_bytes())).collect()
        };
        let bridge = bridge(&name, &[]);
        let first = pull_all(&bridge, &name, &format!("stream={stream}&split={begun}&max_rows={committed}"), committed);
        assert_eq!(given(&first), rows(begun)[..committed]);
        bridge.restart().expect("the bridge comes back");
        // One row of the rest, then another process again.
        let next = pull_all(&bridge, &name, &format!("stream={stream}&split={then}&max_rows=1"), 1);
        assert_eq!(given(&next), rows(begun)[committed..=committed]);
        bridge.restart().expect("the bridge comes back");
        sql(&format!(
            "CREATE TABLE {name} (_key String, _sequence_number String, _sub_sequence_number UInt32, _raw_message String) \
             ENGINE = MergeTree ORDER BY _key SETTINGS non_replicated_deduplication_window = 1000"
        ));
        sql(&format!(
            "CREATE MATERIALIZED VIEW {name}_view REFRESH AFTER 2 SECOND SETTINGS refresh_retries = -1, refresh_retry_max_backoff_ms = 500 \
             APPEND TO {name} AS SELECT _key, _sequence_number, _sub_sequence_number, _raw_message \
             FROM url('{}/v1/pipes/{name}/next?stream={stream}&view=default.{name}_view&split={then}&wait_ms=500&max_rows=2', 'ArrowStream', '{NEXT}') \
             ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1",
            bridge.url()
        ));
        let wanted: Vec<Given> = rows(begun)[committed + 1..].iter().cloned().chain(rows(then)).collect();
        wait_until("the rest", || {
            one_lease(&name, "sum(committed_rows)") == (committed + 1 + wanted.len()).to_string()
        });
        let table = sql(&format!(
            "SELECT hex(_key), _sub_sequence_number, hex(_raw_message) FROM {name} ORDER BY toUInt256(_sequence_number), _sub_sequence_number"
        ));
        assert_eq!(selected(&table), wanted, "split={begun}, then split={then}");
        sql(&format!("DROP TABLE {name}_view"));
    }
}

#[test]
fn a_gap_within_an_aggregate_is_an_error() {
    create_stream("agg-gap", 1);
    let all = two_aggregates(5);
    put_all("agg-gap", &all);
    let query = "stream=agg-gap&max_rows=3";
    let bridge = bridge("agg_gap", &[]);
    pull_all(&bridge, "agg_gap", query, 3);
    // Another batch is offered; it begins and ends inside the aggregate.
    wait_until("a batch", || !offered(&bridge, "agg_gap", query).is_empty());
    let wait_for_the_gap = |part: &str| {
        wait_until(&format!("the gap: {part}"), || {
            let answer = get(
                &bridge,
                &format!("/v1/pipes/agg_gap/next?{query}&ack=explicit&format=JSONEachRow&wait_ms=200&linger_ms=0"),
            );
            assert!(answer.status != 200 || answer.rows().is_empty(), "{}", answer.text());
            let rows = get(&bridge, "/v1/pipes").rows();
            rows.iter().any(|row| row["state"] == "gap" && row["last_error"].to_string().contains(part))
        });
    };
    // As if days had passed.
    let edit =
        |set: &str| sql(&format!("ALTER TABLE agg_gap.leases UPDATE {set}, caught_up_at = 0 WHERE pipe = 'agg_gap'"));
    let whole = sequence_number(&bridge, "agg-gap", 1);
    let shards = get(&bridge, "/v1/streams/agg-gap/shards").rows();
    // A position before everything that is left.
    let gone = shards[0]["starting_sequence_number"].as_str().expect("a number").to_owned();
    bridge.kill();
    edit(&format!("sequence_number = '{gone}', offered_first = '{gone}', offered_through = '{gone}'"));
    bridge.start_again().expect("the bridge comes back");
    wait_for_the_gap("its first record is gone");
    bridge.kill();
    edit("offered_batch = ''");
    bridge.start_again().expect("the bridge comes back");
    wait_for_the_gap(&format!("position {gone} is older than the stream's retention"));
    // It stays until an operator decides.
    seek(&bridge, "agg_gap", &whole, 1);
    let rest = expected(&all).split_off(3);
    assert_eq!(given(&pull_all(&bridge, "agg_gap", query, rest.len())), rest);
}
