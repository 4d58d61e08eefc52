//! One test for each rule about what may have expired unread, about a changing retention, and about
//! whose time counts, in a world where nothing happens except what the test says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::clickhouse::FakeServer;
use super::dice::Dice;
use super::kinesis::RETENTION_HOURS;
use super::ledger::PERSON;
use super::names::{PIPE, STREAM};
use super::records::{number, parts};
use super::rules::{MEMORY, a_moment};
use super::world::{Ending, LEASE, Process, WIDE, World};
use bridge::pipe::{Mode, PullOptions};
use domain::error::Error;
use domain::limits::SHARD_REFRESH;
use domain::moment::Moment;
use domain::names::{BatchId, ShardId};
use domain::ports::Clock;
use domain::sequence::{Checkpoint, RowPosition, SequenceNumber};
use domain::start::Beginning;

const HOUR: Duration = Duration::from_secs(3_600);

/// Hours pass at once, live workers send heartbeats again, and what is too old expires.
async fn hours(world: &World, hours: i32) {
    advance(HOUR * hours.unsigned_abs()).await;
    world.kinesis.trim();
    sleep(LEASE / 2).await;
}

/// Everything a test needs.
struct Stage {
    world: World,
    server: Arc<FakeServer>,
    process: Option<Process>,
    options: PullOptions,
}

impl Stage {
    fn new(shards: usize, start: Beginning, mode: Mode) -> Stage {
        let dice = Dice::new(1, false);
        dice.calm();
        // Users seek, and then rows may come twice.
        let world = World::new(dice, shards, true, LEASE);
        let server = world.server();
        let process = world.process("worker", &server, MEMORY);
        let options = super::world::options(WIDE);
        Stage { world, server, process: Some(process), options: PullOptions { start, mode, ..options } }
    }

    /// SIGKILL, and a restart with a wall clock that is off by `skew_ms`.
    fn start_again(&mut self, skew_ms: i64) {
        self.process = None;
        self.process = Some(self.world.skewed_process(&"worker".into(), &self.server, MEMORY, skew_ms));
    }

    async fn refresh(&self, ending: Ending) -> Result<Option<BatchId>, Error> {
        let process = self.process.as_ref().expect("a process");
        let pulled = self.world.refresh(process, &self.server, &self.options, ending).await;
        a_moment().await;
        pulled
    }

    /// A running pipe pulls again. Meanwhile the retention becomes `keep` hours, records are put,
    /// and everyone sleeps for 30 h.
    async fn change_while_a_pull_waits(&self, keep: i32) {
        assert_eq!(self.refresh(Ending::Success).await.unwrap(), None);
        let suspended = async {
            a_moment().await;
            self.world.kinesis.keep(keep);
            self.world.kinesis.put(&self.shard(), 3);
            hours(&self.world, 30).await;
        };
        let (_, ()) = tokio::join!(self.refresh(Ending::Success), suspended);
    }

    /// Refreshes until a gap of this shard is reported, with the stream's name and what to do.
    async fn told(&self, shard: &ShardId) {
        for _ in 0..10 {
            let _ = self.refresh(Ending::Success).await;
            sleep(Duration::from_secs(35)).await;
            let snapshot = self.process.as_ref().and_then(|p| p.snapshot());
            let error = snapshot.and_then(|s| s.buffer(shard).and_then(|b| b.progress().error));
            if let Some(Error::Gap(told)) = error {
                assert!([STREAM.as_str(), shard.as_str(), "seek"].iter().all(|part| told.contains(part)), "{told}");
                return;
            }
        }
        panic!("no gap is told: {:?}", self.world.leases().await);
    }

    /// A user continues from the oldest record; the bridge notices.
    async fn seek(&self, shard: &ShardId) {
        self.world.ledger.gap_told(shard);
        let user = self.world.process(PERSON, &self.world.server(), MEMORY);
        user.pipes.seek(&PIPE, &[(shard.clone(), Checkpoint::TrimHorizon)]).await.unwrap();
        self.world.ledger.begins(shard);
        sleep(Duration::from_secs(40)).await;
    }

    /// Everything that exists arrives, and no gap is reported.
    async fn all_well(&self) {
        for _ in 0..20 {
            self.refresh(Ending::Success).await.expect("no gap");
            if self.world.settled().await {
                return self.world.judge().expect("every record once");
            }
        }
        panic!("not everything arrives: {:?}", self.world.leases().await);
    }

