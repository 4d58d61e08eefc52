//! Random steps by several workers, each with its own, often stale view of the row, through a
//! compare-and-set store.

use proptest::prelude::*;

use super::*;
use crate::names::WorkerId;
use crate::ports::{StateError, Versioned};
use crate::rows::Rows;
use crate::sequence::{RowPosition, SequenceNumber};
use crate::shape::BatchShape;

/// What a worker, or an operator, tries.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    Look,
    Take,
    Release,
    Offer { after: i16, rows: u8 },
    Halve { whole: bool, more: i8, rows: u8 },
    Commit { other: bool },
    Finish,
    CaughtUp,
    Discard,
    Seek(u16),
    GiveUp,
}

/// A step that the store accepted.
#[derive(Debug)]
struct Step {
    op: Op,
    owner: WorkerId,
    /// As the worker received it, however long ago.
    holder: Option<Holder>,
    before: Lease,
    after: Lease,
}

#[derive(Default)]
struct Worker {
    view: Option<Versioned<Lease>>,
    holder: Option<Holder>,
}

/// Nothing is left to read.
fn at_tip(now_ms: i64) -> Seen {
    Seen { tip_ms: Some(now_ms), arrived_ms: now_ms, listed_ms: now_ms, now_ms }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Look),
        3 => Just(Op::Take),
        1 => Just(Op::Release),
        6 => (-3..6i16, 1..9u8).prop_map(|(after, rows)| Op::Offer { after, rows }),
        6 => (prop::bool::weighted(0.2), -6..2i8, 0..9u8).prop_map(|(whole, more, rows)| Op::Halve { whole, more, rows }),
        6 => prop::bool::weighted(0.2).prop_map(|other| Op::Commit { other }),
        1 => Just(Op::Finish),
        1 => Just(Op::CaughtUp),
        1 => Just(Op::Discard),
        1 => (0..2_000u16).prop_map(Op::Seek),
        1 => Just(Op::GiveUp),
    ]
}

fn ops() -> impl Strategy<Value = Vec<(usize, Op)>> {
    prop::collection::vec((0..3usize, op()), 1..120)
}

/// The first row of a record.
fn at(n: i64) -> RowPosition {
    RowPosition::new(SequenceNumber::parse(&n.max(0).to_string()).unwrap(), 0)
}

fn place(checkpoint: &Checkpoint) -> i64 {
    match checkpoint {
        Checkpoint::After(row) => row.sequence.as_str().parse().unwrap(),
        _ => 990,
    }
}

