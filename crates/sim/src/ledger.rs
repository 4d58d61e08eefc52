//! What really happened, and the rules checked at every step.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use super::dice::Dice;
use super::kinesis::FakeKinesis;
use super::quarantine::{FakeQuarantine, places};
use super::records::{Place, number, row};
use domain::batch::{Batch, ShardRange};
use domain::lease::Lease;
use domain::names::{BatchId, ShardId, WorkerId};
use domain::record::{Chunk, RecordRef, Slice};
use domain::sequence::Checkpoint;
use domain::shape::BatchShape;
use formats::encode::{Format, encode_batch};

/// A process of this name only does what operators request.
pub const PERSON: &str = "a person";

/// The target tables, and what has been written and sent.
pub struct Ledger {
    kinesis: Arc<FakeKinesis>,
    dice: Arc<Dice>,
    quarantine: Arc<FakeQuarantine>,
    /// Whether operators move positions in this run: then rows may come twice.
    pub moves: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often each record was inserted into a table without deduplication, and into one that
    /// drops repeated blocks.
    tables: BTreeMap<Place, (u32, u32)>,
    /// The hash of every block of rows ever inserted.
    blocks: HashSet<u64>,
    /// Closed shards of which all rows were inserted, or are known to be lost or in the quarantine.
    whole: BTreeSet<ShardId>,
    /// The shape of every offer ever written, by batch and shard.
    offered: BTreeMap<BatchId, BTreeMap<ShardId, BatchShape>>,
    /// Every batch as it was first sent, by format.
    sent: BTreeMap<(BatchId, &'static str), Batch>,
    /// The last newly inserted record of each partition key.
    last_of_key: BTreeMap<String, u128>,
    /// Records that expired before they were read, after the gap was reported.
    told: BTreeSet<Place>,
    /// Records that existed when the pipe, or a seek, started at the oldest record or at a time:
    /// they may expire before they are read.
    older: BTreeSet<Place>,
    /// Batches from which an operator took a lease.
    freed: BTreeSet<BatchId>,
    /// Batches that were refused because of their rows.
    refused: BTreeSet<BatchId>,
    served: u64,
    violations: Vec<String>,
}

impl State {
    /// Notes a newly inserted record of a partition key. Returns the last one before it, if that is
    /// a later one.
    fn inserted_after(&mut self, key: &str, row: u128) -> Option<u128> {
        let before = match self.last_of_key.get_mut(key) {
            Some(last) => std::mem::replace(last, row),
            None => self.last_of_key.insert(key.into(), row).unwrap_or_default(),
        };
        (before > row).then_some(before)
    }
}

/// What a write did to a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Release,
    Offer,
    Halve,
    Commit,
    Discard,
    Finish,
    Note,
}

