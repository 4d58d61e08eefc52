//! Distributing the leases of one pipe among the workers that pull it.
//!
//! Every worker computes the same plan from the same rows and carries out its own part: it takes
//! free leases assigned to it, and releases leases of which others have too few, once they are
//! settled. Two workers that see different rows may plan differently; the compare-and-set on the
//! rows decides, and the next round makes them agree.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{BALANCE_TOLERANCE, LEASE_BASE_WEIGHT, RATE_WINDOW_MS};
use crate::names::{ShardId, WorkerId};

#[cfg(test)]
mod tests;

/// An unfinished lease, as far as the plan needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Shard id.
    pub shard_id: &'a str,
    /// Who holds it; empty if anyone may take it because nobody, or a dead worker, holds it.
    pub owner: &'a str,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// The batch that is offered from it. All leases of one batch go to the same worker
    /// (**recovery-as-a-unit**).
    pub batch: Option<&'a str>,
}

/// What one worker has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards whose free leases it takes.
    pub take: BTreeSet<ShardId>,
    /// Shards whose leases it releases as soon as they have no open batch.
    pub release: BTreeSet<ShardId>,
}

/// Shards that move together, and their weight.
type Unit<'a> = (u64, Vec<&'a str>);

/// The part of the worker `me`. `workers` are all live workers that pull the pipe; leases of others
/// are left alone.
///
/// Free leases go to whoever has the least load, heaviest first. Then leases move from the most
/// loaded workers to the least loaded one, as few as possible, as long as the two differ by more
/// than 1/[`BALANCE_TOLERANCE`] of the average, or one has nothing, and the move narrows the
/// difference.
pub fn plan(leases: &[Share<'_>], workers: &BTreeSet<WorkerId>, me: &WorkerId) -> Plan {
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
    // Heaviest first; the sort is stable, so leases of equal weight stay in key order.
    units.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    for (weight, shards) in units {
        let Some((load, worker)) = by_load.pop_first() else { return plan };
        by_load.insert((load.saturating_add(weight), worker));
        if worker == me.as_str() {
            plan.take.extend(shards.into_iter().map(ShardId::from));
        }
    }
    let average = by_load.iter().fold(0u64, |sum, (load, _)| sum.saturating_add(*load)) / by_load.len().max(1) as u64;
    for _ in 0..leases.len() {
        let Some(&least) = by_load.first() else { break };
        // The most loaded worker may have a lone hot shard; moving that only moves the problem.
        let gaps = by_load.iter().rev().map(|most| (*most, most.0 - least.0));
        let uneven = gaps.take_while(|(_, gap)| least.0 == 0 || *gap > average / BALANCE_TOLERANCE);
        let found = uneven.filter_map(|(most, gap)| Some((most, moved(held.get(most.1)?, gap)?))).next();
        let Some((most, (weight, shard))) = found else { break };
        by_load.remove(&least);
        by_load.remove(&most);
        by_load.insert((most.0.saturating_sub(weight), most.1));
        by_load.insert((least.0.saturating_add(weight), least.1));
        // It moves once: its new holder has it only after it was released.
        if let Some(leases) = held.get_mut(most.1) {
            leases.remove(&(weight, shard));
        }
        if most.1 == me.as_str() {
            plan.release.insert(shard.into());
        }
    }
    plan
}

/// The lease whose move makes the two loads most alike; `None` if every move would only swap them,
/// or nearly so.
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

/// The rate after `bytes` more were committed, `elapsed_ms` after the last commit: an exponential
/// average over [`RATE_WINDOW_MS`].
pub fn rate_after(bytes_per_second: u64, bytes: u64, elapsed_ms: i64) -> u64 {
    let window_s = RATE_WINDOW_MS as f64 / 1_000.0;
    let kept = (-(elapsed_ms.max(0) as f64) / RATE_WINDOW_MS as f64).exp();
    // The cast from f64 to u64 saturates.
    (bytes_per_second as f64 * kept + bytes as f64 / window_s) as u64
}
