//! Properties of the pure state machines. Proptest prints the seed of a failure and saves it under
//! `proptest-regressions/`.

use std::sync::Arc;

use proptest::prelude::*;

use super::batch::{Limits, ShardRange, choose};
use super::error::Error;
use super::lease::{Holder, Lease, Offer, Seen};
use super::names::BatchId;
use super::record::{Chunk, RecordRef, Slice};
use super::sequence::{Checkpoint, RowPosition, SequenceNumber};
use super::shape::BatchShape;

/// A reader that knows nothing.
const UNSEEN: Seen = Seen { tip_ms: None, arrived_ms: 0, listed_ms: 0, now_ms: 0 };

/// The first row of a record.
fn row(n: u64) -> RowPosition {
    RowPosition::new(SequenceNumber::parse(&n.to_string()).expect("digits"), 0)
}

fn shape() -> BatchShape {
    BatchShape::of_column("ArrowStream")
}

fn offer(batch: &str, first: u64, through: u64) -> Offer {
    Offer {
        batch: batch.into(),
        shape: shape(),
        shards: 1,
        first: row(first),
        through: row(through),
        rows: through - first + 1,
    }
}

/// What three processes and an operator may try with one lease.
#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    Offer(usize, u64, u64),
    Commit(usize, bool),
    Finish(usize),
    Release(usize),
    Seek(u64),
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3usize).prop_map(Step::Take),
        (0..3usize, 0..50u64, 0..50u64).prop_map(|(w, from, length)| Step::Offer(w, from, from + length)),
        (0..3usize, any::<bool>()).prop_map(|(w, right)| Step::Commit(w, right)),
        (0..3usize).prop_map(Step::Finish),
        (0..3usize).prop_map(Step::Release),
        (0..100u64).prop_map(Step::Seek),
        Just(Step::GiveUp),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// offer-is-frozen, commit-equals-offer, stale-epoch-is-fenced, checkpoint-moves-forward: after
    /// every step of three processes with their own views and an operator who seeks.
    #[test]
    fn lease_invariants_hold_after_every_step(steps in steps()) {
        let mut lease = Lease::new(&"p".into(), &"s".into(), &"shard".into(), vec![], Checkpoint::TrimHorizon, 0);
        // What each process believes it is; two of them have the same name.
        let mut holders = ["a", "a", "b"].map(|owner| Holder { owner: owner.into(), epoch: 0 });
        for (at, step) in steps.into_iter().enumerate() {
            let now = at as i64;
            let before = lease.clone();
            let by_worker = match &step {
                Step::Offer(w, ..) | Step::Commit(w, _) | Step::Finish(w) | Step::Release(w) => Some(*w),
                _ => None,
            };
            let result = match step.clone() {
                Step::Take(w) => {
                    let taken = lease.take(&holders[w].owner, now);
                    prop_assert!(taken.epoch > before.epoch, "every take fences the one before");
                    holders[w].epoch = taken.epoch;
                    Ok(taken)
                }
                Step::Offer(w, from, through) => lease.offer(&holders[w], offer(&format!("{at:016x}"), from, through), now),
                Step::Commit(w, right) => {
                    let open = before.batch().cloned().unwrap_or_else(|| "none".into());
                    lease.commit(&holders[w], &if right { open } else { "ffffffffffffffff".into() }, UNSEEN, now)
                }
                Step::Finish(w) => lease.finish(&holders[w], now),
                Step::Release(w) => lease.release(&holders[w], now),
                Step::Seek(n) => Ok(lease.seek(Checkpoint::After(row(n)), now, now)),
                Step::GiveUp => Ok(lease.give_up(now)),
            };
            if let Some(w) = by_worker {
                let holds = before.owner == holders[w].owner && before.epoch == holders[w].epoch;
                prop_assert_eq!(holds, !matches!(result, Err(Error::Fenced(_))), "stale-epoch-is-fenced");
            }
            let Ok(next) = result else { continue };
            match step {
                Step::Offer(..) => {
                    prop_assert!(before.offer.is_none(), "offer-is-frozen");
                    prop_assert_eq!(&next.checkpoint, &before.checkpoint, "an offer moves no checkpoint");
                }
                Step::Commit(_, right) => {
                    let open = before.offer.clone().expect("commit-equals-offer: nothing was offered");
                    prop_assert!(right, "commit-equals-offer: another batch was committed");
                    prop_assert_eq!(&next.checkpoint, &Checkpoint::After(open.through));
                    prop_assert_eq!(next.committed_rows, before.committed_rows + open.rows);
                    prop_assert!(before.checkpoint.precedes(&next.checkpoint), "checkpoint-moves-forward");
                    prop_assert!(next.offer.is_none());
                }
                Step::Finish(_) => prop_assert!(before.offer.is_none(), "a shard is finished while a range is open"),
                Step::Take(_) | Step::Release(_) => prop_assert_eq!(&next.offer, &before.offer, "an offer outlives its worker"),
                Step::Seek(_) | Step::GiveUp => prop_assert!(next.offer.is_none()),
            }
            prop_assert!(next.offer_follows());
            lease = next;
        }
    }

    /// one-block, nothing lost, nothing reordered: what `choose` takes plus what it leaves is what
    /// was buffered.
    #[test]
    fn a_batch_keeps_its_limits_and_loses_nothing(
        sizes in proptest::collection::vec(proptest::collection::vec(0..300usize, 0..40), 1..6),
        max_rows in 1..100usize,
        max_bytes in 1..5_000usize,
        cut in 1..7usize,
    ) {
        let buffered: Vec<Vec<Slice>> = sizes.iter().map(|shard| slices(shard, cut)).collect();
        let taken = choose(&buffered, Limits { max_rows, max_bytes });
        let available: Vec<usize> = sizes.iter().map(Vec::len).collect();
        let rows: usize = taken.iter().sum();
        prop_assert!(taken.iter().zip(&available).all(|(taken, there)| taken <= there));
        prop_assert_eq!(rows == 0, available.iter().all(|n| *n == 0), "a record that waits is never left waiting");
        prop_assert!(rows <= max_rows);
        let bytes: usize = sizes.iter().zip(&taken).map(|(shard, n)| size_of(&shard[..*n])).sum();
        prop_assert!(bytes <= max_bytes || rows == 1, "{} bytes in {} rows", bytes, rows);
        // Evenly: nobody gets less than an equal share of the rows because of others, as far as
        // bytes allow.
        let waiting = available.iter().filter(|n| **n > 0).count().max(1);
        for (shard, (taken, there)) in taken.iter().zip(&available).enumerate() {
            let share = (*there).min(max_rows / waiting);
            let share_bytes = size_of(&sizes[shard][..share]);
            prop_assert!(*taken >= share || share_bytes > max_bytes / waiting);
        }
    }

    /// However records are divided into chunks and slices, they are the same records in the same
    /// order.
    #[test]
    fn slices_are_only_views(sizes in proptest::collection::vec(0..300usize, 1..60), cut in 1..9usize, at in 0..60usize) {
        let whole = slices(&sizes, sizes.len());
        let range = ShardRange { shard_id: "s".into(), slices: slices(&sizes, cut) };
        prop_assert_eq!(range.rows(), sizes.len());
        prop_assert!(range.records().eq(whole.iter().flat_map(Slice::records)));
        let offer = range.offer(&BatchId::from("b"), &shape(), 1).expect("an offer");
        prop_assert_eq!((offer.first, offer.through, offer.rows), (row(1), row(sizes.len() as u64), sizes.len() as u64));
        let (front, back) = whole[0].split_at(at);
        prop_assert_eq!(front.len() + back.len(), sizes.len());
        prop_assert_eq!(front.size() + back.size(), size_of(&sizes));
        prop_assert!(front.records().chain(back.records()).eq(whole[0].records()));
        let fitting = whole[0].fitting(at, at * 100);
        prop_assert!(fitting <= at && size_of(&sizes[..fitting]) <= at * 100);
        prop_assert!(fitting == at.min(sizes.len()) || size_of(&sizes[..fitting + 1]) > at * 100, "one more would fit");
    }

    /// Checkpoints survive a round trip through their two columns, and ordering does not depend on
    /// how they are written.
    #[test]
    fn checkpoints_survive_their_columns(n in any::<u128>(), sub in any::<u32>(), ms in 1_000_000_000_000..4_102_444_800_000i64) {
        let after = Checkpoint::After(RowPosition::new(SequenceNumber::parse(&n.to_string()).expect("digits"), sub));
        for checkpoint in [Checkpoint::TrimHorizon, Checkpoint::ShardEnd, Checkpoint::AtTimestamp(ms), after.clone()] {
            let text = checkpoint.sequence_text();
            prop_assert_eq!(Checkpoint::from_columns(&text, checkpoint.sub_sequence()), Ok(checkpoint.clone()));
            prop_assert!(!checkpoint.precedes(&checkpoint));
        }
        prop_assert!(Checkpoint::TrimHorizon.precedes(&after) && after.precedes(&Checkpoint::ShardEnd));
    }
}

/// Records of one shard with sequence numbers 1, 2, … and payloads of these sizes, `cut` records
/// per chunk.
fn slices(sizes: &[usize], cut: usize) -> Vec<Slice> {
    let numbered: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
    let chunks = numbered.chunks(cut.max(1)).map(|part| {
        let mut chunk = Chunk::default();
        for (n, size) in part {
            let sequence_number = (n + 1).to_string();
            let payload = vec![b'x'; *size];
            let record = RecordRef {
                key: "k",
                timestamp_ms: *n as i64,
                sequence_number: &sequence_number,
                sub_sequence: 0,
                payload: &payload,
            };
            assert!(chunk.push(record));
        }
        Slice::whole(Arc::new(chunk))
    });
    chunks.collect()
}

/// The size of [`slices`]: payload, key and digits.
fn size_of(sizes: &[usize]) -> usize {
    sizes.iter().enumerate().map(|(n, size)| size + 1 + (n + 1).to_string().len()).sum()
}
