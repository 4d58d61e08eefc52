//! Each change of lease rows by itself: rows and an open batch in, rows out.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use domain::batch::ShardRange;
use domain::lease::Offer;
use domain::names::StreamName;
use domain::ports::Versioned;
use domain::record::{Chunk, RecordRef, Slice};
use domain::sequence::{RowPosition, SequenceNumber};
use domain::shape::BatchShape;

const NOW: i64 = 1_795_255_200_000;
/// A reader that knows nothing.
const UNSEEN: Seen = Seen { tip_ms: None, arrived_ms: 0, listed_ms: 0, now_ms: NOW };
const IDENTITY: Identity = Identity { arn: String::new(), created_ms: 0 };

/// The first row of a record.
fn at(sequence: u64) -> RowPosition {
    RowPosition::new(SequenceNumber::parse(&sequence.to_string()).expect("digits"), 0)
}

fn lease(shard: &str) -> Lease {
    let start = Checkpoint::After(at(1));
    Lease::new(&"orders".into(), &"stream".into(), &shard.into(), vec![], start, 0).take(&"me".into(), 0)
}

fn lease_of_another(shard: &str) -> Lease {
    lease(shard).take(&"other".into(), 0)
}

/// Rows as read, of which those under the name `me` are held here.
fn rows(leases: impl IntoIterator<Item = Lease>) -> Rows {
    let mut rows = Rows::new(&"me".into());
    let read: Vec<_> = leases.into_iter().map(|value| Versioned { version: 0, value }).collect();
    let own = read.iter().map(|row| &row.value).filter(|l| l.owner == "me");
    let epochs = own.map(|l| (l.shard_id.clone(), l.epoch)).collect();
    rows.read(read);
    rows.taken(epochs);
    rows
}

/// Records with these numbers.
fn range(shard: &str, sequences: std::ops::RangeInclusive<u64>) -> ShardRange {
    let mut chunk = Chunk::default();
    for sequence in sequences {
        let (key, timestamp_ms, payload) = ("k", NOW, &[b'x'; 1_000][..]);
        let sequence_number = &*sequence.to_string();
        assert!(chunk.push(RecordRef { key, timestamp_ms, sequence_number, sub_sequence: 0, payload }));
    }
    ShardRange { shard_id: shard.into(), slices: vec![Slice::whole(Arc::new(chunk))] }
}

fn batch(id: &str, ranges: Vec<ShardRange>) -> Batch {
    Batch { id: id.into(), stream: StreamName::from("stream"), ranges }
}

/// A batch of these ranges after the checkpoints of [`lease`].
fn open(ranges: Vec<ShardRange>) -> Open {
    let before = ranges.iter().map(|range| (range.shard_id.clone(), Checkpoint::After(at(1)))).collect();
    Open::new(Arc::new(batch("b1", ranges)), BatchShape::of_column("ArrowStream"), before)
}

/// The same rows after the open batch was offered in them.
fn offered(open: &Open, leases: impl IntoIterator<Item = Lease>) -> Vec<Lease> {
    let leases: Vec<Lease> = leases.into_iter().collect();
    let changes = offers(&rows(leases.clone()), open, NOW).expect("an offer").expect("nothing moved");
    let changed = |old: Lease| changes.iter().find(|new| new.shard_id == old.shard_id).cloned().unwrap_or(old);
    leases.into_iter().map(changed).collect()
}

fn ids(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|l| l.shard_id.as_str()).collect()
}

fn two_shards() -> Open {
    open(vec![range("a", 2..=5), range("b", 7..=9)])
}

#[test]
fn an_offer_is_written_into_each_row_of_the_batch() {
    let changes = offers(&rows([lease("a"), lease("b"), lease("c")]), &two_shards(), NOW).unwrap().unwrap();
    let offer = |first, through, rows| Offer {
        batch: "b1".into(),
        shape: BatchShape::of_column("ArrowStream"),
        shards: 2,
        first: at(first),
        through: at(through),
        rows,
    };
    let made: Vec<_> = changes.iter().map(|l| (l.shard_id.as_str(), l.offer.clone().unwrap())).collect();
    assert_eq!(made, [("a", offer(2, 5, 4)), ("b", offer(7, 9, 3))]);
    assert!(changes.iter().all(|l| l.checkpoint == Checkpoint::After(at(1))));
}