impl Ledger {
    /// Empty tables.
    pub fn new(
        kinesis: Arc<FakeKinesis>,
        dice: Arc<Dice>,
        quarantine: Arc<FakeQuarantine>,
        moves: bool,
    ) -> Arc<Ledger> {
        Arc::new(Ledger { kinesis, dice, quarantine, moves, state: Mutex::default() })
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

    /// How often a record is in the plain table and in the deduplicating one.
    pub fn times(&self, place: &Place) -> (u32, u32) {
        self.state().tables.get(place).copied().unwrap_or_default()
    }

    /// A gap was reported: everything of this shard that expired unread is known to be lost.
    pub fn gap_told(&self, shard_id: &ShardId) {
        let trimmed = self.kinesis.trimmed(shard_id);
        self.state().told.extend(trimmed);
    }

    /// A position is chosen that covers everything arriving from now on, and whatever is still
    /// there of the rest when it is read.
    pub fn begins(&self, shard_id: &ShardId) {
        let older = self.kinesis.before(shard_id, i64::MAX);
        self.state().older.extend(older);
    }

    /// An operator takes a lease from its owner; what is open in it may be served by two.
    pub fn freed(&self, lease: &Lease) {
        self.state().freed.extend(lease.offer.as_ref().map(|offer| offer.batch.clone()));
    }

    /// ClickHouse refuses a batch because of its rows.
    pub fn refused(&self, batch: &BatchId) {
        self.state().refused.insert(batch.clone());
    }

    /// A process sends the end of a batch whose lease it no longer holds.
    pub fn ended_by_another(&self, batch: &BatchId, lease: &Lease) {
        if !self.moves && !self.state().freed.contains(batch) {
            self.broken("a-zombie-serves-nothing", format!("the end of batch {batch} is sent, and {lease:?}"));
        }
    }

    /// Whether something of this shard expired unread without being reported.
    pub fn lost_untold(&self, shard_id: &ShardId) -> bool {
        let state = self.state();
        let known = |place: &Place| {
            state.tables.contains_key(place) || state.told.contains(place) || state.older.contains(place)
        };
        self.kinesis.trimmed(shard_id).iter().any(|place| !known(place))
    }

    /// Whether a record is known to be lost.
    pub fn is_told(&self, place: &Place) -> bool {
        self.state().told.contains(place)
    }

    /// Number of batches served, including repeats.
    pub fn served_count(&self) -> u64 {
        self.state().served
    }

    /// A batch reached ClickHouse: every row of it must have been offered, and its bytes must be
    /// the same as last time.
    pub fn served(&self, batch: &Batch, format: Format) {
        let bytes =
            |batch: &Batch| encode_batch(batch, format).unwrap().map(Result::unwrap).collect::<Vec<_>>().concat();
        let mut state = self.state();
        state.served += 1;
        let (id, ranges) = (&batch.id, &batch.ranges);
        self.dice.note(|| format!("served {id} {} bytes as {format:?}: {ranges:?}", bytes(batch).len()));
        for range in &batch.ranges {
            let (id, shard) = (&batch.id, &range.shard_id);
            let broken = match state.offered.get(id).and_then(|shards| shards.get(shard)) {
                None => format!("offered-before-first-byte: batch {id} is sent, and shard {shard} was never offered"),
                Some(shape) if shape.as_str().split(' ').next() != Some(format.name()) => {
                    format!("shape-is-identity: batch {id} is sent as {format:?}, offered as {shape}")
                }
                Some(_) => continue,
            };
            state.violations.push(broken);
        }
        match state.sent.entry((batch.id.clone(), format.name())) {
            Entry::Vacant(first) => drop(first.insert(copy(batch))),
            // The bytes are a function of the records and of how they are cut into slices. To make
            // them takes longest of all that is done here.
            Entry::Occupied(first) if alike(first.get(), batch) => {}
            Entry::Occupied(first) => {
                let (before, now) = (bytes(first.get()), bytes(batch));
                if before != now {
                    let lengths = (before.len(), now.len());
                    let what =
                        format!("batch {} was {} bytes and is {}, or other ones", batch.id, lengths.0, lengths.1);
                    state.violations.push(format!("same-batch-same-bytes: {what}"));
                }
            }
        }
    }

    /// Whether some of its rows are in the table.
    pub fn has_any(&self, batch: &Batch) -> bool {
        let state = self.state();
        places(batch).any(|row| state.tables.contains_key(&row))
    }

    /// A refresh inserts the rows it has read.
    pub fn insert(&self, batch: &Batch) {
        let state = &mut *self.state();
        let (mut rows, mut block, mut broken) = (Vec::with_capacity(batch.rows()), DefaultHasher::new(), Vec::new());
        for range in &batch.ranges {
            let (shard, mut new) = (&range.shard_id, false);
            for record in range.records() {
                let place = (row_of(&record), shard.clone());
                (&place, record.payload).hash(&mut block);
                if !state.tables.contains_key(&place) {
                    if !std::mem::replace(&mut new, true) {
                        broken.extend(self.parents_missing(state, shard));
                    }
                    if let Some(before) = state.inserted_after(record.key, place.0) {
                        broken.push(format!("order of key {}: {before} is inserted before {place:?}", record.key));
                    }
                }
                rows.push(place);
            }
        }
        state.violations.extend(broken);
        let repeated = !state.blocks.insert(block.finish());
        for place in rows {
            let times = state.tables.entry(place).or_default();
            *times = (times.0 + 1, times.1 + u32::from(!repeated));
        }
    }

    /// What is missing of the parents of a shard of which rows are inserted.
    fn parents_missing(&self, state: &mut State, shard: &ShardId) -> Vec<String> {
        let mut broken = Vec::new();
        for parent in self.kinesis.parents(shard) {
            if state.whole.contains(&parent) {
                continue;
            }
            let passed = |p: &Place| state.told.contains(p) || self.quarantine.holds(p);
            let missing = |p: &Place| !state.tables.contains_key(p) && !passed(p);
            match self.kinesis.between(&parent, 0, u128::MAX).into_iter().find(missing) {
                Some(missing) => {
                    broken.push(format!("parents-before-children: {shard} is inserted while {missing:?} is missing"));
                }
                None => drop(state.whole.insert(parent)),
            }
        }
        broken
    }

    /// Rows that are new in the store.
    pub fn created(&self, first: bool, lease: &Lease) {
        if first {
            self.begins(&lease.shard_id);
            if let Checkpoint::AtTimestamp(ms) = lease.checkpoint {
                let before = self.kinesis.before(&lease.shard_id, ms);
                self.state().told.extend(before);
            }
        }
        if !first && lease.checkpoint != Checkpoint::TrimHorizon {
            self.broken("children-from-trim-horizon", format!("{} begins at {}", lease.shard_id, lease.checkpoint));
        }
    }

    /// A process is about to take leases in one write: those of an open batch must be taken
    /// together (**recovery-as-a-unit**). What is wrong with it.
    pub fn taken_together<'a>(
        &self,
        by: &WorkerId,
        before: impl Iterator<Item = &'a Lease> + Clone,
        new: &[&Lease],
    ) -> Option<String> {
        let state = self.state();
        for taken in new.iter().filter(|l| l.owner == *by) {
            let Some(batch) = taken.offer.as_ref().map(|o| &o.batch).filter(|b| !state.freed.contains(*b)) else {
                continue;
            };
            let of_batch = before.clone().filter(|l| l.batch() == Some(batch));
            let was_taken = |l: &&Lease| l.epoch != taken.epoch || l.shard_id != taken.shard_id;
            let mut of_batch = of_batch.filter(was_taken);
            if let Some(left) = of_batch.find(|l| l.owner != *by && new.iter().all(|n| n.shard_id != l.shard_id)) {
                return Some(format!("{by} takes {taken:?} and leaves {left:?}"));
            }
        }
        None
    }

