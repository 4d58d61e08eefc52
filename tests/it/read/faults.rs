//! What Kinesis, the network and the emulator can do to a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stack::{Bridge, Kinesis, KinesisOptions, kinesis_client};

use super::{assert_each_once, assert_table_has_each_once, pull_all};
use crate::proxy::{Call, Fault, Proxy};
use crate::world::{
    binary, block_on, bridge_in, create_pipe, create_stream, drop_pipe, environment_with, get, metric, put_numbered,
    stack, wait_until,
};

const DATA_CALLS: [&str; 2] = ["GetRecords", "GetShardIterator"];
/// Pages of the first responses have at most 1,000 records.
const COUNT: usize = 6_000;

/// About every other call of a reader fails, with each of the faults in turn.
fn by_chance(faults: &'static [Fault]) -> impl FnMut(&Call<'_>) -> Fault + Send + 'static {
    let (mut random, mut turns) = (fastrand::Rng::with_seed(7), faults.iter().cycle());
    move |call| {
        // Always the first one, so that no run is without a fault.
        let fails = DATA_CALLS.contains(&call.operation) && (call.number == 1 || random.bool());
        if fails { turns.next().copied().unwrap_or(Fault::None) } else { Fault::None }
    }
}

const KINDS: [(&str, &[Fault]); 5] = [
    (
        "throttled",
        &[Fault::Aws(400, "ProvisionedThroughputExceededException"), Fault::Aws(400, "LimitExceededException")],
    ),
    ("expired", &[Fault::Aws(400, "ExpiredIteratorException")]),
    ("broken", &[Fault::Reset, Fault::Cut]),
    ("failing", &[Fault::Status(500), Fault::Status(503), Fault::Aws(500, "InternalFailureException")]),
    (
        "mixed",
        &[
            Fault::Slow(Duration::from_millis(300)),
            Fault::Cut,
            Fault::Aws(400, "ExpiredIteratorException"),
            Fault::Aws(400, "ProvisionedThroughputExceededException"),
            Fault::Status(502),
        ],
    ),
];