#[test]
fn an_offer_that_was_written_in_part_is_completed_in_its_own_shape() {
    let open = two_shards();
    let [mut a, b] = <[Lease; 2]>::try_from(offered(&open, [lease("a"), lease("b")])).unwrap();
    a.offer.as_mut().unwrap().shape = BatchShape::of_column("JSONEachRow");
    let missing_b = Lease { offer: None, ..b };
    let changes = offers(&rows([a, missing_b]), &open, NOW).unwrap().unwrap();
    assert_eq!(ids(&changes), ["b"]);
    assert_eq!(changes[0].offer.as_ref().unwrap().shape.as_str(), "JSONEachRow");
}

#[test]
fn nothing_is_offered_if_a_position_was_moved_or_another_batch_is_open() {
    let moved = Lease { checkpoint: Checkpoint::TrimHorizon, ..lease("b") };
    let mut taken = offered(&open(vec![range("b", 2..=3)]), [lease("b")]).remove(0);
    taken.offer.as_mut().unwrap().batch = "another".into();
    for b in [moved, taken] {
        assert_eq!(offers(&rows([lease("a"), b]), &two_shards(), NOW), Ok(None));
    }
    assert_eq!(offers(&rows([lease("a")]), &two_shards(), NOW), Ok(None), "without a row");
    let of_another = offers(&rows([lease("a"), lease_of_another("b")]), &two_shards(), NOW);
    assert!(matches!(of_another, Err(Error::Fenced(_))), "{of_another:?}");
}

#[test]
fn a_half_replaces_the_offer_and_what_it_lacks_is_dropped() {
    let open = two_shards();
    let leases = offered(&open, [lease("a"), lease("b")]);
    let half = batch("b2", vec![range("a", 2..=4)]);
    let changes = halves(&rows(leases.clone()), &open, &half, NOW).unwrap().unwrap();
    assert_eq!(ids(&changes), ["a", "b"]);
    let kept = changes[0].offer.as_ref().unwrap();
    assert_eq!((kept.batch.as_str(), &kept.through, kept.rows, kept.shards), ("b2", &at(4), 3, 1));
    assert_eq!(changes[1].offer, None);
    let moved = leases.into_iter().map(|l| Lease { checkpoint: Checkpoint::TrimHorizon, ..l });
    assert_eq!(halves(&rows(moved), &open, &half, NOW), Ok(None));
}

#[test]
fn a_commit_moves_each_checkpoint_to_the_end_of_its_offer() {
    let open = two_shards();
    let commits = commits(&rows(offered(&open, [lease("a"), lease("b")])), &open, |_| UNSEEN, NOW).unwrap();
    let ends: Vec<_> = commits.leases.iter().map(|l| (l.shard_id.as_str(), &l.checkpoint, &l.offer)).collect();
    assert_eq!(ends, [("a", &Checkpoint::After(at(5)), &None), ("b", &Checkpoint::After(at(9)), &None)]);
    assert_eq!(commits.leases.iter().map(|l| l.committed_rows).collect::<Vec<_>>(), [4, 3]);
    assert!(!commits.moved && commits.leases.iter().all(|l| l.bytes_per_second > 0 && l.last_commit_ms == NOW));
}

#[test]
fn a_shard_that_was_moved_keeps_its_position_when_the_rest_is_committed() {
    let open = two_shards();
    let mut leases = offered(&open, [lease("a"), lease("b")]);
    leases[0].checkpoint = Checkpoint::TrimHorizon;
    let commits = commits(&rows(leases), &open, |_| UNSEEN, NOW).unwrap();
    let ends: Vec<_> = commits.leases.iter().map(|l| (&l.checkpoint, l.committed_rows, &l.offer)).collect();
    assert_eq!(ends, [(&Checkpoint::TrimHorizon, 0, &None), (&Checkpoint::After(at(9)), 3, &None)]);
    assert!(commits.moved);
}

