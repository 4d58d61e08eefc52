use std::sync::LazyLock;

use super::*;
use crate::names::{PipeName, ShardId, StreamName};
use crate::sequence::{RowPosition, SequenceNumber};

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_795_255_200_000;
const UNKNOWN: &Identity = &Identity { arn: String::new(), created_ms: 0 };
const RETENTION_MS: i64 = 24 * HOUR;

fn subject() -> Subject<'static> {
    static NAMES: LazyLock<(PipeName, StreamName)> = LazyLock::new(|| ("orders".into(), "orders".into()));
    let (pipe, stream) = &*NAMES;
    Subject { pipe, stream, identity: UNKNOWN, now_ms: NOW, listed_ms: 0, written_ms: NOW + 5 * HOUR }
}

fn kept() -> Kept {
    Kept::new(RETENTION_MS, NOW)
}

fn shard(id: &str, parents: [&str; 2], begins: &str, ends: &str) -> Shard {
    Shard {
        id: id.into(),
        parent: parents[0].into(),
        adjacent_parent: parents[1].into(),
        starting_hash_key: String::new(),
        ending_hash_key: String::new(),
        starting_sequence_number: begins.into(),
        ending_sequence_number: ends.into(),
    }
}

fn lease(id: &str, checkpoint: Checkpoint) -> Lease {
    Lease {
        since_ms: NOW - 30 * HOUR,
        ..Lease::new(&"orders".into(), &"orders".into(), &id.into(), vec![], checkpoint, 0)
    }
}

fn after(number: &str) -> Checkpoint {
    Checkpoint::After(RowPosition::new(SequenceNumber::parse(number).unwrap(), 0))
}

fn found(leases: &[Lease], shards: &[Shard], start: Checkpoint) -> Vec<(ShardId, Vec<ShardId>, Checkpoint)> {
    let by_id = leases.iter().map(|l| (l.shard_id.as_str(), l)).collect();
    let new = missing(&by_id, shards, &start, subject());
    new.into_iter().map(|l| (l.shard_id, l.parents, l.checkpoint)).collect()
}

#[test]
fn a_new_pipe_begins_where_it_was_told_with_the_parents_that_are_left() {
    let shards = [shard("2", ["0", "1"], "5", ""), shard("1", ["", ""], "1", "4")];
    let start = Checkpoint::AtTimestamp(7);
    let expected = [("2".into(), vec!["1".into()], start.clone()), ("1".into(), vec![], start.clone())];
    assert_eq!(found(&[], &shards, start), expected);
}

#[test]
fn children_begin_at_their_oldest_record() {
    let shards = [shard("0", ["", ""], "1", "4"), shard("1", ["0", ""], "5", ""), shard("2", ["0", ""], "5", "")];
    let leases = [lease("0", after("3"))];
    for child in found(&leases, &shards, Checkpoint::AtTimestamp(NOW)) {
        assert_eq!((child.1, child.2), (vec!["0".into()], Checkpoint::TrimHorizon));
    }
    // Also after a parent that is no longer listed and was not read to its end.
    assert_eq!(found(&leases, &shards[1..], Checkpoint::TrimHorizon)[0].1, ["0"]);
}

#[test]
fn an_interrupted_beginning_is_continued_with_its_own_start() {
    let shards = [shard("0", ["", ""], "1", ""), shard("1", ["", ""], "1", "")];
    let leases = [lease("0", Checkpoint::AtTimestamp(5))];
    assert_eq!(found(&leases, &shards, Checkpoint::AtTimestamp(9))[0].2, Checkpoint::AtTimestamp(5));
}

#[test]
fn children_share_the_weight_of_their_parents() {
    let heavy = Lease { bytes_per_second: 10, ..lease("0", after("3")) };
    let light = Lease { bytes_per_second: 4, ..lease("1", after("3")) };
    let by_id = BTreeMap::from([("0", &heavy), ("1", &light)]);
    let shards = [shard("2", ["0", ""], "5", ""), shard("3", ["0", "1"], "5", "")];
    let new = missing(&by_id, &shards, &Checkpoint::TrimHorizon, subject());
    assert_eq!(new.iter().map(|l| l.bytes_per_second).collect::<Vec<_>>(), [5, 14]);
}

