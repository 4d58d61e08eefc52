//! Backfills next to a pipe, and the plan of a read.

use std::collections::BTreeMap;

use super::reshard::{shard_id, split};
use super::{keys, records};
use crate::engines::on_each_engine;
use crate::world::{NEXT, bridge, create_stream, get, message, post, put_numbered, sql, wait_until};

on_each_engine!(a_backfill_ends_where_the_pipe_began, a_plan_tells_shards_and_span,);

/// The lease rows of a pipe, by shard: the first row since its start.
fn began(database: &str, pipe: &str) -> BTreeMap<String, String> {
    let rows =
        sql(&format!("SELECT shard_id, began_sequence_number FROM {database}.leases WHERE pipe = '{pipe}' FORMAT TSV"));
    rows.lines().filter_map(|row| row.split_once('\t')).map(|(id, first)| (id.into(), first.into())).collect()
}

/// Records before the pipe, some of them in shards that have closed since, and after it. The
/// emulator keeps whole seconds, so the start time is imprecise; the row at which the pipe started
/// is exact.
fn a_backfill_ends_where_the_pipe_began() {
    create_stream("bf-live", 3);
    put_numbered("bf-live", "before", 200);
    split("bf-live", &shard_id(0));
    put_numbered("bf-live", "between", 200);
    let bridge = bridge("bf_live", &[]);
    let columns = "_key, _shard_id, _sequence_number, _sub_sequence_number";
    sql(
        "CREATE TABLE bf_live_all (_key String, _shard_id String, _sequence_number String, _sub_sequence_number UInt32) \
         ENGINE = MergeTree ORDER BY _key SETTINGS non_replicated_deduplication_window = 1000",
    );
    let url = format!(
        "{}/v1/pipes/bf_live/next?stream=bf-live&view=default.bf_live_view&start=latest&linger_ms=100",
        bridge.url()
    );
    sql(&format!(
        "CREATE MATERIALIZED VIEW bf_live_view REFRESH AFTER 2 SECOND SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100 \
         APPEND TO bf_live_all AS SELECT {columns} FROM url('{url}', 'ArrowStream', '{NEXT}') ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
    ));
    wait_until("the tables", || sql("EXISTS TABLE bf_live.leases") == "1\n");
    wait_until("the leases", || began("bf_live", "bf_live").len() == 5);
    // Until the pipe has read something in a shard, its start is a time; here some shards have
    // started and some have not.
    put_numbered("bf-live", "after", 3);
    wait_until("the pipe's first rows", || sql("SELECT countIf(startsWith(_key, 'after')) FROM bf_live_all") == "3\n");
    let load = records(&bridge, "bf-live", "until_pipe=bf_live&slice={0..1}%2F2");
    put_numbered("bf-live", "later", 200);
    split("bf-live", &shard_id(1));
    put_numbered("bf-live", "last", 100);
    sql(&format!("INSERT INTO bf_live_all SELECT {columns} FROM {load}"));
    wait_until("every record", || sql("SELECT uniqExact(_key) FROM bf_live_all") == "703\n");
    assert_eq!(sql("SELECT count() FROM bf_live_all"), "703\n");

    let plan = get(&bridge, "/v1/streams/bf-live/records/plan?until_pipe=bf_live").rows();
    let first = began("bf_live", "bf_live");
    for row in &plan {
        let shard = row["shard_id"].as_str().expect("a shard");
        assert_eq!(row["until_sequence_number"], first[shard].as_str(), "{row}");
        assert_eq!(row["until_time"].is_null(), !first[shard].is_empty(), "{row}");
    }
    // Nothing is left to load of the children of the split that happened while it was running.
    let children: Vec<_> = plan.iter().filter(|row| row["shard_id"].as_str() >= Some(&shard_id(5))).collect();
    assert!(children.len() == 2 && children.iter().all(|row| row["first_time"].is_null()), "{plan:?}");

    // After a seek to a row, the pipe starts after that row.
    sql("SYSTEM STOP VIEW bf_live_view");
    let place = sql("SELECT _shard_id, _sequence_number FROM bf_live_all WHERE _key = 'before-7' FORMAT TSV");
    let (shard, sequence) = place.trim().split_once('\t').expect("two columns");
    wait_until("a pipe at rest", || {
        let row = format!("{{\"shard_id\":\"{shard}\",\"position\":\"{sequence}\",\"sub_sequence_number\":0}}");
        post(&bridge, "/v1/pipes/bf_live/seek", &row).status == 200
    });
    let until = keys(&bridge, "bf-live", &format!("until_pipe=bf_live&shard={shard}"));
    let to = keys(&bridge, "bf-live", &format!("to={sequence}&shard={shard}"));
    assert_eq!(until, to);
    sql("DROP TABLE bf_live_view");

    let refused = get(&bridge, "/v1/streams/bf-live/records?until_pipe=absent");
    assert!(
        refused.status == 404 && message(&refused.text()).contains("there is no pipe with that name"),
        "{refused:?}"
    );
    create_stream("bf-other", 1);
    let refused = get(&bridge, "/v1/streams/bf-other/records?until_pipe=bf_live");
    assert!(refused.status == 400 && refused.text().contains("reads stream 'bf-live'"), "{refused:?}");
}

fn a_plan_tells_shards_and_span() {
    create_stream("bf-plan", 3);
    let bridge = bridge("bf_plan", &[]);
    let plan = |query: &str| get(&bridge, &format!("/v1/streams/bf-plan/records/plan?{query}")).rows();
    assert!(plan("").iter().all(|row| row["first_time"].is_null() && row["open"] == 1 && !row["until_time"].is_null()));
    put_numbered("bf-plan", "a", 60);
    split("bf-plan", &shard_id(2));
    let all = plan("");
    assert_eq!(all.iter().map(|row| row["open"].as_u64()).collect::<Vec<_>>(), [1, 1, 0, 1, 1].map(Some));
    // The first records are those that a read returns first.
    for row in all.iter().take(3) {
        let shard = row["shard_id"].as_str().expect("a shard");
        let first = sql(&format!(
            "SELECT argMin(_sequence_number, toUInt256(_sequence_number)) FROM {}",
            records(&bridge, "bf-plan", &format!("shard={shard}"))
        ));
        assert_eq!(row["first_sequence_number"], first.trim(), "{row}");
    }
    assert_eq!(
        plan("slice=1/2").iter().map(|row| row["shard_id"].clone()).collect::<Vec<_>>(),
        [shard_id(1), shard_id(3)]
    );
    assert_eq!(plan(&format!("shard={}", shard_id(4))).len(), 1);
    let times = plan("from=2020-01-01T00:00:00.000Z&to=2020-01-02T00:00:00.000Z");
    assert!(
        times.iter().all(|row| row["first_time"].is_null() && row["until_time"] == "2020-01-02T00:00:00.000Z"),
        "{times:?}"
    );
}
