//! A pipe belongs to one stream and feeds one table: bridges and views that violate this.

use std::time::Duration;

use tokio::time::sleep;

use super::clickhouse::{FakeServer, SECOND_VIEW};
use super::names::{PIPE, STREAM};
use super::rules::{MEMORY, a_moment, calm};
use super::world::{Ending, Process, WIDE, World, options};
use bridge::pipe::{Confirm, PullOptions};
use domain::batch::Limits;
use domain::error::Error;
use domain::limits::DEFINITION_HOLDS;
use domain::names::{ShardId, WorkerId};
use domain::ports::{Copied, StateStore};
use domain::sequence::Checkpoint;

/// The worker id of a bridge in another region.
const STRANGER: &str = "stranger";

/// A bridge in another region uses the same state, pipe and stream name; the pipe exists.
pub async fn strangers(world: &World) {
    let server = world.server();
    server.begin();
    let there = world.process_elsewhere(STRANGER, &server);
    let pulled = there.pipes.pull(&PIPE, &STREAM, options(WIDE)).await.is_ok();
    let moved = there.pipes.seek(&PIPE, &[(ShardId::default(), Checkpoint::TrimHorizon)]).await.is_ok();
    let taken = world.leases().await.iter().any(|row| row.value.owner == STRANGER);
    if pulled || moved || taken {
        world.ledger.broken("one-stream-per-pipe", format!("pulled: {pulled}, moved: {moved}, taken: {taken}"));
    }
}

/// A view of the same server pulls the pipe into another table.
pub async fn second_view(world: &World, process: &Process, options: &PullOptions) {
    if world.leases().await.iter().all(|row| row.value.destination.target.is_empty()) {
        return;
    }
    if let Ok(served) = process.pipes.pull(&PIPE, &STREAM, second(options)).await {
        let batch = served.batch.as_ref().map(|batch| batch.id.clone());
        world.ledger.broken("one-target-per-pipe", format!("the second view is given {batch:?}"));
    }
}

/// A copy of the view, with the original's name in view=, pulls while the original refreshes.
pub async fn copied_view(world: &World, server: &FakeServer, process: &Process, options: &PullOptions) {
    server.begin();
    server.copied(Some(a_copy(true)));
    if let Ok(served) = process.pipes.pull(&PIPE, &STREAM, options.clone()).await {
        let batch = served.batch.as_ref().map(|batch| batch.id.clone());
        world.ledger.broken("only-a-refresh-confirms", format!("a copy of the view is given {batch:?}"));
    }
    server.copied(None);
    server.end(Err("its pull was refused".into()));
}

fn a_copy(running: bool) -> Copied {
    Copied { view: "test.orders_pipe".into(), pipes: vec![PIPE.clone()], running }
}

fn second(options: &PullOptions) -> PullOptions {
    let confirm = Confirm::View { database: "default".into(), view: SECOND_VIEW.into() };
    PullOptions { confirm, ..options.clone() }
}

