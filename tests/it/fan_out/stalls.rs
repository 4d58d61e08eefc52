//! Fan-out that does not work: the shards are polled, this is reported, and fan-out comes back.

use stack::Bridge;

use super::{shards, wait_for_mode};
use crate::proxy::{Call, Fault, Proxy};
use crate::read::{assert_each_once, pull_all};
use crate::world::{bridge_in, create_stream, get, metric, put_numbered, stack, wait_for, wait_until};

fn with(name: &str, script: impl FnMut(&Call<'_>) -> Fault + Send + 'static) -> (Proxy, Bridge) {
    create_stream(&name.replace('_', "-"), 2);
    let proxy = Proxy::start(&stack().kinesis.endpoint(), script);
    let bridge = bridge_in(name, &[], &[("AWS_ENDPOINT_URL", &proxy.endpoint())]);
    (proxy, bridge)
}

#[test]
fn a_subscription_that_stalls_is_noticed_and_comes_back() {
    let (proxy, bridge) = with("efo_stall", |_| Fault::None);
    let query = "stream=efo-stall&mode=efo";
    put_numbered("efo-stall", "a", 200);
    let mut rows = pull_all(&bridge, "efo_stall", query, 200);
    wait_for_mode(&bridge, "efo_stall", query, "efo");
    proxy.stall(true);
    put_numbered("efo-stall", "b", 200);
    rows.extend(pull_all(&bridge, "efo_stall", query, 200));
    // It is shown while it lasts.
    let told = "delivered no event for 12 s; polling instead, and trying fan-out again in";
    wait_until("both shards to tell", || {
        shards(&bridge, "efo_stall")
            .iter()
            .all(|row| row["mode"] == "polling" && row["last_error"].as_str().is_some_and(|error| error.contains(told)))
    });
    assert!(metric(&bridge, "kinesis_bridge_fan_out_stalls_total{pipe=\"efo_stall\"}").is_some_and(|n| n >= 2.0));
    assert_eq!(metric(&bridge, "kinesis_bridge_fan_out_fallbacks{pipe=\"efo_stall\"}"), Some(2.0));
    assert!(bridge.log().contains(told));
    proxy.stall(false);
    wait_for_mode(&bridge, "efo_stall", query, "efo");
    put_numbered("efo-stall", "c", 200);
    rows.extend(pull_all(&bridge, "efo_stall", query, 200));
    assert_each_once(&rows, &[("a", 200), ("b", 200), ("c", 200)]);
    assert_eq!(metric(&bridge, "kinesis_bridge_fan_out_fallbacks{pipe=\"efo_stall\"}"), Some(0.0));
    assert!(shards(&bridge, "efo_stall").iter().all(|row| row["last_error"] == ""));
}

/// Whatever fails: records flow, and fan-out works again once the trouble ends.
#[test]
fn records_flow_while_fan_out_fails_in_any_way() {
    let faults = [
        ("silent", Fault::Silent, "got no answer for 10 s"),
        ("half", Fault::Stall(1), "delivered no event for 12 s"),
        ("cut", Fault::Cut, "SubscribeToShard"),
        ("denied", Fault::Aws(400, "AccessDeniedException"), "the policy must allow kinesis:SubscribeToShard"),
        ("failing", Fault::Status(500), "SubscribeToShard"),
        ("reset", Fault::Reset, "SubscribeToShard"),
        ("taken", Fault::Aws(400, "ResourceInUseException"), "SubscribeToShard"),
    ];
    std::thread::scope(|scope| {
        for (name, fault, told) in faults {
            scope.spawn(move || {
                let mut subscriptions = 0;
                let pipe = format!("efo_{name}");
                let (_proxy, bridge) = with(&pipe, move |call| {
                    subscriptions += usize::from(call.operation == "SubscribeToShard");
                    let fails = call.operation == "SubscribeToShard"
                        && (subscriptions <= 4
                            || matches!(fault, Fault::Aws(_, "ResourceInUseException")) && subscriptions <= 26);
                    if fails { fault } else { Fault::None }
                });
                let query = format!("stream={}&mode=efo", pipe.replace('_', "-"));
                put_numbered(&pipe.replace('_', "-"), "a", 300);
                let mut rows = pull_all(&bridge, &pipe, &query, 300);
                wait_for(&format!("{name}: the reason"), || {
                    let rows = shards(&bridge, &pipe);
                    rows.into_iter().find(|row| row["last_error"].as_str().is_some_and(|e| e.contains(told)))
                });
                put_numbered(&pipe.replace('_', "-"), "b", 300);
                rows.extend(pull_all(&bridge, &pipe, &query, 300));
                wait_for_mode(&bridge, &pipe, &query, "efo");
                put_numbered(&pipe.replace('_', "-"), "c", 300);
                rows.extend(pull_all(&bridge, &pipe, &query, 300));
                assert_each_once(&rows, &[("a", 300), ("b", 300), ("c", 300)]);
            });
        }
    });
}

#[test]
fn a_policy_without_registration_reaches_the_pull() {
    for call in ["DescribeStreamConsumer", "RegisterStreamConsumer"] {
        let name = format!("efo_{}", call.to_lowercase());
        let (_proxy, bridge) = with(&name, move |seen| match seen.operation == call {
            true => Fault::Aws(400, "AccessDeniedException"),
            false => Fault::None,
        });
        let stream = name.replace('_', "-");
        let path = format!("/v1/pipes/{name}/next?stream={stream}&ack=explicit&wait_ms=100&mode=efo");
        let told = wait_for("the sentence", || Some(get(&bridge, &path)).filter(|answer| answer.status != 503));
        assert_eq!(told.status, 400, "{}", told.text());
        assert!(told.text().contains(&format!("the policy must allow kinesis:{call}")), "{}", told.text());
    }
}
