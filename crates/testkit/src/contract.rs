//! The contract of every state store. Run against the memory and file stores as unit tests, and
//! against KeeperMap on real components.

use std::sync::Arc;

use domain::error::Error;
use domain::lease::{Destination, Holder, Identity, Lease, Offer, Seen};
use domain::limits::LEASE_ROWS_PER_STATEMENT;
use domain::names::ShardId;
use domain::ports::{StateError, StateStore, Versioned, Worker};
use domain::sequence::{Checkpoint, RowPosition, SequenceNumber};
use domain::shape::BatchShape;
use domain::unpacking::{Split, Unpacking};

/// Runs every rule on a store of its own.
pub async fn state_store_contract<S: StateStore + 'static>(mut make: impl AsyncFnMut() -> S) {
    create_makes_rows_at_version_zero(&make().await).await;
    create_is_all_or_nothing(&make().await).await;
    update_replaces_every_column(&make().await).await;
    update_is_all_or_nothing(&make().await).await;
    a_stale_version_is_a_conflict(&make().await).await;
    a_missing_row_is_a_conflict(&make().await).await;
    delete_removes_what_is_unchanged(&make().await).await;
    stale_epochs_are_fenced(&make().await).await;
    one_of_eight_writers_wins_each_version(Arc::new(make().await)).await;
    one_of_eight_creators_wins(Arc::new(make().await)).await;
    any_text_is_kept(&make().await).await;
    a_thousand_rows_are_one_write(&make().await).await;
    too_many_rows_and_doubles_are_refused(&make().await).await;
    leases_are_told_apart_by_pipe(&make().await).await;
    heartbeats_replace_the_workers_row(&make().await).await;
}

pub fn lease(pipe: &str, shard: &str) -> Lease {
    Lease::new(&pipe.into(), &"stream".into(), &shard.into(), vec![], Checkpoint::TrimHorizon, 1_763_720_000_000)
}

pub fn offer(batch: &str, first: &str, through: &str) -> Offer {
    Offer {
        batch: batch.into(),
        shape: BatchShape::of_column("ArrowStream"),
        shards: 2,
        first: RowPosition::new(number(first), 5),
        through: RowPosition::new(number(through), 7),
        rows: 500_000,
    }
}

pub fn number(digits: &str) -> SequenceNumber {
    SequenceNumber::parse(digits).expect("digits")
}

/// The only lease of a pipe.
pub async fn one(store: &impl StateStore, pipe: &str) -> Versioned<Lease> {
    let mut leases = store.leases(Some(&pipe.into())).await.expect("leases");
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases.remove(0)
}

fn at(version: i32, value: Lease) -> Versioned<Lease> {
    Versioned { version, value }
}

fn assert_conflict(result: Result<(), StateError>) {
    assert!(matches!(result, Err(StateError::Conflict(_))), "{result:?}");
}

async fn create_makes_rows_at_version_zero(store: &impl StateStore) {
    assert_eq!(store.leases(None).await, Ok(vec![]));
    store.create(&[]).await.expect("nothing to do");
    store.update(&[]).await.expect("nothing to do");
    let leases = [lease("orders", "shard-1"), lease("orders", "shard-0")];
    store.create(&leases).await.expect("new rows");
    let [one, zero] = leases;
    assert_eq!(store.leases(Some(&"orders".into())).await, Ok(vec![at(0, zero), at(0, one)]), "ordered by key");
}

async fn create_is_all_or_nothing(store: &impl StateStore) {
    store.create(&[lease("orders", "shard-1")]).await.expect("new row");
    assert_conflict(store.create(&[lease("orders", "shard-1")]).await);
    assert_conflict(
        store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1"), lease("orders", "shard-2")]).await,
    );
    one(store, "orders").await;
}

