//! What a look at the shards of a stream means for the leases of a pipe: new shards, and shards whose unread records are gone.

use std::collections::{BTreeMap, HashSet};

use super::lease::Lease;
use super::sequence::{Checkpoint, compare_digits};
use super::shard::Shard;

#[cfg(test)]
mod tests;

/// Why the records after a lease's position are not there any more, although the lease is not finished (**gap-is-an-error**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// The shard has left the retention before it was read to its end.
    Expired,
    /// The shard begins after the position: it belongs to another stream of the same name.
    Replaced,
    /// The shard was read to its end and takes records: the same.
    Reopened,
}

/// The pipe and its stream, as far as looking at shards needs them.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Pipe name.
    pub pipe: &'a str,
    /// Stream name.
    pub stream: &'a str,
    /// Retention of the stream, ms.
    pub retention_ms: i64,
    /// Now, Unix ms.
    pub now_ms: i64,
}

/// Leases for shards that have none. `start` counts for a pipe without any lease; what is found later is a child and begins at its oldest
/// record (**children-from-trim-horizon**).
pub fn missing(
    leases: &BTreeMap<&str, &Lease>,
    shards: &[Shard],
    start: &Checkpoint,
    subject: Subject<'_>,
) -> Vec<Lease> {
    let listed: HashSet<&str> = shards.iter().map(|s| s.id.as_str()).collect();
    // A shard that is found later and came from none of the pipe's may be one that was there from the beginning, when writing the first leases
    // was interrupted. Where the pipe began in time, that time is right for it; and all records of a child come after it.
    let begun = leases.values().filter_map(|l| match l.checkpoint {
        Checkpoint::AtTimestamp(ms) => Some(ms),
        _ => None,
    });
    let begun = begun.min().map_or(Checkpoint::TrimHorizon, Checkpoint::AtTimestamp);
    let new = shards.iter().filter(|s| !leases.contains_key(s.id.as_str()));
    let lease = |shard: &Shard| {
        let parents = shard.parents();
        let known: Vec<&&Lease> = parents.iter().filter_map(|p| leases.get(p.as_str())).collect();
        let from = match (leases.is_empty(), known.is_empty()) {
            (true, _) => start.clone(),
            (false, true) => begun.clone(),
            (false, false) => Checkpoint::TrimHorizon,
        };
        let rate = known.iter().map(|l| l.bytes_per_second).fold(0, u64::saturating_add);
        // A parent that is neither listed nor leased has left the retention: nothing to wait for.
        let waits_for = |p: &String| listed.contains(p.as_str()) || leases.contains_key(p.as_str());
        let parents: Vec<String> = parents.into_iter().filter(waits_for).collect();
        let new = Lease::new(subject.pipe, subject.stream, &shard.id, parents, from, subject.now_ms);
        // Two children of one parent share its records; the child of two has those of both.
        Lease { bytes_per_second: if known.len() == 1 { rate / 2 } else { rate }, ..new }
    };
    new.map(lease).collect()
}

/// The leases whose unread records are gone, by shard id.
pub fn lost<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    shards: &[Shard],
    subject: Subject<'_>,
) -> BTreeMap<String, Lost> {
    let listed: BTreeMap<&str, &Shard> = shards.iter().map(|s| (s.id.as_str(), s)).collect();
    let found = leases.filter_map(|lease| {
        let lost = match (listed.get(lease.shard_id.as_str()), &lease.checkpoint) {
            (Some(shard), Checkpoint::ShardEnd) => shard.open().then_some(Lost::Reopened),
            (Some(shard), Checkpoint::After(position, _)) => {
                let begins = &shard.starting_sequence_number;
                let later = !begins.is_empty() && compare_digits(position.as_str(), begins).is_lt();
                later.then_some(Lost::Replaced)
            }
            (None, Checkpoint::TrimHorizon | Checkpoint::After(..) | Checkpoint::AtTimestamp(_)) => {
                // Nothing can be lost of a shard that was empty behind its position less than the retention ago: a later record would keep it listed.
                let begun = if let Checkpoint::AtTimestamp(ms) = lease.checkpoint { ms } else { 0 };
                (subject.now_ms - lease.caught_up_ms.max(begun) >= subject.retention_ms).then_some(Lost::Expired)
            }
            _ => None,
        };
        lost.map(|lost| (lease.shard_id.clone(), lost))
    });
    found.collect()
}

/// The leases of shards that have left the retention with nothing unread in them: they can be finished.
pub fn exhausted<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    shards: &[Shard],
    lost: &BTreeMap<String, Lost>,
) -> Vec<String> {
    let listed: HashSet<&str> = shards.iter().map(|s| s.id.as_str()).collect();
    let gone = leases.filter(|l| !l.finished() && l.offer.is_none() && !listed.contains(l.shard_id.as_str()));
    gone.filter(|l| !lost.contains_key(&l.shard_id)).map(|l| l.shard_id.clone()).collect()
}

impl Lost {
    /// The sentence for a person.
    pub fn message(self, lease: &Lease, retention_ms: i64) -> String {
        let (stream, shard, position) = (&lease.stream, &lease.shard_id, &lease.checkpoint);
        let why = match self {
            Lost::Expired => format!(
                "the whole shard has left the stream's retention of {} h, with records that were not read; the oldest record of the stream is in \
                 another shard",
                retention_ms / 3_600_000
            ),
            Lost::Replaced => "the shard begins after that position, so the stream was deleted and created again under its name; the oldest record is \
                 the shard's first"
                .into(),
            Lost::Reopened => "the shard was read to its end and is open again, so the stream was deleted and created again under its name; the \
                 oldest record is the shard's first"
                .into(),
        };
        format!(
            "stream '{stream}', shard {shard}: position {position} cannot be continued: {why}; POST a position to /v1/pipes/{}/seek to go on from there",
            lease.pipe
        )
    }
}
