//! One test for each rule about removing bad rows from a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::clickhouse::FakeServer;
use super::records::Place;
use super::rules::{MEMORY, a_moment, calm};
use super::world::{Ending, LEASE, Process, World};
use bridge::pipe::{OnFailure, PullOptions};
use domain::error::Error;
use domain::limits::{ISOLATE_AFTER_ATTEMPTS, SHARD_REFRESH};
use domain::names::BatchId;
use domain::ports::StateError;
use domain::sequence::Checkpoint;

/// A calm world in which ClickHouse refuses every row whose number is divisible by `every`, with
/// `records` records in each shard.
fn poisoned(shards: usize, every: u64, records: u64) -> (World, Arc<FakeServer>, Process, PullOptions) {
    let (world, server, process, options) = calm(shards);
    world.quarantine.poison(every);
    for shard in world.kinesis.open_shards() {
        world.kinesis.put(&shard, records);
    }
    (world, server, process, PullOptions { on_failure: OnFailure::Isolate, ..options })
}

/// Runs a refresh, and returns the batch that it was given.
async fn refresh(
    world: &World,
    process: &Process,
    server: &FakeServer,
    options: &PullOptions,
    ending: Ending,
) -> Option<BatchId> {
    let batch = world.refresh(process, server, options, ending).await.unwrap();
    a_moment().await;
    batch
}

/// Refreshes, more often than the world does without bad rows, until every record is committed.
async fn drain(world: &World, process: &Process, server: &Arc<FakeServer>, options: &PullOptions) -> bool {
    for _ in 0..10 {
        if world.drain(process, server, options).await {
            return true;
        }
    }
    false
}

fn bad(world: &World) -> Vec<Place> {
    let mut bad = world.kinesis.all();
    bad.retain(|place| world.quarantine.is_bad(place));
    bad.sort();
    bad
}

#[tokio::test(start_paused = true)]
async fn bad_rows_are_isolated_and_all_others_go_in() {
    for (shards, every) in [(1, 7), (3, 2), (3, 1), (4, 50)] {
        let (world, server, process, options) = poisoned(shards, every, 60);
        assert!(drain(&world, &process, &server, &options).await, "every {every} of {shards} shards");
        world.judge().unwrap();
        assert_eq!(world.quarantine.places(), bad(&world));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_dies_after_each_refresh_isolates_the_same_rows() {
    let (world, server, mut process, options) = poisoned(3, 20, 40);
    for _ in 0..2_000 {
        let _ = world.refresh(&process, &server, &options, Ending::Success).await;
        a_moment().await;
        if world.settled().await {
            break;
        }
        // The bridge's knowledge survives just long enough for a batch to be refused often enough.
        if world.dice.below(2 * u64::from(ISOLATE_AFTER_ATTEMPTS)) == 0 {
            drop(process);
            process = world.process("worker", &server, MEMORY);
        }
    }
    assert!(world.settled().await);
    world.judge().unwrap();
    assert_eq!(world.quarantine.places(), bad(&world));
}

#[tokio::test(start_paused = true)]
async fn quarantined_before_passed() {
    let (world, server, process, options) = poisoned(1, 1, 1);
    world.quarantine.away.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        // It is still served: the view may have been fixed.
        assert!(refresh(&world, &process, &server, &options, Ending::Success).await.is_some());
        assert!(world.leases().await.iter().all(|row| row.value.checkpoint == Checkpoint::TrimHorizon));
    }
    world.quarantine.away.store(false, Ordering::Relaxed);
    world.quarantine.full.store(true, Ordering::Relaxed);
    assert!(refresh(&world, &process, &server, &options, Ending::Success).await.is_some());
    assert!(world.leases().await.iter().all(|row| row.value.checkpoint == Checkpoint::TrimHorizon));
    world.quarantine.full.store(false, Ordering::Relaxed);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
    assert_eq!(world.quarantine.places(), bad(&world));
}

#[tokio::test(start_paused = true)]
async fn only_what_clickhouse_refuses_because_of_its_rows_is_halved() {
    let (world, server, process, options) = poisoned(2, 0, 30);
    let first = refresh(&world, &process, &server, &options, Ending::FailedBefore).await;
    for ending in [Ending::Unread, Ending::FailedBefore, Ending::Cancelled, Ending::Partial, Ending::Replaced].repeat(3)
    {
        assert_eq!(refresh(&world, &process, &server, &options, ending).await, first, "{ending:?}");
    }
    // A refusal followed by another failure restarts the count.
    for ending in [Ending::Refused, Ending::Refused, Ending::FailedBefore].repeat(3) {
        assert_eq!(refresh(&world, &process, &server, &options, ending).await, first, "{ending:?}");
    }
    // With `stop` nothing is halved, however often it is refused.
    let stop = PullOptions { on_failure: OnFailure::Stop, ..options.clone() };
    for _ in 0..10 {
        assert_eq!(refresh(&world, &process, &server, &stop, Ending::Refused).await, first);
    }
    assert!(process.snapshot().unwrap().last_error.contains(&format!("batch {}", first.clone().unwrap())));
    // And with `isolate` it is halved, now immediately.
    assert_eq!(refresh(&world, &process, &server, &options, Ending::Success).await, None);
    assert_ne!(refresh(&world, &process, &server, &options, Ending::Success).await, first);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
    assert!(world.quarantine.places().is_empty());
}

/// The rows may be reread in between, which does not move the readers: they are after the whole
/// batch.
#[tokio::test(start_paused = true)]
async fn nothing_is_skipped_after_a_half_whose_answer_got_lost() {
    let (world, server, process, options) = poisoned(1, 7, 20);
    let other_server = world.server();
    let another = world.process("another", &other_server, MEMORY);
    for _ in 0..ISOLATE_AFTER_ATTEMPTS {
        assert!(refresh(&world, &process, &server, &options, Ending::Success).await.is_some());
        let _ = world.refresh(&another, &other_server, &options, Ending::Success).await;
    }
    process.store.fault(Some(StateError::Unavailable("lost".into())), true);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    process.store.fault(None, false);
    // The other worker dies after the next look at the shards is due, and that look fails after
    // it has reread the rows.
    sleep(SHARD_REFRESH).await;
    world.kinesis.outage(Some(Error::Unavailable("nobody answers".into())));
    drop(another);
    sleep(LEASE + Duration::from_secs(5)).await;
    world.kinesis.outage(None);
    assert!(drain(&world, &process, &server, &options).await);
    world.judge().unwrap();
    assert_eq!(world.quarantine.places(), bad(&world));
}
