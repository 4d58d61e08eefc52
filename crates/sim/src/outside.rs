//! External events for a stream and a pipe: records, reshards, outages, and operators who edit the
//! state.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::identity::strangers;
use super::kinesis::RETENTION_HOURS;
use super::ledger::PERSON;
use super::names::PIPE;
use super::random::Plan;
use super::records::{number, parts};
use super::world::World;
use domain::names::{ShardId, WorkerId};
use domain::sequence::Checkpoint;

/// A stream gets no more shards than this, including closed ones.
const MOST_SHARDS: usize = 40;
const HOUR: Duration = Duration::from_secs(3_600);
/// The longest retention of a stream, hours.
const LONGEST_HOURS: i32 = 48;

/// Puts records under a few keys or many, and reshards the stream meanwhile.
pub async fn produce(world: &World, plan: Plan) {
    let (dice, kinesis) = (&world.dice, &world.kinesis);
    let keys: Vec<u128> = (0..dice.one_of(&[2, 8, 40])).map(|_| u128::from(dice.below(u64::MAX)) << 64).collect();
    loop {
        kinesis.put_key(keys[dice.below(keys.len() as u64) as usize], dice.below(12));
        if dice.percent(plan.reshards) {
            reshard(world);
        }
        // Hours without a record, in runs that last for days.
        let most = plan.every.map_or(Duration::from_millis(1_500), |_| dice.one_of(&[HOUR / 60, HOUR, 6 * HOUR]));
        sleep(dice.within(most)).await;
    }
}

/// One split or merge, or one for every shard as UpdateShardCount does it. Parents may have been
/// read or not.
fn reshard(world: &World) {
    let (dice, kinesis) = (&world.dice, &world.kinesis);
    let (open, pairs) = (kinesis.open_shards(), kinesis.neighbours());
    let room = MOST_SHARDS.saturating_sub(kinesis.count());
    match dice.below(8) {
        0 if open.len() * 2 <= room => open.iter().for_each(|shard| drop(kinesis.split(shard))),
        1 if pairs.len() <= room => pairs.iter().for_each(|(one, other)| drop(kinesis.merge(one, other))),
        2..5 if !pairs.is_empty() && room > 0 => {
            let (one, other) = &pairs[dice.below(pairs.len() as u64) as usize];
            kinesis.merge(one, other);
        }
        5..8 if room > 1 => drop(kinesis.split(&open[dice.below(open.len() as u64) as usize])),
        _ => {}
    }
}

/// Operators and time: rows are rewritten unchanged, freed, moved; records expire.
pub async fn disturb(world: &World, plan: Plan) {
    let dice = &world.dice;
    loop {
        sleep(dice.within(plan.every.map_or(Duration::from_secs(6), |_| HOUR))).await;
        if plan.every.is_some() {
            world.kinesis.trim();
            if plan.retention && dice.percent(5) {
                change_retention(world);
            }
        }
        let leases = world.leases().await;
        if leases.is_empty() {
            continue;
        }
        let lease = leases[dice.below(leases.len() as u64) as usize].value.clone();
        match dice.below(11) {
            10 => strangers(world).await,
            0..3 => world.edit(&lease.shard_id, |_| {}).await,
            3 => world.edit(&lease.shard_id, |l| l.owner = WorkerId::default()).await,
            _ if plan.every.is_some() => {}
            _ if world.ledger.moves => move_back(world, &lease.shard_id).await,
            _ => {
                if let Checkpoint::After(through) = &lease.checkpoint {
                    // The checkpoint's record stays: without it an idle shard and a gap cannot be
                    // told apart immediately.
                    world.kinesis.trim_shard(&lease.shard_id, number(&through.sequence));
                }
            }
        }
    }
}

/// The retention is lowered or raised.
fn change_retention(world: &World) {
    let (now, next) = (world.kinesis.retention(), world.dice.one_of(&[RETENTION_HOURS, 36, LONGEST_HOURS]));
    if next < now || may_be_raised(world) {
        tracing::debug!("the retention is {next} h, was {now} h");
        world.kinesis.keep(next);
    }
}

/// The retention is raised only while everyone knows what has expired: a pipe that sleeps meanwhile
/// cannot know how short it was before.
fn may_be_raised(world: &World) -> bool {
    world.kinesis.shards_ever().iter().all(|shard| !world.ledger.lost_untold(shard))
}

/// Raises the retention to the maximum, if allowed.
pub fn raise_retention(world: &World) -> bool {
    let may = may_be_raised(world);
    if may {
        world.kinesis.keep(LONGEST_HOURS);
    }
    may
}

/// The retention is lowered while pipes run, and before anyone reads what is put then, all machines
/// are suspended: for longer than the new retention, but not as long as the previous one.
pub async fn lower_retention_and_suspend(world: &World) {
    let (dice, kinesis) = (&world.dice, &world.kinesis);
    kinesis.keep(RETENTION_HOURS);
    kinesis.open_shards().iter().for_each(|shard| kinesis.put(shard, 1 + dice.below(3)));
    let hours = dice.one_of(&[36, LONGEST_HOURS - 1]);
    tracing::debug!("the retention is {RETENTION_HOURS} h, was {LONGEST_HOURS} h, and everybody sleeps for {hours} h");
    advance(hours.unsigned_abs() * HOUR).await;
    kinesis.trim();
}

/// An operator moves a position back, with or without the offer, on one row or on all, by hand or
/// with `seek`.
async fn move_back(world: &World, shard_id: &ShardId) {
    let dice = &world.dice;
    match dice.below(4) {
        0 => world.edit(shard_id, |l| l.checkpoint = Checkpoint::TrimHorizon).await,
        1 => world.edit(shard_id, |l| l.offer = None).await,
        2 => {
            let all = world.kinesis.between(shard_id, 0, u128::MAX);
            let place = all.get(dice.below(1 + all.len() as u64) as usize);
            let Some((row, _)) = place else { return };
            let to = parts(*row);
            world
                .edit(shard_id, |l| {
                    let back = Checkpoint::After(to.clone());
                    if back.precedes(&l.checkpoint) {
                        (l.checkpoint, l.offer) = (back, None);
                    }
                })
                .await;
        }
        _ => {
            let server = world.server();
            let elsewhere = world.process(PERSON, &server, 1 << 20);
            let which = dice.one_of(&["", shard_id.as_str()]).into();
            let _ = elsewhere.pipes.seek(&PIPE, &[(which, Checkpoint::TrimHorizon)]).await;
        }
    }
}

/// For a while the store is down for everyone, or Kinesis throttles everyone.
pub async fn storms(world: &World, plan: Plan) {
    let dice = &world.dice;
    loop {
        sleep(dice.within(plan.trouble)).await;
        let length = dice.within(Duration::from_secs(30).max(plan.trouble / 10));
        match dice.percent(50) {
            true => {
                tracing::debug!("the store is away for {length:?}");
                world.rows.away.store(true, Ordering::Relaxed);
                sleep(length).await;
                world.rows.away.store(false, Ordering::Relaxed);
            }
            false => {
                world.kinesis.storm(true);
                sleep(length).await;
                world.kinesis.storm(false);
            }
        }
    }
}
