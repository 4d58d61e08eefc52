//! The life of a bridge in a random run: it starts, its views refresh, it crashes or leaves, and it
//! starts again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::clickhouse::{FakeServer, VIEW};
use super::dice::Dice;
use super::random::{Next, Plan, cycle};
use super::remote::Gate;
use super::store::WatchedStore;
use super::world::{Process, World, options};
use bridge::pipe::{Confirm, Mode, OnFailure, PullOptions};
use domain::batch::Limits;
use domain::names::WorkerId;
use domain::shape::BatchShape;
use domain::start::Beginning;
use domain::unpacking::Unpacking;
use formats::encode::Format;

/// The time between two GetRecords calls of a shard; none leaves it to the bridge.
const POLLS: [Option<Duration>; 3] = [None, Some(Duration::from_millis(500)), Some(Duration::from_secs(1))];
/// How long a pull waits for a record.
const WAITS: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];
/// How long a batch fills; none leaves it to the bridge.
const LINGERS: [Option<Duration>; 3] = [None, Some(Duration::ZERO), Some(Duration::from_secs(1))];
/// Rows of a batch, and bytes.
const MAX_ROWS: [usize; 4] = [1, 7, 50, 1_000];
const MAX_BYTES: [usize; 3] = [200, 4_000, 1 << 20];
/// The time between two GetRecords calls, and how long a pull waits, when nothing is left to read.
const RESTING_POLL: Duration = Duration::from_secs(10);
const RESTING_WAIT: Duration = Duration::from_secs(20);
/// In runs that last for days: the time between two GetRecords calls of a shard, and how long a
/// pull waits for a record. Polls that bring nothing would take most of the time of all runs.
const DAYS_POLL: Duration = Duration::from_secs(60);
const DAYS_WAIT: Duration = Duration::from_secs(5);
/// The same where a reader has to see during one pull that nothing is left.
pub const RETENTION_POLL: Duration = Duration::from_secs(20);
pub const RETENTION_WAIT: Duration = Duration::from_secs(24);

/// One bridge next to one server: it may start late, is restarted when it dies, and may leave for
/// good.
pub async fn life(world: &World, plan: Plan, number: u64, over: &AtomicBool) {
    let dice = &world.dice;
    let (server, worker) = (world.server(), WorkerId::from(format!("worker-{number}")));
    let mut views = vec![(server.clone(), options_of(dice, plan, VIEW))];
    for number in 2..=plan.views {
        let name = format!("{VIEW}_{number}");
        views.push((server.another_view(&name), options_of(dice, plan, &name)));
    }
    let memory = dice.one_of(&[48 << 10, 256 << 10, 32 << 20]);
    if number > 0 && dice.percent(30) {
        dice.trouble_for(dice.within(plan.trouble)).await;
    }
    while !over.load(Ordering::Relaxed) {
        world.lives(&worker, views.len());
        let process = world.skewed_process(&worker, &server, memory, skew_ms(dice, plan));
        tracing::debug!(worker = worker.as_str(), views = views.len(), "starts");
        let pauses =
            plan.pauses.map(|most| tokio::spawn(pause(dice.clone(), process.gate.clone(), worker.clone(), most)));
        let hears = tokio::spawn(hears_in_the_calm(dice.clone(), process.store.clone()));
        tokio::select! {
            biased;
            why = process.heartbeat.refused() => tracing::debug!(worker = worker.as_str(), "{why}"),
            () = all_views(world, plan, &process, &mut views, over) => {}
        }
        hears.abort();
        if let Some(pauses) = pauses {
            pauses.abort();
        }
        let leaves = dice.percent(20);
        if leaves {
            process.gate.resume();
            process.leave().await;
        }
        tracing::debug!(worker = worker.as_str(), leaves, "ends");
        drop(process);
        views.iter().for_each(|(view, _)| view.lose_bridge());
        if leaves && number > 0 && dice.trouble(30) {
            world.lives(&worker, 0);
            return;
        }
        if views.len() > 1 && dice.trouble(20) {
            // Without a view for good.
            views.pop().iter().for_each(|(view, _)| view.drop_view(false));
        }
        if dice.trouble(60) {
            dice.linger(Duration::from_millis(dice.below(20_000))).await;
        }
    }
}

