//! The pull protocol over real connections to a real ClickHouse: what a pull guarantees, whatever
//! the view, the reader or the process does.

use std::time::{Duration, Instant};

use stack::Bridge;

use crate::engines::{engine, on, on_each_engine};
use crate::world::{self, *};

on_each_engine!(
    head_has_no_effect,
    get_moves_no_checkpoint_and_the_same_batch_has_the_same_bytes,
    a_range_of_the_open_batch_is_the_same_bytes,
    ack_is_idempotent_and_knows_its_batch,
    shape_is_identity,
    only_a_refresh_confirms,
    a_view_may_be_cancelled_stopped_dropped_and_created_again,
    a_stop_in_the_middle_of_the_insert_commits_nothing,
    a_limit_in_the_view_commits_nothing_unread,
    seek_and_edits_by_hand_move_a_running_pipe,
    sigterm_settles_gives_back_and_ends_well,
    a_file_keeps_the_state_of_a_single_bridge,
);

/// A bridge whose state tables exist.
fn bridge(database: &str, flags: &[(&str, &str)]) -> Bridge {
    let bridge = world::bridge(database, flags);
    wait_until("the bridge to be ready", || get(&bridge, "/readyz").status == 200);
    bridge
}

/// The open pull of a pipe with explicit acknowledgement.
fn pull(bridge: &Bridge, pipe: &str, more: &str) -> Answer {
    get(bridge, &format!("/v1/pipes/{pipe}/next?stream={pipe}&ack=explicit&format=JSONEachRow&poll_ms=20{more}"))
}

fn batch_of(answer: &Answer) -> String {
    answer.rows()[0]["_batch"].as_str().expect("a batch").to_string()
}

fn ack(bridge: &Bridge, pipe: &str, batch: &str) -> Answer {
    post(bridge, &format!("/v1/pipes/{pipe}/ack"), &format!("{{\"batch\": \"{batch}\"}}\n"))
}

/// The lease rows of a pipe, as text to compare.
fn leases(database: &str, pipe: &str) -> String {
    sql(&format!(
        "SELECT * EXCEPT (updated_at) FROM {database}.leases WHERE pipe = '{pipe}' ORDER BY key FORMAT Vertical"
    ))
}

/// Pulls and acknowledges until `count` records have arrived; returns their data in order of
/// arrival.
fn drain(bridge: &Bridge, pipe: &str, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    while data.len() < count {
        let answer = pull(bridge, pipe, "&linger_ms=0");
        let rows = answer.rows();
        assert!(!rows.is_empty(), "{} of {count} records came", data.len());
        data.extend(rows.iter().map(|row| row["_raw_message"].as_str().expect("a payload").to_string()));
        assert_eq!(ack(bridge, pipe, &batch_of(&answer)).status, 200);
    }
    data
}

fn head_has_no_effect() {
    create_stream("head", 2);
    put_numbered("head", "a", 50);
    let bridge = bridge("head_db", &[]);
    let answer = pull(&bridge, "head", "&linger_ms=0&max_rows=10");
    let before = leases("head_db", "head");
    for path in
        ["/v1/pipes/head/next?stream=head&ack=explicit", "/v1/pipes/never/next?stream=head&ack=explicit", "/v1/nowhere"]
    {
        assert_eq!(head(&bridge, path).status, 200, "{path}");
    }
    assert_eq!(leases("head_db", "head"), before);
    assert_eq!(sql("SELECT count() FROM head_db.leases WHERE pipe = 'never'").trim(), "0");
    assert_eq!(pull(&bridge, "head", "").body, answer.body);
}

fn get_moves_no_checkpoint_and_the_same_batch_has_the_same_bytes() {
    create_stream("again", 3);
    put_numbered("again", "a", 3_000);
    let bridge = bridge("again_db", &[]);
    let first = pull(&bridge, "again", "");
    let before = leases("again_db", "again");
    // Other limits, more records in the stream, a killed process: the batch was frozen.
    put_numbered("again", "b", 500);
    assert_eq!(pull(&bridge, "again", "&max_rows=7").body, first.body);
    assert_eq!(leases("again_db", "again"), before);
    for _ in 0..3 {
        bridge.restart().expect("the bridge comes back");
        assert_eq!(pull(&bridge, "again", "").body, first.body);
    }
    assert_eq!(ack(&bridge, "again", &batch_of(&first)).status, 200);
    let second = pull(&bridge, "again", "");
    assert_ne!(second.body, first.body);
    assert_eq!(ack(&bridge, "again", &batch_of(&second)).status, 200);
    let rest = 3_500 - first.rows().len() - second.rows().len();
    assert_eq!(drain(&bridge, "again", rest).len(), rest);
}

