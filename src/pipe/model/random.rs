//! Random runs: records, splits and merges, bad answers everywhere, crashes, people. Then calm, and the account.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::clickhouse::FakeServer;
use super::dice::Dice;
use super::kinesis::{STREAM, number};
use super::ledger::PERSON;
use super::world::{Ending, PIPE, Process, World, options};
use crate::domain::batch::Limits;
use crate::domain::error::Error;
use crate::domain::lease::Lease;
use crate::domain::sequence::{Checkpoint, SequenceNumber};
use crate::encode::Format;
use crate::pipe::{Mode, PullOptions};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(40);
/// How long it may take after that until everything is committed.
const PATIENCE: Duration = Duration::from_secs(600);

/// A run that a seed decides. The error says what was wrong at its end.
pub async fn run(seed: u64) -> Result<u64, String> {
    let dice = fastrand::Rng::with_seed(seed).u64(..);
    let (shards, workers, moves) = (1 + dice % 4, 1 + dice / 4 % 2, (dice / 8).is_multiple_of(3));
    let world = Arc::new(World::new(seed, shards as usize, moves));
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for worker in 0..workers {
        let (world, over) = (world.clone(), over.clone());
        tasks.push(tokio::spawn(async move { bridge(&world, &format!("worker-{worker}"), &over).await }));
    }
    let (producer, people) = (world.clone(), world.clone());
    let producer = tokio::spawn(async move { produce(&producer).await });
    let people = tokio::spawn(async move { disturb(&people).await });
    sleep(TROUBLE).await;
    for task in [producer, people] {
        task.abort();
        let _ = task.await;
    }
    world.dice.calm();
    let settled = timeout(PATIENCE, async {
        while !world.settled().await && world.ledger.violations().is_empty() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let settled = settled.await.is_ok();
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.map_err(|e| e.to_string())?;
    }
    match (world.ledger.violations().first(), settled) {
        (Some(broken), _) => return Err(broken.clone()),
        (None, false) => {
            let line = |l: &Lease| {
                let offer = l.offer.as_ref().map(|o| format!("{} {}..{} of {}", o.batch, o.first, o.through, o.shards));
                format!("\n{} {} {} at {}, {offer:?}", l.shard_id, l.owner, l.epoch, l.checkpoint)
            };
            let leases: String = world.leases().await.iter().map(|row| line(&row.value)).collect();
            return Err(format!("not everything is committed after {PATIENCE:?}:{leases}"));
        }
        (None, true) => world.judge()?,
    }
    Ok(world.ledger.served_count())
}

/// One bridge beside one server, started again whenever it ends.
async fn bridge(world: &World, worker: &str, over: &AtomicBool) {
    let dice = &world.dice;
    let server = world.server();
    let memory = dice.one_of(&[48 << 10, 256 << 10, 32 << 20]);
    let mut options = PullOptions {
        poll: Duration::from_millis(dice.one_of(&[200, 500, 1_000])),
        mode: dice.one_of(&[Mode::Polling, Mode::FanOut]),
        linger: Duration::from_millis(dice.one_of(&[0, 200, 1_000])),
        wait: Duration::from_millis(dice.one_of(&[100, 1_000, 5_000])),
        shape: dice.one_of(&[Format::ArrowStream, Format::JsonEachRow]).name().into(),
        ..options(Limits { max_rows: dice.one_of(&[1, 7, 50, 1_000]), max_bytes: dice.one_of(&[200, 4_000, 1 << 20]) })
    };
    while !over.load(Ordering::Relaxed) {
        let process = world.process(worker, &server, memory);
        while !over.load(Ordering::Relaxed) {
            if cycle(world, &process, &server, &mut options).await == Next::Crash {
                break;
            }
            dice.delay(300).await;
        }
        if dice.percent(20) {
            process.pipes.stop().await;
        }
        drop(process);
        if dice.trouble(60) {
            sleep(Duration::from_millis(dice.below(20_000))).await;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Refresh,
    Crash,
}

/// One refresh, and what may happen around it.
async fn cycle(world: &World, process: &Process, server: &FakeServer, options: &mut PullOptions) -> Next {
    let dice = &world.dice;
    let ending = ending(dice);
    if dice.trouble(2) {
        alter(options);
    }
    if dice.trouble(3) {
        options.mode = dice.one_of(&[Mode::Polling, Mode::FanOut]);
    }
    process.store.mute(dice.trouble(10));
    server.begin();
    let pull = process.pipes.pull(PIPE, STREAM, options.clone());
    let pulled = match dice.trouble(8) {
        false => Ok(pull.await),
        // The refresh is cancelled, the server dies or the bridge dies while the pull waits.
        true => timeout(Duration::from_millis(dice.below(1_500)), pull).await,
    };
    let Ok(pulled) = pulled else {
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
    let refused = world.rest_of_refresh(server, options, ending, pulled).await.err();
    if matches!(ending, Ending::BridgeCrash | Ending::BridgeCrashAfter) || dice.trouble(2) {
        return Next::Crash;
    }
    if dice.trouble(2) {
        // The process stands still, or nothing of what it says arrives: others take over, and it does not know.
        sleep(Duration::from_secs(dice.below(40))).await;
    }
    if let Some(refused) = refused {
        if matches!(refused, Error::BadRequest(_)) {
            // The open batch was offered in the other format, and the message says so.
            alter(options);
        }
        sleep(Duration::from_millis(100 + dice.below(1_000))).await;
    }
    recovered(world, server).await
}

async fn recovered(world: &World, server: &FakeServer) -> Next {
    world.dice.delay(500).await;
    server.restart();
    Next::Refresh
}

/// A person changes the format in the view.
fn alter(options: &mut PullOptions) {
    let other = Format::ALL.iter().find(|f| f.name() != options.shape);
    options.shape = other.map(|f| f.name()).unwrap_or_default().into();
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

/// Puts records, and splits and merges shards while it does.
async fn produce(world: &World) {
    let (dice, kinesis) = (&world.dice, &world.kinesis);
    let mut resharded = 0;
    loop {
        let open = kinesis.open_shards();
        let shard = &open[dice.below(open.len() as u64) as usize];
        kinesis.put(shard, dice.below(12));
        if resharded < 3 && dice.percent(6) {
            resharded += 1;
            let other = open.iter().find(|s| *s != shard);
            match other {
                Some(other) if dice.percent(40) => drop(kinesis.merge(shard, other)),
                _ => drop(kinesis.split(shard)),
            }
        }
        sleep(Duration::from_millis(dice.below(1_500))).await;
    }
}

/// People and time: rows are written as they are, freed, moved; committed records leave the retention.
async fn disturb(world: &World) {
    let dice = &world.dice;
    loop {
        sleep(Duration::from_millis(dice.below(6_000))).await;
        let leases = world.leases().await;
        if leases.is_empty() {
            continue;
        }
        let lease = leases[dice.below(leases.len() as u64) as usize].value.clone();
        match dice.below(10) {
            0..3 => world.edit(&lease.shard_id, |_| {}).await,
            3 => world.edit(&lease.shard_id, |l| l.owner.clear()).await,
            _ if world.ledger.moves => move_back(world, &lease.shard_id).await,
            _ => {
                if let Checkpoint::After(through, _) = &lease.checkpoint {
                    // The record of the checkpoint stays: without it an idle shard and a gap cannot be told apart at once.
                    world.kinesis.trim_shard(&lease.shard_id, number(through));
                }
            }
        }
    }
}

/// A person moves a position back, with or without the offer, on one row or on all, by hand or with `seek`.
async fn move_back(world: &World, shard_id: &str) {
    let dice = &world.dice;
    match dice.below(4) {
        0 => world.edit(shard_id, |l| l.checkpoint = Checkpoint::TrimHorizon).await,
        1 => world.edit(shard_id, |l| l.offer = None).await,
        2 => {
            let all = world.kinesis.between(shard_id, 0, u128::MAX);
            let place = all.get(dice.below(1 + all.len() as u64) as usize);
            let Some((_, sequence)) = place else { return };
            let to = SequenceNumber::parse(&sequence.to_string()).unwrap();
            world
                .edit(shard_id, |l| {
                    let back = Checkpoint::After(to.clone(), 0);
                    if back.precedes(&l.checkpoint) {
                        (l.checkpoint, l.offer) = (back, None);
                    }
                })
                .await;
        }
        _ => {
            let server = world.server();
            let elsewhere = world.process(PERSON, &server, 1 << 20);
            let which = dice.one_of(&["", shard_id]).to_string();
            let _ = elsewhere.pipes.seek(PIPE, &[(which, Checkpoint::TrimHorizon)]).await;
        }
    }
}
