//! The metadata rows, the probes and the metrics.

use std::collections::BTreeSet;

use stack::Bridge;

use crate::engines::on_each_engine;
use crate::proxy::Relay;
use crate::world::{
    RECORDS, bridge, bridge_in, create_pipe, create_stream, drop_pipe, get, head, metric, put_numbered, sql, stack,
    wait_until,
};

on_each_engine!(
    streams_pipes_and_workers_are_rows,
    streams_of_many_pages_are_listed,
    a_sample_is_the_newest_records,
    a_bridge_is_ready_while_its_state_can_be_reached,
    head_has_no_effect,
);

fn streams_pipes_and_workers_are_rows() {
    create_stream("rec-meta", 3);
    put_numbered("rec-meta", "k", 30);
    let bridge = bridge("rec_meta", &[("--worker-id", "the-worker")]);
    let url = bridge.url();
    let streams = format!(
        "url('{url}/v1/streams', 'JSONEachRow', 'stream String, arn String, status String, mode String, open_shards UInt32, retention_hours \
         UInt32')"
    );
    assert_eq!(
        sql(&format!("SELECT * FROM {streams} WHERE stream = 'rec-meta'")),
        "rec-meta\tarn:aws:kinesis:us-east-1:000000000000:stream/rec-meta\tACTIVE\tPROVISIONED\t3\t24\n"
    );
    create_pipe(&bridge, "rec_meta", "stream=rec-meta&view=default.rec_meta_view&linger_ms=0&wait_ms=200");
    wait_until("the rows", || sql("SELECT count() FROM rec_meta") == "30\n");
    let pipes = format!(
        "url('{url}/v1/pipes?format=ArrowStream', 'ArrowStream', 'pipe String, stream String, shard_id String, owner String, epoch UInt64, state String, \
         sequence_number String, sub_sequence_number UInt32, millis_behind_latest Nullable(Int64), offered_rows UInt64, committed_rows UInt64, \
         failed_attempts UInt32, last_error String, last_commit_time Nullable(DateTime64(3))')"
    );
    let committed = format!("SELECT count(), sum(committed_rows), sum(offered_rows) FROM {pipes}");
    wait_until("the commit", || sql(&committed) == "3\t30\t0\n");
    let states = "groupUniqArray(pipe), groupUniqArray(stream), groupUniqArray(owner), groupUniqArray(state), max(failed_attempts), \
                  groupUniqArray(last_error), max(abs(dateDiff('second', last_commit_time, now()))) < 600";
    assert_eq!(
        sql(&format!("SELECT {states} FROM {pipes}")),
        "['rec_meta']\t['rec-meta']\t['the-worker']\t['reading']\t0\t['']\t1\n"
    );
    // The positions are those of the last records.
    let last = format!(
        "SELECT count() FROM {pipes} AS p JOIN (SELECT _shard_id, max(toUInt256(_sequence_number)) AS last FROM rec_meta GROUP BY _shard_id) AS r \
         ON p.shard_id = r._shard_id WHERE toUInt256(p.sequence_number) = r.last"
    );
    assert_eq!(sql(&last), "3\n");
    let workers = format!(
        "url('{url}/v1/workers?format=ArrowStream', 'ArrowStream', 'worker_id String, address String, version String, leases UInt64, alive UInt8')"
    );
    let row = format!("the-worker\t{}\t{}\t3\t1\n", bridge.address(), env!("CARGO_PKG_VERSION"));
    // Written once the tables exist, alongside the pipe.
    wait_until("the heartbeat", || !sql(&format!("SELECT * FROM {workers}")).is_empty());
    assert_eq!(sql(&format!("SELECT * FROM {workers}")), row);
    // The same in the other format.
    for path in ["streams", "pipes", "workers", "streams/rec-meta/shards"] {
        let counted =
            |format: &str| sql(&format!("SELECT count() FROM url('{url}/v1/{path}?format={format}', '{format}')"));
        wait_until("equal counts", || counted("ArrowStream") == counted("JSONEachRow"));
    }
    metrics_tell_what_an_operator_needs(&bridge);
    drop_pipe("rec_meta");
}