    /// A row of the store was replaced by the process that took it with epoch `taken`.
    pub fn stepped(&self, by: &WorkerId, taken: Option<u64>, old: &Lease, new: &Lease) {
        tracing::debug!(
            "{by} writes {}: {} {} from {} at {}, {:?}",
            new.shard_id,
            new.owner,
            new.epoch,
            old.checkpoint,
            new.checkpoint,
            new.offer
                .as_ref()
                .map(|o| format!("{} {}..{} of {}", o.batch, o.first.sequence, o.through.sequence, o.shards))
        );
        if *by == PERSON {
            return;
        }
        let step = match step(by, taken, old, new) {
            Ok(step) => step,
            Err(rule) => return self.broken(rule, format!("by {by}: {old:?} -> {new:?}")),
        };
        let refused = old.offer.as_ref().is_some_and(|open| self.state().refused.contains(&open.batch));
        match (&step, &old.offer, &new.offer) {
            (Step::Halve, _, _) if !refused => {
                self.broken("halves-are-prefixes", format!("ClickHouse did not refuse it: {old:?} -> {new:?}"));
            }
            (Step::Offer | Step::Halve, _, Some(offer)) => {
                let state = &mut *self.state();
                let shapes = state.offered.entry(offer.batch.clone()).or_default();
                shapes.insert(old.shard_id.clone(), offer.shape.clone());
                let from = position(&old.checkpoint);
                let through = row(number(&offer.through.sequence), offer.through.sub);
                let mut range = self.kinesis.between(&old.shard_id, from, through);
                range.retain(|place| !state.told.contains(place));
                let first = range.first().map(|p| p.0);
                let record = number(&offer.first.sequence);
                let begins = |first: u128| first >= row(record, 0) && first <= row(record, u32::MAX);
                if !self.moves && (range.len() as u64 != offer.rows || !first.is_some_and(begins)) {
                    let what = format!("{offer:?} is not what follows {from}: {range:?}");
                    state.violations.push(format!("offer-is-frozen: {what}"));
                }
            }
            (Step::Commit, Some(offer), _) => {
                let through = row(number(&offer.through.sequence), offer.through.sub);
                let range = self.kinesis.between(&old.shard_id, position(&old.checkpoint), through);
                self.all_inserted("commit-equals-offer", old, &range);
            }
            (Step::Finish, _, _) => {
                if !self.kinesis.closed(&old.shard_id) {
                    self.broken("parents-before-children", format!("{} is finished and open", old.shard_id));
                }
                let all = self.kinesis.between(&old.shard_id, 0, u128::MAX);
                self.all_inserted("parents-before-children", old, &all);
            }
            (Step::Discard, _, _) if !self.moves && !refused => {
                self.broken("offer-is-frozen", format!("{step:?}: {old:?} -> {new:?}"));
            }
            _ => {}
        }
    }

