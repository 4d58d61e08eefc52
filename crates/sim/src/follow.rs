//! Rows are reread, and something fails before the readers follow them: what readers have buffered
//! must not count after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::clickhouse::FakeServer;
use super::dice::Dice;
use super::rules::{MEMORY, a_moment};
use super::world::{Ending, LEASE, Process, WIDE, World, options};
use bridge::pipe::PullOptions;
use domain::error::Error;
use domain::limits::{CHORES_EVERY, SHARD_REFRESH};
use domain::names::ShardId;
use domain::sequence::Checkpoint;

/// A calm world with one shard, in which an operator moves positions.
fn moved() -> (World, Arc<FakeServer>, Process, ShardId) {
    let dice = Dice::new(1, false);
    dice.calm();
    let world = World::new(dice, 1, true, LEASE);
    let server = world.server();
    let process = world.process("worker", &server, MEMORY);
    let shard = world.kinesis.open_shards().remove(0);
    (world, server, process, shard)
}

/// From now on a look at the shards rereads the rows and fails.
fn shards_cannot_be_listed(world: &World) {
    world.kinesis.outage(Some(Error::Unavailable("nobody answers".into())));
}

#[tokio::test(start_paused = true)]
async fn what_was_buffered_before_a_position_was_moved_is_not_served() {
    let (world, server, process, shard) = moved();
    let options = options(WIDE);
    world.kinesis.put(&shard, 3);
    assert!(world.drain(&process, &server, &options).await);
    world.kinesis.put(&shard, 2);
    // The records are buffered, and the next pull looks at the shards.
    sleep(SHARD_REFRESH + Duration::from_secs(2)).await;
    world.edit(&shard, |l| l.checkpoint = Checkpoint::TrimHorizon).await;
    shards_cannot_be_listed(&world);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    world.kinesis.outage(None);
    // Nothing is due now that would reread the rows.
    let _ = world.refresh(&process, &server, &options, Ending::Success).await;
    a_moment().await;
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
    let times: Vec<u32> = world.kinesis.all().iter().map(|place| world.ledger.times(place).0).collect();
    assert_eq!(times, [2, 2, 2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_began_after_a_dropped_batch_does_not_finish_its_shard() {
    let (world, server, first, shard) = moved();
    let options = options(WIDE);
    world.kinesis.put(&shard, 3);
    assert!(world.refresh(&first, &server, &options, Ending::FailedBefore).await.unwrap().is_some());
    world.kinesis.split(&shard);
    // Another worker is waiting for records when it takes the lease from the dead one, and begins
    // to read after the open batch, where the shard ends.
    let (other_server, patient) = (world.server(), PullOptions { wait: 10 * SHARD_REFRESH, ..options.clone() });
    let second = world.process("another", &other_server, MEMORY);
    sleep(Duration::from_secs(1)).await;
    drop(first);
    let outcome = {
        let mut waiting = std::pin::pin!(world.refresh(&second, &other_server, &patient, Ending::Success));
        tokio::select! {
            outcome = &mut waiting => panic!("{outcome:?}"),
            () = sleep(2 * LEASE) => {}
        }
        assert_eq!(world.lease(&shard).await.owner, "another");
        world.edit(&shard, |l| l.offer = None).await;
        shards_cannot_be_listed(&world);
        waiting.await
    };
    assert!(outcome.is_err(), "{outcome:?}");
    world.kinesis.outage(None);
    // The next pull begins with the chores.
    sleep(2 * CHORES_EVERY).await;
    assert!(world.drain(&second, &other_server, &options).await);
    world.judge().unwrap();
}
