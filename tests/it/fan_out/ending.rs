//! The end of a pipe: `POST /v1/end`, and `INSERT INTO FUNCTION url('…/end')`.

use stack::Bridge;

use super::{consumers, shards, wait_for_mode};
use crate::read::{assert_each_once, assert_table_has_each_once, pull_all};
use crate::world::{
    Answer, bridge, create_pipe, create_stream, drop_pipe, exception, get, message, post, put_numbered, sql, wait_until,
};

fn end(bridge: &Bridge, pipe: &str) -> Answer {
    post(bridge, "/v1/end", &format!("{{\"pipe\": \"{pipe}\"}}"))
}

#[test]
fn the_end_deregisters_the_consumer_and_forgets_the_pipe() {
    create_stream("efo-end", 2);
    put_numbered("efo-end", "a", 20);
    let bridge = bridge("efo_end", &[]);
    for pipe in ["efo_end", "efo_end_other"] {
        let rows = pull_all(&bridge, pipe, "stream=efo-end&mode=efo", 20);
        assert_each_once(&rows, &[("a", 20)]);
        wait_for_mode(&bridge, pipe, "stream=efo-end&mode=efo", "efo");
    }
    assert_eq!(consumers("efo-end").len(), 2);
    let ended = end(&bridge, "efo_end");
    assert_eq!((ended.status, ended.text().as_str()), (200, ""));
    assert_eq!(shards(&bridge, "efo_end").len(), 0);
    let name = |pipe: &str| format!("clickhouse-kinesis-bridge-{pipe}");
    wait_until("the end of the one consumer", || {
        consumers("efo-end") == [(name("efo_end_other"), "ACTIVE".to_owned())]
    });
    // The other one is unchanged, and the name starts over.
    assert_eq!(shards(&bridge, "efo_end_other").len(), 2);
    assert_eq!(end(&bridge, "efo_end").status, 404);
    let again = pull_all(&bridge, "efo_end", "stream=efo-end&mode=efo", 20);
    assert_each_once(&again, &[("a", 20)]);
}

#[test]
fn a_pipe_that_is_pulled_does_not_end() {
    create_stream("end-pulled", 1);
    put_numbered("end-pulled", "a", 20);
    let bridge = bridge("end_pulled", &[]);
    create_pipe(&bridge, "end_pulled", "stream=end-pulled&view=default.end_pulled_view&linger_ms=50");
    assert_table_has_each_once("end_pulled", 20);
    let url = format!("{}/v1/end", bridge.url());
    let end =
        |named: &str| format!("INSERT INTO FUNCTION url('{url}', 'JSONEachRow', 'pipe String') VALUES ('{named}')");
    let refused = exception(&end("end_pulled"));
    let sentence = "pipe 'end_pulled' is being pulled here, so it cannot end: DROP its view, or stop it with SYSTEM STOP VIEW, first";
    assert_eq!(message(&refused), sentence);
    assert!(exception(&end("another")).contains("there is no pipe 'another'"));
    // It continues.
    put_numbered("end-pulled", "b", 20);
    assert_table_has_each_once("end_pulled", 40);
    // Immediately after the DROP, as in a script.
    drop_pipe("end_pulled");
    sql(&end("end_pulled"));
    assert_eq!(shards(&bridge, "end_pulled").len(), 0);
    assert_eq!(sql("SELECT count() FROM end_pulled.leases"), "0\n");
    assert_eq!(post(&bridge, "/v1/end", "{\"pipe\": \"end_pulled\"}").status, 404);
}

#[test]
fn a_pipe_of_another_living_worker_does_not_end() {
    create_stream("end-held", 1);
    put_numbered("end-held", "a", 20);
    let first = bridge("end_held", &[("--worker-id", "one"), ("--lease-duration", "2s")]);
    let second = bridge("end_held", &[("--worker-id", "two"), ("--lease-duration", "2s")]);
    pull_all(&first, "end_held", "stream=end-held", 20);
    let refused = end(&second, "end_held");
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("pipe 'end_held' is held by worker 'one', which is alive"), "{}", refused.text());
    // A dead worker's pipe may be ended.
    first.kill();
    wait_until("the end", || end(&second, "end_held").status == 200);
    assert_eq!(get(&second, "/v1/pipes").rows().len(), 0);
}
