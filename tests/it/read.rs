//! The polling reader: where it starts, in which order it reads, and that no fault of Kinesis loses
//! or duplicates a record.

mod faults;
pub mod order;
pub mod starts;

use std::collections::BTreeMap;

use serde_json::Value;
use stack::Bridge;

use crate::world::{get, post, sql, wait_until};

/// Pulls with explicit acknowledgement until `enough` rows have arrived, acknowledging each batch,
/// and returns them in order.
pub fn pull_all(bridge: &Bridge, pipe: &str, query: &str, enough: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    wait_until("all rows", || {
        rows.extend(pull(bridge, pipe, query));
        rows.len() >= enough
    });
    rows
}

/// One batch, acknowledged. If the bridge answers 503, the caller asks again.
fn pull(bridge: &Bridge, pipe: &str, query: &str) -> Vec<Value> {
    let batch = offered(bridge, pipe, query);
    if let Some(first) = batch.first() {
        acknowledge(bridge, pipe, first);
    }
    batch
}

/// One batch.
pub fn offered(bridge: &Bridge, pipe: &str, query: &str) -> Vec<Value> {
    let path =
        format!("/v1/pipes/{pipe}/next?{query}&ack=explicit&format=JSONEachRow&linger_ms=50&wait_ms=200&poll_ms=20");
    let answer = get(bridge, &path);
    match answer.status {
        503 => Vec::new(),
        _ => answer.rows(),
    }
}

/// Acknowledges the batch of a row.
pub fn acknowledge(bridge: &Bridge, pipe: &str, row: &Value) {
    let body = format!("{{\"batch\": {}}}", row["_batch"]);
    wait_until("the acknowledgement", || {
        let answer = post(bridge, &format!("/v1/pipes/{pipe}/ack"), &body);
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        answer.status == 200
    });
}

/// How often each payload arrived.
fn counts(rows: &[Value]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row["_raw_message"].as_str().expect("a payload")).or_default() += 1;
    }
    counts
}

/// Each of `<prefix>-0` to `<prefix>-<count - 1>` once, and nothing else.
pub fn assert_each_once(rows: &[Value], prefixes: &[(&str, usize)]) {
    let wanted: BTreeMap<String, usize> =
        prefixes.iter().flat_map(|(prefix, count)| (0..*count).map(move |n| (format!("{prefix}-{n}"), 1))).collect();
    let got: BTreeMap<String, usize> = counts(rows).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let missing: Vec<_> = wanted.keys().filter(|k| !got.contains_key(*k)).take(5).collect();
    let wrong: Vec<_> = got.iter().filter(|(k, v)| wanted.get(*k) != Some(*v)).take(5).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing {missing:?}, doubled or foreign {wrong:?}");
}

/// The same for the table of a pipe.
pub fn assert_table_has_each_once(table: &str, count: usize) {
    let rows = || sql(&format!("SELECT count(), uniqExact(_raw_message) FROM {table}"));
    wait_until("all rows in the table", || {
        sql(&format!("SELECT uniqExact(_raw_message) FROM {table}")).trim() == count.to_string()
    });
    assert_eq!(rows(), format!("{count}\t{count}\n"));
}
