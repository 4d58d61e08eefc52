//! The shipped SQL on a real ClickHouse, with a scripted peer in place of the bridge.

use std::time::{Duration, Instant};

use domain::ports::StateStore;
use proptest::prelude::*;
use sql::quote::{identifier, literal};
use sql::{SetupParams, setup};

use crate::engines::on_each_engine;
use crate::peer::{Peer, RECORDS};
use crate::real::{Real, real, store};
use testkit::contract::lease;

on_each_engine!(any_text_survives_as_a_literal_and_as_a_name,);
on_each_engine!(async
    the_printed_setup_makes_every_name_and_the_examples_run,
);

const EXAMPLES: [(&str, &str); 8] = [
    ("orders.sql", include_str!("../../sql/examples/orders.sql")),
    ("ad_hoc.sql", include_str!("../../sql/examples/ad_hoc.sql")),
    ("backfill.sql", include_str!("../../sql/examples/backfill.sql")),
    ("raw.sql", include_str!("../../sql/examples/raw.sql")),
    ("types.sql", include_str!("../../sql/examples/types.sql")),
    ("explicit_ack.sql", include_str!("../../sql/examples/explicit_ack.sql")),
    ("seek.sql", include_str!("../../sql/examples/seek.sql")),
    ("end.sql", include_str!("../../sql/examples/end.sql")),
];

fn any_text_survives_as_a_literal_and_as_a_name() {
    let text = prop_oneof![".*", r"['\\`\n\t\r\x00 -]*", "[a-z'`{}:;?/*-]*"];
    proptest!(ProptestConfig::with_cases(64), |(texts in prop::collection::vec(text, 1..20))| {
        let literals: Vec<String> = texts.iter().map(|text| format!("hex({})", literal(text))).collect();
        let hex: String = texts.iter().map(|t| t.bytes().map(|b| format!("{b:02X}")).collect::<String>() + "\n").collect();
        let rows = real().ask(&format!("SELECT arrayJoin([{}])", literals.join(", ")));
        prop_assert_eq!(rows, hex);
        // A name must not be empty.
        let name = format!("n{}", texts[0]);
        let row = real().ask(&format!("SELECT 1 AS {} FORMAT JSONEachRow", identifier(&name)));
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&row).expect("an object");
        prop_assert_eq!(row.keys().collect::<Vec<_>>(), [&name]);
    });
}

/// The first column of a query, one line per row.
fn column(real: &Real, sql: &str) -> Vec<String> {
    real.ask(sql).lines().map(String::from).collect()
}