async fn update_replaces_every_column(store: &impl StateStore) {
    store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1")]).await.expect("new rows");
    let long = "9".repeat(56);
    // All fields, so that none can be forgotten.
    let full = Lease {
        pipe: "orders".into(),
        stream: "other".into(),
        identity: Identity { arn: "arn:aws:kinesis:eu-west-1:1:stream/other".into(), created_ms: 1_763_719_999_999 },
        shard_id: "shard-0".into(),
        parents: vec!["shard-8".into(), "shard-9".into()],
        destination: Destination { view: "default.orders_pipe".into(), target: "default.orders".into() },
        owner: "worker-1".into(),
        epoch: u64::MAX,
        checkpoint: Checkpoint::After(RowPosition::new(
            number("49590338271490256608559692538361571095921575989136588898"),
            u32::MAX,
        )),
        unpacking: Some(Unpacking { split: Split::Lines, ..Unpacking::default() }),
        began: Some(RowPosition::new(number("4959"), u32::MAX)),
        offer: Some(Offer {
            rows: u64::MAX,
            shards: u32::MAX,
            first: RowPosition::new(number("1"), u32::MAX),
            through: RowPosition::new(number(&long), u32::MAX),
            ..offer("b1", "1", &long)
        }),
        committed_rows: u64::MAX,
        bytes_per_second: u64::MAX,
        last_commit_ms: 1_763_720_000_001,
        since_ms: 1_763_720_000_003,
        caught_up_ms: 10_413_791_999_999,
        arrived_ms: 1_763_720_000_004,
        updated_ms: 0,
    };
    let timed = Lease { checkpoint: Checkpoint::AtTimestamp(1_763_720_000_002), ..lease("orders", "shard-1") };
    let both = vec![at(0, full.clone()), at(0, timed.clone())];
    store.update(&both).await.expect("rows of different content");
    assert_eq!(store.leases(None).await, Ok(vec![at(1, full.clone()), at(1, timed.clone())]));
    let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..timed };
    store.update(&[at(1, ended.clone())]).await.expect("one row");
    let emptied = lease("orders", "shard-0");
    store.update(&[at(1, emptied.clone()), at(2, ended.clone())]).await.expect("rows of different versions");
    assert_eq!(store.leases(None).await, Ok(vec![at(2, emptied), at(3, ended)]));
}

async fn update_is_all_or_nothing(store: &impl StateStore) {
    let rows = [lease("orders", "shard-0"), lease("orders", "shard-1"), lease("orders", "shard-2")];
    store.create(&rows).await.expect("new rows");
    let [zero, one, two] = rows.map(|row| row.take(&"worker".into(), 1_763_720_001_000));
    store.update(&[at(0, one.clone())]).await.expect("the version is right");
    assert_conflict(store.update(&[at(0, zero.clone()), at(0, one), at(0, two.clone())]).await);
    assert_conflict(store.update(&[at(0, zero), at(0, lease("orders", "shard-9")), at(0, two)]).await);
    let versions: Vec<i32> = store.leases(None).await.expect("leases").iter().map(|row| row.version).collect();
    assert_eq!(versions, [0, 1, 0]);
}

async fn a_stale_version_is_a_conflict(store: &impl StateStore) {
    store.create(&[lease("orders", "shard-0")]).await.expect("new row");
    let taken = lease("orders", "shard-0").take(&"a".into(), 0);
    store.update(&[at(0, taken.clone())]).await.expect("the version is right");
    assert_conflict(store.update(&[at(0, taken.take(&"b".into(), 0))]).await);
    assert_conflict(store.update(&[at(2, taken.take(&"b".into(), 0))]).await);
    assert_eq!(one(store, "orders").await, at(1, taken));
}

async fn a_missing_row_is_a_conflict(store: &impl StateStore) {
    assert_conflict(store.update(&[at(0, lease("orders", "shard-0"))]).await);
    assert_eq!(store.leases(None).await, Ok(vec![]));
}

async fn delete_removes_what_is_unchanged(store: &impl StateStore) {
    store.delete(&[]).await.expect("nothing to do");
    let rows = [lease("orders", "shard-0"), lease("orders", "shard-1"), lease("other", "shard-0")];
    store.create(&rows).await.expect("new rows");
    let [zero, one, other] = rows;
    store.update(&[at(0, one.clone())]).await.expect("the version is right");
    assert_conflict(store.delete(&[at(0, zero.clone()), at(0, one.clone())]).await);
    assert_eq!(store.leases(Some(&"orders".into())).await.expect("leases").len(), 2, "none or all");
    let both = [at(0, zero.clone()), at(1, one.clone())];
    store.delete(&both).await.expect("the versions are right");
    assert_eq!(store.leases(None).await, Ok(vec![at(0, other.clone())]));
    // A missing row is not an error, not even if only some are missing; and a new row of that name
    // starts over.
    store.delete(&both).await.expect("gone already");
    store.create(std::slice::from_ref(&one)).await.expect("a new row");
    assert_conflict(store.delete(&[at(0, zero.clone()), at(1, one.clone())]).await);
    store.delete(&[at(0, zero), at(0, one)]).await.expect("the one that is there");
    assert_eq!(store.leases(None).await, Ok(vec![at(0, other)]));
    let many: Vec<Lease> = (0..LEASE_ROWS_PER_STATEMENT).map(|n| lease("many", &format!("shardId-{n:012}"))).collect();
    store.create(&many).await.expect("new rows");
    store.delete(&many.into_iter().map(|row| at(0, row)).collect::<Vec<_>>()).await.expect("one write");
    assert_eq!(store.leases(Some(&"many".into())).await, Ok(vec![]));
}

