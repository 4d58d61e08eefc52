//! The KeeperMap store on a real ClickHouse and a real ZooKeeper.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adapters::clickhouse::ClickHouse;
use adapters::state::KeeperMapStore;
use domain::lease::{Destination, Lease};
use domain::limits::{KEEPER_REQUEST_BYTES, LEASE_ROWS_PER_STATEMENT};
use domain::ports::{StateError, StateStore, Versioned};
use domain::sequence::Checkpoint;

use crate::engines::{engine, on_each_engine};
use crate::lossy::Proxy;
use crate::real::{Real, database, real, store};
use testkit::contract::{lease, one, state_store_contract};

on_each_engine!(async
    keeper_map_keeps_the_contract,
    any_database_name_works,
    an_error_is_not_a_defeat,
    a_lost_request_changes_nothing_and_says_so,
    a_killed_keeper_costs_time_and_no_truth,
    a_lost_answer_of_keeper_costs_no_truth,
    a_hand_edited_row_is_noticed,
    nonsense_in_a_row_is_named_and_hides_no_other_pipe,
    a_hand_deleted_row_stops_the_whole_write,
    the_largest_write_passes_and_a_larger_one_is_refused,
    existing_tables_need_no_right_to_create,
    the_account_of_the_containers_has_all_rights_it_needs,
    tables_of_another_version_are_named,
    the_table_of_an_earlier_version_comes_with_the_statements_that_mend_it,
    a_server_without_keeper_map_is_told_what_to_configure,
);

async fn keeper_map_keeps_the_contract() {
    state_store_contract(async || store(real().client(), &database()).await).await;
}

async fn any_database_name_works() {
    for name in ["my-db", "it's `a` \\ db", "ünï.c/ode"] {
        let store = store(real().client(), name).await;
        store.setup().await.expect("once more");
        store.create(&[lease("orders", "shard-0")]).await.expect("a new row");
        let row = one(&store, "orders").await;
        store
            .update(&[Versioned { value: row.value.take(&"a".into(), 0), ..row }])
            .await
            .expect("the version is right");
        assert_eq!(one(&store, "orders").await.version, 1);
    }
    // The path contains the database: rows are not shared.
    assert_eq!(store(real().client(), &database()).await.leases(None).await, Ok(vec![]));
}

async fn an_error_is_not_a_defeat() {
    let proxy = Proxy::start(real().http_port()).await;
    let store = store(ClickHouse::new(&proxy.url(), "default", ""), &database()).await;
    let rows = [lease("orders", "shard-0"), lease("orders", "shard-1")];
    proxy.lose_answer(1);
    store.create(&rows).await.expect("it was done, only the answer was lost");
    assert!(proxy.lost());
    let read = store.leases(None).await.expect("leases");
    let next: Vec<_> =
        read.iter().map(|row| Versioned { version: row.version, value: row.value.take(&"a".into(), 0) }).collect();
    proxy.lose_answer(1);
    store.update(&next).await.expect("it was done, only the answer was lost");
    assert!(proxy.lost());
    assert!(store.leases(None).await.expect("leases").iter().all(|row| row.version == 1 && row.value.owner == "a"));
}

async fn a_lost_request_changes_nothing_and_says_so() {
    let proxy = Proxy::start(real().http_port()).await;
    let store = store(ClickHouse::new(&proxy.url(), "default", ""), &database()).await;
    proxy.lose_request(1);
    let lost = store.create(&[lease("orders", "shard-0")]).await;
    assert!(matches!(&lost, Err(StateError::Unavailable(why)) if why.contains(&proxy.url())), "{lost:?}");
    assert_eq!(store.leases(None).await, Ok(vec![]));
    store.create(&[lease("orders", "shard-0")]).await.expect("a new row");
    let row = one(&store, "orders").await;
    let taken = Versioned { version: 0, value: row.value.take(&"a".into(), 0) };
    proxy.lose_request(1);
    let lost = store.update(std::slice::from_ref(&taken)).await;
    assert!(matches!(lost, Err(StateError::Unavailable(_))), "{lost:?}");
    assert_eq!(one(&store, "orders").await, row);
    store.update(&[taken]).await.expect("the version is still right");
}

