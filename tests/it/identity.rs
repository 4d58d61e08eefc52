//! What a pipe is tied to besides its name: one stream of one account and region, and one table
//! that it fills.

use stack::{Bridge, Kinesis, KinesisOptions, kinesis_client};

use crate::world::*;

const ELSEWHERE: &str = "eu-west-1";

/// A Kinesis in another region.
fn elsewhere() -> Kinesis {
    let options = KinesisOptions { region: ELSEWHERE.into(), ..KinesisOptions::default() };
    Kinesis::start(&options).expect("a Kinesis")
}

/// A bridge that reads from it, and shares its state with others.
fn bridge_there(kinesis: &Kinesis, database: &str) -> Bridge {
    let environment = [("AWS_REGION", ELSEWHERE), ("AWS_ENDPOINT_URL", &kinesis.endpoint())];
    ready(bridge_in(database, &[], &environment))
}

fn ready(bridge: Bridge) -> Bridge {
    wait_until("the bridge to be ready", || get(&bridge, "/readyz").status == 200);
    bridge
}

fn next(stream: &str) -> String {
    format!("/v1/pipes/{stream}/next?stream={stream}&ack=explicit&format=JSONEachRow&linger_ms=0&wait_ms=5000")
}

/// Pulls and acknowledges until something has arrived.
fn read(bridge: &Bridge, stream: &str) -> Vec<String> {
    wait_for("records", || {
        let rows = get(bridge, &next(stream)).rows();
        let batch = rows.first()?["_batch"].as_str().expect("a batch").to_string();
        let ack = format!("{{\"batch\": \"{batch}\"}}\n");
        assert_eq!(post(bridge, &format!("/v1/pipes/{stream}/ack"), &ack).status, 200);
        Some(rows.iter().map(|row| row["_raw_message"].as_str().expect("text").to_string()).collect())
    })
}

/// Everything in the rows of a pipe, except when they were written.
fn rows(database: &str) -> String {
    sql(&format!("SELECT * EXCEPT (updated_at, caught_up_at) FROM {database}.leases ORDER BY key"))
}

#[test]
fn one_stream_per_pipe() {
    let there = elsewhere();
    let client = block_on(kinesis_client(&there.endpoint()));
    create_stream("twofold", 2);
    block_on(stack::load::create_stream(&client, "twofold", 2)).expect("a stream");
    put_numbered("twofold", "here", 1);
    block_on(stack::load::put_records(&client, "twofold", [("k".into(), b"there".to_vec())])).expect("a record");
    let here = ready(bridge("twofold_db", &[]));
    assert_eq!(read(&here, "twofold"), ["here-0"]);
    let other = bridge_there(&there, "twofold_db");
    let before = rows("twofold_db");
    let all = "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}\n";
    let attempts = |other: &Bridge| {
        [
            get(other, &next("twofold")),
            post(other, "/v1/pipes/twofold/seek", all),
            post(other, "/v1/pipes/twofold/ack", "{\"batch\": \"0123456789abcdef\"}\n"),
            get(other, "/v1/streams/twofold/records?until_pipe=twofold"),
            post(other, "/v1/end", "{\"pipe\": \"twofold\"}\n"),
        ]
    };
    for (n, refused) in attempts(&other).iter().enumerate() {
        assert_eq!(refused.status, 400, "{n}: {}", refused.text());
        for part in [":us-east-1:", ":eu-west-1:", "stream/twofold", "another pipe name"] {
            assert!(refused.text().contains(part), "{n} {part}: {}", refused.text());
        }
        // This would move the other pipe's position.
        assert!(!refused.text().contains("seek"), "{n}: {}", refused.text());
    }
    assert_eq!(rows("twofold_db"), before, "nothing was taken or moved");
    assert!(!sql("SELECT toString(pipes) FROM twofold_db.workers").contains("{'twofold':1,'twofold'"));
    put_numbered("twofold", "later", 1);
    assert_eq!(read(&here, "twofold"), ["later-0"]);
    // Also when nobody is there to defend them: strangers must not read a dead worker's pipe.
    here.kill();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let before = rows("twofold_db");
    assert!(attempts(&other).iter().all(|refused| refused.status == 400));
    assert_eq!(rows("twofold_db"), before);
    // It can read under a name of its own.
    let own = next("twofold").replace("/pipes/twofold/", "/pipes/twofold-eu/");
    let messages = wait_for("the record", || {
        let rows = get(&other, &own).rows();
        (!rows.is_empty()).then(|| rows[0]["_raw_message"].as_str().expect("text").to_string())
    });
    assert_eq!(messages, "there");
    // A stream that does not exist here counts as another one, too, when its pipe is ended from
    // here.
    block_on(client.delete_stream().stream_name("twofold").send()).expect("deleted");
    wait_until("the stream to be gone", || {
        block_on(client.describe_stream_summary().stream_name("twofold").send()).is_err()
    });
    let refused = post(&other, "/v1/end", "{\"pipe\": \"twofold\"}\n");
    assert!(refused.status == 400 && refused.text().contains(":us-east-1:"), "{}", refused.text());
    assert_eq!(rows("twofold_db").lines().filter(|row| row.starts_with("twofold/")).count(), 2);
}