// One test, since there is only one named collection per server.
async fn the_printed_setup_makes_every_name_and_the_examples_run() {
    let own = Real::start();
    let peer = Peer::start().await;
    for (database, token) in [("it's `a` db", None), ("kinesis", Some("it's \\ a secret"))] {
        let script = setup(&SetupParams {
            database,
            bridge_url: &peer.url(),
            clickhouse_url: &own.clickhouse.url(),
            token,
            state_tables: true,
        });
        for again in [false, true] {
            own.clickhouse.run_script(&script).unwrap_or_else(|error| panic!("{database}, again {again}: {error}"));
        }
        every_name_answers(&own, &peer, database, token).await;
    }
    peer.take_gets();
    for (file, text) in EXAMPLES {
        assert!(text.contains("http://localhost:9020") || text.contains("kinesis."), "{file}");
        let local = text.replace("http://localhost:9020", &peer.url());
        own.clickhouse.run_script(&local).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    each_pipe_keeps_each_record_once(&own, &peer);
    let posts: Vec<_> = peer.seen().into_iter().filter(|request| request.method == "POST").collect();
    let [ack, seek, end] = posts.as_slice() else { panic!("{posts:?}") };
    assert_eq!((&*ack.target, ack.body.trim()), ("/v1/pipes/orders_by_hand/ack", r#"{"batch":"0123456789abcdef"}"#));
    let moved = r#"{"pipe":"orders","shard_id":"","position":"2026-11-21 10:00:00","sub_sequence_number":null}"#;
    assert_eq!((&*seek.target, seek.body.trim()), ("/v1/seek", moved));
    assert_eq!((&*end.target, end.body.trim()), ("/v1/end", r#"{"pipe":"orders_old"}"#));
    for request in [seek, end] {
        assert_eq!(request.authorization.as_deref(), Some("Bearer it's \\ a secret"));
    }
}

async fn every_name_answers(own: &Real, peer: &Peer, database: &str, token: Option<&str>) {
    let db = identifier(database);
    let leases = store(own.client(), database).await;
    leases.create(&[lease("orders", "shard-0")]).await.expect("a new row");
    let checkpoint = format!(
        "SELECT pipe, stream, shard_id, sequence_number, sub_sequence_number, owner, epoch, updated_at FROM {db}.checkpoints"
    );
    assert_eq!(own.ask(&checkpoint), "orders\tstream\tshard-0\tTRIM_HORIZON\t0\t\t0\t2025-11-21 10:13:20.000\n");
    assert_eq!(own.ask(&format!("SELECT count() FROM {db}.workers")), "0\n");

    peer.take_gets();
    assert_eq!(
        own.ask(&format!("SELECT pipe, state, millis_behind_latest, last_error, last_commit_time FROM {db}.pipes")),
        "orders\treading\t\\N\t\t\\N\norders\treading\t7\t\t2026-11-21 10:00:00.000\norders\tgap\t5\tis gone\t\\N\n"
    );
    // Three shards of one pipe, one of which has lost its position.
    let lag = format!("SELECT pipe, shards, reading, gaps, unowned, max_millis_behind, last_commit FROM {db}.lag");
    assert_eq!(own.ask(&lag), "orders\t3\t2\t1\t0\t7\t2026-11-21 10:00:00.000\n");
    assert_eq!(own.ask(&format!("SELECT * FROM {db}.errors")), "orders\tshardId-2\tgap\tis gone\n");
    assert_eq!(own.ask(&format!("SELECT pipe, rows_in_all FROM {db}.throughput")), "orders\t0\n");
    assert_eq!(own.ask(&format!("SELECT count() FROM {db}.refreshes")), "0\n");
    assert_eq!(own.ask(&format!("SELECT * FROM {db}.streams")), "orders\tarn\tACTIVE\tON_DEMAND\t4\t24\n");
    assert_eq!(column(own, &format!("SELECT shard_id FROM {db}.shards(stream = 'orders')")), ["shardId-000000000000"]);
    assert_eq!(column(own, &format!("SELECT _key FROM {db}.sample(stream = 'orders')")).len(), 10);
    for (stream, from, to) in [("orders", "", ""), ("a/b&c ü", "2026-11-21 10:00:00", "1795255200000")] {
        let (stream, from, to) = (literal(stream), literal(from), literal(to));
        let all = format!("SELECT uniqExact(_key) FROM {db}.records(stream = {stream}, from = {from}, to = {to})");
        assert_eq!(own.ask(&all), format!("{RECORDS}\n"));
    }
    for request in peer.seen().iter().filter(|request| request.method == "GET") {
        assert_eq!(request.authorization, token.map(|token| format!("Bearer {token}")), "{request:?}");
    }
    let gets: Vec<_> = peer.take_gets().into_iter().filter(|target| target != "/healthz").collect();
    assert_eq!(
        gets,
        [
            "/v1/pipes",
            "/v1/pipes",
            "/v1/pipes",
            "/v1/streams",
            "/v1/streams/orders/shards",
            "/v1/streams/orders/sample?format=JSONEachRow",
            "/v1/streams/orders/records?from=&to=",
            "/v1/streams/a%2Fb%26c%20%C3%BC/records?from=2026-11-21%2010%3A00%3A00&to=1795255200000",
        ]
    );
}

/// The peer has served each batch twice; deduplication has dropped the second copy.
fn each_pipe_keeps_each_record_once(own: &Real, peer: &Peer) {
    let pipes = ["orders", "orders_raw", "orders_typed"];
    let started = Instant::now();
    for pipe in pipes {
        let target = format!("/v1/pipes/{pipe}/next?stream=orders&view=default.{pipe}_pipe");
        // The third pull begins once the refresh with the second has ended.
        while peer.seen().iter().filter(|s| s.method == "GET" && s.target == target).count() < 3 {
            let refreshes = || own.ask("SELECT view, status, exception FROM system.view_refreshes FORMAT Vertical");
            assert!(started.elapsed() < Duration::from_secs(60), "{pipe}: {}", refreshes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for table in ["orders", "orders_raw", "orders_by_status", "orders_typed", "orders_history", "orders_by_hand"] {
        assert_eq!(own.ask(&format!("SELECT count() FROM {table}")), format!("{RECORDS}\n"), "{table}");
    }
    assert_eq!(
        own.ask("SELECT sum(orders), (SELECT count() FROM orders_raw_errors) FROM orders_daily"),
        format!("{RECORDS}\t0\n")
    );
    assert_eq!(own.ask("SELECT uniqExact(id), min(price) > 0 FROM orders"), format!("{RECORDS}\t1\n"));
    let typed = "SELECT countIf(notEmpty(items)), countIf(first_item['sku'] = items[1].sku), countIf(document.user_id = extra.Int64),
        countIf(note IS NOT NULL), uniqExact(document.status.:String) FROM orders_typed";
    assert_eq!(own.ask(typed), format!("{RECORDS}\t{RECORDS}\t{RECORDS}\t{RECORDS}\t4\n"));
}
