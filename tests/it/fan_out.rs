//! Enhanced fan-out (`mode=efo`) against a Kinesis that pushes records over the network.

mod ending;
mod stalls;

use serde_json::Value;
use stack::Bridge;

use crate::read::{assert_each_once, pull_all};
use crate::records::reshard::{merge, shard_id, split};
use crate::world::{
    block_on, bridge, create_pipe, create_stream, drop_pipe, get, kinesis, metric, put_numbered, sql, wait_for,
    wait_until,
};

/// Names and states of a stream's consumers.
fn consumers(stream: &str) -> Vec<(String, String)> {
    block_on(async {
        let described = kinesis().describe_stream_summary().stream_name(stream).send().await.expect("a stream");
        let arn = described.stream_description_summary.expect("a summary").stream_arn;
        let listed = kinesis().list_stream_consumers().stream_arn(arn).send().await.expect("consumers");
        let consumers = listed.consumers.unwrap_or_default();
        consumers.into_iter().map(|c| (c.consumer_name, c.consumer_status.as_str().to_owned())).collect()
    })
}

/// The rows of a pipe in `/v1/pipes`.
fn shards(bridge: &Bridge, pipe: &str) -> Vec<Value> {
    get(bridge, "/v1/pipes").rows().into_iter().filter(|row| row["pipe"] == pipe).collect()
}

/// Pulls until all shards that are being read are read in this mode. Returns the rows that arrived
/// meanwhile.
fn wait_for_mode(bridge: &Bridge, pipe: &str, query: &str, mode: &str) -> Vec<Value> {
    let mut pulled = Vec::new();
    wait_until(&format!("{pipe} in mode {mode}"), || {
        pulled.extend(pull_all(bridge, pipe, query, 0));
        let rows = shards(bridge, pipe);
        let mut read = rows.iter().filter(|row| row["state"] == "reading").peekable();
        read.peek().is_some() && read.all(|row| row["mode"] == mode)
    });
    pulled
}

#[test]
fn records_arrive_by_fan_out() {
    create_stream("efo-simple", 2);
    put_numbered("efo-simple", "a", 500);
    let bridge = bridge("efo_simple", &[]);
    let query = "stream=efo-simple&mode=efo";
    let first = pull_all(&bridge, "efo_simple", query, 500);
    wait_for_mode(&bridge, "efo_simple", query, "efo");
    assert_eq!(consumers("efo-simple"), [("clickhouse-kinesis-bridge-efo_simple".into(), "ACTIVE".into())]);
    put_numbered("efo-simple", "b", 500);
    let second = pull_all(&bridge, "efo_simple", query, 500);
    assert_each_once(&[first, second].concat(), &[("a", 500), ("b", 500)]);
    assert_eq!(metric(&bridge, "kinesis_bridge_fan_out_stalls_total{pipe=\"efo_simple\"}"), Some(0.0));
    assert_eq!(metric(&bridge, "kinesis_bridge_fan_out_fallbacks{pipe=\"efo_simple\"}"), Some(0.0));
    for row in shards(&bridge, "efo_simple") {
        assert_eq!((&row["mode"], &row["last_error"]), (&"efo".into(), &"".into()), "{row}");
    }
}

#[test]
fn a_view_pulls_what_is_pushed() {
    create_stream("efo-view", 2);
    put_numbered("efo-view", "a", 1_000);
    let bridge = bridge("efo_view", &[]);
    create_pipe(&bridge, "efo_view", "stream=efo-view&view=default.efo_view_view&linger_ms=50&mode=efo");
    crate::read::assert_table_has_each_once("efo_view", 1_000);
    wait_until("fan-out", || shards(&bridge, "efo_view").iter().all(|row| row["mode"] == "efo"));
    put_numbered("efo-view", "b", 1_000);
    crate::read::assert_table_has_each_once("efo_view", 2_000);
    drop_pipe("efo_view");
}

#[test]
fn a_split_and_a_merge_under_fan_out() {
    create_stream("efo-reshard", 2);
    let bridge = bridge("efo_reshard", &[]);
    let query = "stream=efo-reshard&max_rows=37&mode=efo";
    put_numbered("efo-reshard", "a", 200);
    let mut rows = pull_all(&bridge, "efo_reshard", query, 200);
    wait_for_mode(&bridge, "efo_reshard", query, "efo");
    split("efo-reshard", &shard_id(0));
    put_numbered("efo-reshard", "b", 200);
    rows.extend(pull_all(&bridge, "efo_reshard", query, 200));
    merge("efo-reshard", &shard_id(3), &shard_id(1));
    put_numbered("efo-reshard", "c", 200);
    rows.extend(pull_all(&bridge, "efo_reshard", query, 200));
    assert_each_once(&rows, &[("a", 200), ("b", 200), ("c", 200)]);
    // Parents are committed to their ends, and the children are read with fan-out, too.
    let finished = || shards(&bridge, "efo_reshard").iter().filter(|row| row["state"] == "finished").count();
    wait_until("finished parents", || {
        pull_all(&bridge, "efo_reshard", query, 0);
        finished() == 3
    });
    wait_for_mode(&bridge, "efo_reshard", query, "efo");
}

