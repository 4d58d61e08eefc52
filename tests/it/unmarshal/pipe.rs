//! A pipe of events under kills: the same bytes, and each event once.

use std::time::Duration;

use stack::Bridge;

use super::{EVENTS, Row, rows_in};
use crate::common::{bridge_binary, local_stack, number, seed, wait_until};
use crate::drill::kill_between_insert_and_commit;
use crate::engines::on_each_engine;
use crate::world::{Answer, bridge, create_stream, get, post, put, sql, wait_for};
use testkit::tree::{self, Expected};

on_each_engine!(an_open_batch_of_events_is_the_same_bytes_after_a_kill, events_are_exactly_once_under_kills,);

const KILLS: usize = 4;
const STEP: usize = 200;

/// A response from a bridge that may have just started.
fn answer(bridge: &Bridge, path: &str) -> Answer {
    wait_for("an answer", || Some(get(bridge, path)).filter(|answer| answer.status != 503))
}

/// A batch is offered in one format and unpacking; a killed bridge serves the same bytes again, and
/// no other format.
fn an_open_batch_of_events_is_the_same_bytes_after_a_kill() {
    let mut random = fastrand::Rng::with_seed(seed("an_open_batch_of_events_is_the_same_bytes_after_a_kill"));
    create_stream("cdc-shape", 1);
    let events = (0..500).map(|n| (n.to_string(), tree::event(&mut random).0.into_bytes()));
    put("cdc-shape", events.chain([("k".to_owned(), b"no event".to_vec())]));
    let bridge = bridge("cdc_shape", &[]);
    for format in ["ArrowStream", "JSONEachRow"] {
        let pipe = format!("/v1/pipes/cdc_{format}");
        let stem = format!("{pipe}/next?stream=cdc-shape&ack=explicit&wait_ms=5000&format={format}");
        let first = answer(&bridge, &format!("{stem}&unmarshal=dynamodb"));
        assert_eq!(first.status, 200, "{}", first.text());
        let offered = sql(&format!("SELECT DISTINCT offered_shape FROM cdc_shape.leases WHERE pipe = 'cdc_{format}'"));
        assert_eq!(offered, format!("{format} unmarshal=dynamodb edition=2\n"));
        bridge.restart().expect("the bridge comes back");
        let refused = answer(&bridge, &stem);
        assert_eq!(refused.status, 400);
        let why = format!(
            "was offered as {format} unmarshal=dynamodb and is not committed yet, so it cannot be served as {format}:"
        );
        assert!(refused.text().contains(&why), "{}", refused.text());
        let again = answer(&bridge, &format!("{stem}&unmarshal=dynamodb"));
        assert!(
            again.status == 200 && again.body == first.body,
            "{format}: {} and {} bytes",
            first.body.len(),
            again.body.len()
        );
        let batch = sql(&format!("SELECT DISTINCT offered_batch FROM cdc_shape.leases WHERE pipe = 'cdc_{format}'"));
        let acknowledged = post(&bridge, &format!("{pipe}/ack"), &format!("{{\"batch\":\"{}\"}}", batch.trim()));
        assert_eq!(acknowledged.status, 200, "{}", acknowledged.text());
    }
}

fn events_are_exactly_once_under_kills() {
    let mut random = fastrand::Rng::with_seed(seed("events_are_exactly_once_under_kills"));
    let stack = local_stack();
    let bridge = stack.start_bridge(bridge_binary(), &[]).expect("the bridge starts");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime.block_on(stack::kinesis_client(&stack.kinesis.endpoint()));
    runtime.block_on(stack::load::create_stream(&client, "changes", 2)).expect("a stream");
    let url = format!(
        "{}/v1/pipes/changes/next?stream=changes&view=default.changes_pipe&unmarshal=dynamodb&linger_ms=100&poll_ms=50",
        bridge.url()
    );
    let clickhouse = &stack.clickhouse;
    clickhouse
        .run_script(&format!(
            "CREATE TABLE changes ({EVENTS}) ENGINE = MergeTree ORDER BY _key SETTINGS non_replicated_deduplication_window = 1000;\n\
             CREATE MATERIALIZED VIEW changes_pipe REFRESH AFTER 2 SECOND \
             SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 1000 APPEND TO changes AS \
             SELECT * EXCEPT (_batch) FROM url('{url}', 'ArrowStream', '{EVENTS}, _batch String') \
             ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1;\n"
        ))
        .expect("a pipe");
    // Written until the last kill is done, so that each finds a batch in flight.
    let (end, mut ended) = tokio::sync::oneshot::channel::<()>();
    let writer = runtime.spawn(async move {
        let mut written: Vec<Expected> = Vec::new();
        loop {
            let last = ended.try_recv().is_ok();
            let events: Vec<_> = (0..STEP).map(|_| tree::event(&mut random)).collect();
            let records =
                events.iter().zip(written.len()..).map(|((text, _), n)| (n.to_string(), text.clone().into_bytes()));
            stack::load::put_records(&client, "changes", records.collect::<Vec<_>>()).await?;
            written.extend(events.into_iter().map(|(_, event)| event));
            if last {
                return Ok::<_, String>(written);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    for _ in 0..KILLS {
        kill_between_insert_and_commit(&stack, &bridge, "changes", "offered_batch != ''", &|| {});
    }
    end.send(()).expect("the writer is there");
    let written = runtime.block_on(writer).expect("the writer ends").expect("all events are put");
    let committed = "SELECT sum(committed_rows) FROM kinesis.leases WHERE pipe = 'changes' AND offered_batch = ''";
    wait_until(
        Duration::from_secs(90),
        || number(clickhouse, committed) == Some(written.len() as u64),
        || {
            format!(
                "{} of {} are committed\n{}",
                number(clickhouse, committed).unwrap_or(0),
                written.len(),
                bridge.log_tail()
            )
        },
    );
    assert!(bridge.log().contains("an open batch was found"), "no kill hit an open batch");
    let expected: Vec<Row> = written.into_iter().enumerate().map(|(n, event)| Row::event(n, event)).collect();
    let found = rows_in(clickhouse, "changes", "toUInt32(_key)");
    println!("{} events, {KILLS} kills between insert and commit", expected.len());
    assert_eq!(found.len(), expected.len());
    for (row, event) in found.iter().zip(&expected) {
        assert_eq!(row, event);
    }
}