    /// All of these must be in the table, except what is known to be lost.
    fn all_inserted(&self, rule: &str, old: &Lease, places: &[Place]) {
        let state = &mut *self.state();
        let passed = |p: &&Place| state.told.contains(*p) || self.quarantine.holds(p);
        let missing: Vec<&Place> =
            places.iter().filter(|p| !state.tables.contains_key(*p)).filter(|p| !passed(p)).collect();
        if missing.is_empty() {
            return;
        }
        let trimmed: BTreeSet<Place> = self.kinesis.trimmed(&old.shard_id).into_iter().collect();
        for place in missing {
            // Also if nothing of the shard was ever read (**unread-within-retention**).
            let at_record = matches!(old.checkpoint, Checkpoint::After(..));
            match trimmed.contains(place) {
                true if !at_record && state.older.contains(place) => drop(state.told.insert(place.clone())),
                true => state.violations.push(format!("gap-is-an-error: {place:?} is gone and passed over")),
                false => state.violations.push(format!("{rule}: {place:?} is passed and was never inserted")),
            }
        }
    }
}

/// A batch that holds no memory of the budget.
fn copy(batch: &Batch) -> Batch {
    let slice = |slice: &Slice| {
        let mut chunk = Chunk::default();
        assert!(slice.records().all(|record| chunk.push(record)));
        Slice::whole(Arc::new(chunk))
    };
    let range = |range: &ShardRange| ShardRange {
        shard_id: range.shard_id.clone(),
        slices: range.slices.iter().map(slice).collect(),
    };
    Batch { id: batch.id.clone(), stream: batch.stream.clone(), ranges: batch.ranges.iter().map(range).collect() }
}

/// Whether two batches consist of the same slices.
fn alike(one: &Batch, other: &Batch) -> bool {
    let slices = |(a, b): (&Slice, &Slice)| a.records().eq(b.records());
    let ranges = |(a, b): (&ShardRange, &ShardRange)| {
        a.shard_id == b.shard_id && a.slices.len() == b.slices.len() && a.slices.iter().zip(&b.slices).all(slices)
    };
    one.stream == other.stream
        && one.ranges.len() == other.ranges.len()
        && one.ranges.iter().zip(&other.ranges).all(ranges)
}

/// The number of a row.
fn row_of(record: &RecordRef<'_>) -> u128 {
    row(record.sequence_number.parse().unwrap(), record.sub_sequence)
}

/// The last row at or before a position.
pub fn position(checkpoint: &Checkpoint) -> u128 {
    match checkpoint {
        Checkpoint::After(last) => row(number(&last.sequence), last.sub),
        Checkpoint::TrimHorizon | Checkpoint::AtTimestamp(_) => 0,
        Checkpoint::ShardEnd => u128::MAX,
    }
}

/// What neither a take nor a release may change, besides the offer.
fn place(lease: &Lease) -> impl PartialEq + '_ {
    let Lease { pipe, stream, identity, shard_id, parents, checkpoint, unpacking, .. } = lease;
    (pipe, stream, identity, shard_id, parents, checkpoint, unpacking)
}

/// What a write did, or the rule that it breaks.
fn step(by: &WorkerId, taken: Option<u64>, old: &Lease, new: &Lease) -> Result<Step, &'static str> {
    let (was, is) = (old, new);
    if (&is.owner, is.epoch) != (&was.owner, was.epoch) {
        let mine = was.owner == *by && taken == Some(was.epoch);
        if is.offer != was.offer {
            return Err("offer-is-frozen");
        }
        return match () {
            () if is.owner == *by && is.epoch == was.epoch + 1 && place(is) == place(was) => Ok(Step::Take),
            () if is.owner.is_empty() && is.epoch == was.epoch && place(is) == place(was) && mine => Ok(Step::Release),
            () => Err("stale-epoch-is-fenced"),
        };
    }
    if was.owner != *by || taken != Some(was.epoch) {
        return Err("stale-epoch-is-fenced");
    }
    let through = was.offer.as_ref().map(|offer| Checkpoint::After(offer.through.clone()));
    match (&was.offer, &is.offer) {
        (None, Some(offer)) if is.checkpoint == was.checkpoint => {
            let after = Checkpoint::After(offer.through.clone());
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
        (Some(a), Some(b)) if is.checkpoint == was.checkpoint => {
            let ends = b.through <= a.through && b.rows <= a.rows;
            let half = a.batch != b.batch && a.first == b.first && a.shape == b.shape && ends;
            if half { Ok(Step::Halve) } else { Err("offer-is-frozen") }
        }
        (Some(_), Some(_)) => Err("offer-is-frozen"),
        (_, None) | (None, Some(_)) => Err("commit-equals-offer"),
    }
}
