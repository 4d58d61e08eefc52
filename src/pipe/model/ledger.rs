//! What really happened, and the rules that every step is held to while it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::kinesis::{FakeKinesis, Place, number};
use crate::domain::batch::Batch;
use crate::domain::lease::Lease;
use crate::domain::sequence::Checkpoint;
use crate::encode::{Format, encode_batch};

/// A process of this name only does what people ask of it.
pub const PERSON: &str = "a person";

/// The target tables, and what has been written and sent.
pub struct Ledger {
    kinesis: Arc<FakeKinesis>,
    /// Whether people move positions in this run: then rows may come twice.
    pub moves: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often each record was inserted into a table without deduplication.
    plain: BTreeMap<Place, u32>,
    /// The same for a table that drops blocks it has.
    dedup: BTreeMap<Place, u32>,
    blocks: BTreeSet<Vec<(Place, Vec<u8>)>>,
    /// The shape of every offer that was ever written, by batch and shard.
    offered: BTreeMap<(String, String), String>,
    /// The bytes of every batch, by format.
    bytes: BTreeMap<(String, &'static str), Vec<u8>>,
    served: u64,
    violations: Vec<String>,
}

/// What a write did to a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Release,
    Offer,
    Commit,
    Discard,
    Finish,
    Note,
}