#[test]
fn rows_that_do_not_say_which_stream_it_is_learn_it_from_who_takes_them() {
    create_stream("nameless", 1);
    put_numbered("nameless", "a", 1);
    let bridge = ready(bridge("nameless_db", &[]));
    assert_eq!(read(&bridge, "nameless"), ["a-0"]);
    let arn = || sql("SELECT stream_arn, stream_created_at > '2020-01-01' FROM nameless_db.leases");
    assert_eq!(arn(), "arn:aws:kinesis:us-east-1:000000000000:stream/nameless\t1\n");
    let told = arn();
    bridge.stop().expect("the bridge stops");
    sql("ALTER TABLE nameless_db.leases UPDATE stream_arn = '', stream_created_at = toDateTime64(0, 3) WHERE 1");
    bridge.start_again().expect("the bridge comes back");
    put_numbered("nameless", "b", 1);
    assert_eq!(read(&bridge, "nameless"), ["b-0"], "and it goes on where it was");
    assert_eq!(arn(), told);
}

/// Only the creation time tells the streams apart: the position is the oldest record in both.
#[test]
fn a_stream_created_anew_is_a_gap_also_before_its_first_record() {
    create_stream("unborn", 1);
    let bridge = ready(bridge("unborn_db", &[]));
    let pull = || get(&bridge, &next("unborn").replace("wait_ms=5000", "wait_ms=500"));
    assert_eq!(pull().rows().len(), 0);
    block_on(kinesis().delete_stream().stream_name("unborn").send()).expect("deleted");
    wait_until("the stream to be gone", || {
        block_on(kinesis().describe_stream_summary().stream_name("unborn").send()).is_err()
    });
    // Written and deleted unread.
    bridge.stop().expect("the bridge stops");
    // A stream's creation time has whole seconds.
    next_second();
    create_stream("unborn", 1);
    put_numbered("unborn", "new", 1);
    bridge.start_again().expect("the bridge comes back");
    let state = || {
        let rows = get(&bridge, "/v1/pipes").rows();
        rows.first().map(|row| (row["state"].to_string(), row["last_error"].to_string())).unwrap_or_default()
    };
    wait_until("the gap", || pull().status != 200 && state().0 == "\"gap\"");
    for part in ["'unborn'", "recreated", "/v1/pipes/unborn/seek"] {
        assert!(state().1.contains(part), "{part}: {}", state().1);
    }
    let all = "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}\n";
    assert_eq!(post(&bridge, "/v1/pipes/unborn/seek", all).status, 200);
    assert_eq!(read(&bridge, "unborn"), ["new-0"]);
}

/// A view that pulls a pipe into a table; creates the table, too, unless it exists.
fn create_view(bridge: &Bridge, pipe: &str, view: &str, table: &str) {
    let url = format!(
        "{}/v1/pipes/{pipe}/next?stream={pipe}&view=default.{view}&linger_ms=0&poll_ms=20&wait_ms=500",
        bridge.url()
    );
    sql(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (_key String, _sequence_number String) ENGINE = MergeTree ORDER BY _key \
         SETTINGS non_replicated_deduplication_window = 1000"
    ));
    sql(&format!(
        "CREATE MATERIALIZED VIEW {view} REFRESH AFTER 2 SECOND \
         SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 1000 \
         APPEND TO {table} AS SELECT _key, _sequence_number FROM url('{url}', 'ArrowStream', '{NEXT}') \
         ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
    ));
}

fn count(table: &str) -> String {
    sql(&format!("SELECT count(), uniqExact(_key) FROM {table}")).trim().to_string()
}