#[test]
fn a_bridge_that_was_killed_goes_on_as_the_same_consumer() {
    create_stream("efo-kill", 2);
    let bridge = bridge("efo_kill", &[("--worker-id", "efo-kill")]);
    let query = "stream=efo-kill&mode=efo&max_rows=90";
    let mut rows = Vec::new();
    for round in 0..4 {
        put_numbered("efo-kill", &format!("r{round}"), 300);
        rows.extend(pull_all(&bridge, "efo_kill", query, 200));
        rows.extend(wait_for_mode(&bridge, "efo_kill", query, "efo"));
        bridge.restart().expect("a restart");
    }
    put_numbered("efo-kill", "r4", 300);
    rows.extend(pull_all(&bridge, "efo_kill", query, 5 * 300 - rows.len()));
    assert_each_once(&rows, &[("r0", 300), ("r1", 300), ("r2", 300), ("r3", 300), ("r4", 300)]);
    assert_eq!(consumers("efo-kill").len(), 1, "one consumer for all of its lives");
}

#[test]
fn switching_the_mode_loses_and_doubles_nothing() {
    create_stream("efo-switch", 2);
    let bridge = bridge("efo_switch", &[]);
    let mut rows = Vec::new();
    for (round, mode) in ["polling", "efo", "polling", "efo"].into_iter().enumerate() {
        let query = format!("stream=efo-switch&mode={mode}&max_rows=70");
        put_numbered("efo-switch", &format!("r{round}"), 300);
        rows.extend(pull_all(&bridge, "efo_switch", &query, 150));
        rows.extend(wait_for_mode(&bridge, "efo_switch", &query, mode));
        rows.extend(pull_all(&bridge, "efo_switch", &query, 300 * (round + 1) - rows.len()));
    }
    assert_each_once(&rows, &[("r0", 300), ("r1", 300), ("r2", 300), ("r3", 300)]);
}

#[test]
fn a_view_is_switched_by_its_url() {
    create_stream("efo-alter", 2);
    let bridge = bridge("efo_alter", &[]);
    let query = "stream=efo-alter&view=default.efo_alter_view&linger_ms=50";
    create_pipe(&bridge, "efo_alter", query);
    put_numbered("efo-alter", "a", 500);
    crate::read::assert_table_has_each_once("efo_alter", 500);
    let select = sql("SELECT as_select FROM system.tables WHERE name = 'efo_alter_view' FORMAT TSVRaw");
    for (mode, count) in [("efo", 1_000), ("polling", 1_500)] {
        let altered = select.replace("linger_ms=50", &format!("linger_ms=50&mode={mode}"));
        sql(&format!("ALTER TABLE efo_alter_view MODIFY QUERY {altered}"));
        wait_until(mode, || shards(&bridge, "efo_alter").iter().all(|row| row["mode"] == mode));
        put_numbered("efo-alter", mode, 500);
        crate::read::assert_table_has_each_once("efo_alter", count);
    }
    drop_pipe("efo_alter");
}

#[test]
fn a_consumer_that_was_deregistered_is_registered_again() {
    create_stream("efo-gone", 1);
    let bridge = bridge("efo_gone", &[]);
    let query = "stream=efo-gone&mode=efo";
    put_numbered("efo-gone", "a", 10);
    let mut rows = pull_all(&bridge, "efo_gone", query, 10);
    wait_for_mode(&bridge, "efo_gone", query, "efo");
    let registered = |status: &str| consumers("efo-gone").iter().any(|(_, s)| s == status);
    block_on(async {
        let described = kinesis().describe_stream_summary().stream_name("efo-gone").send().await.expect("a stream");
        let arn = described.stream_description_summary.expect("a summary").stream_arn;
        let name = "clickhouse-kinesis-bridge-efo_gone";
        kinesis().deregister_stream_consumer().stream_arn(arn).consumer_name(name).send().await.expect("an end");
    });
    put_numbered("efo-gone", "b", 10);
    rows.extend(pull_all(&bridge, "efo_gone", query, 10));
    wait_until("another registration", || {
        pull_all(&bridge, "efo_gone", query, 0);
        registered("ACTIVE")
    });
    wait_for_mode(&bridge, "efo_gone", query, "efo");
    put_numbered("efo-gone", "c", 10);
    rows.extend(pull_all(&bridge, "efo_gone", query, 10));
    assert_each_once(&rows, &[("a", 10), ("b", 10), ("c", 10)]);
}

#[test]
fn a_stream_with_all_its_consumers_says_so() {
    create_stream("efo-full", 1);
    let arn = block_on(async {
        let described = kinesis().describe_stream_summary().stream_name("efo-full").send().await.expect("a stream");
        let arn = described.stream_description_summary.expect("a summary").stream_arn;
        for n in 0..20 {
            let name = format!("other-{n}");
            kinesis().register_stream_consumer().stream_arn(&arn).consumer_name(name).send().await.expect("a consumer");
        }
        arn
    });
    let bridge = bridge("efo_full", &[]);
    let path = "/v1/pipes/efo_full/next?stream=efo-full&ack=explicit&wait_ms=100&mode=efo";
    let told = wait_for("the sentence", || Some(get(&bridge, path)).filter(|answer| answer.status != 503));
    assert_eq!(told.status, 400, "{}", told.text());
    let sentence = "stream 'efo-full' cannot have another consumer (LimitExceededException), so 'clickhouse-kinesis-bridge-efo_full' cannot be \
                    registered: a stream may have 20, at most 5 of them in creation at a time; deregister one, or read with mode=polling";
    assert!(told.text().contains(sentence), "{}", told.text());
    // As the message says.
    put_numbered("efo-full", "a", 10);
    assert_each_once(&pull_all(&bridge, "efo_full", "stream=efo-full&mode=polling", 10), &[("a", 10)]);
    block_on(kinesis().deregister_stream_consumer().stream_arn(arn).consumer_name("other-7").send()).expect("an end");
    wait_for_mode(&bridge, "efo_full", "stream=efo-full&mode=efo", "efo");
}