fn a_range_of_the_open_batch_is_the_same_bytes() {
    create_stream("range", 2);
    put_numbered("range", "a", 20_000);
    let bridge = bridge("range_db", &[]);
    for format in ["ArrowStream", "JSONEachRow"] {
        let path = format!("/v1/pipes/range/next?stream=range&ack=explicit&format={format}&linger_ms=300&poll_ms=20");
        let whole = get(&bridge, &path).body;
        for first in [1, 1_000, whole.len() / 2, whole.len() - 1] {
            let part = get_range(&bridge, &path, &format!("bytes={first}-"));
            assert_eq!(part.status, 206, "{}", part.text());
            assert!(part.body == whole[first..], "{format} from byte {first}");
        }
        let part = get_range(&bridge, &path, "bytes=10-19");
        assert_eq!((part.status, &part.body[..]), (206, &whole[10..20]));
        assert_eq!(get_range(&bridge, &path, &format!("bytes={}-", whole.len())).status, 416);
        // The batch is closed before another format can start one.
        let open = sql("SELECT any(offered_batch) FROM range_db.leases WHERE pipe = 'range' AND offered_batch != ''");
        assert_eq!(ack(&bridge, "range", open.trim()).status, 200);
        put_numbered("range", format, 20_000);
    }
    drain(&bridge, "range", 20_000);
    let path = "/v1/pipes/range/next?stream=range&ack=explicit";
    assert_eq!(get_range(&bridge, path, "bytes=5-").status, 416);
}

fn ack_is_idempotent_and_knows_its_batch() {
    create_stream("acks", 2);
    put_numbered("acks", "a", 100);
    let bridge = bridge("acks_db", &[]);
    let answer = pull(&bridge, "acks", "&linger_ms=500");
    let batch = batch_of(&answer);
    let wrong = ack(&bridge, "acks", "0123456789abcdef");
    assert_eq!(wrong.status, 404, "{}", wrong.text());
    assert!(wrong.text().contains("is not the open batch of pipe 'acks'"), "{}", wrong.text());
    // After a crash, the acknowledgement comes before any pull.
    bridge.restart().expect("the bridge comes back");
    assert_eq!(ack(&bridge, "acks", &batch).status, 200);
    assert_eq!(ack(&bridge, "acks", &batch).status, 200);
    assert_eq!(sql("SELECT sum(committed_rows) FROM acks_db.leases").trim(), answer.rows().len().to_string());
    assert_eq!(ack(&bridge, "nobody", &batch).status, 404);
}

fn shape_is_identity() {
    create_stream("shape", 1);
    put_numbered("shape", "a", 10);
    let bridge = bridge("shape_db", &[]);
    let first = pull(&bridge, "shape", "");
    let other = get(&bridge, "/v1/pipes/shape/next?stream=shape&ack=explicit");
    assert_eq!(other.status, 400);
    assert!(other.text().contains("was offered as JSONEachRow"), "{}", other.text());
    assert_eq!(pull(&bridge, "shape", "").body, first.body);
    assert_eq!(ack(&bridge, "shape", &batch_of(&first)).status, 200);
    put_numbered("shape", "b", 10);
    assert_eq!(get(&bridge, "/v1/pipes/shape/next?stream=shape&ack=explicit").status, 200);
}