    fn shard(&self) -> ShardId {
        self.world.kinesis.open_shards().remove(0)
    }
}

/// Where a pipe may start, and how it may read.
fn beginnings() -> impl Iterator<Item = (Beginning, Mode)> {
    let starts = [Beginning::TrimHorizon, Beginning::LATEST];
    starts.into_iter().flat_map(|start| [(start, Mode::Polling), (start, Mode::FanOut)])
}

/// A lease that has read nothing yet covers what arrives since it was created: a pipe that slept
/// for longer than the retention has lost some of it.
#[tokio::test(start_paused = true)]
async fn unread_within_retention() {
    for (start, mode) in beginnings() {
        let mut stage = Stage::new(1, start, mode);
        assert_eq!(stage.refresh(Ending::Success).await.unwrap(), None);
        stage.process = None;
        sleep(Duration::from_secs(2)).await;
        stage.world.kinesis.put(&stage.shard(), 10);
        hours(&stage.world, RETENTION_HOURS + 6).await;
        stage.world.kinesis.put(&stage.shard(), 10);
        stage.start_again(0);
        stage.told(&stage.shard()).await;
        stage.seek(&stage.shard()).await;
        stage.all_well().await;
    }
}

/// The same for children that nobody knew of: one found after a sleep covers what arrived since its
/// parent was closed.
#[tokio::test(start_paused = true)]
async fn a_child_that_was_not_read_in_time_is_a_gap() {
    for leased in [false, true] {
        let mut stage = Stage::new(1, Beginning::TrimHorizon, Mode::Polling);
        let parent = stage.shard();
        stage.world.kinesis.put(&parent, 3);
        assert!(stage.refresh(Ending::Success).await.unwrap().is_some());
        stage.process = None;
        let [child, _] = stage.world.kinesis.split(&parent);
        if leased {
            // Its lease exists, and it was never read.
            stage.start_again(0);
            stage.world.kinesis.outage_of_records(true);
            let _ = stage.refresh(Ending::FailedBefore).await;
            stage.world.kinesis.outage_of_records(false);
            stage.process = None;
        }
        stage.world.kinesis.put(&child, 10);
        hours(&stage.world, RETENTION_HOURS + 6).await;
        stage.world.kinesis.put(&child, 10);
        stage.start_again(0);
        // The parent, too, about which nothing can be known; seeking it says nothing about the
        // child.
        stage.told(&parent).await;
        stage.seek(&parent).await;
        stage.told(&child).await;
    }
}

/// A pipe that keeps up has no gap, whatever is idle, split or merged, and however long it has been
/// running.
#[tokio::test(start_paused = true)]
async fn a_pipe_that_keeps_up_has_no_gap() {
    for (start, mode) in beginnings() {
        let mut stage = Stage::new(2, start, mode);
        assert_eq!(stage.refresh(Ending::Success).await.unwrap(), None);
        for day in 0..4 {
            for hour in 0..RETENTION_HOURS {
                hours(&stage.world, 1).await;
                for _ in 0..3 {
                    stage.refresh(Ending::Success).await.expect("no gap");
                }
                if hour == 12 {
                    // Reshards of shards without any record, and of their children before these
                    // have one.
                    let first = stage.shard();
                    let [_, second] = stage.world.kinesis.split(&first);
                    let [third, fourth] = stage.world.kinesis.split(&second);
                    if day % 2 == 1 {
                        stage.world.kinesis.merge(&third, &fourth);
                    }
                }
            }
            stage.start_again(0);
        }
        stage.world.kinesis.open_shards().iter().for_each(|shard| stage.world.kinesis.put(shard, 3));
        stage.all_well().await;
    }
}

