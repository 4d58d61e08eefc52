//! When a refresh starts: the bridge starts it, after the commit of the previous one.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::names::{PIPE, STREAM};
use super::rules::{a_moment, calm};
use super::world::{Ending, World};
use domain::ports::StateError;

/// One record: Kinesis may return several in several pages, and so in several batches.
fn put(world: &World) {
    world.kinesis.put(&world.kinesis.open_shards()[0], 1);
}

#[tokio::test(start_paused = true)]
async fn started_after_the_commit() {
    for _ in 0..20 {
        let (world, server, process, options) = calm(2);
        put(&world);
        let refresh = world.refresh(&process, &server, &options, Ending::Success);
        assert!(refresh.await.unwrap().is_some());
        timeout(Duration::from_secs(1), server.wanted()).await.expect("the next refresh is started");
        assert!(world.settled().await, "and the batch is committed by then");
        server.begin();
        a_moment().await;
        assert_eq!(server.asked(), (1, 1), "it is started once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_without_records_is_followed_by_the_next_one() {
    let (world, server, process, options) = calm(1);
    assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), None);
    timeout(Duration::from_secs(1), server.wanted()).await.expect("the next refresh is started");
    // Once running, it is not started again, however long it waits for records.
    server.begin();
    let served = process.pipes.pull(&PIPE, &STREAM, options.clone()).await.unwrap();
    assert!(served.batch.is_none());
    assert_eq!(server.asked().1, 1);
    server.end(Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_forgotten_is_repeated() {
    let (world, server, process, options) = calm(1);
    put(&world);
    server.forget(3);
    assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_some());
    timeout(Duration::from_secs(1), server.wanted()).await.expect("the next refresh is started");
    server.begin();
    a_moment().await;
    assert_eq!(server.asked(), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_view_that_must_not_run_now_is_not_started() {
    let endings = [
        Ending::FailedBefore,
        Ending::FailedAfter,
        Ending::Cancelled,
        Ending::Unread,
        Ending::Partial,
        Ending::Replaced,
    ];
    for ending in endings {
        let (world, server, process, options) = calm(1);
        put(&world);
        assert!(world.refresh(&process, &server, &options, ending).await.unwrap().is_some());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(server.asked().0, 0, "{ending:?}");
    }
    // Stopped, or with its own schedule that has long pauses.
    for (stopped, slow) in [(true, false), (false, true)] {
        let (world, server, process, options) = calm(1);
        put(&world);
        server.stop_view(stopped);
        server.slow_schedule(slow);
        assert!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap().is_some());
        a_moment().await;
        assert!(world.settled().await);
        assert_eq!(world.refresh(&process, &server, &options, Ending::Success).await.unwrap(), None);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(server.asked().0, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_committed_starts_nothing() {
    let (world, server, process, options) = calm(1);
    put(&world);
    server.begin();
    let served = process.pipes.pull(&PIPE, &STREAM, options.clone()).await;
    process.store.fault(Some(StateError::Unavailable("away".into())), false);
    assert!(world.rest_of_refresh(&process, &server, &options, Ending::Success, served).await.unwrap().is_some());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(server.asked().0, 0);
    process.store.fault(None, false);
    assert!(world.drain(&process, &server, &options).await);
    world.judge().unwrap();
}