fn metrics_tell_what_an_operator_needs(bridge: &Bridge) {
    let text = get(bridge, "/metrics").text();
    let mut described = BTreeSet::new();
    let mut typed = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name)) => {
                assert!(words.next().is_some_and(|help| help.ends_with('.')), "{line}");
                assert!(described.insert(name), "{name} is described twice");
            }
            (Some("#"), Some("TYPE"), Some(name)) => {
                assert!(matches!(words.next(), Some("counter" | "gauge")), "{line}");
                assert!(typed.insert(name), "{name} has two types");
            }
            _ => {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let name = series.split('{').next().expect("a name");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(described.contains(name) && typed.contains(name), "{line} comes before its description");
                assert!(name.starts_with("kinesis_bridge_") && series.ends_with('}') == series.contains('{'), "{line}");
            }
        }
    }
    for (series, value) in [
        ("rows_total{pipe=\"rec_meta\"}", 30.0),
        ("leases{pipe=\"rec_meta\"}", 3.0),
        ("buffered_rows{pipe=\"rec_meta\",shard=\"shardId-000000000000\"}", 0.0),
        ("lag_seconds{pipe=\"rec_meta\",shard=\"shardId-000000000002\"}", 0.0),
        ("memory_limit_bytes", 268_435_456.0),
    ] {
        assert_eq!(metric(bridge, &format!("kinesis_bridge_{series}")), Some(value), "{series} in\n{text}");
    }
    for series in [
        "batches_total{outcome=\"committed\",pipe=\"rec_meta\"}",
        "batches_total{outcome=\"served\",pipe=\"rec_meta\"}",
        "bytes_total{pipe=\"rec_meta\"}",
        "http_requests_total{path=\"next\",status=\"200\"}",
        "memory_used_bytes",
    ] {
        assert!(metric(bridge, &format!("kinesis_bridge_{series}")).is_some(), "{series} in\n{text}");
    }
}

fn streams_of_many_pages_are_listed() {
    for number in 0..25 {
        create_stream(&format!("rec-listed-{number:02}"), 1);
    }
    let bridge = bridge("rec_listed", &[]);
    let rows = get(&bridge, "/v1/streams").rows();
    let listed = rows.iter().filter(|r| r["stream"].as_str().is_some_and(|s| s.starts_with("rec-listed-"))).count();
    assert_eq!(listed, 25);
}

fn a_sample_is_the_newest_records() {
    create_stream("rec-sample", 2);
    put_numbered("rec-sample", "k", 500);
    let bridge = bridge("rec_sample", &[]);
    let sample = |limit: &str| {
        let url = format!("{}/v1/streams/rec-sample/sample{limit}", bridge.url());
        sql(&format!(
            "SELECT uniqExact(_sequence_number), countIf(_key = _raw_message) FROM url('{url}', 'ArrowStream', '{RECORDS}')"
        ))
    };
    assert_eq!(sample(""), "10\t10\n");
    assert_eq!(sample("?limit=1"), "1\t1\n");
    assert_eq!(sample("?limit=499"), "499\t499\n");
    assert_eq!(sample("?limit=10000"), "500\t500\n");
}

fn a_bridge_is_ready_while_its_state_can_be_reached() {
    let relay = Relay::new(&stack().clickhouse.url());
    relay.open();
    let bridge = bridge_in("rec_ready", &[], &[("KINESIS_BRIDGE_CLICKHOUSE_URL", &relay.url())]);
    let ready = || get(&bridge, "/readyz");
    wait_until("readiness", || ready().status == 200);
    assert_eq!(ready().text(), "ready\n");
    assert_eq!(head(&bridge, "/readyz").status, 200);
    relay.close();
    wait_until("unreadiness", || ready().status == 503);
    assert!(ready().text().contains("does not answer"), "{}", ready().text());
    assert_eq!(head(&bridge, "/readyz").status, 503);
    let health = get(&bridge, "/healthz");
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    // What needs no state still works.
    assert_eq!(get(&bridge, "/v1/streams").status, 200);
    relay.open();
    wait_until("readiness", || ready().status == 200);
}

fn head_has_no_effect() {
    create_stream("rec-head", 1);
    put_numbered("rec-head", "k", 5);
    let bridge = bridge("rec_head", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let next = "/v1/pipes/rec_head/next?stream=rec-head&ack=explicit&format=JSONEachRow&linger_ms=0";
    for path in
        [next, "/v1/streams", "/v1/streams/rec-head/records", "/v1/pipes", "/v1/workers", "/v1/pipes?bad=1", "/nowhere"]
    {
        let answer = head(&bridge, path);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
    }
    assert_eq!(head(&bridge, "/healthz").status, 200);
    assert_eq!(get(&bridge, "/v1/pipes").rows().len(), 0, "no pipe was born");
    // An open batch is unchanged.
    let batch = get(&bridge, next).rows();
    assert_eq!(batch.len(), 5);
    let before = sql("SELECT *, _version FROM rec_head.leases");
    assert_eq!(head(&bridge, next).status, 200);
    assert_eq!(sql("SELECT *, _version FROM rec_head.leases"), before);
    assert_eq!(get(&bridge, next).rows(), batch);
}