#[test]
fn one_target_per_pipe() {
    create_stream("sole", 2);
    put_numbered("sole", "a", 100);
    let first = ready(bridge("sole_db", &[]));
    create_view(&first, "sole", "sole_view", "sole_a");
    wait_until("the first records", || count("sole_a") == "100\t100");
    create_view(&first, "sole", "sole_second", "sole_b");
    let exception = refresh_exception("sole_second");
    let why = message(&exception);
    for part in
        ["pipe 'sole'", "default.sole_view into default.sole_a", "default.sole_second", "default.sole_b", "split"]
    {
        assert!(why.contains(part), "{part}: {exception}");
    }
    // Another process without any memory refuses it in the same way, and so does one next to it.
    first.stop().expect("the bridge stops");
    first.start_again().expect("the bridge comes back");
    put_numbered("sole", "b", 100);
    wait_until("all records in the first table", || count("sole_a") == "200\t200");
    let second = ready(bridge("sole_db", &[]));
    create_view(&second, "sole", "sole_third", "sole_c");
    let exception = refresh_exception("sole_third");
    assert!(message(&exception).contains("into default.sole_a"), "{exception}");
    assert_eq!((count("sole_b"), count("sole_c")), ("0\t0".into(), "0\t0".into()));
    sql("DROP VIEW sole_third");
    // A view with the same table is served.
    create_view(&first, "sole", "sole_same", "sole_a");
    put_numbered("sole", "c", 100);
    wait_until("the records in the first table", || count("sole_a") == "300\t300");
    sql("DROP VIEW sole_same");
    // The remaining one continues where the other ended.
    sql("DROP VIEW sole_view");
    put_numbered("sole", "d", 100);
    // A batch that was still open goes to the other table as well.
    let all = "SELECT uniqExact(_key) FROM (SELECT _key FROM sole_a UNION ALL SELECT _key FROM sole_b)";
    wait_until("the pipe to go over", || sql(all).trim() == "400");
    assert_eq!(sql("SELECT DISTINCT view, target FROM sole_db.leases"), "default.sole_second\tdefault.sole_b\n");
    sql("DROP VIEW sole_second");
}

/// As in a copied statement: view= names the view of another pipe, whose refreshes succeed.
#[test]
fn a_view_does_not_confirm_what_another_pulled() {
    create_stream("borrowed", 1);
    let bridge = bridge("borrowed_db", &[]);
    let query = "stream=borrowed&view=default.lender_view&linger_ms=0&wait_ms=1000";
    create_pipe(&bridge, "lender", query);
    let url = format!("{}/v1/pipes/borrower/next?{query}", bridge.url());
    sql("CREATE TABLE borrower (id String) ENGINE = MergeTree ORDER BY id");
    sql(&format!(
        "CREATE MATERIALIZED VIEW borrower_view REFRESH AFTER 2 SECOND \
         SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 1000 \
         APPEND TO borrower AS SELECT if(throwIf(_raw_message != '') = 0, '', '') AS id FROM url('{url}', 'ArrowStream', '{NEXT}') \
         ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
    ));
    put_numbered("borrowed", "x", 5);
    let exception = refresh_exception("borrower_view");
    assert!(exception.contains("view default.lender_view pulls pipe 'lender', not 'borrower'"), "{exception}");
    wait_until("the lender to have all", || sql("SELECT count() FROM lender") == "5\n");
    let pipes = sql("SELECT DISTINCT pipe FROM borrowed_db.leases");
    assert_eq!(pipes, "lender\n", "no row of the other pipe is even offered");
    sql("DROP TABLE borrower_view");
    sql("DROP TABLE borrower");
    drop_pipe("lender");
}

/// As in a statement copied into another database: view= still names the first view, which pulls
/// the same pipe.
#[test]
fn a_copied_view_is_not_taken_for_the_first_one() {
    create_stream("copied", 1);
    let bridge = ready(bridge("copied_db", &[]));
    create_view(&bridge, "copied", "copied_view", "copied_a");
    put_numbered("copied", "a", 100);
    wait_until("the first records", || count("copied_a") == "100\t100");
    sql("CREATE DATABASE copied_test");
    sql("CREATE TABLE copied_test.copied_b AS copied_a");
    let original = sql(
        "SELECT create_table_query FROM system.tables WHERE database = 'default' AND name = 'copied_view' FORMAT TSVRaw",
    );
    let copy = original
        .replace("VIEW default.copied_view", "VIEW copied_test.copied_view")
        .replace("TO default.copied_a", "TO copied_test.copied_b");
    sql(copy.trim());
    let exception = wait_for("the copy to be refused", || {
        put_numbered("copied", "b", 1);
        let said = sql("SELECT exception FROM system.view_refreshes WHERE database = 'copied_test' FORMAT TSVRaw");
        Some(said).filter(|said| said.contains("copied_test.copied_view"))
    });
    for part in ["pipe 'copied'", "view=default.copied_view", "drop or stop copied_test.copied_view"] {
        assert!(message(&exception).contains(part), "{part}: {exception}");
    }
    // The first one continues, between the attempts of the other.
    put_numbered("copied", "c", 100);
    wait_until("all that was put later", || sql("SELECT countIf(_key LIKE 'c%') FROM copied_a") == "100\n");
    assert_eq!(sql("SELECT count() FROM copied_test.copied_b"), "0\n", "nothing went to the table of the copy");
    // The copy does not interfere while it is stopped, nor once it is corrected.
    sql("DROP VIEW copied_test.copied_view");
    put_numbered("copied", "d", 100);
    wait_until("all that was put last", || sql("SELECT countIf(_key LIKE 'd%') FROM copied_a") == "100\n");
    assert_eq!(sql("SELECT count() = uniqExact(_key, _sequence_number) FROM copied_a"), "1\n");
    sql("DROP VIEW copied_view");
    sql("DROP DATABASE copied_test");
}