/// What a view asks for.
fn options_of(dice: &Dice, plan: Plan, view: &str) -> PullOptions {
    let days = plan.every.is_some();
    let modes = if days { [Mode::Polling; 3] } else { [Mode::Polling, Mode::Polling, Mode::FanOut] };
    let (poll, wait) = if days { days_pace(plan) } else { (dice.one_of(&POLLS), dice.one_of(&WAITS)) };
    let unpacking = Unpacking { split: plan.split(), ..Unpacking::default() };
    PullOptions {
        confirm: Confirm::View { database: "default".into(), view: view.into() },
        poll,
        mode: dice.one_of(&modes),
        linger: dice.one_of(&LINGERS),
        wait,
        on_failure: if plan.poison.is_some() { OnFailure::Isolate } else { OnFailure::Stop },
        start: if plan.latest { Beginning::LATEST } else { Beginning::TrimHorizon },
        shape: BatchShape::new(dice.one_of(&[Format::ArrowStream, Format::JsonEachRow]).name(), unpacking),
        unpacking,
        ..options(Limits { max_rows: dice.one_of(&MAX_ROWS), max_bytes: dice.one_of(&MAX_BYTES) })
    }
}

/// In runs that last for days, the time between two GetRecords calls of a shard, and how long a
/// pull waits.
fn days_pace(plan: Plan) -> (Option<Duration>, Duration) {
    if plan.retention { (Some(RETENTION_POLL), RETENTION_WAIT) } else { (Some(DAYS_POLL), DAYS_WAIT) }
}

/// All views refresh side by side, until the process crashes or the run is over.
async fn all_views(
    world: &World,
    plan: Plan,
    process: &Process,
    views: &mut [(Arc<FakeServer>, PullOptions)],
    over: &AtomicBool,
) {
    // Their pulls may have ended with the last process.
    views.iter().for_each(|(view, _)| view.copied(None));
    let each = views.iter_mut().map(|(view, options)| refreshes(world, plan, process, view, options, over));
    let mut each: FuturesUnordered<_> = each.collect();
    while each.next().await.is_some_and(|next| next != Next::Crash) {}
}

/// The refreshes of a view, one after the other.
async fn refreshes(
    world: &World,
    plan: Plan,
    process: &Process,
    view: &FakeServer,
    options: &mut PullOptions,
    over: &AtomicBool,
) -> Next {
    let dice = &world.dice;
    while !over.load(Ordering::Relaxed) {
        let next = cycle(world, plan, process, view, options).await;
        if dice.is_calm() {
            hurry_in_the_calm(options, dice.rests());
        }
        if next == Next::Crash {
            return Next::Crash;
        }
        if let Some(every) = plan.every {
            dice.trouble_for(every).await;
        }
        if !dice.is_calm() {
            dice.delay(300).await;
        }
    }
    Next::Refresh
}

/// Nothing goes wrong any more, and whatever is left is brought in with the widest and slowest that
/// a run may have: with what a run happened to have, this took most of the time of all runs.
fn hurry_in_the_calm(options: &mut PullOptions, nothing_left: bool) {
    (options.poll, options.wait) = match nothing_left {
        true => (Some(RESTING_POLL), RESTING_WAIT),
        false => (POLLS[POLLS.len() - 1], WAITS[WAITS.len() - 1]),
    };
    options.linger = LINGERS[LINGERS.len() - 1];
    options.limits = Limits { max_rows: MAX_ROWS[MAX_ROWS.len() - 1], max_bytes: MAX_BYTES[MAX_BYTES.len() - 1] };
}

/// A heartbeat that gets lost until the next refresh would otherwise get lost in the calm, too, for
/// as long as a pull lasts.
async fn hears_in_the_calm(dice: Arc<Dice>, store: Arc<WatchedStore>) {
    dice.trouble_for(Duration::MAX).await;
    store.mute(false);
}

/// How far a wall clock is off.
pub fn skew_ms(dice: &Dice, plan: Plan) -> i64 {
    dice.within(2 * plan.skew).as_millis() as i64 - plan.skew.as_millis() as i64
}

/// A process pauses from time to time, until it is calm.
async fn pause(dice: Arc<Dice>, gate: Arc<Gate>, worker: WorkerId, most: Duration) {
    while !dice.is_calm() {
        dice.trouble_for(dice.within(2 * most)).await;
        tracing::debug!(worker = worker.as_str(), "stands still");
        gate.pause();
        dice.trouble_for(dice.within(most)).await;
        tracing::debug!(worker = worker.as_str(), "goes on");
        gate.resume();
    }
}