async fn stale_epochs_are_fenced(store: &impl StateStore) {
    store.create(&[lease("orders", "shard-0")]).await.expect("new row");
    let holder = Holder { owner: "a".into(), epoch: 1 };
    let taken = lease("orders", "shard-0").take(&"a".into(), 1);
    let offered = taken.offer(&holder, offer("b1", "10", "20"), 2).expect("the range goes forward");
    store.update(&[at(0, offered.clone())]).await.expect("the version is right");
    let stolen = offered.take(&"b".into(), 3);
    store.update(&[at(1, stolen.clone())]).await.expect("the version is right");
    let ms = 1_763_720_000_005;
    let seen = Seen { tip_ms: Some(ms), arrived_ms: ms - 3, listed_ms: ms - 2, now_ms: ms };
    // The old holder commits what it remembers: the row's version stops it.
    let committed = offered.commit(&holder, &"b1".into(), seen, 4).expect("still held, as far as it knows");
    assert_conflict(store.update(&[at(1, committed)]).await);
    // And what it reads afresh: the epoch stops it.
    let now = one(store, "orders").await;
    assert_eq!(now, at(2, stolen));
    assert!(matches!(now.value.commit(&holder, &"b1".into(), seen, 5), Err(Error::Fenced(_))));
    // The new one settles the batch that it found.
    let heir = Holder { owner: "b".into(), epoch: 2 };
    let settled = now.value.commit(&heir, &"b1".into(), seen, 1_763_720_000_006).expect("held");
    store.update(&[at(now.version, settled.clone())]).await.expect("the version is right");
    assert_eq!(one(store, "orders").await, at(3, settled));
}

async fn one_of_eight_writers_wins_each_version<S: StateStore + 'static>(store: Arc<S>) {
    const WRITERS: usize = 8;
    const WINS: u64 = 24;
    store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1")]).await.expect("new rows");
    let writers: Vec<_> = (0..WRITERS)
        .map(|me| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut won = 0;
                loop {
                    let read = store.leases(Some(&"orders".into())).await.expect("leases");
                    if read[0].value.epoch >= WINS {
                        return won;
                    }
                    let owner = format!("worker-{me}").into();
                    let next: Vec<_> = read.into_iter().map(|row| at(row.version, row.value.take(&owner, 0))).collect();
                    match store.update(&next).await {
                        Ok(()) => won += 1,
                        Err(StateError::Conflict(_)) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let mut won = 0;
    for writer in writers {
        won += writer.await.expect("a writer");
    }
    let rows = store.leases(None).await.expect("leases");
    let [zero, one] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(zero.value.epoch, won, "every epoch has one winner");
    assert_eq!((zero.value.epoch, &zero.value.owner), (one.value.epoch, &one.value.owner), "both rows or none");
    assert_eq!((zero.version as u64, one.version as u64), (won, won));
}

async fn one_of_eight_creators_wins<S: StateStore + 'static>(store: Arc<S>) {
    let creators: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create(&[lease("orders", "shard-0"), lease("orders", "shard-1")]).await })
        })
        .collect();
    let mut won = 0;
    for creator in creators {
        match creator.await.expect("a creator") {
            Ok(()) => won += 1,
            refused => assert_conflict(refused),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(store.leases(None).await.expect("leases").len(), 2);
}

async fn any_text_is_kept(store: &impl StateStore) {
    let texts = [
        "it's",
        r"back\slash\'",
        "line\nbreak\r\ttab",
        "\0\u{1}\u{7f}",
        "ünï€😀\u{2028}",
        "`{a:String}` ?",
        "''",
        r"\",
        "/* -- ;\n",
    ];
    let rows: Vec<Lease> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| Lease {
            owner: (*text).into(),
            parents: vec![(*text).into(), ShardId::default()],
            ..lease("text", &format!("{n} {text}"))
        })
        .collect();
    store.create(&rows).await.expect("new rows");
    let mut read = store.leases(Some(&"text".into())).await.expect("leases");
    assert_eq!(read.iter().map(|row| row.value.clone()).collect::<Vec<_>>(), rows);
    for row in &mut read {
        // All distinct, all changed.
        row.value.stream = row.value.owner.as_str().into();
        row.value.owner = format!("{}!", row.value.owner).into();
        row.value.parents.rotate_left(1);
    }
    store.update(&read).await.expect("the versions are right");
    for row in &mut read {
        row.version += 1;
    }
    assert_eq!(store.leases(None).await, Ok(read));
}