impl Ledger {
    /// Empty tables.
    pub fn new(kinesis: Arc<FakeKinesis>, moves: bool) -> Arc<Ledger> {
        Arc::new(Ledger { kinesis, moves, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Notes that a rule was broken.
    pub fn broken(&self, rule: &str, what: impl std::fmt::Display) {
        self.state().violations.push(format!("{rule}: {what}"));
    }

    /// Every broken rule.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// How often each record is in the plain table.
    pub fn plain(&self) -> BTreeMap<Place, u32> {
        self.state().plain.clone()
    }

    /// How often each record is in the deduplicating table.
    pub fn dedup(&self) -> BTreeMap<Place, u32> {
        self.state().dedup.clone()
    }

    /// How many batches were served, those served again included.
    pub fn served_count(&self) -> u64 {
        self.state().served
    }

    /// A batch reached ClickHouse: every row of it must have been offered, and its bytes must be those of the last time.
    pub fn served(&self, batch: &Batch, format: Format) {
        let encoded = encode_batch(batch, format).unwrap().map(Result::unwrap).collect::<Vec<_>>().concat();
        let mut state = self.state();
        state.served += 1;
        for range in &batch.ranges {
            let (id, shard) = (&batch.id, &range.shard_id);
            let broken = match state.offered.get(&(id.clone(), shard.clone())) {
                None => format!("offered-before-first-byte: batch {id} is sent, and shard {shard} was never offered"),
                Some(shape) if shape != format.name() => {
                    format!("shape-is-identity: batch {id} is sent as {format:?}, offered as {shape}")
                }
                Some(_) => continue,
            };
            state.violations.push(broken);
        }
        let before = state.bytes.entry((batch.id.clone(), format.name())).or_insert_with(|| encoded.clone());
        if *before != encoded {
            let lengths = (before.len(), encoded.len());
            let what = format!("batch {} was {} bytes and is {}, or other ones", batch.id, lengths.0, lengths.1);
            state.violations.push(format!("same-batch-same-bytes: {what}"));
        }
    }

    /// A refresh inserts the rows it has read.
    pub fn insert(&self, batch: &Batch) {
        let rows = batch.ranges.iter().flat_map(|range| {
            range.records().map(|r| ((range.shard_id.clone(), r.sequence_number.parse().unwrap()), r.payload.to_vec()))
        });
        let rows: Vec<(Place, Vec<u8>)> = rows.collect();
        let state = &mut *self.state();
        let mut early = Vec::new();
        for ((shard, sequence), _) in &rows {
            let new = !state.plain.contains_key(&(shard.clone(), *sequence));
            for parent in self.kinesis.parents(shard).iter().filter(|_| new) {
                let missing = |p: &Place| !state.plain.contains_key(p);
                early.extend(
                    self.kinesis.between(parent, 0, u128::MAX).into_iter().find(missing).map(|p| (shard.clone(), p)),
                );
            }
        }
        if let Some((shard, missing)) = early.first() {
            state.violations.push(format!("parents-before-children: {shard} is inserted while {missing:?} is missing"));
        }
        for (place, _) in &rows {
            *state.plain.entry(place.clone()).or_default() += 1;
        }
        if !state.blocks.contains(&rows) {
            for (place, _) in &rows {
                *state.dedup.entry(place.clone()).or_default() += 1;
            }
            state.blocks.insert(rows);
        }
    }

    /// Rows that are new in the store.
    pub fn created(&self, first: bool, lease: &Lease) {
        if !first && lease.checkpoint != Checkpoint::TrimHorizon {
            self.broken("children-from-trim-horizon", format!("{} begins at {}", lease.shard_id, lease.checkpoint));
        }
    }

    /// A row of the store was replaced by the process that took it with `taken`.
    pub fn stepped(&self, by: &str, taken: Option<u64>, old: &Lease, new: &Lease) {
        if by == PERSON {
            return;
        }
        let step = match step(by, taken, old, new) {
            Ok(step) => step,
            Err(rule) => return self.broken(rule, format!("by {by}: {old:?} -> {new:?}")),
        };
        match (&step, &old.offer, &new.offer) {
            (Step::Offer, _, Some(offer)) => {
                self.state().offered.insert((offer.batch.clone(), old.shard_id.clone()), offer.shape.clone());
                let from = position(&old.checkpoint);
                let range = self.kinesis.between(&old.shard_id, from, number(&offer.through));
                let first = range.first().map(|p| p.1);
                if !self.moves && (range.len() as u64 != offer.rows || first != Some(number(&offer.first))) {
                    self.broken("offer-is-frozen", format!("{offer:?} is not what follows {from}: {range:?}"));
                }
            }
            (Step::Commit, Some(offer), _) => {
                let range = self.kinesis.between(&old.shard_id, position(&old.checkpoint), number(&offer.through));
                self.all_inserted("commit-equals-offer", &range);
            }
            (Step::Finish, _, _) => {
                if !self.kinesis.closed(&old.shard_id) {
                    self.broken("parents-before-children", format!("{} is finished and open", old.shard_id));
                }
                let all = self.kinesis.between(&old.shard_id, 0, u128::MAX);
                self.all_inserted("parents-before-children", &all);
            }
            (Step::Discard, _, _) if !self.moves => {
                self.broken("offer-is-frozen", format!("{step:?}: {old:?} -> {new:?}"));
            }
            _ => {}
        }
    }

    fn all_inserted(&self, rule: &str, places: &[Place]) {
        let missing = places.iter().find(|p| !self.state().plain.contains_key(p)).cloned();
        if let Some(missing) = missing {
            self.broken(rule, format!("{missing:?} is committed and was never inserted"));
        }
    }
}

/// The last number at or before a position.
fn position(checkpoint: &Checkpoint) -> u128 {
    match checkpoint {
        Checkpoint::After(sequence, _) => number(sequence),
        Checkpoint::TrimHorizon | Checkpoint::AtTimestamp(_) => 0,
        Checkpoint::ShardEnd => u128::MAX,
    }
}

/// What a write did, or the rule that it breaks.
fn step(by: &str, taken: Option<u64>, old: &Lease, new: &Lease) -> Result<Step, &'static str> {
    let unlike = |l: &Lease| Lease {
        committed_rows: 0,
        bytes_per_second: 0,
        last_commit_ms: 0,
        caught_up_ms: 0,
        updated_ms: 0,
        ..l.clone()
    };
    let (was, is) = (unlike(old), unlike(new));
    if (&is.owner, is.epoch) != (&was.owner, was.epoch) {
        let take = Lease { owner: by.into(), epoch: was.epoch + 1, ..was.clone() };
        let release = Lease { owner: String::new(), ..was.clone() };
        let mine = was.owner == by && taken == Some(was.epoch);
        return match () {
            () if is == take => Ok(Step::Take),
            () if is == release && mine => Ok(Step::Release),
            () => Err("stale-epoch-is-fenced"),
        };
    }
    if was.owner != by || taken != Some(was.epoch) {
        return Err("stale-epoch-is-fenced");
    }
    let through = was.offer.as_ref().map(|offer| Checkpoint::After(offer.through.clone(), offer.through_sub));
    match (&was.offer, &is.offer) {
        (None, Some(offer)) if is.checkpoint == was.checkpoint => {
            let after = Checkpoint::After(offer.through.clone(), offer.through_sub);
            if was.checkpoint.precedes(&after) { Ok(Step::Offer) } else { Err("checkpoint-moves-forward") }
        }
        (Some(_), None) if Some(&is.checkpoint) == through.as_ref() => match was.checkpoint.precedes(&is.checkpoint) {
            true => Ok(Step::Commit),
            false => Err("checkpoint-moves-forward"),
        },
        (Some(_), None) if is.checkpoint == was.checkpoint => Ok(Step::Discard),
        (None, None) if is.checkpoint == was.checkpoint => Ok(Step::Note),
        (None, None) if is.checkpoint == Checkpoint::ShardEnd => Ok(Step::Finish),
        (Some(a), Some(b)) if a == b && is.checkpoint == was.checkpoint => Ok(Step::Note),
        (Some(_), Some(_)) => Err("offer-is-frozen"),
        (_, None) | (None, Some(_)) => Err("commit-equals-offer"),
    }
}
