//! Processes that pause, lose their leases to others meanwhile, and resume.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::names::{PIPE, STREAM};
use super::rules::{MEMORY, a_moment, calm};
use super::world::{Ending, LEASE};
use bridge::pipe::PullOptions;
use domain::limits::BEATS_PER_LEASE;
use domain::ports::{StateStore, Worker};

/// The batch of a paused process is served by another one: the process sends neither the end of the
/// body nor the batch again.
#[tokio::test(start_paused = true)]
async fn a_zombie_serves_nothing() {
    let (world, server, first, options) = calm(1);
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 5);
    server.begin();
    let served = first.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
    first.store.mute(true);
    sleep(LEASE / 2).await;
    let other_server = world.server();
    let second = world.process("another", &other_server, MEMORY);
    sleep(2 * LEASE).await;
    let _ = world.refresh(&second, &other_server, &options, Ending::FailedBefore).await;
    assert_eq!(world.lease(&shard).await.owner, "another");
    assert!(!served.deliver(), "the end of a body");
    server.end(Err("the connection broke".into()));
    // While its heartbeats do not arrive, and once they do.
    for muted in [true, false] {
        first.store.mute(muted);
        sleep(LEASE).await;
        let pulled = world.refresh(&first, &server, &options, Ending::FailedBefore).await;
        assert!(!matches!(pulled, Ok(Some(_))), "{pulled:?}");
    }
    assert_eq!(world.lease(&shard).await.owner, "another");
    assert!(world.drain(&second, &other_server, &options).await);
    world.judge().unwrap();
}

/// A process whose heartbeats do not arrive refuses to serve, and says what they fail with.
#[tokio::test(start_paused = true)]
async fn a_lapsed_heartbeat_names_its_cause() {
    let (world, server, process, options) = calm(1);
    world.kinesis.put(&world.kinesis.open_shards().remove(0), 5);
    world.refresh(&process, &server, &options, Ending::FailedBefore).await.unwrap();
    process.store.mute(true);
    sleep(2 * LEASE).await;
    let refused = world.refresh(&process, &server, &options, Ending::Success).await.unwrap_err().to_string();
    assert!(refused.contains("the heartbeat of worker 'worker'"), "{refused}");
    assert!(refused.contains("(the heartbeat got lost)"), "{refused}");
    process.store.mute(false);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

/// A process pauses just before a heartbeat, which leaves with a time from before the pause: by that
/// time it has been heard in time, and yet another one has taken over.
#[tokio::test(start_paused = true)]
async fn a_zombie_whose_heartbeat_waited_for_it_serves_nothing() {
    let (world, server, first, options) = calm(1);
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 5);
    server.begin();
    let served = first.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
    let batch = served.batch.as_ref().map(|batch| batch.id.clone());
    let other_server = world.server();
    let second = world.process("another", &other_server, MEMORY);
    assert_eq!(world.refresh(&second, &other_server, &options, Ending::Success).await.unwrap(), None);
    let workers = async || world.rows.held.workers().await.unwrap();
    let beats = async || workers().await.into_iter().find(|w| w.worker_id == "worker").map(|w| w.heartbeat);
    let before = beats().await;
    while beats().await == before {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(LEASE / BEATS_PER_LEASE - Duration::from_millis(100)).await;
    let (arrived, paused) = (beats().await, Instant::now());
    first.gate.pause();
    // The other one looks often, and notices the death as soon as it may.
    let members = &second.pipes.deps().members;
    while !members.is_dead("worker") {
        sleep(Duration::from_millis(50)).await;
        members.observe(workers().await);
    }
    let at_once = PullOptions { wait: Duration::ZERO, ..options.clone() };
    while world.refresh(&second, &other_server, &at_once, Ending::FailedBefore).await.unwrap() != batch {
        assert!(paused.elapsed() < LEASE, "by the time that the heartbeat has, nobody may have taken over yet");
    }
    first.gate.resume();
    a_moment().await;
    assert!(beats().await > arrived && paused.elapsed() < LEASE);
    assert!(!served.deliver(), "the end of a body");
    server.end(Err("the connection broke".into()));
    assert!(world.drain(&second, &other_server, &options).await);
    world.judge().unwrap();
}

/// The batch of a paused process was committed by another one, which released the lease. The
/// process sees the free lease before it is pulled again, and its batch must not come back with it.
#[tokio::test(start_paused = true)]
async fn a_zombie_takes_nothing_of_its_open_batch_back() {
    let (world, server, first, options) = calm(1);
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 5);
    let batch = world.refresh(&first, &server, &options, Ending::FailedBefore).await.unwrap();
    let other_server = world.server();
    let second = world.process("another", &other_server, MEMORY);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.refresh(&second, &other_server, &options, Ending::Success).await.unwrap(), None);
    // The first one has seen the other before it pauses.
    sleep(LEASE / 2).await;
    first.store.mute(true);
    sleep(2 * LEASE).await;
    assert_eq!(world.refresh(&second, &other_server, &options, Ending::Success).await.unwrap(), batch);
    a_moment().await;
    assert!(world.settled().await);
    second.leave().await;
    assert_eq!(world.lease(&shard).await.owner, "");
    // It resumes, sees that the other one is gone, and distributes what is free.
    first.store.mute(false);
    sleep(LEASE / 2).await;
    let pulled = world.refresh(&first, &server, &options, Ending::FailedAfter).await;
    assert!(!matches!(pulled, Ok(Some(_))), "{pulled:?}");
    // It continues with new records.
    world.kinesis.put(&shard, 3);
    assert!(world.drain(&first, &server, &options).await);
    for row in world.kinesis.all() {
        assert_eq!(world.ledger.times(&row), (1, 1), "{row:?}");
    }
    world.judge().unwrap();
}