#[test]
fn what_is_gone_is_told() {
    let shards = [shard("0", ["", ""], "100", ""), shard("1", ["", ""], "100", "200")];
    let gone = |lease: &Lease| lost([lease].into_iter(), &shards, UNKNOWN, kept(), NOW).into_values().next();
    // A number with fewer digits is a smaller one.
    assert_eq!(gone(&lease("0", after("99"))), Some(Lost::Replaced));
    assert_eq!(gone(&lease("0", after("100"))), None);
    assert_eq!(gone(&lease("0", Checkpoint::TrimHorizon)), None);
    assert_eq!(gone(&lease("0", Checkpoint::ShardEnd)), Some(Lost::Reopened));
    assert_eq!(gone(&lease("1", Checkpoint::ShardEnd)), None);
    assert_eq!(gone(&lease("2", Checkpoint::ShardEnd)), None);
    for unread in [after("50"), Checkpoint::TrimHorizon, Checkpoint::AtTimestamp(NOW - 25 * HOUR)] {
        let lease = lease("2", unread);
        assert_eq!(gone(&lease), Some(Lost::Expired));
        let message = Lost::Expired.message(&lease, RETENTION_MS);
        for part in
            ["'orders'", "shard 2", &lease.checkpoint.to_string(), "24 h", "oldest record", "/v1/pipes/orders/seek"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let idle = Lease { caught_up_ms: NOW - 23 * HOUR, ..lease("2", after("50")) };
    let began = lease("2", Checkpoint::AtTimestamp(NOW - HOUR));
    for lease in [idle, began] {
        assert_eq!(gone(&lease), None);
        assert_eq!(exhausted([&lease].into_iter(), &shards, &BTreeMap::new()), ["2"]);
    }
}

#[test]
fn positions_of_a_stream_that_was_deleted_mean_nothing_in_the_next_one() {
    let of = |arn: &str, created_ms| Identity { arn: arn.into(), created_ms };
    let shards = [shard("0", ["", ""], "1", "4"), shard("1", ["", ""], "1", "")];
    let now = of("a", 2);
    let gone = |lease: &Lease| lost([lease].into_iter(), &shards, &now, kept(), NOW).get(&lease.shard_id).copied();
    for (id, at) in [("0", Checkpoint::ShardEnd), ("1", Checkpoint::TrimHorizon), ("1", after("3")), ("9", after("3"))]
    {
        assert_eq!(gone(&Lease { identity: of("a", 1), ..lease(id, at.clone()) }), Some(Lost::Recreated), "{id} {at}");
    }
    // Nothing was left to read in it.
    assert_eq!(gone(&Lease { identity: of("a", 1), ..lease("9", Checkpoint::ShardEnd) }), None);
    // The same one, and rows that do not say.
    for same in [of("a", 2), of("a", 0), of("", 0)] {
        assert_eq!(gone(&Lease { identity: same, ..lease("1", after("3")) }), None);
    }
}

#[test]
fn what_was_finished_long_ago_is_forgotten() {
    let shards = [shard("0", ["", ""], "1", "4")];
    let lease = |id: &str, at: Checkpoint, hours: i64| Lease { updated_ms: NOW - hours * HOUR, ..lease(id, at) };
    let leases = [
        lease("0", Checkpoint::ShardEnd, 25),
        lease("1", Checkpoint::ShardEnd, 25),
        lease("2", Checkpoint::ShardEnd, 23),
        lease("3", after("3"), 25),
    ];
    assert_eq!(forgettable(leases.iter(), &shards, kept(), NOW), ["1"]);
}

#[test]
fn a_child_learns_all_its_parents_before_it_is_read() {
    let shards = [shard("0", ["", ""], "1", "4"), shard("1", ["", ""], "1", "4"), shard("2", ["0", "1"], "5", "")];
    let leases = |child: Lease| [lease("0", Checkpoint::ShardEnd), lease("1", after("3")), child];
    let lacking = |child: Lease| {
        let leases = leases(child);
        let known = leases.iter().map(|l| (l.shard_id.as_str(), l)).collect();
        let found = lacking_parents(leases.iter(), &known, &shards);
        found.into_iter().map(|(lease, parents)| (lease.shard_id.clone(), parents)).collect::<Vec<_>>()
    };
    let of_one = |at: Checkpoint| Lease { parents: vec!["0".into()], ..lease("2", at) };
    let both = vec![ShardId::from("0"), ShardId::from("1")];
    assert_eq!(lacking(of_one(Checkpoint::TrimHorizon)), [("2".into(), both.clone())]);
    assert_eq!(lacking(of_one(after("6"))), []);
    assert_eq!(lacking(Lease { parents: both, ..lease("2", Checkpoint::TrimHorizon) }), []);
    // An expired parent is nothing to wait for.
    let children = [shard("2", ["7", "8"], "5", "")];
    let child = lease("2", Checkpoint::TrimHorizon);
    assert!(lacking_parents([&child].into_iter(), &BTreeMap::new(), &children).is_empty());
}