#[test]
fn explicit_readers_get_each_record_once_whatever_fails() {
    for (kind, faults) in KINDS {
        let stream = format!("read-{kind}");
        create_stream(&stream, 2);
        put_numbered(&stream, "k", COUNT);
        let proxy = Proxy::start(&stack().kinesis.endpoint(), by_chance(faults));
        let bridge = bridge_in("read_faults", &[], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
        let pipe = format!("read_{kind}");
        let rows = pull_all(&bridge, &pipe, &format!("stream={stream}&max_rows=700"), COUNT);
        assert_each_once(&rows, &[("k", COUNT)]);
        assert!(proxy.faults() >= 2, "{kind}: {} faults", proxy.faults());
        let metrics = get(&bridge, "/metrics").text();
        assert!(metrics.contains("kinesis_bridge_kinesis_errors_total{call=\"GetRecords\""), "{kind}: {metrics}");
    }
}

#[test]
fn views_bring_each_record_once_whatever_fails() {
    create_stream("read-view", 2);
    put_numbered("read-view", "k", COUNT);
    let (_, mixed) = KINDS[4];
    let proxy = Proxy::start(&stack().kinesis.endpoint(), by_chance(mixed));
    let bridge = bridge_in("read_view", &[], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    create_pipe(
        &bridge,
        "read_view",
        "stream=read-view&view=default.read_view_view&linger_ms=50&max_rows=900&poll_ms=20",
    );
    assert_table_has_each_once("read_view", COUNT);
    assert!(proxy.faults() >= 2, "{} faults", proxy.faults());
    drop_pipe("read_view");
}

#[test]
fn bounded_reads_wait_out_what_passes() {
    create_stream("read-bounded", 2);
    put_numbered("read-bounded", "k", COUNT);
    let (_, mixed) = KINDS[4];
    let proxy = Proxy::start(&stack().kinesis.endpoint(), by_chance(mixed));
    let bridge = bridge_in("read_bounded", &[], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    let answer = get(&bridge, "/v1/streams/read-bounded/records?format=JSONEachRow");
    assert_each_once(&answer.rows(), &[("k", COUNT)]);
    assert!(proxy.faults() >= 2, "{} faults", proxy.faults());
}

#[test]
fn an_outage_is_told_and_then_forgotten() {
    create_stream("read-outage", 1);
    put_numbered("read-outage", "a", 10);
    let down = Arc::new(AtomicBool::new(false));
    let switch = down.clone();
    let proxy = Proxy::start(&stack().kinesis.endpoint(), move |call| {
        let denied = call.operation == "GetRecords" && switch.load(Ordering::Relaxed);
        if denied { Fault::Aws(400, "AccessDeniedException") } else { Fault::None }
    });
    let bridge = bridge_in("read_outage", &[], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    let first = pull_all(&bridge, "read_outage", "stream=read-outage", 10);
    down.store(true, Ordering::Relaxed);
    let path = "/v1/pipes/read_outage/next?stream=read-outage&ack=explicit&format=JSONEachRow&wait_ms=100&poll_ms=20";
    let sentence = "AWS does not allow GetRecords on shard shardId-000000000000 of stream 'read-outage' in region us-east-1 \
                    (AccessDeniedException): the policy must allow kinesis:GetRecords (said by the test)";
    wait_until("the sentence", || {
        let answer = get(&bridge, path);
        answer.status == 400 && answer.text().contains(sentence)
    });
    // Not before: a call in flight would have returned them.
    put_numbered("read-outage", "b", 10);
    let told = get(&bridge, "/v1/pipes").rows();
    assert!(told[0]["last_error"].as_str().is_some_and(|e| e.contains("AccessDeniedException")), "{told:?}");
    let errors = "kinesis_bridge_kinesis_errors_total{call=\"GetRecords\",kind=\"access_denied\"}";
    assert!(metric(&bridge, errors).is_some_and(|count| count > 0.0));
    down.store(false, Ordering::Relaxed);
    wait_until("recovery", || get(&bridge, path).status == 200);
    let second = pull_all(&bridge, "read_outage", "stream=read-outage", 10);
    assert_each_once(&[first, second].concat(), &[("a", 10), ("b", 10)]);
    wait_until("no error any more", || get(&bridge, "/v1/pipes").rows()[0]["last_error"] == "");
}

#[test]
fn iterators_that_really_expire_are_renewed() {
    let options = KinesisOptions { iterator_ttl_seconds: 1, ..KinesisOptions::default() };
    let kinesis = Kinesis::start(&options).expect("Kinesis");
    let client = block_on(kinesis_client(&kinesis.endpoint()));
    let put = |prefix: &str| {
        let records = (0..2_000).map(|n| (format!("{prefix}-{n}"), format!("{prefix}-{n}").into_bytes()));
        block_on(stack::load::put_records(&client, "read-ttl", records)).expect("records");
    };
    block_on(stack::load::create_stream(&client, "read-ttl", 2)).expect("a stream");
    put("a");
    // Every response arrives after the next iterator has expired.
    let proxy = Proxy::start(&kinesis.endpoint(), |call| match call.operation {
        "GetRecords" if call.number % 4 == 1 => Fault::Slow(Duration::from_millis(2_100)),
        _ => Fault::None,
    });
    let mut environment = environment_with(&[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    environment.push(("KINESIS_BRIDGE_CLICKHOUSE_DATABASE".into(), "read_ttl".into()));
    let bridge = Bridge::start(binary(), &[], &environment).expect("a bridge");
    let first = pull_all(&bridge, "read_ttl", "stream=read-ttl&max_rows=500", 2_000);
    put("b");
    let second = pull_all(&bridge, "read_ttl", "stream=read-ttl&max_rows=500", 2_000);
    assert_each_once(&[first, second].concat(), &[("a", 2_000), ("b", 2_000)]);
    let expired = "kinesis_bridge_kinesis_errors_total{call=\"GetRecords\",kind=\"iterator_expired\"}";
    assert!(metric(&bridge, expired).is_some_and(|count| count > 0.0), "no iterator expired");
}
