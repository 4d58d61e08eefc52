//! Records that expire unread, a retention that changes, and a clock that is wrong: on the real
//! bridge, with a proxy that sets Kinesis' time and withholds what has expired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stack::Bridge;

use crate::proxy::{Fault, Proxy};
use crate::read::{acknowledge, offered};
use crate::world::{self, *};

const HOUR: i64 = 3_600;

/// A bridge behind the proxy, with its tables.
fn bridge(database: &str, proxy: &Proxy) -> Bridge {
    let bridge = world::bridge_in(database, &[], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    bridge
}

fn proxy() -> Proxy {
    Proxy::start(&stack().kinesis.endpoint(), |_| Fault::None)
}

/// Pulls until the pipe owns the leases of its shards.
fn begin(bridge: &Bridge, pipe: &str, query: &str) {
    wait_until("the leases", || {
        offered(bridge, pipe, query);
        get(bridge, "/v1/pipes").rows().iter().any(|row| row["pipe"] == pipe && row["state"] == "reading")
    });
}

/// Pulls until a gap is reported whose message has all these parts.
fn gap(bridge: &Bridge, pipe: &str, query: &str, parts: &[&str]) {
    wait_until("the gap", || {
        let path = format!("/v1/pipes/{pipe}/next?{query}&ack=explicit&format=JSONEachRow&linger_ms=0&wait_ms=200");
        let answer = get(bridge, &path);
        let told = answer.status == 400 && parts.iter().all(|part| answer.text().contains(part));
        let rows = get(bridge, "/v1/pipes").rows();
        assert!(answer.status != 200 || answer.rows().is_empty(), "what is left is not served: {}", answer.text());
        let is_gap = answer.status == 400 && answer.text().contains("\"gap\"");
        assert!(!is_gap || answer.text().contains(&format!("/v1/pipes/{pipe}/seek")), "{}", answer.text());
        told && rows.iter().any(|row| row["pipe"] == pipe && row["state"] == "gap")
    });
}

#[test]
fn unread_within_retention() {
    for start in ["trim_horizon", "latest"] {
        for mode in ["polling", "efo"] {
            let name = format!("unread-{}-{mode}", start.replace('_', "-"));
            let (pipe, query) = (name.replace('-', "_"), format!("stream={name}&start={start}&mode={mode}"));
            create_stream(&name, 1);
            let proxy = proxy();
            let bridge = bridge(&pipe, &proxy);
            begin(&bridge, &pipe, &query);
            bridge.kill();
            next_second();
            put_numbered(&name, "lost", 100);
            next_second();
            proxy.trim(now_ms() / 1_000 * 1_000);
            put_numbered(&name, "left", 100);
            proxy.date(Some(30 * HOUR));
            bridge.start_again().expect("a start");
            gap(
                &bridge,
                &pipe,
                &query,
                &[&name, "was not read for longer than the stream's retention of 24 h", "seek"],
            );
            // The user continues with what is there.
            let seek = "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}\n";
            assert_eq!(post(&bridge, &format!("/v1/pipes/{pipe}/seek"), seek).status, 200);
            let rows = crate::read::pull_all(&bridge, &pipe, &format!("stream={name}"), 100);
            assert!(rows.iter().any(|row| row["_raw_message"].as_str().is_some_and(|text| text.starts_with("left"))));
        }
    }
}

/// The same for a lease with a record, whose time of being caught up was written by a clock that
/// was ahead.
#[test]
fn kinesis_time_decides() {
    let (name, pipe, query) = ("ahead", "ahead", "stream=ahead");
    create_stream(name, 1);
    put_numbered(name, "read", 5);
    let proxy = proxy();
    let bridge = bridge(pipe, &proxy);
    crate::read::pull_all(&bridge, pipe, query, 5);
    bridge.kill();
    sql(&format!("ALTER TABLE {pipe}.leases UPDATE caught_up_at = '2199-01-01 00:00:00' WHERE pipe = '{pipe}'"));
    put_numbered(name, "lost", 100);
    next_second();
    proxy.trim(now_ms() / 1_000 * 1_000);
    proxy.date(Some(30 * HOUR));
    put_numbered(name, "left", 100);
    bridge.start_again().expect("a start");
    gap(&bridge, pipe, query, &["'ahead'", "older than the stream's retention of 24 h"]);
}

/// Lowered while no response arrives for 30 hours, under a running reader and across a restart;
/// raising it makes no gap.
#[test]
fn retention_is_followed() {
    for (lowered, restarted) in [(true, false), (true, true), (false, false), (false, true)] {
        let name = format!("followed-{lowered}-{restarted}");
        let (pipe, query) = (name.replace('-', "_"), format!("stream={name}"));
        create_stream(&name, 1);
        let change = |hours: i32, up: bool| {
            let (client, name) = (kinesis(), name.as_str());
            let done = match up {
                true => block_on(
                    client.increase_stream_retention_period().stream_name(name).retention_period_hours(hours).send(),
                )
                .map(drop)
                .map_err(|e| format!("{e:?}")),
                false => block_on(
                    client.decrease_stream_retention_period().stream_name(name).retention_period_hours(hours).send(),
                )
                .map(drop)
                .map_err(|e| format!("{e:?}")),
            };
            done.expect("another retention");
        };
        change(if lowered { 48 } else { 25 }, true);
        put_numbered(&name, "read", 5);
        let (away, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_away, has_refused) = (away.clone(), refused.clone());
        let proxy = Proxy::start(&stack().kinesis.endpoint(), move |call| {
            match call.operation == "GetRecords" && is_away.load(Ordering::Relaxed) {
                true => {
                    has_refused.store(true, Ordering::Relaxed);
                    Fault::Status(500)
                }
                false => Fault::None,
            }
        });
        let bridge = bridge(&pipe, &proxy);
        crate::read::pull_all(&bridge, &pipe, &query, 5);
        away.store(true, Ordering::Relaxed);
        // A call in flight may still read what is written now; the shard's next call is made once
        // it has its response.
        wait_until("a call that is refused", || refused.load(Ordering::Relaxed));
        put_numbered(&name, "lost", 100);
        next_second();
        if lowered {
            change(24, false);
            proxy.trim(now_ms() / 1_000 * 1_000);
        } else {
            change(48, true);
        }
        proxy.date(Some(30 * HOUR));
        put_numbered(&name, "left", 100);
        if restarted {
            bridge.restart().expect("a restart");
        }
        away.store(false, Ordering::Relaxed);
        match lowered {
            true => gap(&bridge, &pipe, &query, &[&name, "older than the stream's retention of 24 h"]),
            false => assert_eq!(crate::read::pull_all(&bridge, &pipe, &query, 200).len(), 200),
        }
    }
}

/// The local clock is some seconds ahead: nothing is refused, and nothing written from now on is
/// missed.
#[test]
fn latest_is_kinesis_now() {
    let (name, pipe) = ("kinesis-now", "kinesis_now");
    create_stream(name, 1);
    let proxy = proxy();
    proxy.date(Some(-4));
    let bridge = bridge(pipe, &proxy);
    put_numbered(name, "recent", 10);
    next_second();
    next_second();
    // Relative times are based on Kinesis' time.
    let read = get(&bridge, &format!("/v1/streams/{name}/records?from=-1s&format=JSONEachRow"));
    assert_eq!((read.status, read.rows().len()), (200, 10));
    proxy.date(Some(-20));
    begin(&bridge, pipe, &format!("stream={name}&start=latest"));
    let begun = sql(&format!("SELECT sequence_number, toUnixTimestamp64Milli(since) FROM {pipe}.leases"));
    let (at, since) = begun.trim().split_once('\t').expect("two columns");
    let at: i64 = at.strip_prefix("AT_TIMESTAMP:").and_then(|ms| ms.parse().ok()).expect("a time");
    assert!(at <= now_ms() - 18_000, "{begun}");
    assert!((since.parse::<i64>().expect("a time") - at).abs() < 10_000, "{begun}");
    // `seek` to `latest`, likewise.
    let seek = "{\"shard_id\": \"\", \"position\": \"latest\"}\n";
    assert_eq!(post(&bridge, &format!("/v1/pipes/{pipe}/seek"), seek).status, 200);
    let sought = sql(&format!("SELECT sequence_number FROM {pipe}.leases"));
    let sought: i64 = sought.trim().strip_prefix("AT_TIMESTAMP:").and_then(|ms| ms.parse().ok()).expect("a time");
    assert!(sought >= at && sought <= now_ms() - 18_000, "{sought}");
}

/// Emulators may send responses without a date. Then the local clock counts.
#[test]
fn answers_without_a_date_are_read() {
    let (name, pipe) = ("undated", "undated");
    create_stream(name, 1);
    let proxy = proxy();
    proxy.date(None);
    let bridge = bridge(pipe, &proxy);
    let query = format!("stream={name}&start=latest");
    begin(&bridge, pipe, &query);
    next_second();
    put_numbered(name, "after", 10);
    assert_eq!(crate::read::pull_all(&bridge, pipe, &query, 10).len(), 10);
    let batch = offered(&bridge, pipe, &query);
    batch.first().iter().for_each(|row| acknowledge(&bridge, pipe, row));
    assert_eq!(get(&bridge, &format!("/v1/streams/{name}/sample?format=JSONEachRow")).rows().len(), 10);
}