/// Runs the steps. Steps refused by the state machine or by the store are left out.
fn play(ops: Vec<(usize, Op)>) -> Result<Vec<Step>, TestCaseError> {
    let mut store = Rows::default();
    store
        .create(&[Lease::new(
            &"orders".into(),
            &"orders".into(),
            &"shard-0".into(),
            vec![],
            Checkpoint::TrimHorizon,
            0,
        )])
        .unwrap();
    let row = |store: &Rows| store.leases(None).remove(0);
    let (mut workers, mut steps, mut batches): ([Worker; 3], _, _) = (Default::default(), Vec::new(), 0);
    for (n, op) in ops {
        let owner = WorkerId::from(format!("worker-{n}"));
        let worker = &mut workers[n];
        if op == Op::Look {
            worker.view = Some(row(&store));
            continue;
        }
        let Some(view) = worker.view.clone() else { continue };
        let (seen, held) = (&view.value, worker.holder.clone());
        let holder = held.clone().unwrap_or(Holder { owner: owner.clone(), epoch: 0 });
        batches += 1;
        let open = seen.offer.as_ref().map(|o| o.batch.clone()).unwrap_or_default();
        let next = match &op {
            Op::Look => continue,
            Op::Take => Ok(seen.take(&owner, batches)),
            Op::Release => seen.release(&holder, batches),
            Op::Offer { after, rows } => {
                let first = place(&seen.checkpoint) + i64::from(*after);
                let (first, through) = (at(first), at(first + i64::from(*rows) - 1));
                let (batch, rows) = (format!("{batches:016x}").into(), (*rows).into());
                let offer = Offer { batch, shape: BatchShape::of_column(""), shards: 1, first, through, rows };
                seen.offer(&holder, offer, batches)
            }
            Op::Halve { whole, more, rows } => {
                let half = seen.offer.clone().filter(|_| !whole).map(|open| Offer {
                    batch: format!("{batches:016x}").into(),
                    through: at(open.through.sequence.as_str().parse::<i64>().unwrap() + i64::from(*more)),
                    rows: (*rows).into(),
                    ..open
                });
                seen.halve(&holder, &open, half, batches)
            }
            Op::Commit { other } => {
                let batch = if *other { "other".into() } else { open };
                seen.commit(&holder, &batch, at_tip(batches), batches)
            }
            Op::Finish => seen.finish(&holder, batches),
            Op::CaughtUp => seen.caught_up(&holder, at_tip(batches), batches),
            Op::Discard => seen.discard(&holder, batches),
            Op::Seek(to) => Ok(seen.seek(Checkpoint::After(at((*to).into())), batches, batches)),
            Op::GiveUp => Ok(seen.give_up(batches)),
        };
        let Ok(next) = next else { continue };
        let before = row(&store);
        match store.update(&[Versioned { version: view.version, value: next.clone() }]) {
            Ok(()) => {
                prop_assert_eq!(before.version, view.version);
                if op == Op::Take {
                    worker.holder = Some(Holder { owner: owner.clone(), epoch: next.epoch });
                }
                worker.view = Some(row(&store));
                steps.push(Step { op, owner, holder: held, before: before.value, after: next });
            }
            Err(StateError::Conflict(_)) => {
                prop_assert_ne!(before.version, view.version);
                prop_assert_eq!(row(&store), before);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    Ok(steps)
}

/// Manual edits may change any row.
fn by_a_person(op: &Op) -> bool {
    matches!(op, Op::Seek(_) | Op::GiveUp)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn offer_is_frozen(ops in ops()) {
        for step in play(ops)? {
            match (&step.before.offer, &step.after.offer) {
                (Some(_), Some(_)) if matches!(step.op, Op::Halve { .. }) => {}
                (Some(open), Some(now)) => prop_assert_eq!(open, now, "{:?}", step.op),
                (Some(_), None) => {
                    let settled = by_a_person(&step.op) || matches!(step.op, Op::Commit { .. } | Op::Discard | Op::Halve { .. });
                    prop_assert!(settled, "{:?}", step.op);
                }
                (None, Some(now)) => {
                    let is_offer = matches!(step.op, Op::Offer { .. });
                    prop_assert!(is_offer && now.first <= now.through);
                    if let Checkpoint::After(committed) = &step.before.checkpoint {
                        prop_assert!(now.first >= *committed && now.through > *committed);
                    }
                }
                (None, None) => {}
            }
        }
    }

    /// A half starts where the whole started, ends no later and has no more rows; nothing else
    /// changes.
    #[test]
    fn halves_are_prefixes(ops in ops()) {
        for step in play(ops)?.iter().filter(|step| matches!(step.op, Op::Halve { .. })) {
            let (Some(whole), half) = (&step.before.offer, &step.after.offer) else { panic!("nothing was open") };
            if let Some(half) = half {
                prop_assert_eq!((&half.first, &half.shape), (&whole.first, &whole.shape));
                prop_assert!(half.through <= whole.through && half.first <= half.through);
                prop_assert!((1..=whole.rows).contains(&half.rows) && half.batch != whole.batch);
            }
            let same = Lease { offer: whole.clone().into(), updated_ms: step.before.updated_ms, ..step.after.clone() };
            prop_assert_eq!(&same, &step.before);
        }
    }

    #[test]
    fn commit_equals_offer(ops in ops()) {
        for step in play(ops)? {
            match step.op {
                Op::Commit { .. } => {
                    let open = step.before.offer.clone();
                    prop_assert!(open.is_some(), "committed and not offered");
                    let open = open.unwrap();
                    prop_assert_eq!(&step.after.checkpoint, &Checkpoint::After(open.through));
                    prop_assert_eq!(step.after.committed_rows, step.before.committed_rows + open.rows);
                    prop_assert_eq!(&step.after.offer, &None);
                }
                Op::Finish => prop_assert_eq!((&step.before.offer, &step.after.checkpoint), (&None, &Checkpoint::ShardEnd)),
                Op::Seek(_) => {}
                _ => prop_assert_eq!(&step.before.checkpoint, &step.after.checkpoint),
            }
        }
    }

    #[test]
    fn stale_epoch_is_fenced(ops in ops()) {
        for step in play(ops)? {
            let (before, after) = (&step.before, &step.after);
            if step.op == Op::Take {
                prop_assert_eq!((&after.owner, after.epoch), (&step.owner, before.epoch + 1));
                prop_assert_eq!((&after.checkpoint, &after.offer), (&before.checkpoint, &before.offer));
            } else if !by_a_person(&step.op) {
                let now = Some(Holder { owner: before.owner.clone(), epoch: before.epoch });
                prop_assert_eq!(&step.holder, &now, "{:?} by one who does not hold it", step.op);
                prop_assert_eq!(after.epoch, before.epoch);
            }
        }
    }

    #[test]
    fn checkpoint_moves_forward(ops in ops()) {
        for step in play(ops)? {
            let (before, after) = (&step.before.checkpoint, &step.after.checkpoint);
            let back = before != after && !before.precedes(after);
            let seek = matches!(step.op, Op::Seek(_));
            prop_assert!(seek || !back, "{:?}: {} -> {}", step.op, before, after);
            prop_assert!(seek || step.after.caught_up_ms >= step.before.caught_up_ms);
        }
    }
}

#[test]
fn an_offer_that_an_edit_left_behind_is_not_committed() {
    let holder = Holder { owner: "a".into(), epoch: 1 };
    let offer =
        Offer { batch: "b".into(), shape: BatchShape::of_column(""), shards: 1, first: at(5), through: at(9), rows: 5 };
    let lease = Lease::new(&"orders".into(), &"orders".into(), &"shard-0".into(), vec![], Checkpoint::TrimHorizon, 0)
        .take(&"a".into(), 0);
    let offered = lease.offer(&holder, offer, 0).unwrap();
    assert!(offered.offer_follows());
    for to in [7, 9, 12] {
        let edited = Lease { checkpoint: Checkpoint::After(at(to)), ..offered.clone() };
        assert!(!edited.offer_follows());
        assert!(matches!(edited.commit(&holder, &"b".into(), at_tip(0), 0), Err(Error::Internal(_))), "{to}");
        assert_eq!(edited.discard(&holder, 0).unwrap().checkpoint, edited.checkpoint);
    }
}

/// Rows are edited by hand, and the largest number is one that fits.
#[test]
fn the_largest_numbers_of_a_row_are_followed_by_others() {
    let mut lease =
        Lease::new(&"orders".into(), &"orders".into(), &"shard-0".into(), vec![], Checkpoint::TrimHorizon, 0);
    (lease.epoch, lease.committed_rows) = (u64::MAX, u64::MAX - 1);
    let taken = lease.take(&"a".into(), 0);
    assert_ne!(taken.epoch, lease.epoch);
    let holder = Holder { owner: "a".into(), epoch: taken.epoch };
    let offer =
        Offer { batch: "b".into(), shape: BatchShape::of_column(""), shards: 1, first: at(1), through: at(2), rows: 2 };
    let committed =
        taken.offer(&holder, offer, 0).and_then(|offered| offered.commit(&holder, &"b".into(), at_tip(0), 0));
    assert_eq!(committed.unwrap().committed_rows, u64::MAX);
    let mut rows = Rows::default();
    let row = Versioned { version: i32::MAX, value: taken };
    rows.leases.insert(row.value.key(), row.clone());
    rows.update(std::slice::from_ref(&row)).unwrap();
    assert!(rows.update(&[row]).is_err(), "the version is another one");
}