/// Adds 1 to both rows, and returns whether this is known to have happened. There is no other
/// writer, so a conflict would be a false report.
async fn count(store: &KeeperMapStore, expected: Option<u64>) -> Option<u64> {
    let rows = read(store).await;
    let before = rows[0].value.committed_rows;
    assert!(
        expected.is_none_or(|expected| expected == before),
        "{expected:?}: an update was lost or done twice: {rows:?}"
    );
    assert!(rows.iter().all(|row| row.value.committed_rows == before), "both rows or none: {rows:?}");
    assert!(rows.iter().all(|row| row.version as u64 == before), "{rows:?}");
    let next = rows.into_iter().map(|row| {
        let value = Lease { committed_rows: before + 1, ..row.value };
        Versioned { version: row.version, value }
    });
    match store.update(&next.collect::<Vec<_>>()).await {
        Ok(()) => Some(before + 1),
        Err(StateError::Unavailable(_)) => None,
        Err(other) => panic!("{other:?}"),
    }
}

/// Reads as soon as Keeper allows it.
async fn read(store: &KeeperMapStore) -> Vec<Versioned<Lease>> {
    let started = Instant::now();
    loop {
        match store.leases(Some(&"orders".into())).await {
            Ok(rows) => return rows,
            Err(StateError::Unavailable(why)) => assert!(started.elapsed() < Duration::from_secs(120), "{why}"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn a_killed_keeper_costs_time_and_no_truth() {
    let own = Real::start();
    let store = store(own.client(), "kinesis").await;
    store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1")]).await.expect("new rows");
    let (updates, killed) = (AtomicU64::new(0), AtomicBool::new(false));
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for kill in 1..=4 {
                    while updates.load(Ordering::Relaxed) < 10 * kill {
                        std::thread::yield_now();
                    }
                    own.zookeeper.restart().expect("a restart after SIGKILL");
                }
                killed.store(true, Ordering::Relaxed);
            });
            tokio::runtime::Handle::current().block_on(async {
                let mut known = None;
                while !killed.load(Ordering::Relaxed) {
                    known = count(&store, known).await;
                    updates.fetch_add(1, Ordering::Relaxed);
                }
                count(&store, known).await.expect("a healthy Keeper");
            });
        });
    });
}

async fn a_lost_answer_of_keeper_costs_no_truth() {
    let mut started = None;
    let own = Real::start_with(|zookeeper| {
        let target = zookeeper.port();
        let proxy = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(Proxy::start(target)));
        started.insert(proxy).port()
    });
    let proxy = started.expect("a proxy");
    let store = store(own.client(), "kinesis").await;
    store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1")]).await.expect("new rows");
    let (mut known, mut in_doubt) = (None, 0);
    // An update is a handful of requests: each of them and each response is lost once.
    for nth in 1..=12 {
        for lose in [Proxy::lose_request, Proxy::lose_answer] {
            lose(&proxy, nth);
            known = count(&store, known).await;
            in_doubt += u32::from(known.is_none());
            proxy.heal();
        }
    }
    count(&store, known).await.expect("a healthy Keeper");
    println!("{in_doubt} of 24 updates were told to be in doubt");
}

async fn a_hand_edited_row_is_noticed() {
    let db = database();
    let store = store(real().client(), &db).await;
    store.create(&[lease("orders", "shard-0"), lease("clicks", "shard-0")]).await.expect("new rows");
    let read = one(&store, "orders").await;
    real().ask(&format!("ALTER TABLE {db}.leases UPDATE sequence_number = '123' WHERE key = 'orders/shard-0'"));
    let late = store.update(&[Versioned { version: read.version, value: read.value.take(&"a".into(), 0) }]).await;
    assert!(matches!(late, Err(StateError::Conflict(_))), "{late:?}");
    let edited = one(&store, "orders").await;
    assert_eq!(edited.value.checkpoint.sequence_text(), "123");
    store
        .update(&[Versioned { version: edited.version, value: edited.value.take(&"a".into(), 0) }])
        .await
        .expect("read again");
}

