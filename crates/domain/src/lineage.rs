//! What a listing of a stream's shards means for the leases of a pipe: new shards, and shards whose
//! unread records are lost.

use std::collections::{BTreeMap, HashSet};

use super::error::go_on;
use super::lease::{Identity, Lease};
use super::names::{PipeName, ShardId, StreamName};
use super::retention::Kept;
use super::sequence::{Checkpoint, compare_digits};
use super::shard::Shard;
use super::time::past;

#[cfg(test)]
mod tests;

/// Why the records after a lease's position no longer exist although the lease is not finished
/// (**gap-is-an-error**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// The shard expired before it was read to its end.
    Expired,
    /// The shard starts after the position: it belongs to another stream of the same name.
    Replaced,
    /// The shard was read to its end but accepts records: also another stream.
    Reopened,
    /// The stream that was read has been deleted, and the one with its name was created later.
    Recreated,
}

/// The pipe and its stream, as far as interpreting the listing needs them.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Pipe name.
    pub pipe: &'a PipeName,
    /// Stream name.
    pub stream: &'a StreamName,
    /// Which stream of that name it is now.
    pub identity: &'a Identity,
    /// Now, Kinesis time, Unix ms.
    pub now_ms: i64,
    /// When the shards were last listed and all had leases, Kinesis time, Unix ms; 0 if unknown.
    pub listed_ms: i64,
    /// Now, on the local clock; for users to read.
    pub written_ms: i64,
}

/// The nearest ancestors of a shard that have leases, looking through shards that have none yet.
fn ancestors<'a>(shard: &Shard, leases: &BTreeMap<&str, &'a Lease>, listed: &BTreeMap<&str, &Shard>) -> Vec<&'a Lease> {
    let (mut found, mut seen, mut next) = (Vec::new(), HashSet::new(), shard.parents());
    while let Some(id) = next.pop() {
        match (leases.get(id.as_str()), listed.get(id.as_str())) {
            (Some(lease), _) => found.push(*lease),
            (None, Some(parent)) if seen.insert(id) => next.extend(parent.parents()),
            _ => {}
        }
    }
    found
}

/// Since when the lease of a newly found shard covers it: none of the shard's records is older. 0
/// if unknown.
///
/// Its records came after its ancestors were closed, so any time when one of these was open will
/// do. If no ancestor is known, those in between have come and gone since the pipe last looked, so
/// the shard about which it knows least counts.
fn since(leases: &BTreeMap<&str, &Lease>, ancestors: &[&Lease], subject: Subject<'_>) -> i64 {
    let open_ms = |l: &&Lease| l.open_ms(subject.now_ms);
    let first = match ancestors {
        [] => leases.values().filter(|l| !l.finished()).map(open_ms).min(),
        ancestors => ancestors.iter().map(open_ms).max(),
    };
    let first = first.or_else(|| leases.values().map(open_ms).max());
    first.unwrap_or(subject.now_ms).max(subject.listed_ms)
}

/// Leases for shards that have none. `start` applies to a pipe without any lease; shards found
/// later are children and start at their oldest record (**children-from-trim-horizon**).
pub fn missing(
    leases: &BTreeMap<&str, &Lease>,
    shards: &[Shard],
    start: &Checkpoint,
    subject: Subject<'_>,
) -> Vec<Lease> {
    let listed: BTreeMap<&str, &Shard> = shards.iter().map(|s| (s.id.as_str(), s)).collect();
    // A shard that is found later and descends from none of the pipe's shards may have been there
    // from the beginning, if writing the first leases was interrupted. If the pipe started at a
    // time, that time is right for it; and all records of a child come after it.
    let begun = leases.values().filter_map(|l| match l.checkpoint {
        Checkpoint::AtTimestamp(ms) => Some(ms),
        _ => None,
    });
    let begun = begun.min().map_or(Checkpoint::TrimHorizon, Checkpoint::AtTimestamp);
    let new = shards.iter().filter(|s| !leases.contains_key(s.id.as_str()));
    let lease = |shard: &Shard| {
        let parents = shard.parents();
        let known: Vec<&&Lease> = parents.iter().filter_map(|p| leases.get(p.as_str())).collect();
        let ancestors = ancestors(shard, leases, &listed);
        let from = match (leases.is_empty(), ancestors.is_empty()) {
            (true, _) => start.clone(),
            (false, true) => begun.clone(),
            (false, false) => Checkpoint::TrimHorizon,
        };
        let rate = known.iter().map(|l| l.bytes_per_second).fold(0, u64::saturating_add);
        // A parent that is neither listed nor leased has expired: nothing to wait for.
        let waits_for = |p: &ShardId| listed.contains_key(p.as_str()) || leases.contains_key(p.as_str());
        let parents: Vec<ShardId> = parents.into_iter().filter(waits_for).collect();
        let new = Lease::new(subject.pipe, subject.stream, &shard.id, parents, from, subject.written_ms);
        // Two children of one parent split its load; a child of two parents gets the load of both.
        let bytes_per_second = if known.len() == 1 { rate / 2 } else { rate };
        let since_ms = since(leases, &ancestors, subject);
        Lease { bytes_per_second, since_ms, identity: subject.identity.clone(), ..new }
    };
    new.map(lease).collect()
}