fn only_a_refresh_confirms() {
    create_stream("intruder", 2);
    let bridge = bridge("intruder_db", &[]);
    create_pipe(&bridge, "intruder", "stream=intruder&view=default.intruder_view&linger_ms=20&poll_ms=20");
    // A user runs the view's SELECT by hand, again and again, while the view is running.
    let url = format!(
        "{}/v1/pipes/intruder/next?stream=intruder&view=default.intruder_view&linger_ms=20&poll_ms=20",
        bridge.url()
    );
    let by_hand = format!("SELECT count() FROM url('{url}', 'ArrowStream', '{NEXT}') SETTINGS http_max_tries = 1");
    let engine = engine();
    let writing = std::thread::spawn(move || {
        on(engine, || {
            for part in 0..40 {
                put_numbered("intruder", &format!("p{part}"), 250);
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    });
    while !writing.is_finished() {
        let _ = stack().clickhouse.query(&by_hand);
    }
    writing.join().expect("all records are put");
    wait_until("all records in the table", || sql("SELECT uniqExact(_raw_message) FROM intruder").trim() == "10000");
    wait_until("all records committed", || sql("SELECT sum(committed_rows) FROM intruder_db.leases").trim() == "10000");
    assert_eq!(sql("SELECT count() FROM intruder").trim(), "10000");
    // And while the view is stopped, a pull by hand is refused.
    sql("SYSTEM STOP VIEW intruder_view");
    wait_until("the view stopped", || {
        sql("SELECT status FROM system.view_refreshes WHERE view = 'intruder_view'").trim() == "Disabled"
    });
    put_numbered("intruder", "late", 10);
    let refused = exception(&by_hand);
    assert!(message(&refused).contains("is not refreshing now (status Disabled)"), "{refused}");
    assert_eq!(sql("SELECT sum(committed_rows) FROM intruder_db.leases").trim(), "10000");
    drop_pipe("intruder");
}

fn a_view_may_be_cancelled_stopped_dropped_and_created_again() {
    create_stream("moody", 2);
    let bridge = bridge("moody_db", &[]);
    let query = "stream=moody&view=default.moody_view&linger_ms=20&poll_ms=20";
    create_pipe(&bridge, "moody", query);
    let mut put = 0;
    for round in 0..6 {
        put_numbered("moody", &format!("r{round}"), 500);
        put += 500;
        match round % 3 {
            0 => drop(sql("SYSTEM CANCEL VIEW moody_view")),
            1 => {
                sql("SYSTEM STOP VIEW moody_view");
                put_numbered("moody", &format!("s{round}"), 500);
                put += 500;
                sql("SYSTEM START VIEW moody_view");
            }
            _ => {
                let create =
                    sql("SELECT create_table_query FROM system.tables WHERE name = 'moody_view' FORMAT TSVRaw");
                sql("DROP VIEW moody_view SYNC");
                sql(&create);
            }
        }
    }
    let put = put.to_string();
    let complete = || sql("SELECT uniqExact(_raw_message) FROM moody").trim() == put;
    crate::common::wait_until(Duration::from_secs(60), complete, || {
        format!(
            "{} of {put} records in the table\n{}\n{}\n{}",
            sql("SELECT uniqExact(_raw_message) FROM moody").trim(),
            sql("SELECT * FROM system.view_refreshes WHERE view = 'moody_view' FORMAT Vertical"),
            get(&bridge, "/v1/pipes").text(),
            bridge.log()
        )
    });
    wait_until("all records committed", || sql("SELECT sum(committed_rows) FROM moody_db.leases").trim() == put);
    assert_eq!(sql("SELECT count() FROM moody").trim(), put);
    drop_pipe("moody");
}

/// WAIT VIEW returns OK for a refresh that SYSTEM STOP VIEW cancelled: only the view's exception
/// reveals it.
fn a_stop_in_the_middle_of_the_insert_commits_nothing() {
    create_stream("stopped", 1);
    put_numbered("stopped", "a", 10);
    let bridge = bridge("stopped_db", &[]);
    let url = format!("{}/v1/pipes/stopped/next?stream=stopped&view=default.stopped_view&linger_ms=200", bridge.url());
    sql(
        "CREATE TABLE stopped (_raw_message String, slow UInt8) ENGINE = MergeTree ORDER BY () SETTINGS non_replicated_deduplication_window = 100",
    );
    sql(&format!(
        "CREATE MATERIALIZED VIEW stopped_view REFRESH AFTER 2 SECOND SETTINGS refresh_retries = -1 APPEND TO stopped AS \
         SELECT _raw_message, sleepEachRow(0.2) AS slow FROM url('{url}', 'ArrowStream', '{NEXT}') ORDER BY ALL SETTINGS http_max_tries = 1"
    ));
    for _ in 0..3 {
        // The whole batch has been read, and its rows are slowly being inserted.
        wait_until("an open batch", || sql("SELECT sum(offered_rows) FROM stopped_db.leases").trim() == "10");
        sql("SYSTEM STOP VIEW stopped_view");
        wait_until("the refresh's end", || {
            sql("SELECT status FROM system.view_refreshes WHERE view = 'stopped_view'").trim() == "Disabled"
        });
        wait_until("the bridge's note of it", || get(&bridge, "/v1/pipes").text().contains("cancelled"));
        assert_eq!(sql("SELECT sum(committed_rows) FROM stopped_db.leases").trim(), "0");
        assert_eq!(sql("SELECT count() FROM stopped").trim(), "0");
        sql("SYSTEM START VIEW stopped_view");
    }
    wait_until("the commit", || sql("SELECT sum(committed_rows) FROM stopped_db.leases").trim() == "10");
    assert_eq!(sql("SELECT count(), uniqExact(_raw_message) FROM stopped").trim(), "10\t10");
    drop_pipe("stopped");
}

fn a_limit_in_the_view_commits_nothing_unread() {
    create_stream("limited", 1);
    put("limited", (0..4_000).map(|n| (format!("k{n}"), vec![b'x'; 8_000])));
    let bridge = bridge("limited_db", &[]);
    let url = format!(
        "{}/v1/pipes/limited/next?stream=limited&view=default.limited_view&linger_ms=2000&poll_ms=20",
        bridge.url()
    );
    sql("CREATE TABLE limited (_raw_message String) ENGINE = MergeTree ORDER BY ()");
    sql(&format!(
        "CREATE MATERIALIZED VIEW limited_view REFRESH AFTER 2 SECOND APPEND TO limited AS \
         SELECT _raw_message FROM url('{url}', 'ArrowStream', '{NEXT}') LIMIT 1 SETTINGS http_max_tries = 1"
    ));
    wait_until("the status says so", || {
        get(&bridge, "/v1/pipes").text().contains("without reading the batch to its end (a LIMIT in the view?)")
    });
    assert_eq!(sql("SELECT sum(committed_rows) FROM limited_db.leases").trim(), "0");
    drop_pipe("limited");
}

fn seek_and_edits_by_hand_move_a_running_pipe() {
    create_stream("sought", 2);
    put_numbered("sought", "a", 300);
    let bridge = bridge("sought_db", &[]);
    assert_eq!(drain(&bridge, "sought", 300).len(), 300);
    // Everything once more, while a batch is open.
    put_numbered("sought", "b", 10);
    let open = pull(&bridge, "sought", "");
    let all = "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}\n";
    assert_eq!(post(&bridge, "/v1/pipes/sought/seek", all).status, 200);
    assert_eq!(ack(&bridge, "sought", &batch_of(&open)).status, 404, "a batch that was given up is not committed");
    let mut again = drain(&bridge, "sought", 310);
    again.sort();
    again.dedup();
    assert_eq!(again.len(), 310);
    // One shard with SQL: its row says where reading continues.
    let shard = "shardId-000000000000";
    let of_shard = format!("SELECT committed_rows FROM sought_db.leases WHERE shard_id = '{shard}'");
    let before: u64 = sql(&of_shard).trim().parse().expect("a number");
    sql(&format!("ALTER TABLE sought_db.leases UPDATE sequence_number = 'TRIM_HORIZON' WHERE key = 'sought/{shard}'"));
    put_numbered("sought", "c", 20);
    wait_until("the shard's records come again", || {
        let answer = pull(&bridge, "sought", "");
        if answer.status == 200 && !answer.rows().is_empty() {
            ack(&bridge, "sought", &batch_of(&answer));
        }
        sql(&of_shard).trim().parse::<u64>().expect("a number") >= before + before / 2
    });
    let unknown = post(&bridge, "/v1/pipes/sought/seek", "{\"shard_id\": \"shardId-9\", \"position\": \"latest\"}\n");
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    let latest = "{\"shard_id\": \"\", \"position\": \"latest\"}\n";
    assert_eq!(post(&bridge, "/v1/pipes/sought/seek", latest).status, 200);
}

fn sigterm_settles_gives_back_and_ends_well() {
    create_stream("ending", 2);
    put_numbered("ending", "a", 1_000);
    let bridge = bridge("ending_db", &[]);
    create_pipe(&bridge, "ending", "stream=ending&view=default.ending_view&linger_ms=20&poll_ms=20");
    wait_until("first records", || sql("SELECT count() FROM ending").trim() != "0");
    for round in 0..4 {
        put_numbered("ending", &format!("r{round}"), 1_000);
        let began = Instant::now();
        assert_eq!(bridge.stop().expect("the bridge ends"), 0);
        assert!(began.elapsed() < Duration::from_secs(10), "the contract says 10 s");
        assert_eq!(sql("SELECT count() FROM ending_db.leases WHERE owner != ''").trim(), "0", "leases are released");
        bridge.start_again().expect("the bridge comes back");
    }
    wait_until("all records committed", || sql("SELECT sum(committed_rows) FROM ending_db.leases").trim() == "5000");
    assert_eq!(sql("SELECT count(), uniqExact(_raw_message) FROM ending").trim(), "5000\t5000");
    drop_pipe("ending");
}

fn a_file_keeps_the_state_of_a_single_bridge() {
    create_stream("filed", 2);
    let dir = tempfile::tempdir().expect("a folder");
    let state = format!("file:{}", dir.path().display());
    let bridge = bridge("filed_db", &[("--state", &state)]);
    create_pipe(&bridge, "filed", "stream=filed&view=default.filed_view&linger_ms=20&poll_ms=20");
    for round in 0..8 {
        put_numbered("filed", &format!("r{round}"), 1_000);
        bridge.restart().expect("the bridge comes back");
    }
    wait_until("all records", || sql("SELECT uniqExact(_raw_message) FROM filed").trim() == "8000");
    wait_until("all records committed", || {
        let rows = get(&bridge, "/v1/pipes").rows();
        rows.iter().map(|row| row["committed_rows"].as_u64().unwrap_or(0)).sum::<u64>() == 8_000
    });
    assert_eq!(sql("SELECT count() FROM filed").trim(), "8000");
    let tables = sql("SELECT name FROM system.tables WHERE database = 'filed_db'");
    assert_eq!(tables.trim(), "quarantine", "no state is in ClickHouse");
    drop_pipe("filed");
}
