//! Several views of one server pull one pipe into one table: each is given shards of its own, as if
//! it were a worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::clickhouse::{FakeServer, VIEW};
use super::names::{PIPE, STREAM};
use super::rules::{a_moment, calm};
use super::world::{Ending, LEASE, Process, World};
use bridge::pipe::{Confirm, PullOptions};
use domain::error::Error;
use domain::limits::{BALANCE_PATIENCE, PIPE_IDLE_BUFFERS};
use domain::names::ShardId;
use domain::ports::StateError;

const SECOND: &str = "orders_pipe_2";

fn by(view: &str, options: &PullOptions) -> PullOptions {
    let confirm = Confirm::View { database: "default".into(), view: view.into() };
    PullOptions { confirm, ..options.clone() }
}

/// How many unfinished leases each owner has.
async fn held(world: &World) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for lease in world.leases().await.into_iter().map(|row| row.value).filter(|lease| !lease.finished()) {
        *held.entry(lease.owner.to_string()).or_default() += 1;
    }
    held
}

fn owners(held: &[(&str, usize)]) -> BTreeMap<String, usize> {
    held.iter().map(|(owner, leases)| ((*owner).to_owned(), *leases)).collect()
}

/// Both views refresh until each has half of the leases.
async fn share(world: &World, process: &Process, views: [(&Arc<FakeServer>, &PullOptions); 2]) {
    let half = world.leases().await.len().max(world.kinesis.open_shards().len()) / 2;
    for _ in 0..40 {
        for (view, options) in views {
            let _ = world.refresh(process, view, options, Ending::Success).await;
        }
        a_moment().await;
        if held(world).await == owners(&[("worker", half), ("worker/2", half)]) {
            return;
        }
    }
    panic!("{:?}", held(world).await);
}

/// Two views of one server, each with two shards.
struct Two {
    world: World,
    process: Process,
    server: Arc<FakeServer>,
    first: PullOptions,
    view: Arc<FakeServer>,
    second: PullOptions,
}

impl Two {
    async fn sharing() -> Two {
        let (world, server, process, first) = calm(4);
        let (view, second) = (server.another_view(SECOND), by(SECOND, &first));
        share(&world, &process, [(&server, &first), (&view, &second)]).await;
        Two { world, process, server, first, view, second }
    }
}

fn owned_by(world: &World, leases: &[domain::ports::Versioned<domain::lease::Lease>], owner: &str) -> ShardId {
    let open = world.kinesis.open_shards();
    let found = leases.iter().find(|row| row.value.owner == owner && open.contains(&row.value.shard_id));
    found.unwrap().value.shard_id.clone()
}

