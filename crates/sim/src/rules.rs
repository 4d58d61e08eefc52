//! One test for each rule about serving, offering and settling, in a world where nothing happens
//! except what the test says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::clickhouse::FakeServer;
use super::dice::Dice;
use super::names::{PIPE, STREAM};
use super::world::{Ending, LEASE, Process, WIDE, World, options};
use bridge::pipe::{Confirm, PullOptions};
use domain::batch::Limits;
use domain::error::Error;
use domain::limits::{PIPE_IDLE_BUFFERS, SHARD_REFRESH};
use domain::names::{PipeName, ShardId};
use domain::ports::StateError;
use domain::sequence::Checkpoint;
use domain::shape::BatchShape;
use formats::encode::Format;

/// Plenty of memory.
pub const MEMORY: usize = 32 << 20;

/// A calm world with a bridge and a server.
pub fn calm(shards: usize) -> (World, Arc<FakeServer>, Process, PullOptions) {
    let world = World::calm(shards);
    let server = world.server();
    let process = world.process("worker", &server, MEMORY);
    (world, server, process, options(WIDE))
}

fn first_shard(world: &World) -> ShardId {
    world.kinesis.open_shards().remove(0)
}

/// Gives responses in flight time to arrive.
pub async fn a_moment() {
    sleep(Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn one_open_batch() {
    let (world, server, process, options) = calm(2);
    let shards = world.kinesis.open_shards();
    world.kinesis.put(&shards[0], 5);
    let first = world.refresh(&process, &server, &options, Ending::Unread).await.unwrap();
    assert!(first.is_some());
    for ending in [Ending::Unread, Ending::FailedBefore, Ending::FailedAfter] {
        world.kinesis.put(&shards[0], 5);
        world.kinesis.put(&shards[1], 5);
        let again = world.refresh(&process, &server, &options, ending).await.unwrap();
        assert_eq!(again, first, "whatever else there is to read, the open batch comes first");
        a_moment().await;
        let open: Vec<_> = world.leases().await.into_iter().filter_map(|l| l.value.offer).map(|o| o.batch).collect();
        assert_eq!(open, vec![first.clone().unwrap()]);
    }
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn offered_before_first_byte() {
    let (world, server, process, options) = calm(1);
    let shard = first_shard(&world);
    // The lease exists and is held before the store fails.
    assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), None);
    world.kinesis.put(&shard, 3);
    process.store.fault(Some(StateError::Unavailable("away".into())), false);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    assert_eq!(world.lease(&shard).await.offer, None);
    // Written, but the response was lost: still not a byte before the outcome is known.
    process.store.fault(Some(StateError::Unavailable("lost".into())), true);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    let offered = world.lease(&shard).await.offer.unwrap();
    process.store.fault(None, false);
    let batch = world.refresh(&process, &server, &options, Ending::Success).await.unwrap();
    assert_eq!(batch, Some(offered.batch));
    // Kinesis may have returned the records in several pages, and so in several batches.
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_offer_whose_answer_got_lost_survives_a_rest() {
    let (world, server, process, options) = calm(1);
    let shard = first_shard(&world);
    assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), None);
    world.kinesis.put(&shard, 3);
    process.store.fault(Some(StateError::Unavailable("lost".into())), true);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    process.store.fault(None, false);
    // Long enough for the buffers to be dropped, and a batch that is not known to be offered.
    sleep(Duration::from_secs(120)).await;
    world.kinesis.put(&shard, 3);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn get_moves_no_checkpoint() {
    let (world, server, process, options) = calm(2);
    for shard in world.kinesis.open_shards() {
        world.kinesis.put(&shard, 4);
    }
    let endings = [Ending::Unread, Ending::FailedBefore, Ending::Cancelled, Ending::Partial, Ending::Replaced];
    for ending in endings {
        let batch = world.refresh(&process, &server, &options, ending).await.unwrap();
        assert!(batch.is_some(), "{ending:?}");
        a_moment().await;
        for row in world.leases().await {
            assert_eq!(row.value.checkpoint, Checkpoint::TrimHorizon, "{ending:?}");
        }
    }
    // Not even a complete body, while the refresh is running.
    server.begin();
    let served = process.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
    assert!(served.deliver());
    sleep(Duration::from_secs(30)).await;
    assert!(world.leases().await.iter().all(|r| r.value.checkpoint == Checkpoint::TrimHorizon));
    server.end(Err("failed".into()));
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_a_refresh_confirms() {
    let (world, server, process, options) = calm(1);
    world.kinesis.put(&first_shard(&world), 3);
    // Nothing refreshes.
    let refused = process.pipes.pull(&PIPE, &STREAM, options.clone()).await.err();
    assert!(matches!(refused, Some(Error::BadRequest(_))), "{refused:?}");
    // There is no such view.
    server.drop_view(false);
    let refused = process.pipes.pull(&PIPE, &STREAM, options.clone()).await.err();
    assert!(matches!(refused, Some(Error::NotFound(_))), "{refused:?}");
    // The refresh ends while the pull waits for a record: WAIT VIEW would report success.
    let other = world.server();
    drop(process);
    let waiting = world.process("worker", &other, MEMORY);
    other.begin();
    let slow = PullOptions { linger: Some(Duration::from_secs(5)), ..options.clone() };
    let pull = waiting.pipes.pull(&PIPE, &STREAM, slow);
    let (refused, ()) = tokio::join!(pull, async {
        sleep(Duration::from_secs(2)).await;
        other.end(Ok(()));
    });
    assert!(matches!(refused, Err(Error::BadRequest(_))));
    // An unknown outcome, a failure, a cancellation, a replaced view, an unread body: none of them.
    for ending in [
        Ending::ServerCrash { inserted: true },
        Ending::FailedAfter,
        Ending::Cancelled,
        Ending::Replaced,
        Ending::Unread,
        Ending::Partial,
    ] {
        assert!(world.refresh(&waiting, &other, &options, ending).await.unwrap().is_some(), "{ending:?}");
        other.restart();
        a_moment().await;
        assert_eq!(world.lease(&first_shard(&world)).await.checkpoint, Checkpoint::TrimHorizon, "{ending:?}");
    }
    assert!(world.drain(&waiting, &other, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_confirm_what_the_next_refresh_left_unread() {
    let (world, server, process, options) = calm(1);
    world.kinesis.put(&first_shard(&world), 3);
    server.begin();
    let first = process.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
    // Fully read, failed, and restarted before a WAIT VIEW checks: its answer will be about the
    // second refresh.
    assert!(first.deliver());
    let pull = process.pipes.pull(&PIPE, &STREAM, options.clone());
    let second = pull.await.unwrap();
    assert_eq!(second.batch.as_ref().unwrap().id, first.batch.as_ref().unwrap().id);
    server.end(Ok(()));
    a_moment().await;
    assert_eq!(world.lease(&first_shard(&world)).await.checkpoint, Checkpoint::TrimHorizon);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

/// The last piece of a body leaves only after the response to the pull, so WAIT VIEW must have
/// reached ClickHouse before that response is used.
#[tokio::test(start_paused = true)]
async fn held_back_end() {
    let (world, server, process, options) = calm(1);
    let shard = first_shard(&world);
    for round in 1..=3 {
        world.kinesis.put(&shard, 3);
        server.begin();
        let served = process.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
        let batch = served.batch.clone().unwrap();
        a_moment().await;
        assert_eq!(server.waits(), round, "asked before the end of the body is sent");
        world.ledger.served(&batch, Format::ArrowStream);
        assert!(served.deliver());
        world.ledger.insert(&batch);
        server.end(Ok(()));
        a_moment().await;
        assert!(world.settled().await, "and answered by the end of that refresh");
    }
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn shape_is_identity() {
    let (world, server, process, options) = calm(1);
    let shard = first_shard(&world);
    world.kinesis.put(&shard, 3);
    let first = world.refresh(&process, &server, &options, Ending::FailedAfter).await.unwrap();
    let altered = PullOptions { shape: BatchShape::of_column(Format::JsonEachRow.name()), ..options.clone() };
    let refused = world.refresh(&process, &server, &altered, Ending::Success).await;
    assert!(matches!(refused, Err(Error::BadRequest(ref m)) if m.contains("ArrowStream")), "{refused:?}");
    // Another process keeps to it as well.
    drop(process);
    let process = world.process("worker", &server, MEMORY);
    let refused = world.refresh(&process, &server, &altered, Ending::Success).await;
    assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
    // Limits are not part of it: the batch stays as it was frozen.
    let narrow = PullOptions { limits: Limits { max_rows: 1, max_bytes: 1 }, ..options.clone() };
    assert_eq!(world.refresh(&process, &server, &narrow, Ending::FailedBefore).await.unwrap(), first);
    assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), first);
    // Once it is committed, any format will do; a batch whose offer's response was lost keeps the
    // shape that was written.
    a_moment().await;
    assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), None);
    world.kinesis.put(&shard, 3);
    process.store.fault(Some(StateError::Unavailable("lost".into())), true);
    let lost = world.refresh(&process, &server, &altered, Ending::Success).await;
    assert!(lost.is_err(), "{lost:?}");
    process.store.fault(None, false);
    let refused = world.refresh(&process, &server, &options, Ending::Success).await;
    assert!(matches!(refused, Err(Error::Unavailable(ref m)) if m.contains("JSONEachRow")), "{refused:?}");
    let refused = world.refresh(&process, &server, &options, Ending::Success).await;
    assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
    assert!(world.drain(&process, &server, &altered).await);
    world.judge().unwrap();
}

/// The response to an offer was lost, a user removed it from one row, and the view has another
/// format now: the row gets the original one again.
#[tokio::test(start_paused = true)]
async fn an_offer_that_is_completed_keeps_its_shape() {
    let (world, server, process, options) = calm(2);
    let options = PullOptions { linger: Some(Duration::from_secs(2)), ..options };
    let shards = world.kinesis.open_shards();
    assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), None);
    shards.iter().for_each(|shard| world.kinesis.put(shard, 3));
    process.store.fault(Some(StateError::Unavailable("lost".into())), true);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.is_err());
    process.store.fault(None, false);
    world.edit(&shards[1], |lease| lease.offer = None).await;
    let altered = PullOptions { shape: BatchShape::of_column(Format::JsonEachRow.name()), ..options.clone() };
    let refused = world.refresh(&process, &server, &altered, Ending::Success).await;
    assert!(matches!(refused, Err(Error::Unavailable(ref m)) if m.contains("ArrowStream")), "{refused:?}");
    for shard in &shards {
        assert_eq!(world.lease(shard).await.offer.unwrap().shape, options.shape, "{shard}");
    }
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_commits_the_open_batch_and_no_other() {
    let (world, server, process, options) = calm(1);
    let options = PullOptions { confirm: Confirm::Explicit, ..options };
    world.kinesis.put(&first_shard(&world), 1);
    let batch = world.refresh(&process, &server, &options, Ending::Success).await.unwrap().unwrap();
    a_moment().await;
    assert!(!world.settled().await);
    assert!(matches!(process.pipes.ack(&PIPE, &"0000000000000000".into()).await, Err(Error::NotFound(_))));
    drop(process);
    // A process that knows nothing of it yet; and twice is the same as once.
    let process = world.process("worker", &server, MEMORY);
    process.pipes.ack(&PIPE, &batch).await.unwrap();
    process.pipes.ack(&PIPE, &batch).await.unwrap();
    assert!(world.settled().await);
    world.judge().unwrap();
}

/// Other pipes of the same bridge come and go: one that nobody pulls asks neither ClickHouse nor
/// Kinesis because of that.
#[tokio::test(start_paused = true)]
async fn a_resting_pipe_asks_nothing_when_others_come_and_go() {
    let dice = Dice::new(1, true);
    dice.calm();
    let world = World::new(dice.clone(), 1, false, LEASE);
    let (server, explicit) = (world.server(), PullOptions { confirm: Confirm::Explicit, ..options(WIDE) });
    let process = world.process("worker-0", &server, MEMORY);
    assert!(process.pipes.pull(&"resting".into(), &STREAM, explicit.clone()).await.unwrap().batch.is_none());
    // Its readers have ended, and a look at its shards would be due.
    sleep(PIPE_IDLE_BUFFERS + 2 * SHARD_REFRESH).await;
    let before = dice.trace().len();
    for other in ["one", "two", "three"].map(PipeName::from) {
        assert!(process.pipes.pull(&other, &STREAM, explicit.clone()).await.unwrap().batch.is_none());
        process.pipes.end(&other).await.unwrap();
        sleep(LEASE).await;
    }
    // A heartbeat names all pipes.
    let asked = dice.trace().split_off(before).into_iter();
    let asked: Vec<String> = asked.filter(|line| line.contains("resting") && !line.contains("Worker {")).collect();
    assert!(asked.is_empty(), "{asked:#?}");
}