async fn nonsense_in_a_row_is_named_and_hides_no_other_pipe() {
    let db = database();
    let store = store(real().client(), &db).await;
    store
        .create(&[lease("orders", "shard-0"), lease("orders", "shard-1"), lease("clicks", "shard-0")])
        .await
        .expect("rows");
    for (change, column) in [
        ("sequence_number = 'newest'", "sequence_number"),
        ("sequence_number = 'TRIM_HORIZON', offered_batch = 'b', offered_first = '\\xFF'", "offered_first"),
        ("offered_batch = '', pipe = 'clicks'", "key"),
    ] {
        real().ask(&format!("ALTER TABLE {db}.leases UPDATE {change} WHERE key = 'orders/shard-0'"));
        match store.leases(Some(&"orders".into())).await {
            Err(StateError::Misconfigured(why)) => {
                assert!(why.contains(&format!("column {column} ")) && why.contains("orders/shard-0"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(one(&store, "clicks").await.value, lease("clicks", "shard-0"));
        let all = store.leases(None).await.expect("the others");
        assert_eq!(all.iter().map(|row| row.value.key()).collect::<Vec<_>>(), ["clicks/shard-0", "orders/shard-1"]);
    }
    real().ask(&format!("ALTER TABLE {db}.leases UPDATE pipe = 'orders' WHERE key = 'orders/shard-0'"));
    assert_eq!(store.leases(Some(&"orders".into())).await.expect("corrected").len(), 2);
}

async fn a_hand_deleted_row_stops_the_whole_write() {
    let db = database();
    let store = store(real().client(), &db).await;
    store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1")]).await.expect("new rows");
    let read = store.leases(None).await.expect("leases");
    real().ask(&format!("ALTER TABLE {db}.leases DELETE WHERE key = 'orders/shard-0'"));
    let next: Vec<_> =
        read.iter().map(|row| Versioned { version: row.version, value: row.value.take(&"a".into(), 0) }).collect();
    for rows in [&next[..], &next[..1]] {
        let late = store.update(rows).await;
        assert!(matches!(late, Err(StateError::Conflict(_))), "{late:?}");
    }
    assert_eq!(store.leases(None).await, Ok(read[1..].to_vec()), "nothing was written");
}

async fn the_largest_write_passes_and_a_larger_one_is_refused() {
    let store = store(real().client(), &database()).await;
    let named = |length: usize| -> Vec<Lease> {
        let (pipe, sequence) = ("p".repeat(length), "9".repeat(128));
        let row = |n| Lease {
            checkpoint: Checkpoint::from_columns(&sequence, 0).expect("digits"),
            destination: Destination { view: pipe.clone(), target: pipe.clone() },
            ..lease(&pipe, &format!("shardId-{n:012}"))
        };
        (0..LEASE_ROWS_PER_STATEMENT).map(row).collect()
    };
    // The longest names that still pass, searched for from below so that the limit itself is
    // tested.
    let mut largest = 0;
    for length in (1..=400).rev() {
        match store.create(&named(length)).await {
            Ok(()) => {
                largest = length;
                break;
            }
            Err(StateError::Misconfigured(why)) => assert!(why.contains(&KEEPER_REQUEST_BYTES.to_string()), "{why}"),
            Err(other) => panic!("with names of {length}: {other:?}"),
        }
    }
    assert!((200..400).contains(&largest), "{largest}");
    let mut rows = store.leases(None).await.expect("leases");
    for row in &mut rows {
        row.value.committed_rows += 1;
    }
    store.update(&rows).await.expect("the largest update");
}

async fn existing_tables_need_no_right_to_create() {
    let db = database();
    let url = real().clickhouse.url();
    let as_user = |user: &str, password: &str| KeeperMapStore::new(ClickHouse::new(&url, user, password), &db);
    let refused = |result: Result<(), StateError>, word: &str| match result {
        Err(StateError::Misconfigured(why)) => {
            assert!(why.contains(word) && !why.contains("s3cr3t"), "{word}: {why}");
        }
        other => panic!("{other:?}"),
    };
    refused(as_user("worker", "s3cr3t").setup().await, "CREATE");
    refused(as_user("nobody", "s3cr3t").setup().await, "'nobody'");
    refused(as_user("worker", "wrong").setup().await, "--clickhouse-password");
    store(real().client(), &db).await;
    let worker = as_user("worker", "s3cr3t");
    worker.setup().await.expect("the tables are there");
    worker.create(&[lease("orders", "shard-0")]).await.expect("a new row");
    let row = one(&worker, "orders").await;
    worker.update(&[Versioned { value: row.value.take(&"a".into(), 0), ..row }]).await.expect("the version is right");
    let reader = as_user("reader", "s3cr3t");
    reader.setup().await.expect("the tables are there");
    let read = one(&reader, "orders").await;
    let forbidden = reader.update(&[Versioned { value: read.value.take(&"b".into(), 0), ..read }]).await;
    refused(forbidden, "'reader'");
    refused(as_user("nobody", "s3cr3t").setup().await, "'nobody'");
}

async fn the_account_of_the_containers_has_all_rights_it_needs() {
    let client = ClickHouse::new(&real().clickhouse.url(), "bridge", stack::TEST_PASSWORD);
    let store = store(client, "kinesis").await;
    store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1")]).await.expect("new rows");
    let mut rows = store.leases(None).await.expect("leases");
    for row in &mut rows {
        row.value = row.value.take(&"a".into(), 0);
    }
    store.update(&rows).await.expect("the versions are right");
    let worker = domain::ports::Worker {
        worker_id: "a".into(),
        incarnation: "1".into(),
        address: "127.0.0.1:9020".into(),
        version: "0.1.0".into(),
        heartbeat: 1,
        pipes: std::collections::BTreeMap::new(),
    };
    store.heartbeat(&worker).await.expect("a heartbeat");
    assert_eq!(store.workers().await, Ok(vec![worker]));
}

async fn tables_of_another_version_are_named() {
    let db = database();
    real().ask(&format!("CREATE DATABASE {db}"));
    real().ask(&format!("CREATE TABLE {db}.leases (key String) ENGINE = KeeperMap('/{db}/old') PRIMARY KEY key"));
    let result = KeeperMapStore::new(real().client(), &db).setup().await;
    assert!(matches!(&result, Err(StateError::Misconfigured(why)) if why.contains("another version")), "{result:?}");
}

async fn the_table_of_an_earlier_version_comes_with_the_statements_that_mend_it() {
    let db = database();
    let earlier = |create: String| -> String {
        let new = ["stream_arn ", "stream_created_at ", "view ", "target "];
        let kept = |line: &&str| !new.iter().any(|column| line.trim_start().starts_with(column));
        create.lines().filter(kept).map(|line| format!("{line}\n")).collect()
    };
    for create in sql::state(&db) {
        real().ask(&earlier(create));
    }
    real().ask(&format!(
        "INSERT INTO {db}.leases (key, pipe, stream, shard_id, epoch, sequence_number) VALUES ('p/s', 'p', 'st', 's', 7, '42')"
    ));
    let store = KeeperMapStore::new(real().client(), &db);
    let why = match store.setup().await {
        Err(StateError::Misconfigured(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(why.contains("lacks the column stream_arn, stream_created_at, view, target,"), "{why}");
    let statement = |word: &str| {
        let from = why.find(word).unwrap_or_else(|| panic!("{word}: {why}"));
        why[from..].split([';', '\n']).next().unwrap_or_default().replace(", on every server that has it", "")
    };
    // KeeperMap cannot do it in any other way.
    let refused = real().clickhouse.query(&format!("ALTER TABLE {db}.leases ADD COLUMN stream_arn String"));
    assert!(refused.is_err(), "{refused:?}");
    real().ask(&statement("CREATE TABLE"));
    real().ask(&statement("DROP TABLE"));
    store.setup().await.expect("as sql setup does");
    real().ask(&statement("INSERT INTO"));
    let lease = one(&store, "p").await.value;
    assert_eq!((lease.epoch, lease.checkpoint.sequence_text().as_str()), (7, "42"));
    assert_eq!(lease.identity, domain::lease::Identity::default());
}

async fn a_server_without_keeper_map_is_told_what_to_configure() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, keeper_map) in [("no prefix", false), ("no Keeper", true)] {
        let options = stack::ClickHouseOptions { keeper_map, ..Default::default() };
        let clickhouse =
            stack::ClickHouse::start(engine(), &dir.path().join(name), None, &options).expect("ClickHouse");
        let client = ClickHouse::new(&clickhouse.url(), "default", "");
        match KeeperMapStore::new(client, "kinesis").setup().await {
            Err(StateError::Misconfigured(why)) => {
                assert!(why.contains("<keeper_map_path_prefix>/keeper_map</keeper_map_path_prefix>"), "{name}: {why}");
                assert!(why.contains("--state file:DIR"), "{name}: {why}");
            }
            other => panic!("{name}: {other:?}"),
        }
        clickhouse.kill();
        let client = ClickHouse::new(&clickhouse.url(), "default", "");
        match KeeperMapStore::new(client, "kinesis").setup().await {
            Err(StateError::Unavailable(why)) => assert!(why.contains("connection refused"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let unknown = ClickHouse::new("http://no-such-host.invalid:8123", "default", "");
    match KeeperMapStore::new(unknown, "kinesis").setup().await {
        Err(StateError::Unavailable(why)) => assert!(why.contains("cannot be resolved"), "{why}"),
        other => panic!("{other:?}"),
    }
}