#[tokio::test(start_paused = true)]
async fn a_view_is_a_worker() {
    let Two { world, process, server, first, view, second } = Two::sharing().await;
    let leases = world.leases().await;
    let (one, other) = (owned_by(&world, &leases, "worker"), owned_by(&world, &leases, "worker/2"));
    world.kinesis.put(&one, 5);
    world.kinesis.put(&other, 5);
    sleep(Duration::from_secs(2)).await;
    let failed = world.refresh(&process, &server, &first, Ending::FailedBefore).await.unwrap();
    let passed = world.refresh(&process, &view, &second, Ending::Success).await.unwrap();
    assert!(failed.is_some() && passed.is_some() && failed != passed, "{failed:?} {passed:?}");
    a_moment().await;
    assert_eq!(world.lease(&one).await.offer.map(|offer| offer.batch), failed);
    assert_eq!((world.lease(&other).await.offer, world.lease(&other).await.committed_rows), (None, 5));
    // The rows of each are reported with their own errors.
    let snapshots = process.pipes.snapshots();
    let errors: Vec<bool> = snapshots.values().map(|snapshot| snapshot.last_error.is_empty()).collect();
    assert_eq!(errors, [false, true]);
    assert_eq!(world.refresh(&process, &server, &first, Ending::Success).await.unwrap(), failed);
    a_moment().await;
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_dropped_view_go_to_the_others() {
    let Two { world, process, server, first, view, second } = Two::sharing().await;
    let left = owned_by(&world, &world.leases().await, "worker/2");
    world.kinesis.put(&left, 5);
    sleep(Duration::from_secs(2)).await;
    // Its last refresh inserts, and nobody learns it.
    let open = world.refresh(&process, &view, &second, Ending::ServerCrash { inserted: true }).await.unwrap();
    server.restart();
    view.drop_view(false);
    let until = PIPE_IDLE_BUFFERS + 2 * LEASE;
    let began = tokio::time::Instant::now();
    while world.lease(&left).await.offer.is_some() {
        assert!(began.elapsed() < until, "{open:?} is open: {:?}", held(&world).await);
        let _ = world.refresh(&process, &server, &first, Ending::Success).await;
        a_moment().await;
    }
    assert!(world.drain(&process, &server, &first).await);
    assert_eq!(held(&world).await, owners(&[("worker", 4)]));
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_view_that_takes_the_place_of_another_goes_on_at_once() {
    for stopped in [false, true] {
        let (world, server, process, first) = calm(2);
        let (view, second) = (server.another_view(SECOND), by(SECOND, &first));
        let shards = world.kinesis.open_shards();
        shards.iter().for_each(|shard| world.kinesis.put(shard, 5));
        let open = world.refresh(&process, &server, &first, Ending::FailedAfter).await.unwrap();
        if stopped {
            server.stop_view(true)
        } else {
            server.drop_view(false)
        }
        assert_eq!(world.refresh(&process, &view, &second, Ending::Success).await.unwrap(), open);
        a_moment().await;
        assert_eq!(held(&world).await, owners(&[("worker", 2)]), "stopped: {stopped}");
        // A stopped view may start again, and pulls beside the other one then.
        if stopped {
            server.stop_view(false);
            share(&world, &process, [(&view, &second), (&server, &first)]).await;
        }
        world.judge().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_of_several_views_moves_to_another_table_at_once() {
    let Two { world, process, server, first, view, second } = Two::sharing().await;
    world.kinesis.open_shards().iter().for_each(|shard| world.kinesis.put(shard, 5));
    sleep(Duration::from_secs(2)).await;
    assert!(world.refresh(&process, &view, &second, Ending::FailedBefore).await.unwrap().is_some());
    server.drop_view(false);
    view.drop_view(false);
    let third = server.another_view("others_pipe");
    third.retarget("default.others");
    let options = by("others_pipe", &first);
    let began = tokio::time::Instant::now();
    assert!(world.drain(&process, &third, &options).await, "{:?}", world.leases().await);
    assert!(began.elapsed() < PIPE_IDLE_BUFFERS, "{:?}", began.elapsed());
    assert!(world.leases().await.iter().all(|row| row.value.destination.target == "default.others"));
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_seats_of_a_process_that_died_are_taken_over() {
    let Two { world, process, server, first, view, second } = Two::sharing().await;
    world.kinesis.open_shards().iter().for_each(|shard| world.kinesis.put(shard, 5));
    sleep(Duration::from_secs(2)).await;
    for (view, options) in [(&server, &first), (&view, &second)] {
        assert!(world.refresh(&process, view, options, Ending::FailedAfter).await.unwrap().is_some());
    }
    // The next process of that name has one view, which is not the first.
    drop(process);
    server.drop_view(false);
    let process = world.process("worker", &server, super::rules::MEMORY);
    assert!(world.drain(&process, &view, &second).await, "{:?}", world.leases().await);
    assert_eq!(held(&world).await, owners(&[("worker", 4)]));
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn leases_that_could_not_be_released_are_taken_by_others() {
    let (world, server, process, options) = calm(2);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_none());
    // The view is dropped, and the rows cannot be written when its leases are due.
    process.store.fault(Some(StateError::Unavailable("away".into())), false);
    let far = world.server();
    let other = world.process("another", &far, super::rules::MEMORY);
    let _ = world.refresh(&other, &far, &options, Ending::Success).await;
    sleep(PIPE_IDLE_BUFFERS + Duration::from_secs(5)).await;
    process.store.fault(None, false);
    assert_eq!(held(&world).await, owners(&[("worker", 2)]), "it has released nothing");
    world.kinesis.open_shards().iter().for_each(|shard| world.kinesis.put(shard, 5));
    assert!(world.drain(&other, &far, &options).await, "{:?}", world.leases().await);
    assert_eq!(held(&world).await, owners(&[("another", 2)]));
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_refused_keeps_no_shards() {
    let Two { world, process, server, first, view, .. } = Two::sharing().await;
    view.drop_view(false);
    let into_another = by(super::clickhouse::SECOND_VIEW, &first);
    let began = tokio::time::Instant::now();
    while held(&world).await != owners(&[("worker", 4)]) {
        assert!(began.elapsed() < PIPE_IDLE_BUFFERS + 2 * LEASE, "{:?}", held(&world).await);
        let refused = process.pipes.pull(&PIPE, &STREAM, into_another.clone()).await;
        assert!(refused.is_err());
        let _ = world.refresh(&process, &server, &first, Ending::Success).await;
        a_moment().await;
    }
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_refused_takes_no_seat() {
    let (world, server, process, options) = calm(2);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_none());
    server.stop_view(true);
    // It pulls into another table.
    let into_another = by(super::clickhouse::SECOND_VIEW, &options);
    let refused = process.pipes.pull(&PIPE, &STREAM, into_another).await.err();
    assert!(matches!(&refused, Some(Error::BadRequest(why)) if why.contains("default.another")), "{refused:?}");
    let nobody = process.pipes.pull(&PIPE, &STREAM, by(VIEW, &options)).await.err();
    assert!(matches!(&nobody, Some(Error::BadRequest(why)) if why.contains("not refreshing")), "{nobody:?}");
    server.stop_view(false);
    world.kinesis.open_shards().iter().for_each(|shard| world.kinesis.put(shard, 5));
    assert!(world.drain(&process, &server, &options).await);
    assert_eq!(held(&world).await, owners(&[("worker", 2)]));
    world.judge().unwrap();
}

/// Which worker has which shard since when.
async fn hands(world: &World) -> Vec<(ShardId, u64)> {
    world.leases().await.into_iter().map(|row| (row.value.shard_id, row.value.epoch)).collect()
}

/// What moves is read again. A view that has committed its batch while the other one is about to is
/// not the faster one, and both have rates from nothing at first.
#[tokio::test(start_paused = true)]
async fn shards_move_only_between_views_that_stay_uneven() {
    let Two { world, process, server, first, view, second } = Two::sharing().await;
    let put = |shards: &[ShardId], records: usize| {
        for shard in shards {
            (0..records).for_each(|_| world.kinesis.put_payload(shard, &vec![b'x'; 512 << 10], 1));
        }
    };
    let (leases, before) = (world.leases().await, hands(&world).await);
    let of_first: Vec<ShardId> =
        leases.iter().filter(|row| row.value.owner == "worker").map(|row| row.value.shard_id.clone()).collect();
    let waits = async |time: Duration| {
        let began = tokio::time::Instant::now();
        while began.elapsed() < time {
            for (view, options) in [(&server, &first), (&view, &second)] {
                world.refresh(&process, view, options, Ending::Success).await.unwrap();
            }
        }
    };
    put(&world.kinesis.open_shards(), 4);
    sleep(Duration::from_secs(2)).await;
    assert!(world.refresh(&process, &server, &first, Ending::Success).await.unwrap().is_some());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(hands(&world).await, before, "after one commit");
    assert!(world.refresh(&process, &view, &second, Ending::Success).await.unwrap().is_some());
    waits(2 * BALANCE_PATIENCE).await;
    assert_eq!(hands(&world).await, before, "both have committed as much");
    put(&of_first, 16);
    sleep(Duration::from_secs(2)).await;
    assert!(world.refresh(&process, &server, &first, Ending::Success).await.unwrap().is_some());
    waits(BALANCE_PATIENCE / 2).await;
    assert_eq!(hands(&world).await, before, "it may be a moment's difference");
    waits(BALANCE_PATIENCE).await;
    assert_eq!(held(&world).await, owners(&[("worker", 1), ("worker/2", 3)]));
    world.judge().unwrap();
}
