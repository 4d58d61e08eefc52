//! Random runs: records, reshards, bad responses everywhere, crashes, pauses, operators. Then calm,
//! and the final check.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::calm::{line, shared_out};
use super::clickhouse::FakeServer;
use super::dice::Dice;
use super::identity::{copied_view, second_view};
use super::ledger::PERSON;
use super::life::{RETENTION_POLL, RETENTION_WAIT, life, skew_ms};
use super::names::{PIPE, STREAM};
use super::outside::{disturb, lower_retention_and_suspend, produce, raise_retention, storms};
use super::world::{Ending, LEASE, PATIENCE, Process, World};
use bridge::pipe::{Mode, PullOptions};
use domain::error::Error;
use domain::names::ShardId;
use domain::sequence::Checkpoint;
use domain::shape::BatchShape;
use domain::unpacking::Split;
use formats::encode::Format;

/// How long it may take, once calm, until everything is committed; or three lease durations, if that
/// is longer.
const SETTLED_WITHIN: Duration = Duration::from_secs(900);
const HOUR: Duration = Duration::from_secs(3_600);

/// What kind of run a seed is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Initial number of shards.
    pub shards: usize,
    /// Bridges, each next to a server.
    pub workers: u64,
    /// Views of each server that pull the pipe.
    pub views: usize,
    /// Operators move positions: then rows may come twice.
    pub moves: bool,
    /// How long things go wrong.
    pub trouble: Duration,
    /// The lease duration.
    pub lease: Duration,
    /// Percentage of puts that come with a reshard.
    pub reshards: u64,
    /// Processes pause for up to this long.
    pub pauses: Option<Duration>,
    /// Wall clocks are off by up to this much.
    pub skew: Duration,
    /// Sequence numbers divisible by this belong to rows that ClickHouse refuses.
    pub poison: Option<u64>,
    /// The refresh interval of the view; the run lasts for days, and what is read too late has
    /// expired.
    pub every: Option<Duration>,
    /// The retention is lowered and raised meanwhile.
    pub retention: bool,
    /// The pipe starts with what is put from then on.
    pub latest: bool,
}

impl Plan {
    /// Whether views split several JSON documents out of a record.
    pub fn split(&self) -> Split {
        if self.shards.is_multiple_of(2) { Split::Json } else { Split::None }
    }

    fn of(dice: &Dice) -> Plan {
        let few = Plan {
            shards: 1 + dice.below(4) as usize,
            workers: 1 + dice.below(2),
            views: if dice.percent(25) { 2 + dice.below(2) as usize } else { 1 },
            moves: dice.percent(33),
            trouble: Duration::from_secs(40),
            lease: LEASE,
            reshards: 6,
            pauses: None,
            skew: Duration::ZERO,
            poison: Some(dice.one_of(&[11, 31, 97])).filter(|_| dice.percent(15)),
            every: None,
            retention: false,
            latest: false,
        };
        let pauses = Some(Duration::from_secs(dice.one_of(&[20, 40, 180])));
        let skew = Duration::from_secs(3_600 * dice.one_of(&[0, 1, 5]));
        match dice.below(20) {
            0..7 => few,
            7..11 => Plan { pauses, skew, workers: 1 + dice.below(3), ..few },
            11..18 => Plan {
                shards: 1 + dice.below(12) as usize,
                workers: 2 + dice.below(5),
                moves: dice.percent(10),
                trouble: Duration::from_secs(90),
                reshards: 10,
                pauses: pauses.filter(|_| dice.percent(60)),
                skew,
                ..few
            },
            _ => {
                let every = Duration::from_secs(dice.one_of(&[300, 1_800, 7_200, 26 * 3_600]));
                Plan {
                    workers: 1 + dice.below(3),
                    moves: true,
                    // The more refreshes, the fewer days.
                    trouble: if every < HOUR / 4 { 36 * HOUR } else { 24 * HOUR * (2 + dice.below(3) as u32) },
                    // Heartbeats of days in which nobody pulls would take most of the time.
                    lease: every.min(HOUR / 4),
                    reshards: 3,
                    pauses: Some(Duration::from_secs(7_200)).filter(|_| dice.percent(50)),
                    skew: 12 * skew,
                    retention: dice.percent(50),
                    latest: dice.percent(25),
                    every: Some(every),
                    ..few
                }
            }
        }
    }
}