async fn a_thousand_rows_are_one_write(store: &impl StateStore) {
    let sequence = "49590338271490256608559692538361571095921575989136588898";
    let rows: Vec<Lease> = (0..LEASE_ROWS_PER_STATEMENT)
        .map(|n| Lease {
            checkpoint: Checkpoint::After(RowPosition::new(number(sequence), 0)),
            parents: vec![format!("shardId-{:012}", n / 2).into()],
            ..lease("a-pipe-of-many-shards", &format!("shardId-{n:012}"))
        })
        .collect();
    store.create(&rows).await.expect("new rows");
    let holder = Holder { owner: "worker-1.example.com:9020".into(), epoch: 1 };
    let next: Vec<_> = rows
        .iter()
        .zip(1u64..)
        .map(|(row, n)| {
            let (first, through) = (format!("5{sequence}{n:04}"), format!("6{sequence}{n:04}"));
            let through = RowPosition::new(number(&through), n as u32);
            let offer = Offer { rows: n, through, ..offer("0123456789abcdef", &first, "6") };
            at(0, row.take(&holder.owner, 1).offer(&holder, offer, 1_763_720_000_000).expect("the range goes forward"))
        })
        .collect();
    store.update(&next).await.expect("the versions are right");
    let read = store.leases(Some(&"a-pipe-of-many-shards".into())).await.expect("leases");
    assert!(read == next.into_iter().map(|row| at(1, row.value)).collect::<Vec<_>>());
}

async fn too_many_rows_and_doubles_are_refused(store: &impl StateStore) {
    let rows: Vec<Lease> = (0..=LEASE_ROWS_PER_STATEMENT).map(|n| lease("orders", &n.to_string())).collect();
    assert!(matches!(store.create(&rows).await, Err(StateError::Misconfigured(_))));
    let double = [lease("orders", "shard-0"), lease("orders", "shard-0")];
    assert!(matches!(store.create(&double).await, Err(StateError::Misconfigured(_))));
    assert!(matches!(store.update(&double.map(|row| at(0, row))).await, Err(StateError::Misconfigured(_))));
    assert_eq!(store.leases(None).await, Ok(vec![]));
}

async fn leases_are_told_apart_by_pipe(store: &impl StateStore) {
    store.create(&[lease("a", "shard-0"), lease("a'b", "shard-0"), lease("ab", "shard-0")]).await.expect("new rows");
    for pipe in ["a", "ab", "a'b"] {
        assert_eq!(one(store, pipe).await.value.pipe, pipe);
    }
    assert_eq!(store.leases(Some(&"b".into())).await, Ok(vec![]));
    assert_eq!(store.leases(None).await.expect("leases").len(), 3);
}

async fn heartbeats_replace_the_workers_row(store: &impl StateStore) {
    let worker = |id: &str, heartbeat| Worker {
        worker_id: id.into(),
        incarnation: "it's \\ one".into(),
        address: "127.0.0.1:9020".into(),
        version: "0.1.0".into(),
        heartbeat,
        pipes: (0..heartbeat.min(2) - 1).map(|n| (format!("it's \\ pipe {n}").into(), heartbeat)).collect(),
    };
    assert_eq!(store.workers().await, Ok(vec![]));
    for (id, count) in [("b", 1), ("a", 1), ("b", 2), ("b", u64::MAX)] {
        store.heartbeat(&worker(id, count)).await.expect("a heartbeat");
    }
    assert_eq!(store.workers().await, Ok(vec![worker("a", 1), worker("b", u64::MAX)]));
}