/// Another process takes the lease of a paused one, and its write is in flight for so long that the
/// paused process resumes, checks the rows and finds nothing changed. Then only one of them may
/// have the batch.
#[tokio::test(start_paused = true)]
async fn a_take_that_was_decided_before_a_zombie_looked_again_fails() {
    let (world, server, first, options) = calm(1);
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 5);
    let batch = world.refresh(&first, &server, &options, Ending::FailedBefore).await.unwrap();
    first.store.mute(true);
    let other_server = world.server();
    let second = world.process("another", &other_server, MEMORY);
    sleep(2 * LEASE).await;
    second.store.hold(true);
    other_server.begin();
    let late = second.pipes.pull(&PIPE, &STREAM, options.clone());
    let back = async {
        a_moment().await;
        assert_eq!(world.lease(&shard).await.owner, "worker", "the take is on its way");
        first.store.mute(false);
        sleep(LEASE / 2).await;
        server.begin();
        let served = first.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
        assert_eq!(served.batch.as_ref().map(|b| b.id.clone()), batch, "nothing has changed");
        second.store.hold(false);
        a_moment().await;
        assert_eq!(world.lease(&shard).await.owner, "worker", "the take is too late");
        world.rest_of_refresh(&first, &server, &options, Ending::Success, Ok(served)).await.unwrap();
    };
    let (late, ()) = tokio::join!(late, back);
    let late = late.map(|served| served.batch.is_some());
    assert!(!matches!(late, Ok(true)), "both are given the batch");
    other_server.end(Err("nothing was read".into()));
    a_moment().await;
    assert!(world.settled().await);
    world.judge().unwrap();
}

/// A live worker's row may have been written late by the process before it, which announced less:
/// what it then seems to hold without a seat is left to it for the lease duration.
#[tokio::test(start_paused = true)]
async fn a_lease_at_a_seat_that_was_not_announced_is_not_taken_at_once() {
    let (world, server, process, options) = calm(2);
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 5);
    assert!(world.drain(&process, &server, &options).await);
    let mut late = Worker {
        worker_id: "late".into(),
        incarnation: "0-late".into(),
        address: String::new(),
        version: String::new(),
        heartbeat: 0,
        pipes: Default::default(),
    };
    let mut beats = async |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            late.heartbeat += 1;
            world.rows.held.heartbeat(&late).await.unwrap();
            let _ = world.refresh(&process, &server, &options, Ending::Success).await;
            sleep(LEASE / BEATS_PER_LEASE).await;
        }
    };
    beats(2 * LEASE).await;
    world.edit(&shard, |lease| (lease.owner, lease.epoch) = ("late".into(), lease.epoch + 1)).await;
    world.kinesis.put(&shard, 5);
    beats(LEASE / 2).await;
    assert_eq!(world.lease(&shard).await.owner, "late");
    beats(2 * LEASE).await;
    assert_eq!(world.lease(&shard).await.owner, "worker", "it never announced the seat");
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}
