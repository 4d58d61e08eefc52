//! What must hold once nothing goes wrong any more and everything is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::random::Plan;
use super::world::World;
use domain::lease::Lease;
use domain::limits::{BALANCE_PATIENCE, BALANCE_TOLERANCE, LEASE_BASE_WEIGHT};
use domain::names::WorkerId;
use domain::seat::worker_of;

/// One line about a lease.
pub fn line(l: &Lease) -> String {
    let offer =
        l.offer.as_ref().map(|o| format!("{} {}..{} of {}", o.batch, o.first.sequence, o.through.sequence, o.shards));
    format!("\n{} {} {} at {}, {offer:?}", l.shard_id, l.owner, l.epoch, l.checkpoint)
}

/// Once calm, two lease durations and twice the patience with uneven loads after the last change,
/// and after the end of what lingers, every unfinished lease belongs to a view of a live worker,
/// each view has some if there are enough, and they are distributed evenly by weight. And it stays
/// that way.
pub async fn shared_out(world: &World, plan: Plan) -> Result<(), String> {
    if plan.every.is_some() {
        // Nobody pulls for most of the time, and leases are released.
        return Ok(());
    }
    // Nothing is left to read, so nobody has to look often.
    world.dice.rest();
    sleep_until(world.dice.lingers().max(Instant::now()) + 2 * plan.lease + 2 * BALANCE_PATIENCE).await;
    for _ in 0..5 {
        let leases: Vec<Lease> = world.leases().await.into_iter().map(|row| row.value).collect();
        let living = world.living();
        let mut loads: BTreeMap<&WorkerId, u64> = BTreeMap::new();
        let mut heaviest = 0;
        let held = leases.iter().filter(|l| !l.finished());
        for lease in held.clone() {
            let weight = lease.bytes_per_second + LEASE_BASE_WEIGHT;
            heaviest = heaviest.max(weight);
            *loads.entry(&lease.owner).or_default() += weight;
        }
        let seats = |worker: &str| loads.keys().filter(|owner| worker_of(owner) == worker).count();
        let lives = |owner: &WorkerId| {
            let worker = worker_of(owner);
            living.get(worker).is_some_and(|views| seats(worker) <= *views)
        };
        if let Some(owner) = loads.keys().find(|owner| !lives(owner)) {
            let theirs: String = held.filter(|lease| lease.owner == **owner).map(line).collect();
            return Err(format!("in the calm nobody who lives has the leases of {owner}{theirs}"));
        }
        let views: usize = living.values().sum();
        let least = if loads.len() < views { 0 } else { loads.values().min().copied().unwrap_or(0) };
        let most = loads.values().max().copied().unwrap_or(0);
        let average = loads.values().sum::<u64>() / views as u64;
        let even = most - least <= (heaviest * 8 / 7 + 1).max(average / BALANCE_TOLERANCE);
        if !even || least == 0 && held.clone().count() >= views {
            let all: String = held.map(line).collect();
            return Err(format!("in the calm the leases are not shared out evenly: {loads:?}{all}"));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
