//! What each step of a pipe writes to its lease rows. Pure: computes the wanted rows from the rows
//! as last read, the open batch and the time.
//!
//! `now_ms` is always the local time, Unix ms, for what users read.

use std::collections::HashMap;

use super::open::Open;
use super::rows::Rows;
use domain::batch::Batch;
use domain::error::Error;
use domain::lease::{Identity, Lease, Seen};
use domain::names::{BatchId, PipeName, ShardId};
use domain::plan::rate_after;
use domain::sequence::Checkpoint;
use domain::shard::Shard;

#[cfg(test)]
mod tests;

/// The rows that still lack the open batch's offer, with it; none if positions changed since it was
/// frozen.
pub fn offers(rows: &Rows, open: &Open, now_ms: i64) -> Result<Option<Vec<Lease>>, Error> {
    let shards = open.batch.ranges.len();
    // An attempt whose answer was lost may have written some of them with another shape, and a user
    // may have changed the rest.
    let written =
        |(id, _): &(ShardId, Checkpoint)| rows.get(id)?.offer.as_ref().filter(|offer| offer.batch == open.batch.id);
    let shape = open.before.iter().find_map(written).map_or(&open.shape, |offer| &offer.shape);
    let mut changes = Vec::with_capacity(shards);
    for range in &open.batch.ranges {
        let id = &range.shard_id;
        // Both are ordered by shard id.
        let Ok(at) = open.before.binary_search_by(|(shard, _)| shard.cmp(id)) else { return Ok(None) };
        let lease = rows.get(id).filter(|l| l.checkpoint == open.before[at].1);
        match lease.map(|l| (l, &l.offer)) {
            Some((_, Some(offer))) if offer.batch == open.batch.id => {}
            Some((lease, None)) => {
                let offer = range.offer(&open.batch.id, shape, shards as u32)?;
                changes.push(rows.destined(lease.offer(&rows.holder(id), offer, now_ms)?));
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(changes))
}

/// The rows that offer `half` in place of the open batch; none if positions changed.
pub fn halves(rows: &Rows, open: &Open, half: &Batch, now_ms: i64) -> Result<Option<Vec<Lease>>, Error> {
    let shards = half.ranges.len() as u32;
    let mut changes = Vec::with_capacity(open.before.len());
    for (id, before) in &open.before {
        let lease = rows.get(id).filter(|l| l.batch() == Some(&open.batch.id) && l.checkpoint == *before);
        let Some(lease) = lease else { return Ok(None) };
        let range = half.ranges.iter().find(|range| range.shard_id == *id);
        let offer = range.map(|range| range.offer(&half.id, &open.shape, shards)).transpose()?;
        changes.push(lease.halve(&rows.holder(id), &open.batch.id, offer, now_ms)?);
    }
    Ok(Some(changes))
}

/// The rows that commit a confirmed batch.
#[derive(Debug, Default)]
pub struct Commits {
    /// The rows.
    pub leases: Vec<Lease>,
    /// Whether a shard of the batch was moved meanwhile; it keeps that position.
    pub moved: bool,
}

/// The rows that commit the open batch (**commit-equals-offer**). `seen`: what is known about a
/// shard's position after it.
pub fn commits(rows: &Rows, open: &Open, seen: impl Fn(&ShardId) -> Seen, now_ms: i64) -> Result<Commits, Error> {
    let mut commits = Commits::default();
    for (id, before) in &open.before {
        let ours = |l: &&Lease| l.batch() == Some(&open.batch.id);
        match rows.get(id).filter(ours) {
            Some(lease) if lease.checkpoint == *before => {
                let next = lease.commit(&rows.holder(id), &open.batch.id, seen(id), now_ms)?;
                let rate = rate_after(lease.bytes_per_second, open.bytes(id), now_ms - lease.last_commit_ms);
                commits.leases.push(Lease { bytes_per_second: rate, ..next });
            }
            Some(lease) => {
                commits.moved = true;
                commits.leases.push(lease.discard(&rows.holder(id), now_ms)?);
            }
            None => commits.moved = true,
        }
    }
    Ok(commits)
}

/// The rows that release the leases held here that `which` selects.
pub fn releases(rows: &Rows, which: impl Fn(&Lease) -> bool, now_ms: i64) -> Result<Vec<Lease>, Error> {
    rows.each_held(which, |lease, holder| lease.release(holder, now_ms))
}

/// The rows of `batch` held here, without its offer: its records will be in a later batch.
pub fn discards(rows: &Rows, batch: &BatchId, now_ms: i64) -> Result<Vec<Lease>, Error> {
    rows.each_held(|lease| lease.batch() == Some(batch), |lease, holder| lease.discard(holder, now_ms))
}

/// The rows that finish these shards, which are committed to their end.
pub fn finishes(rows: &Rows, shards: &[ShardId], now_ms: i64) -> Result<Vec<Lease>, Error> {
    rows.each_held(|lease| shards.contains(&lease.shard_id), |lease, holder| lease.finish(holder, now_ms))
}

/// The input of a seek.
#[derive(Clone, Copy)]
pub struct Seek<'a> {
    /// The pipe, for messages.
    pub pipe: &'a PipeName,
    /// The new position of each shard; an empty shard id means all, and the last match counts.
    pub moves: &'a [(ShardId, Checkpoint)],
    /// The stream's shards as listed now, by id.
    pub listed: &'a HashMap<&'a str, &'a Shard>,
    /// The stream's current identity.
    pub identity: &'a Identity,
    /// Kinesis' time, Unix ms, from which a new position covers arriving records.
    pub since_ms: i64,
}

impl Seek<'_> {
    fn target(&self, lease: &Lease) -> Option<&Checkpoint> {
        let meant = |(id, _): &&(ShardId, Checkpoint)| id.is_empty() || *id == lease.shard_id;
        self.moves.iter().rev().find(meant).map(|(_, to)| to)
    }

    /// The rows that are moved, and those that share a batch with one of them: an open batch is
    /// given up as a whole. A shard that is no longer listed has nothing to read: it is finished,
    /// so that its children can be read.
    pub fn changes(&self, rows: &Rows, now_ms: i64) -> Result<Vec<Lease>, Error> {
        if let Some((unknown, _)) = self.moves.iter().find(|(id, _)| !id.is_empty() && rows.get(id).is_none()) {
            return Err(Error::NotFound(format!("pipe '{}' has no shard '{unknown}'", self.pipe)));
        }
        let given_up: Vec<&BatchId> =
            rows.all().filter(|l| self.target(l).is_some()).filter_map(Lease::batch).collect();
        let changed = rows.all().filter_map(|lease| {
            let identity = self.identity.clone();
            match (self.target(lease), self.listed.get(lease.shard_id.as_str())) {
                (Some(_), None) => Some(Lease { identity, ..lease.seek(Checkpoint::ShardEnd, self.since_ms, now_ms) }),
                (Some(to), Some(shard)) => {
                    // If the stream was recreated, the shard may have other parents, or none.
                    let parents = shard.parents().into_iter().filter(|parent| lease.parents.contains(parent)).collect();
                    let to = shard.position(to.clone());
                    Some(Lease { parents, identity, ..lease.seek(to, self.since_ms, now_ms) })
                }
                (None, _) => {
                    lease.batch().is_some_and(|batch| given_up.contains(&batch)).then(|| lease.give_up(now_ms))
                }
            }
        });
        Ok(changed.collect())
    }
}
