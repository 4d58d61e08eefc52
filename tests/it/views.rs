//! The state of real refreshable views.

use std::time::{Duration, Instant};

use adapters::clickhouse::ClickHouse;
use domain::ports::{Cause, RefreshOutcome, Views};

use crate::engines::on_each_engine;
use crate::lossy::Proxy;
use crate::real::{database, real};

on_each_engine!(async
    a_refresh_that_ends_well_has_its_rows_in_the_target,
    a_refresh_that_fails_says_why,
    an_exception_that_is_no_text_is_told_all_the_same,
    a_view_that_is_cancelled_or_dropped_has_failed,
    what_is_no_refreshable_view_is_none,
    a_lost_answer_and_a_missing_right_are_unknown,
    a_view_that_appends_has_a_target,
);

/// A view that refreshes only on request, and then runs `select`.
fn view(name: &str, select: &str) -> String {
    let db = database();
    real().ask(&format!("CREATE DATABASE {db}"));
    real().ask(&format!("CREATE TABLE {db}.target (x UInt64) ENGINE = MergeTree ORDER BY x"));
    let settings = "SETTINGS refresh_retries = 0";
    real().ask(&format!(
        "CREATE MATERIALIZED VIEW {db}.`{name}` REFRESH EVERY 1 YEAR {settings} APPEND TO {db}.target EMPTY AS {select}"
    ));
    db
}

/// Starts a refresh and waits until it is running.
async fn refresh(db: &str, name: &str) {
    real().ask(&format!("SYSTEM REFRESH VIEW {db}.`{}`", name.replace('`', "\\`")));
    let started = Instant::now();
    while !real().client().view(db, name).await.expect("a state").expect("the view").running {
        assert!(started.elapsed() < Duration::from_secs(30), "the refresh does not start");
    }
}

const SLOW: &str = "SELECT sleepEachRow(0.1) + number AS x FROM numbers(20) SETTINGS max_block_size = 1";
const ENDLESS: &str = "SELECT sleepEachRow(0.1) + number AS x FROM numbers(10000) SETTINGS max_block_size = 1";

async fn a_refresh_that_ends_well_has_its_rows_in_the_target() {
    let db = view("it\\`s", SLOW);
    refresh(&db, "it`s").await;
    assert_eq!(real().client().wait(&db, "it`s").await, RefreshOutcome::Succeeded);
    assert_eq!(real().ask(&format!("SELECT count() FROM {db}.target")), "20\n");
    let state = real().client().view(&db, "it`s").await.expect("a state").expect("the view");
    assert!(!state.running && state.exception.is_empty(), "{state:?}");
}

async fn a_refresh_that_fails_says_why() {
    let db = view(
        "v",
        "SELECT throwIf(sleepEachRow(0.1) + number = 9, 'the ninth') AS x FROM numbers(20) SETTINGS max_block_size = 1",
    );
    refresh(&db, "v").await;
    let outcome = real().client().wait(&db, "v").await;
    assert!(matches!(&outcome, RefreshOutcome::Failed(failure) if failure.why.contains("the ninth")), "{outcome:?}");
    let state = real().client().view(&db, "v").await.expect("a state").expect("the view");
    assert!(state.exception.contains("the ninth"), "{state:?}");
}

/// A cast quotes what it cannot parse, whatever the bytes.
async fn an_exception_that_is_no_text_is_told_all_the_same() {
    let db = view(
        "v",
        "SELECT toUInt64(if(sleepEachRow(0.1) + number = 9, unhex('FF00FE'), '1')) AS x FROM numbers(20) SETTINGS max_block_size = 1",
    );
    refresh(&db, "v").await;
    let outcome = real().client().wait(&db, "v").await;
    assert!(
        matches!(&outcome, RefreshOutcome::Failed(failure) if failure.why.contains("Cannot parse") && failure.cause == Cause::Rows),
        "{outcome:?}"
    );
}

async fn a_view_that_is_cancelled_or_dropped_has_failed() {
    for end in ["SYSTEM CANCEL VIEW", "DROP VIEW"] {
        let db = view("v", ENDLESS);
        refresh(&db, "v").await;
        let client = real().client();
        let wait = tokio::spawn({
            let (client, db) = (client.clone(), db.clone());
            async move { client.wait(&db, "v").await }
        });
        // The server shows that the statement has arrived.
        let waits = format!("SELECT count() FROM system.processes WHERE query LIKE 'SYSTEM WAIT VIEW%{db}%'");
        let started = Instant::now();
        while real().ask(&waits) == "0\n" {
            assert!(started.elapsed() < Duration::from_secs(30), "the wait does not start");
        }
        real().ask(&format!("{end} {db}.v"));
        let outcome = wait.await.expect("the wait");
        assert!(matches!(outcome, RefreshOutcome::Failed(_)), "{end}: {outcome:?}");
    }
}

async fn what_is_no_refreshable_view_is_none() {
    let db = database();
    real().ask(&format!("CREATE DATABASE {db}"));
    real().ask(&format!("CREATE VIEW {db}.plain AS SELECT 1"));
    for name in ["plain", "absent", "' OR 1 --"] {
        assert_eq!(real().client().view(&db, name).await, Ok(None));
        let outcome = real().client().wait(&db, name).await;
        assert!(matches!(outcome, RefreshOutcome::Failed(_)), "{outcome:?}");
    }
}

async fn a_lost_answer_and_a_missing_right_are_unknown() {
    let db = view("v", SLOW);
    let proxy = Proxy::start(real().http_port()).await;
    refresh(&db, "v").await;
    proxy.lose_answer(1);
    let outcome = ClickHouse::new(&proxy.url(), "default", "").wait(&db, "v").await;
    assert!(matches!(outcome, RefreshOutcome::Unknown(_)) && proxy.lost(), "{outcome:?}");
    let outcome = ClickHouse::new(&real().clickhouse.url(), "worker", "s3cr3t").wait(&db, "v").await;
    assert!(matches!(outcome, RefreshOutcome::Unknown(_)), "{outcome:?}");
}

async fn a_view_that_appends_has_a_target() {
    let db = view("plain", "SELECT 1 AS x");
    let target = |name: &'static str| {
        let db = db.clone();
        async move { real().client().definition(&db, name).await.expect("it appends").map(|view| view.target) }
    };
    assert_eq!(target("plain").await, Some(format!("{db}.target")));
    real().ask(&format!(
        "CREATE MATERIALIZED VIEW {db}.inner REFRESH EVERY 1 YEAR APPEND (x UInt64) ENGINE = MergeTree ORDER BY x EMPTY AS SELECT 1 AS x COMMENT 'c'"
    ));
    assert!(target("inner").await.is_some_and(|own| own.contains("inner_id")));
    real().ask(&format!(
        "CREATE MATERIALIZED VIEW {db}.other REFRESH EVERY 1 YEAR TO {db}.target EMPTY AS SELECT 1 AS x"
    ));
    let replaces = real().client().definition(&db, "other").await.expect("a definition").expect("a view");
    assert!(!replaces.appends, "{replaces:?}");
}