/// A user moves a position to a place without a record: before one, or after all: nothing is lost
/// as long as an older record exists.
#[tokio::test(start_paused = true)]
async fn a_position_without_a_record_is_not_a_gap() {
    for mode in [Mode::Polling, Mode::FanOut] {
        for (closed, follow) in [(false, 3), (false, 0), (true, 0)] {
            let stage = Stage::new(2, Beginning::TrimHorizon, mode);
            let [shard, other] = [0, 1].map(|n| stage.world.kinesis.open_shards()[n].clone());
            stage.world.kinesis.put(&shard, 3);
            // Numbers that the first shard does not have.
            stage.world.kinesis.put(&other, 3);
            stage.world.kinesis.put(&shard, follow);
            stage.all_well().await;
            let records = stage.world.kinesis.between(&shard, 0, u128::MAX);
            let to = number(&parts(records[2].0).sequence) + 1;
            let to = RowPosition::new(SequenceNumber::parse(&to.to_string()).unwrap(), u32::MAX);
            if closed {
                let [child, _] = stage.world.kinesis.split(&shard);
                stage.world.kinesis.put(&child, 2);
            }
            let user = stage.world.process(PERSON, &stage.world.server(), MEMORY);
            user.pipes.seek(&PIPE, &[(shard.clone(), Checkpoint::After(to))]).await.unwrap();
            sleep(Duration::from_secs(40)).await;
            stage.world.kinesis.put(&other, 2);
            for _ in 0..10 {
                stage.refresh(Ending::Success).await.expect("no gap");
                sleep(Duration::from_secs(2)).await;
            }
            let snapshot = stage.process.as_ref().and_then(|p| p.snapshot()).unwrap();
            assert!(snapshot.buffers.iter().all(|buffer| buffer.progress().error.is_none()));
            for row in stage.world.kinesis.all() {
                let again = u32::from(records[3..].contains(&row));
                assert_eq!(stage.world.ledger.times(&row).0, 1 + again, "{row:?}");
            }
        }
    }
}

/// A pipe that just starts on an old stream, at the trim horizon or at a time, has lost nothing.
#[tokio::test(start_paused = true)]
async fn the_beginning_of_a_pipe_is_not_a_gap() {
    for days in [0, 3] {
        let mut stage = Stage::new(2, Beginning::TrimHorizon, Mode::Polling);
        let old = Moment::At(stage.world.clock.now_ms());
        if days > 0 {
            stage.options.start = Beginning::From(old);
        }
        let [child, _] = stage.world.kinesis.split(&stage.shard());
        stage.world.kinesis.put(&child, 10);
        hours(&stage.world, 3 * RETENTION_HOURS).await;
        stage.world.kinesis.put(&child, 10);
        stage.all_well().await;
    }
}

/// Lowering the retention while nothing can be inserted counts, and a reader that has been full for
/// long checks again before it continues.
#[tokio::test(start_paused = true)]
async fn retention_is_followed() {
    for (restarted, mode) in
        [(false, Mode::Polling), (false, Mode::FanOut), (true, Mode::Polling), (true, Mode::FanOut)]
    {
        let mut stage = Stage::new(1, Beginning::TrimHorizon, mode);
        let shard = stage.shard();
        stage.world.kinesis.keep(48);
        stage.world.kinesis.put(&shard, 3);
        assert!(stage.refresh(Ending::Success).await.unwrap().is_some());
        // Inserts fail for 30 hours; the reader holds as much as it may.
        stage.world.kinesis.outage(Some(Error::Unavailable("nobody answers".into())));
        for hour in 0..30 {
            stage.world.kinesis.put(&shard, 3);
            hours(&stage.world, 1).await;
            let _ = stage.refresh(Ending::FailedBefore).await;
            if hour == 20 {
                stage.world.kinesis.keep(24);
            }
        }
        stage.world.kinesis.outage(None);
        if restarted {
            stage.start_again(0);
        }
        stage.told(&shard).await;
        assert_eq!(stage.world.ledger.violations(), Vec::<String>::new());
    }
}

/// Lowering it while a pull waits counts, too: the pipe has checked before, and does not start
/// over.
#[tokio::test(start_paused = true)]
async fn retention_is_followed_by_a_running_pipe() {
    for (start, mode) in beginnings() {
        let stage = Stage::new(1, start, mode);
        stage.world.kinesis.keep(48);
        stage.change_while_a_pull_waits(24).await;
        stage.told(&stage.shard()).await;
        assert_eq!(stage.world.ledger.violations(), Vec::<String>::new());
    }
}

/// And if it is raised while a pull waits, unread records still exist.
#[tokio::test(start_paused = true)]
async fn a_retention_raised_under_a_running_pipe_is_not_a_gap() {
    for (start, mode) in beginnings() {
        let stage = Stage::new(1, start, mode);
        stage.change_while_a_pull_waits(48).await;
        stage.all_well().await;
    }
}

