//! Where a new pipe starts: `trim_horizon`, `latest`, a time; and that this stays so if the bridge
//! dies before the first commit.

use super::{acknowledge, assert_each_once, offered, pull_all};
use crate::world::{
    bridge, create_pipe, create_stream, drop_pipe, get, next_second, now_ms, post, put_numbered, sql, wait_until,
};

#[test]
fn trim_horizon_is_the_default_and_means_everything() {
    everything("read-horizon");
}

/// For the stream `name`, with a bridge of that name.
pub fn everything(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 3);
    put_numbered(name, "a", 50);
    let bridge = bridge(id, &[]);
    for (pipe, start) in [("read_default", ""), (id, "&start=trim_horizon"), ("read_upper", "&start=TRIM_HORIZON")] {
        let rows = pull_all(&bridge, pipe, &format!("stream={name}{start}"), 50);
        assert_each_once(&rows, &[("a", 50)]);
    }
}

#[test]
fn latest_begins_at_the_first_pull() {
    latest("read-latest");
}

/// For the stream `name`, with a bridge of that name.
pub fn latest(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 2);
    put_numbered(name, "before", 50);
    next_second();
    let bridge = bridge(id, &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let query = &format!("stream={name}&start=latest");
    assert_eq!(offered(&bridge, id, query), [""; 0]);
    next_second();
    put_numbered(name, "after", 50);
    let rows = pull_all(&bridge, id, query, 50);
    assert_each_once(&rows, &[("after", 50)]);
    // A start counts only for the first pull.
    let rows = offered(&bridge, id, &format!("stream={name}&start=trim_horizon"));
    assert_eq!(rows, [""; 0]);
}

#[test]
fn latest_is_kept_when_the_bridge_dies_before_the_first_commit() {
    create_stream("read-latest-kill", 2);
    put_numbered("read-latest-kill", "before", 50);
    next_second();
    let bridge = bridge("read_latest_kill", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let query = "stream=read-latest-kill&start=latest";
    assert_eq!(offered(&bridge, "read_latest_kill", query), [""; 0]);
    bridge.kill();
    next_second();
    // Written while nobody is reading.
    put_numbered("read-latest-kill", "after", 50);
    bridge.start_again().expect("a start");
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    wait_until("an offered batch", || !offered(&bridge, "read_latest_kill", query).is_empty());
    // Once more, now with a batch that was served but not acknowledged.
    let open = offered(&bridge, "read_latest_kill", query);
    bridge.restart().expect("a restart");
    wait_until("the same batch", || {
        let again = offered(&bridge, "read_latest_kill", query);
        assert!(again.is_empty() || again == open, "{again:?}");
        again == open
    });
    acknowledge(&bridge, "read_latest_kill", &open[0]);
    let mut rows = open;
    if rows.len() < 50 {
        let rest = 50 - rows.len();
        rows.extend(pull_all(&bridge, "read_latest_kill", query, rest));
    }
    assert_each_once(&rows, &[("after", 50)]);
}

#[test]
fn latest_holds_for_a_view_too() {
    create_stream("read-latest-view", 2);
    put_numbered("read-latest-view", "before", 50);
    next_second();
    let bridge = bridge("read_latest_view", &[]);
    create_pipe(
        &bridge,
        "read_latest_view",
        "stream=read-latest-view&view=default.read_latest_view_view&start=latest&linger_ms=0",
    );
    wait_until("the leases", || {
        sql("SELECT count() FROM system.tables WHERE database = 'read_latest_view' AND name = 'leases'") == "1\n"
            && sql("SELECT count() FROM read_latest_view.leases") == "2\n"
    });
    next_second();
    put_numbered("read-latest-view", "after", 50);
    super::assert_table_has_each_once("read_latest_view", 50);
    assert_eq!(sql("SELECT countIf(startsWith(_key, 'after')) FROM read_latest_view"), "50\n");
    drop_pipe("read_latest_view");
}

#[test]
fn a_time_is_a_start() {
    at_a_time("read-time");
}

/// For the stream `name`, with a bridge of that name.
pub fn at_a_time(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 2);
    put_numbered(name, "before", 50);
    next_second();
    let ms = now_ms() / 1_000 * 1_000;
    put_numbered(name, "after", 50);
    let bridge = bridge(id, &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let text = |format: &str| {
        sql(&format!("SELECT formatDateTime(fromUnixTimestamp64Milli({ms}), '{format}', 'UTC')")).trim().to_owned()
    };
    let seconds = (ms / 1_000).to_string();
    let spellings = [ms.to_string(), seconds, text("%Y-%m-%dT%H:%i:%S.000Z"), text("%Y-%m-%d+%H:%i:%S")];
    for (number, time) in spellings.iter().enumerate() {
        let rows = pull_all(&bridge, &format!("read_time_{number}"), &format!("stream={name}&start={time}"), 50);
        assert_each_once(&rows, &[("after", 50)]);
    }
}

#[test]
fn a_start_may_be_so_long_ago() {
    so_long_ago("read-ago");
}

/// For the stream `name`, with a bridge of that name. The first pull counts, whatever time the
/// bridge comes back.
pub fn so_long_ago(name: &str) {
    let id = &name.replace('-', "_");
    create_stream(name, 2);
    put_numbered(name, "a", 50);
    let bridge = bridge(id, &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let rows = pull_all(&bridge, "read_ago_hour", &format!("stream={name}&start=-1h"), 50);
    assert_each_once(&rows, &[("a", 50)]);
    next_second();
    let second = format!("stream={name}&start=-0s");
    assert_eq!(offered(&bridge, id, &second), [""; 0]);
    let started = |pipe: &str| sql(&format!("SELECT DISTINCT sequence_number FROM {id}.leases WHERE pipe = '{pipe}'"));
    let began = started(id);
    bridge.restart().expect("a restart");
    next_second();
    assert_eq!(offered(&bridge, id, &second), [""; 0]);
    assert_eq!(started(id), began);
    let seek = |position: &str| post(&bridge, &format!("/v1/pipes/{id}/seek"), &format!("{{\"position\":{position}}}"));
    for position in ["\"-1h\"", "\"-7d\"", &(now_ms() / 1_000 - 3_600).to_string()] {
        assert_eq!(seek(position).status, 200);
        let rows = pull_all(&bridge, id, &second, 50);
        assert_each_once(&rows, &[("a", 50)]);
    }
    let refused = seek("179587116");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("the position '179587116' must be"), "{}", refused.text());
}