/// The leases that have read nothing yet and do not know all of their shard's parents, each with
/// all of them (**lineage-from-list-shards**).
pub fn lacking_parents<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    known: &BTreeMap<&str, &Lease>,
    shards: &[Shard],
) -> Vec<(&'a Lease, Vec<ShardId>)> {
    let listed: BTreeMap<&str, &Shard> = shards.iter().map(|s| (s.id.as_str(), s)).collect();
    let unread = |l: &&Lease| l.checkpoint == Checkpoint::TrimHorizon && l.offer.is_none() && l.began.is_none();
    let lacking = leases.filter(unread).filter_map(|lease| {
        let is_there = |p: &ShardId| listed.contains_key(p.as_str()) || known.contains_key(p.as_str());
        let parents: Vec<ShardId> =
            listed.get(lease.shard_id.as_str())?.parents().into_iter().filter(is_there).collect();
        parents.iter().any(|parent| !lease.parents.contains(parent)).then_some((lease, parents))
    });
    lacking.collect()
}

/// The leases whose unread records are lost, by shard id.
pub fn lost<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    shards: &[Shard],
    identity: &Identity,
    kept: Kept,
    now_ms: i64,
) -> BTreeMap<ShardId, Lost> {
    let listed: BTreeMap<&str, &Shard> = shards.iter().map(|s| (s.id.as_str(), s)).collect();
    let found = leases.filter_map(|lease| {
        let lost = match (listed.get(lease.shard_id.as_str()), &lease.checkpoint) {
            // What was not read of the other stream is lost, and its positions mean nothing in this
            // one.
            (shard, at) if lease.identity.was_replaced_by(identity) => {
                let nothing_left = shard.is_none() && *at == Checkpoint::ShardEnd;
                (!nothing_left).then_some(Lost::Recreated)
            }
            (Some(shard), Checkpoint::ShardEnd) => shard.open().then_some(Lost::Reopened),
            (Some(shard), Checkpoint::After(row)) => {
                let begins = &shard.starting_sequence_number;
                let later = !begins.is_empty() && compare_digits(row.sequence.as_str(), begins).is_lt();
                later.then_some(Lost::Replaced)
            }
            (None, Checkpoint::TrimHorizon | Checkpoint::After(..) | Checkpoint::AtTimestamp(_)) => {
                // A shard with nothing left after its position less than the retention ago cannot
                // have lost anything: a later record would keep it listed.
                kept.may_have_lost(lease.whole_ms(now_ms), now_ms).then_some(Lost::Expired)
            }
            _ => None,
        };
        lost.map(|lost| (lease.shard_id.clone(), lost))
    });
    found.collect()
}

/// The leases of expired shards with nothing unread in them: they can be finished.
pub fn exhausted<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    shards: &[Shard],
    lost: &BTreeMap<ShardId, Lost>,
) -> Vec<ShardId> {
    let listed: HashSet<&str> = shards.iter().map(|s| s.id.as_str()).collect();
    let gone = leases.filter(|l| !l.finished() && l.offer.is_none() && !listed.contains(l.shard_id.as_str()));
    gone.filter(|l| !lost.contains_key(&l.shard_id)).map(|l| l.shard_id.clone()).collect()
}

/// Finished leases whose shard has expired, and which were finished longer ago than the retention:
/// nothing depends on them any more. Their children do not need them, either: there is no need to
/// wait for a parent without a lease.
pub fn forgettable<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    shards: &[Shard],
    kept: Kept,
    now_ms: i64,
) -> Vec<ShardId> {
    let listed: HashSet<&str> = shards.iter().map(|s| s.id.as_str()).collect();
    // By both clocks: the one that wrote `updated_ms` may have been wrong.
    let old = |l: &&Lease| {
        let last_ms = past(l.updated_ms, now_ms).max(l.open_ms(now_ms));
        now_ms - last_ms > kept.retention_ms
    };
    let gone = leases.filter(|l| l.finished() && l.offer.is_none() && !listed.contains(l.shard_id.as_str()));
    gone.filter(old).map(|l| l.shard_id.clone()).collect()
}

impl Lost {
    /// The message for the user.
    pub fn message(self, lease: &Lease, retention_ms: i64) -> String {
        let (stream, shard, position) = (&lease.stream, &lease.shard_id, &lease.checkpoint);
        let why = match self {
            Lost::Expired => format!(
                "the whole shard is older than the stream's retention of {} h, and some of its records were never read; the oldest record of \
                 the stream is in another shard",
                retention_ms / 3_600_000
            ),
            Lost::Recreated => "the stream was deleted, with its unread records, and recreated under the same name; the oldest record is that \
                                of the new stream"
                .into(),
            Lost::Replaced => "the shard begins after that position, so the stream was deleted and recreated under the same name; the oldest \
                               record is the shard's first"
                .into(),
            Lost::Reopened => "the shard was read to its end and is open again, so the stream was deleted and recreated under the same name; \
                               the oldest record is the shard's first"
                .into(),
        };
        format!(
            "stream '{stream}', shard {shard}: reading cannot continue from position {position}: {why}; {}",
            go_on(&lease.pipe)
        )
    }
}