/// A run decided by a seed, and its trace. The error says what was wrong.
pub async fn run(seed: u64, traced: bool) -> (Result<u64, String>, Vec<String>) {
    let dice = Dice::new(seed, traced);
    let plan = Plan::of(&dice);
    tracing::debug!("{plan:?}");
    let world = Arc::new(World::new(dice.clone(), plan.shards, plan.moves, plan.lease));
    world.quarantine.poison(plan.poison.unwrap_or(0));
    if plan.split() == Split::Json {
        world.kinesis.put_items();
    }
    let outcome = play(&world, plan).await;
    (outcome, dice.trace())
}

async fn play(world: &Arc<World>, plan: Plan) -> Result<u64, String> {
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for worker in 0..plan.workers {
        let (world, over) = (world.clone(), over.clone());
        tasks.push(tokio::spawn(async move { life(&world, plan, worker, &over).await }));
    }
    let (producer, people, weather) = (world.clone(), world.clone(), world.clone());
    let others = [
        tokio::spawn(async move { produce(&producer, plan).await }),
        tokio::spawn(async move { disturb(&people, plan).await }),
        tokio::spawn(async move { storms(&weather, plan).await }),
    ];
    sleep(plan.trouble).await;
    for task in others {
        task.abort();
        let _ = task.await;
    }
    world.kinesis.storm(false);
    world.rows.away.store(false, Ordering::Relaxed);
    world.dice.calm();
    tracing::debug!("calm");
    if plan.every.is_some() {
        // A shard of which nothing was read and everything has expired is only passed by later
        // records.
        world.kinesis.open_shards().iter().for_each(|shard| world.kinesis.put(shard, 1));
    }
    let patience = SETTLED_WITHIN.max(3 * plan.lease);
    let settled = timeout(patience, async {
        while !(world.settled().await && world.finished().await) && world.ledger.violations().is_empty() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let settled = settled.await.is_ok();
    let shared_out = match settled && world.ledger.violations().is_empty() {
        true => shared_out(world, plan).await,
        false => Ok(()),
    };
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.map_err(|e| e.to_string())?;
    }
    match (world.ledger.violations().first(), settled) {
        (Some(broken), _) => return Err(broken.clone()),
        (None, false) => {
            let leases = world.leases().await;
            let all: String = leases.iter().map(|row| line(&row.value)).collect();
            return Err(format!("not everything is committed after {patience:?}:{all}"));
        }
        (None, true) => world.judge()?,
    }
    shared_out?;
    Ok(world.ledger.served_count())
}

/// What follows a refresh.
#[derive(PartialEq, Eq)]
pub enum Next {
    /// The next one.
    Refresh,
    /// The end of the process.
    Crash,
}

/// One refresh, and what may happen around it.
pub async fn cycle(
    world: &World,
    plan: Plan,
    process: &Process,
    server: &FakeServer,
    options: &mut PullOptions,
) -> Next {
    let dice = &world.dice;
    let ending = ending(dice);
    let ending = if plan.poison.is_some() && dice.trouble(10) { Ending::Refused } else { ending };
    if dice.trouble(2) {
        alter(options);
    }
    if dice.trouble(3) {
        options.mode = if plan.every.is_some() { Mode::Polling } else { dice.one_of(&[Mode::Polling, Mode::FanOut]) };
    }
    if dice.trouble(4) {
        second_view(world, process, options).await;
    }
    if dice.trouble(4) {
        copied_view(world, server, process, options).await;
    }
    process.store.mute(dice.trouble(10));
    if dice.trouble(3) {
        process.clock.jump(skew_ms(dice, plan));
    }
    server.begin();
    let pull = async {
        let pulled = process.pipes.pull(&PIPE, &STREAM, options.clone()).await;
        process.gate.pass().await;
        pulled
    };
    // The refresh is cancelled, the server crashes or the bridge crashes while the pull waits; or
    // ClickHouse receives nothing for too long.
    let given_up = dice.trouble(8);
    let patience = if given_up { Duration::from_millis(dice.below(1_500)) } else { PATIENCE };
    let Ok(pulled) = suspended(world, plan, timeout(patience, pull)).await else {
        if !given_up {
            tracing::debug!("the pull is given up: timeout");
            server.end(Err("Timeout exceeded while reading from socket".into()));
            return recovered(world, server).await;
        }
        let what = dice.below(3);
        tracing::debug!("the pull is given up: {}", ["cancelled", "server crash", "bridge crash"][what as usize]);
        match what {
            0 => server.cancel(),
            1 => server.crash(),
            _ => {
                server.end(Err("the connection broke".into()));
                return Next::Crash;
            }
        }
        return recovered(world, server).await;
    };
    let refused = world.rest_of_refresh(process, server, options, ending, pulled).await.err();
    // What an operator sees in `/v1/pipes`: a gap in one shard does not stop the others.
    let buffers = process.pipes.snapshots().into_values().flat_map(|snapshot| snapshot.buffers);
    for error in buffers.filter_map(|b| b.progress().error) {
        if let Error::Gap(told) = error {
            gap(world, plan, process, &told).await;
        }
    }
    if matches!(ending, Ending::BridgeCrash | Ending::BridgeCrashAfter) || dice.trouble(2) {
        return Next::Crash;
    }
    if dice.trouble(2) {
        // Nobody pulls for a while.
        dice.linger(Duration::from_secs(dice.below(40))).await;
    }
    if let Some(refused) = refused {
        if let Error::Gap(told) = &refused {
            gap(world, plan, process, told).await;
        }
        if matches!(refused, Error::BadRequest(_)) {
            // The open batch was offered in the other format, and the message says so.
            alter(options);
        }
        sleep(Duration::from_millis(100 + dice.below(1_000))).await;
    }
    recovered(world, server).await
}

/// The response to a pull. About twice a day, in a world whose retention changes, everyone is
/// suspended while a pull waits for records.
async fn suspended<T>(world: &World, plan: Plan, pull: impl Future<Output = T>) -> T {
    let (dice, mut pull) = (&world.dice, pin!(pull));
    let due = |every| plan.retention && !dice.is_calm() && dice.within(12 * HOUR) < every;
    if !plan.every.is_some_and(due) || !raise_retention(world) {
        return pull.await;
    }
    tokio::select! {
        biased;
        pulled = &mut pull => return pulled,
        // The pipe has started by then, and its readers have seen that nothing is left to read.
        () = sleep(RETENTION_POLL + dice.within(RETENTION_WAIT - RETENTION_POLL)) => {}
    }
    // Calm may have begun meanwhile, and a night in it would leave no time for the rest.
    if !dice.is_calm() {
        lower_retention_and_suspend(world).await;
    }
    pull.await
}

async fn recovered(world: &World, server: &FakeServer) -> Next {
    // The view's schedule or the bridge, whichever comes first.
    tokio::select! {
        biased;
        () = server.wanted() => {}
        () = world.dice.delay(500) => {}
    }
    server.restart();
    Next::Refresh
}

/// An operator changes the format in the view.
fn alter(options: &mut PullOptions) {
    let other = Format::ALL.iter().find(|f| !options.shape.as_str().starts_with(f.name()));
    options.shape = BatchShape::new(other.map(|f| f.name()).unwrap_or_default(), options.unpacking);
}

fn ending(dice: &Dice) -> Ending {
    if !dice.trouble(40) {
        return Ending::Success;
    }
    dice.one_of(&[
        Ending::Unread,
        Ending::Unread,
        Ending::FailedBefore,
        Ending::FailedBefore,
        Ending::FailedAfter,
        Ending::FailedAfter,
        Ending::Cancelled,
        Ending::Replaced,
        Ending::ServerCrash { inserted: false },
        Ending::ServerCrash { inserted: true },
        Ending::BridgeCrash,
        Ending::BridgeCrashAfter,
        Ending::Partial,
    ])
}

/// A gap is reported. In a world that loses nothing there must be none; in the others an operator
/// continues from the oldest record.
async fn gap(world: &World, plan: Plan, process: &Process, told: &str) {
    tracing::debug!("{told}");
    let shard = told.split("shard ").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or_default();
    let shard = ShardId::from(shard);
    if plan.every.is_none() {
        // Committed records expire immediately here; a process that was paused may miss it, and
        // does not hold the lease.
        let lease = world.lease(&shard).await;
        if process.store.taken(&lease.key()) != Some(lease.epoch) {
            return;
        }
        return world.ledger.broken("gap-is-an-error", format!("nothing is lost, and it says: {told}"));
    }
    let elsewhere = world.process(PERSON, &world.server(), 1 << 20);
    world.ledger.gap_told(&shard);
    // The error may concern only the response.
    let _ = elsewhere.pipes.seek(&PIPE, &[(shard.clone(), Checkpoint::TrimHorizon)]).await;
    world.ledger.begins(&shard);
}