/// DescribeStreamSummary has few calls per second for a whole account: checking the shards takes
/// one, even if the decision depends on the retention.
#[tokio::test(start_paused = true)]
async fn a_look_describes_the_stream_once() {
    let stage = Stage::new(2, Beginning::TrimHorizon, Mode::Polling);
    assert_eq!(stage.refresh(Ending::Success).await.unwrap(), None);
    assert_eq!(stage.world.kinesis.described(), 1, "at the start");
    stage.world.kinesis.expire(&stage.shard());
    sleep(SHARD_REFRESH).await;
    let _ = stage.refresh(Ending::Success).await;
    assert_eq!(stage.world.kinesis.described(), 2, "with a shard that is not listed");
}

/// Raising it in time loses nothing.
#[tokio::test(start_paused = true)]
async fn a_raised_retention_is_not_a_gap() {
    for restarted in [false, true] {
        for (start, mode) in beginnings() {
            let mut stage = Stage::new(1, start, mode);
            assert_eq!(stage.refresh(Ending::Success).await.unwrap(), None);
            sleep(Duration::from_secs(2)).await;
            stage.world.kinesis.keep(48);
            stage.world.kinesis.put(&stage.shard(), 5);
            stage.process.take_if(|_| restarted);
            hours(&stage.world, 30).await;
            if restarted {
                stage.start_again(0);
            }
            stage.all_well().await;
        }
    }
}

/// Whatever the local clock says, now or when it was last asked: it disables no check, and makes no
/// gap.
#[tokio::test(start_paused = true)]
async fn kinesis_time_decides() {
    for mode in [Mode::Polling, Mode::FanOut] {
        for days in [-40i64, 40] {
            let mut stage = Stage::new(1, Beginning::TrimHorizon, mode);
            let (shard, skew_ms) = (stage.shard(), days * 86_400_000);
            stage.start_again(skew_ms);
            stage.world.kinesis.put(&shard, 3);
            stage.all_well().await;
            sleep(Duration::from_secs(5)).await;
            let _ = stage.refresh(Ending::Success).await;
            // Then it is right again, and a day and a half passes.
            stage.process = None;
            stage.world.kinesis.put(&shard, 10);
            hours(&stage.world, RETENTION_HOURS + 12).await;
            stage.world.kinesis.put(&shard, 10);
            stage.start_again(0);
            stage.told(&shard).await;
        }
    }
}

/// A time in a row that lies in the future was written by a wrong clock. It counts as never, and is
/// replaced by what is observed.
#[tokio::test(start_paused = true)]
async fn a_time_in_the_future_counts_as_never() {
    for mode in [Mode::Polling, Mode::FanOut] {
        let mut stage = Stage::new(1, Beginning::TrimHorizon, mode);
        let shard = stage.shard();
        stage.world.kinesis.put(&shard, 3);
        stage.all_well().await;
        let wrong = stage.world.clock.now_ms() + 90 * 86_400_000;
        let age = |l: &mut domain::lease::Lease| (l.since_ms, l.caught_up_ms) = (wrong, wrong);
        stage.world.edit(&shard, age).await;
        stage.start_again(0);
        sleep(Duration::from_secs(5)).await;
        for _ in 0..5 {
            stage.refresh(Ending::Success).await.expect("the record of the position is there");
            sleep(Duration::from_secs(2)).await;
        }
        assert!(stage.world.lease(&shard).await.caught_up_ms <= stage.world.clock.now_ms(), "what is seen counts");
        stage.world.edit(&shard, age).await;
        stage.process = None;
        stage.world.kinesis.put(&shard, 10);
        hours(&stage.world, RETENTION_HOURS + 6).await;
        stage.start_again(0);
        stage.told(&shard).await;
    }
}

/// A pipe that starts with what is put from now on misses none of it, and is not refused.
#[tokio::test(start_paused = true)]
async fn latest_is_kinesis_now() {
    for skew_ms in [-20_000, 20_000, 86_400_000] {
        let mut stage = Stage::new(1, Beginning::LATEST, Mode::Polling);
        let shard = stage.shard();
        stage.start_again(skew_ms);
        stage.world.kinesis.put(&shard, 5);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(stage.refresh(Ending::Success).await.unwrap(), None, "what was put before");
        stage.world.kinesis.put(&shard, 5);
        stage.all_well().await;
        assert_eq!(stage.world.lease(&shard).await.committed_rows, 5);
    }
}
