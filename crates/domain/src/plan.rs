//! Sharing the leases of one pipe out between the workers that pull it.
//!
//! Every worker computes the same plan from the same rows, and carries out its own part: it takes
//! what is free and meant for it, and gives back, once they are settled, leases of which others
//! have too few. Two workers that see different rows may plan different things; the compare-and-set
//! on the rows decides, and the next look brings them together.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{BALANCE_TOLERANCE, LEASE_BASE_WEIGHT, RATE_WINDOW_MS};

#[cfg(test)]
mod tests;

/// A lease that is not finished, as far as sharing out looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Shard id.
    pub shard_id: &'a str,
    /// Who holds it; empty when anybody may take it: nobody holds it, or a dead worker.
    pub owner: &'a str,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// The batch that is offered from it. The leases of one batch go into one hand
    /// (**recovery-as-a-unit**).
    pub batch: Option<&'a str>,
}

/// What one worker does about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards whose free leases it takes.
    pub take: BTreeSet<String>,
    /// Shards whose leases it gives back as soon as no batch of theirs is open.
    pub release: BTreeSet<String>,
}

/// Shards that go together, and their weight.
type Unit<'a> = (u64, Vec<&'a str>);

/// The part of the worker `me`. `workers` are all that live and pull the pipe; leases of others are
/// left alone.
///
/// What is free goes to whoever has least, heaviest first. Then leases move from those with most to
/// the one with least, as few as possible, while the two differ by more than one part in
/// [`BALANCE_TOLERANCE`] of the average, or one has nothing, and the move brings them nearer to
/// each other.
pub fn plan(leases: &[Share<'_>], workers: &BTreeSet<String>, me: &str) -> Plan {
    let mut plan = Plan::default();
    let mut loads: BTreeMap<&str, u64> = workers.iter().map(|w| (w.as_str(), 0)).collect();
    let mut held: BTreeMap<&str, BTreeSet<(u64, &str)>> = loads.keys().map(|w| (*w, BTreeSet::new())).collect();
    let mut units: BTreeMap<(Option<&str>, &str), Unit<'_>> = BTreeMap::new();
    for lease in leases {
        let weight = weight(lease);
        if let (Some(load), Some(held)) = (loads.get_mut(lease.owner), held.get_mut(lease.owner)) {
            *load = load.saturating_add(weight);
            held.insert((weight, lease.shard_id));
        } else if lease.owner.is_empty() {
            let alone = if lease.batch.is_some() { "" } else { lease.shard_id };
            let unit = units.entry((lease.batch, alone)).or_default();
            unit.0 = unit.0.saturating_add(weight);
            unit.1.push(lease.shard_id);
        }
    }
    let mut by_load: BTreeSet<(u64, &str)> = loads.iter().map(|(worker, load)| (*load, *worker)).collect();
    let mut units: Vec<Unit<'_>> = units.into_values().collect();
    // Heaviest first; the sort is stable, so that equal ones stay in the order of their keys.
    units.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    for (weight, shards) in units {
        let Some((load, worker)) = by_load.pop_first() else { return plan };
        by_load.insert((load.saturating_add(weight), worker));
        if worker == me {
            plan.take.extend(shards.into_iter().map(str::to_owned));
        }
    }
    let average = by_load.iter().fold(0u64, |sum, (load, _)| sum.saturating_add(*load)) / by_load.len().max(1) as u64;
    for _ in 0..leases.len() {
        let Some(&least) = by_load.first() else { break };
        // Whoever has most may have one hot shard alone, which helps nobody elsewhere.
        let gaps = by_load.iter().rev().map(|most| (*most, most.0 - least.0));
        let uneven = gaps.take_while(|(_, gap)| least.0 == 0 || *gap > average / BALANCE_TOLERANCE);
        let found = uneven.filter_map(|(most, gap)| Some((most, moved(held.get(most.1)?, gap)?))).next();
        let Some((most, (weight, shard))) = found else { break };
        by_load.remove(&least);
        by_load.remove(&most);
        by_load.insert((most.0.saturating_sub(weight), most.1));
        by_load.insert((least.0.saturating_add(weight), least.1));
        // It moves once: the one who gets it has it only when it was given back.
        if let Some(leases) = held.get_mut(most.1) {
            leases.remove(&(weight, shard));
        }
        if most.1 == me {
            plan.release.insert(shard.to_owned());
        }
    }
    plan
}

/// The lease whose move makes the two ends most alike; none when each would only exchange their
/// places, or nearly so.
fn moved<'a>(leases: &BTreeSet<(u64, &'a str)>, gap: u64) -> Option<(u64, &'a str)> {
    let half = gap.div_ceil(2);
    let below = leases.range(..(half, "")).next_back();
    let above = leases.range((half, "")..).next().filter(|(weight, _)| *weight <= gap - gap / 8);
    match (below, above) {
        (Some(below), Some(above)) if half - below.0 < above.0 - half => Some(*below),
        (below, above) => above.or(below).copied(),
    }
}

fn weight(lease: &Share<'_>) -> u64 {
    lease.bytes_per_second.saturating_add(LEASE_BASE_WEIGHT)
}

/// The rate after `bytes` more were committed, `elapsed_ms` after the last commit: an average over
/// [`RATE_WINDOW_MS`] that forgets gradually.
pub fn rate_after(bytes_per_second: u64, bytes: u64, elapsed_ms: i64) -> u64 {
    let window_s = RATE_WINDOW_MS as f64 / 1_000.0;
    let kept = (-(elapsed_ms.max(0) as f64) / RATE_WINDOW_MS as f64).exp();
    // From f64 to u64 the cast saturates.
    (bytes_per_second as f64 * kept + bytes as f64 / window_s) as u64
}