#[test]
fn a_commit_of_what_another_worker_holds_is_fenced() {
    let open = two_shards();
    let mut leases = offered(&open, [lease("a"), lease("b")]);
    leases[1] = leases[1].take(&"other".into(), NOW);
    assert!(matches!(commits(&rows(leases), &open, |_| UNSEEN, NOW), Err(Error::Fenced(_))));
}

#[test]
fn only_what_is_held_and_meant_is_released_discarded_or_finished() {
    let open = two_shards();
    let [a, b] = <[Lease; 2]>::try_from(offered(&open, [lease("a"), lease("b")])).unwrap();
    let rows = rows([a, b.take(&"other".into(), 0), lease("c"), lease("d")]);
    let released = releases(&rows, |l| l.shard_id != "d", NOW).unwrap();
    assert_eq!(ids(&released), ["a", "c"]);
    assert!(released.iter().all(|l| l.owner.is_empty()) && released[0].offer.is_some());
    let discarded = discards(&rows, &"b1".into(), NOW).unwrap();
    assert_eq!((ids(&discarded), &discarded[0].offer), (vec!["a"], &None));
    let finished = finishes(&rows, &["b".into(), "c".into()], NOW).unwrap();
    assert_eq!((ids(&finished), finished[0].finished()), (vec!["c"], true));
    assert!(matches!(finishes(&rows, &["a".into()], NOW), Err(Error::Internal(_))), "a batch is open");
}

fn listed(id: &str) -> Shard {
    Shard {
        id: id.into(),
        parent: ShardId::default(),
        adjacent_parent: ShardId::default(),
        starting_hash_key: String::new(),
        ending_hash_key: String::new(),
        starting_sequence_number: "1".into(),
        ending_sequence_number: String::new(),
    }
}

/// The rows that a seek writes while shards `a` to `c` are listed, and `d` is not.
fn sought(rows: &Rows, moves: &[(&str, Checkpoint)]) -> Result<Vec<Lease>, Error> {
    let shards = ["a", "b", "c"].map(listed);
    let listed: HashMap<&str, &Shard> = shards.iter().map(|shard| (shard.id.as_str(), shard)).collect();
    let moves: Vec<_> = moves.iter().map(|(id, to)| (ShardId::from(*id), to.clone())).collect();
    let (pipe, identity) = (&PipeName::from("orders"), &IDENTITY);
    Seek { pipe, moves: &moves, listed: &listed, identity, since_ms: NOW }.changes(rows, NOW)
}

#[test]
fn a_seek_gives_up_the_whole_batch_of_a_moved_shard() {
    let leases = offered(&two_shards(), [lease("a"), lease("b"), lease("c")]);
    let changes = sought(&rows(leases), &[("a", Checkpoint::TrimHorizon)]).unwrap();
    let made: Vec<_> = changes.iter().map(|l| (l.shard_id.as_str(), &l.checkpoint, &l.offer)).collect();
    assert_eq!(made, [("a", &Checkpoint::TrimHorizon, &None), ("b", &Checkpoint::After(at(1)), &None)]);
}

#[test]
fn a_seek_of_all_shards_finishes_those_that_are_not_listed() {
    let (all, one) = (("", Checkpoint::TrimHorizon), ("b", Checkpoint::AtTimestamp(NOW)));
    // Whoever holds them.
    let changes = sought(&rows([lease("a"), lease_of_another("b"), lease("d")]), &[all, one]).unwrap();
    let made: Vec<_> = changes.iter().map(|l| (l.shard_id.as_str(), &l.checkpoint)).collect();
    let expected =
        [("a", &Checkpoint::TrimHorizon), ("b", &Checkpoint::AtTimestamp(NOW)), ("d", &Checkpoint::ShardEnd)];
    assert_eq!(made, expected);
}

#[test]
fn a_seek_of_a_shard_without_a_lease_is_refused() {
    let refused = sought(&rows([lease("a")]), &[("c", Checkpoint::TrimHorizon)]);
    assert_eq!(refused, Err(Error::NotFound("pipe 'orders' has no shard 'c'".into())));
}