#[tokio::test(start_paused = true)]
async fn one_stream_per_pipe() {
    let (world, server, process, options) = calm(2);
    world.kinesis.open_shards().iter().for_each(|shard| world.kinesis.put(shard, 3));
    assert!(world.refresh(&process, &server, &options, Ending::Unread).await.unwrap().is_some());
    a_moment().await;
    let before = world.leases().await;
    assert!(before.iter().all(|row| row.value.identity.arn.contains("eu-west-1")));
    let other = world.server();
    other.begin();
    let there = world.process_elsewhere(STRANGER, &other);
    let all = [(ShardId::default(), Checkpoint::TrimHorizon)];
    let refusals = [
        there.pipes.pull(&PIPE, &STREAM, options.clone()).await.err(),
        there.pipes.seek(&PIPE, &all).await.err(),
        there.pipes.ack(&PIPE, &"0000000000000000".into()).await.err(),
    ];
    for refused in refusals {
        let Some(Error::BadRequest(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("eu-west-1") && why.contains("us-east-1") && why.contains("another pipe name"), "{why}");
    }
    assert_eq!(world.leases().await, before);
    assert!(world.drain(&process, &server, &options).await);
    // Nor may it be ended from there, once nobody pulls it.
    process.leave().await;
    sleep(Duration::from_secs(120)).await;
    let refused = there.pipes.end(&PIPE).await;
    assert!(matches!(&refused, Err(Error::BadRequest(why)) if why.contains("us-east-1")), "{refused:?}");
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_target_per_pipe() {
    let (world, server, process, options) = calm(2);
    world.kinesis.open_shards().iter().for_each(|shard| world.kinesis.put(shard, 3));
    let batch = world.refresh(&process, &server, &options, Ending::FailedAfter).await.unwrap();
    a_moment().await;
    let refused = process.pipes.pull(&PIPE, &STREAM, second(&options)).await.err();
    let Some(Error::BadRequest(why)) = refused else { panic!("{refused:?}") };
    for part in ["default.orders_pipe into default.orders", "default.second_pipe cannot pull it into default.another"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    // Nor from a bridge next to another server while this one has the shards.
    let other = world.server();
    other.drop_view(false);
    let elsewhere = world.process("elsewhere", &other, MEMORY);
    sleep(Duration::from_secs(1)).await;
    let refused = elsewhere.pipes.pull(&PIPE, &STREAM, second(&options)).await.err();
    let Some(Error::BadRequest(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("at worker 'worker'"), "{why}");
    // The first one continues as if nothing had happened.
    assert_eq!(world.refresh(&process, &server, &options, Ending::FailedAfter).await.unwrap(), batch);
    a_moment().await;
    // If the first view is dropped with its batch open, the second gets the pipe: complete,
    // starting with what is not known to be inserted.
    server.drop_view(false);
    let served = process.pipes.pull(&PIPE, &STREAM, second(&options)).await.unwrap();
    assert_eq!(served.batch.as_ref().map(|b| b.id.clone()), batch);
    for row in world.leases().await {
        assert_eq!(row.value.destination.target, "default.another");
        assert_eq!(row.value.offer.map(|offer| offer.batch), batch);
    }
    // Recreated with its own table, it is refused in turn.
    server.retarget("default.new");
    let refused = world.refresh(&process, &server, &options, Ending::Success).await;
    assert!(matches!(&refused, Err(Error::BadRequest(why)) if why.contains("into default.new")), "{refused:?}");
}

/// The end of a parent names a merge's child as if it had no other parent.
#[tokio::test(start_paused = true)]
async fn lineage_from_list_shards() {
    let (world, server, process, _) = calm(2);
    world.kinesis.name_one_parent();
    let shards = world.kinesis.open_shards();
    let small = options(Limits { max_rows: 3, ..WIDE });
    assert_eq!(world.refresh(&process, &server, &small, Ending::Success).await.unwrap(), None);
    world.kinesis.put(&shards[0], 2);
    world.kinesis.put(&shards[1], 40);
    let child = world.kinesis.merge(&shards[0], &shards[1]);
    world.kinesis.put(&child, 10);
    assert!(world.drain(&process, &server, &small).await);
    assert_eq!(world.lease(&child).await.parents, shards);
    world.judge().unwrap();
}

/// A child whose row knows one parent learns of the other before it is read.
#[tokio::test(start_paused = true)]
async fn a_childs_row_without_a_parent_is_completed() {
    let (world, server, process, _) = calm(2);
    let shards = world.kinesis.open_shards();
    let small = options(Limits { max_rows: 3, ..WIDE });
    world.kinesis.put(&shards[0], 2);
    world.kinesis.put(&shards[1], 40);
    assert!(world.refresh(&process, &server, &small, Ending::Success).await.unwrap().is_some());
    a_moment().await;
    let child = world.kinesis.merge(&shards[0], &shards[1]);
    world.kinesis.put(&child, 10);
    // The row exists when the first parent ends, as an earlier version created it.
    let mut row = world.lease(&shards[0]).await;
    (row.shard_id, row.parents, row.owner, row.epoch) =
        (child.clone(), vec![shards[0].clone()], WorkerId::default(), 0);
    (row.checkpoint, row.offer, row.began) = (Checkpoint::TrimHorizon, None, None);
    world.rows.held.create(&[row]).await.unwrap();
    assert!(world.drain(&process, &server, &small).await);
    assert_eq!(world.lease(&child).await.parents, shards);
    world.judge().unwrap();
}

/// What a view pulls goes to another table, whatever its refreshes report.
#[tokio::test(start_paused = true)]
async fn a_view_of_another_pipe_confirms_nothing() {
    let (world, server, process, options) = calm(1);
    world.kinesis.put(&world.kinesis.open_shards()[0], 3);
    server.pulls(&["another"]);
    let refused = world.refresh(&process, &server, &options, Ending::Success).await.unwrap_err();
    assert!(refused.to_string().contains("pulls pipe 'another', not 'orders'"), "{refused}");
    assert!(world.leases().await.is_empty());
    // One that pulls several, for example with UNION ALL, is given its batches.
    server.drop_view(true);
    server.pulls(&["another", &PIPE]);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

/// It is impossible to tell which of the two pulls.
#[tokio::test(start_paused = true)]
async fn a_copy_of_a_view_is_not_taken_for_it() {
    let (world, server, process, options) = calm(1);
    world.kinesis.put(&world.kinesis.open_shards()[0], 3);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_some());
    a_moment().await;
    world.kinesis.put(&world.kinesis.open_shards()[0], 3);
    server.copied(Some(a_copy(true)));
    let refused = world.refresh(&process, &server, &options, Ending::Success).await.unwrap_err();
    for part in ["view test.orders_pipe", "view=default.orders_pipe", "drop or stop test.orders_pipe"] {
        assert!(refused.to_string().contains(part), "{part}: {refused}");
    }
    // While the copy is not running it pulls nothing, but it may start at any time.
    server.copied(Some(a_copy(false)));
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_some());
    server.start_copy();
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    // A copy that pulls another pipe takes nothing from this one.
    server.copied(Some(Copied { pipes: vec!["another".into()], ..a_copy(true) }));
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

/// Its statement may be changed without a trace elsewhere.
#[tokio::test(start_paused = true)]
async fn a_definition_holds_for_a_while_only() {
    let (world, server, process, options) = calm(1);
    assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), None);
    server.pulls(&["another"]);
    sleep(DEFINITION_HOLDS).await;
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
}
