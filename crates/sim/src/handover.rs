//! One test for each rule about crashes, takeovers, lineage and retention, in a world where nothing
//! happens except what the test says.

use std::time::Duration;

use tokio::time::{advance, sleep};

use super::kinesis::RETENTION_HOURS;
use super::names::{PIPE, STREAM};
use super::rules::{MEMORY, a_moment, calm};
use super::world::{Ending, LEASE, WIDE, World, options};
use bridge::pipe::PullOptions;
use bridge::pipe::status::ShardState;
use domain::error::Error;
use domain::moment::Moment;
use domain::names::ShardId;
use domain::ports::{Clock, StateError};
use domain::sequence::Checkpoint;
use domain::start::Beginning;

const RETENTION: Duration = Duration::from_secs(RETENTION_HOURS as u64 * 3_600);

/// Time jumps ahead, and live workers send heartbeats again.
async fn pass(time: Duration) {
    advance(time).await;
    sleep(LEASE / 2).await;
}

#[tokio::test(start_paused = true)]
async fn recovery_as_a_unit() {
    let (world, server, process, options) = calm(3);
    for shard in world.kinesis.open_shards() {
        world.kinesis.put(&shard, 40);
    }
    sleep(Duration::from_secs(5)).await;
    let options = PullOptions { linger: Some(Duration::from_secs(2)), ..options };
    let batch = world.refresh(&process, &server, &options, Ending::FailedAfter).await.unwrap();
    assert!(world.leases().await.iter().all(|l| l.value.offer.as_ref().is_some_and(|o| o.shards == 3)));
    drop(process);
    // Other records, other limits, another process that reads in pages of other sizes: the same
    // block.
    for shard in world.kinesis.open_shards() {
        world.kinesis.put(&shard, 5);
    }
    let process = world.process("worker", &server, MEMORY);
    let narrow = PullOptions {
        linger: Some(Duration::ZERO),
        ..super::world::options(domain::batch::Limits { max_rows: 1, max_bytes: 1 })
    };
    assert_eq!(world.refresh(&process, &server, &narrow, Ending::Success).await.unwrap(), batch);
    a_moment().await;
    assert!(world.leases().await.iter().all(|l| l.value.offer.is_none() && l.value.committed_rows == 40));
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_two_living_hands_gets_into_one() {
    for freed in 0..2 {
        let (world, server, first, options) = calm(2);
        let (other_server, shards) = (world.server(), world.kinesis.open_shards());
        let second = world.process("another", &other_server, MEMORY);
        // Both are alive and know it.
        sleep(Duration::from_secs(1)).await;
        for shard in &shards {
            world.kinesis.put(shard, 5);
        }
        let options = PullOptions { linger: Some(Duration::from_secs(2)), ..options };
        assert!(world.refresh(&first, &server, &options, Ending::FailedAfter).await.unwrap().is_some());
        // An operator gives one half to the other worker.
        world.edit(&shards[freed], |l| (l.owner, l.epoch) = ("another".into(), l.epoch + 1)).await;
        for _ in 0..40 {
            let _ = world.refresh(&second, &other_server, &options, Ending::Success).await;
            let _ = world.refresh(&first, &server, &options, Ending::Success).await;
            a_moment().await;
        }
        assert!(world.settled().await, "{:?}", world.leases().await);
        world.judge().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_replaced_commits_nothing() {
    let (world, server, first, options) = calm(1);
    let other_server = world.server();
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 5);
    server.begin();
    let served = first.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
    let batch = served.batch.clone().unwrap();
    // Its heartbeats do not arrive, and another worker takes over.
    first.store.mute(true);
    let second = world.process("another", &other_server, MEMORY);
    sleep(2 * LEASE).await;
    assert_eq!(
        world.refresh(&second, &other_server, &options, Ending::FailedBefore).await.unwrap(),
        Some(batch.id.clone()),
        "the open batch comes with the lease"
    );
    let before = world.lease(&shard).await;
    assert_eq!(before.owner, "another");
    // The first refresh succeeds now.
    assert!(!served.deliver(), "a worker that stood still sends the end of a body");
    world.ledger.insert(&batch);
    server.end(Ok(()));
    a_moment().await;
    assert_eq!(world.lease(&shard).await, before);
    let refused = world.refresh(&first, &server, &options, Ending::Success).await;
    assert!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    assert!(world.drain(&second, &other_server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_although_the_answer_got_lost() {
    let (world, server, process, options) = calm(1);
    world.kinesis.put(&world.kinesis.open_shards()[0], 3);
    process.store.fault(Some(StateError::Unavailable("lost".into())), true);
    for _ in 0..3 {
        assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    }
    process.store.fault(None, false);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn parents_before_children() {
    let (world, server, process, options) = calm(2);
    let shards = world.kinesis.open_shards();
    world.kinesis.put(&shards[0], 5);
    let children = world.kinesis.split(&shards[0]);
    let grandchild = world.kinesis.merge(&children[0], &children[1]);
    let merged = world.kinesis.merge(&grandchild, &shards[1]);
    world.kinesis.put(&merged, 5);
    // The parent's records are offered and fail: no record of the children comes before them, for
    // however long.
    for _ in 0..50 {
        world.refresh(&process, &server, &options, Ending::FailedBefore).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.lease(&merged).await.offer, None);
    assert!(world.drain(&process, &server, &options).await);
    for parent in [&shards[0], &shards[1], &children[0], &children[1], &grandchild] {
        assert_eq!(world.lease(parent).await.checkpoint, Checkpoint::ShardEnd, "{parent}");
    }
    world.judge().unwrap();
}

/// It is also noticed when another worker finishes a parent.
#[tokio::test(start_paused = true)]
async fn parents_may_be_in_other_hands() {
    let (world, server, first, options) = calm(1);
    let other_server = world.server();
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 5);
    assert!(world.refresh(&first, &server, &options, Ending::FailedBefore).await.unwrap().is_some());
    let children = world.kinesis.split(&shard);
    world.kinesis.put(&children[1], 5);
    let second = world.process("another", &other_server, MEMORY);
    // The second finds the children and has to wait for the first.
    for _ in 0..5 {
        assert_eq!(world.refresh(&second, &other_server, &options, Ending::Success).await.unwrap(), None);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.lease(&children[1]).await.owner, "another");
    for _ in 0..60 {
        let _ = world.refresh(&first, &server, &options, Ending::Success).await;
        let _ = world.refresh(&second, &other_server, &options, Ending::Success).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert!(world.settled().await, "{:?}", world.leases().await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn children_from_trim_horizon() {
    let (world, server, process, options) = calm(1);
    let parent = world.kinesis.open_shards().remove(0);
    // A pipe that starts now, skipping what is there.
    let options = PullOptions { start: Beginning::From(Moment::At(world.clock.now_ms() + 1_000)), ..options };
    sleep(Duration::from_secs(1)).await;
    world.kinesis.put(&parent, 3);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_some());
    // Records of the children that arrived long before anyone knew of these shards.
    let children = world.kinesis.split(&parent);
    for child in &children {
        world.kinesis.put(child, 4);
    }
    sleep(Duration::from_secs(45)).await;
    let later = PullOptions { start: Beginning::From(Moment::At(world.clock.now_ms())), ..options };
    assert!(world.drain(&process, &server, &later).await);
    world.judge().unwrap();
}

/// A world with a committed record in its only shard, and the shard.
async fn committed() -> (World, std::sync::Arc<super::clickhouse::FakeServer>, super::world::Process, ShardId) {
    let (world, server, process, options) = calm(1);
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 3);
    assert!(world.drain(&process, &server, &options).await);
    (world, server, process, shard)
}

/// Records are lost; the pull must report it, again and again, until an operator seeks, and
/// continue from there.
async fn the_gap_is_told(world: &World, server: &super::clickhouse::FakeServer, process: &super::world::Process) {
    let options = options(WIDE);
    for _ in 0..5 {
        let told = world.refresh(process, server, &options, Ending::Success).await;
        assert!(
            matches!(told, Err(Error::Gap(ref m)) if m.contains(STREAM.as_str()) && m.contains("shardId-")),
            "{told:?}"
        );
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(world.ledger.violations(), Vec::<String>::new());
    // The operator's process changes the rows as `seek` does; the bridge notices.
    let person = world.process(super::ledger::PERSON, &world.server(), MEMORY);
    person.pipes.seek(&PIPE, &[(ShardId::default(), Checkpoint::TrimHorizon)]).await.unwrap();
    sleep(Duration::from_secs(40)).await;
    let mut pulled = 0;
    for _ in 0..10 {
        pulled += usize::from(matches!(world.refresh(process, server, &options, Ending::Success).await, Ok(Some(_))));
        sleep(Duration::from_secs(10)).await;
    }
    assert!(pulled > 0, "after a seek it goes on");
}

#[tokio::test(start_paused = true)]
async fn gap_is_an_error() {
    // The pipe was stopped for longer than the retention, and what arrived meanwhile expired.
    let (world, server, process, shard) = committed().await;
    drop(process);
    world.kinesis.put(&shard, 3);
    pass(RETENTION + Duration::from_secs(60)).await;
    world.kinesis.trim_before(world.clock.now_ms());
    world.kinesis.put(&shard, 3);
    let process = world.process("worker", &server, MEMORY);
    the_gap_is_told(&world, &server, &process).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_under_a_running_reader_is_an_error() {
    // Kinesis did not respond for longer than the retention, while the view kept pulling.
    let (world, server, process, shard) = committed().await;
    world.kinesis.outage(Some(Error::AccessDenied("the policy is gone".into())));
    let hours = 2 * RETENTION_HOURS;
    for hour in 0..hours {
        // Something is put in the first hour, and expires in the last.
        if hour == 1 {
            world.kinesis.put(&shard, 3);
        }
        pass(Duration::from_secs(3_600)).await;
        let _ = world.refresh(&process, &server, &options(WIDE), Ending::Success).await;
    }
    world.kinesis.trim_before(world.clock.now_ms() - RETENTION.as_millis() as i64);
    world.kinesis.put(&shard, 3);
    world.kinesis.outage(None);
    sleep(Duration::from_secs(60)).await;
    the_gap_is_told(&world, &server, &process).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_behind_a_slow_reader_is_an_error() {
    // The reader gets responses all the time, but is so far behind that the records expire before
    // it reaches them.
    let (world, server, process, shard) = committed().await;
    for _ in 0..40 {
        world.kinesis.put(&shard, 30);
        pass(Duration::from_secs(3_600)).await;
    }
    let options = options(WIDE);
    // Expired unread.
    world.kinesis.trim_before(world.clock.now_ms() - RETENTION.as_millis() as i64);
    let mut told = None;
    for _ in 0..40 {
        match world.refresh(&process, &server, &options, Ending::Success).await {
            Err(Error::Gap(gap)) => told = Some(gap),
            other => assert!(matches!(other, Ok(None)), "{other:?}"),
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(told.is_some_and(|gap| gap.contains(shard.as_str())));
    assert_eq!(world.ledger.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_offered_batch_that_is_gone_is_a_gap() {
    let (world, server, process, options) = calm(1);
    let shard = world.kinesis.open_shards().remove(0);
    world.kinesis.put(&shard, 3);
    assert!(world.refresh(&process, &server, &options, Ending::FailedBefore).await.unwrap().is_some());
    drop(process);
    pass(RETENTION + Duration::from_secs(60)).await;
    world.kinesis.trim_before(world.clock.now_ms());
    world.kinesis.put(&shard, 3);
    let process = world.process("worker", &server, MEMORY);
    the_gap_is_told(&world, &server, &process).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_shard_is_no_gap() {
    // Nothing new for days, the committed records expire, and the bridge is restarted.
    let (world, server, process, shard) = committed().await;
    for _ in 0..3 * RETENTION_HOURS {
        pass(Duration::from_secs(3_600)).await;
        world.kinesis.trim_before(world.clock.now_ms() - RETENTION.as_millis() as i64);
        for _ in 0..3 {
            assert_eq!(world.refresh(&process, &server, &options(WIDE), Ending::Success).await.unwrap(), None);
        }
    }
    drop(process);
    let process = world.process("worker", &server, MEMORY);
    world.kinesis.put(&shard, 3);
    assert!(world.drain(&process, &server, &options(WIDE)).await);
    world.judge().unwrap();
}

/// A parent expires before it was read to its end: a gap of that parent, for which its children
/// wait until an operator seeks. If it was read, nothing is lost, and its row is removed, too.
#[tokio::test(start_paused = true)]
async fn a_parent_that_left_the_retention_is_a_gap_if_it_was_not_read() {
    let (world, server, process, options) = calm(2);
    let shards = world.kinesis.open_shards();
    world.kinesis.put(&shards[0], 3);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_some());
    a_moment().await;
    drop(process);
    world.kinesis.put(&shards[1], 3);
    let (read, unread) = (world.kinesis.split(&shards[0]), world.kinesis.split(&shards[1]));
    world.kinesis.put(&read[0], 4);
    world.kinesis.put(&unread[0], 5);
    // The children have leases, and nothing is read yet; the parent's lease is made to look old.
    world.kinesis.outage_of_records(true);
    let process = world.process("worker", &server, MEMORY);
    let _ = world.refresh(&process, &server, &options, Ending::Success).await;
    drop(process);
    world.edit(&shards[1], |l| (l.since_ms, l.caught_up_ms) = (1, 0)).await;
    world.kinesis.expire(&shards[1]);
    world.kinesis.outage_of_records(false);
    let process = world.process("worker", &server, MEMORY);
    // The other shards continue meanwhile.
    for _ in 0..20 {
        let _ = world.refresh(&process, &server, &options, Ending::Success).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(world.lease(&shards[0]).await.checkpoint, Checkpoint::ShardEnd);
    assert_eq!((world.lease(&read[0]).await.committed_rows, world.lease(&unread[0]).await.committed_rows), (4, 0));
    let snapshot = process.snapshot().unwrap();
    let told = snapshot.buffer(&shards[1]).unwrap().progress().error.unwrap();
    assert!(
        matches!(told, Error::Gap(ref m) if m.contains(shards[1].as_str()) && m.contains("the whole shard is older")),
        "{told:?}"
    );
    assert_eq!(snapshot.state(&world.lease(&shards[1]).await), ShardState::Gap);
    process.pipes.seek(&PIPE, &[(shards[1].clone(), Checkpoint::TrimHorizon)]).await.unwrap();
    for _ in 0..5 {
        let _ = world.refresh(&process, &server, &options, Ending::Success).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(world.lease(&unread[0]).await.committed_rows, 5, "the children go on");
    // After the retention, the row of the parent that was read is removed.
    world.kinesis.expire(&shards[0]);
    for _ in 0..3 {
        pass(RETENTION).await;
        let _ = world.refresh(&process, &server, &options, Ending::Success).await;
    }
    assert!(world.leases().await.iter().all(|row| row.value.shard_id != shards[0]));
}
