use proptest::prelude::*;

use super::*;
use crate::names::ShardId;
use crate::sequence::{RowPosition, SequenceNumber};

/// A lease of shard `n`; its parents are shards before it.
fn lease(n: usize, parents: &[usize], finished: bool) -> Lease {
    let parents = parents.iter().map(|p| p.to_string().into()).collect();
    let at = if finished { Checkpoint::ShardEnd } else { Checkpoint::TrimHorizon };
    Lease::new(&"orders".into(), &"orders".into(), &n.to_string().into(), parents, at, 0)
}

/// A random lineage: each shard has up to two parents among those before it.
fn lineage() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12).prop_map(|shards| {
        let parents = |(n, wanted): (usize, Vec<prop::sample::Index>)| match n {
            0 => Vec::new(),
            _ => wanted.iter().map(|i| i.index(n)).collect(),
        };
        shards.into_iter().enumerate().map(parents).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reading whatever is readable, in any order, reads every shard, each after all its parents.
    #[test]
    fn every_shard_is_read_after_its_parents(lineage in lineage(), order in any::<prop::sample::Index>()) {
        let mut leases: Vec<Lease> = lineage.iter().enumerate().map(|(n, parents)| lease(n, parents, false)).collect();
        for _ in 0..leases.len() {
            let all: HashMap<ShardId, &Lease> = leases.iter().map(|l| (l.shard_id.clone(), l)).collect();
            let ready: Vec<usize> = (0..leases.len()).filter(|n| !leases[*n].finished() && readable(&leases[*n], &all)).collect();
            prop_assert!(!ready.is_empty(), "something can always be read");
            let next = ready[order.index(ready.len())];
            prop_assert!(lineage[next].iter().all(|parent| leases[*parent].finished()));
            leases[next].checkpoint = Checkpoint::ShardEnd;
        }
    }

    /// A parent unknown to the pipe is not waited for; a known one is, whatever its position before
    /// its end.
    #[test]
    fn only_known_parents_are_waited_for(known in prop::collection::vec(prop::option::of(any::<bool>()), 0..3)) {
        let leases: Vec<Lease> = known.iter().enumerate().filter_map(|(n, end)| Some(lease(n, &[], (*end)?))).collect();
        let all: HashMap<ShardId, &Lease> = leases.iter().map(|l| (l.shard_id.clone(), l)).collect();
        let child = lease(9, &(0..known.len()).collect::<Vec<_>>(), false);
        prop_assert_eq!(readable(&child, &all), known.iter().all(|end| *end != Some(false)));
    }
}

#[test]
fn a_shard_has_up_to_two_parents() {
    let shard = |parent: &str, adjacent: &str| Shard {
        id: "c".into(),
        parent: parent.into(),
        adjacent_parent: adjacent.into(),
        starting_hash_key: String::new(),
        ending_hash_key: String::new(),
        starting_sequence_number: String::new(),
        ending_sequence_number: String::new(),
    };
    assert_eq!(shard("", "").parents(), Vec::<ShardId>::new());
    assert_eq!(shard("a", "").parents(), ["a"]);
    assert_eq!(shard("a", "b").parents(), ["a", "b"]);
}

#[test]
fn what_lies_behind_the_last_record_is_the_end() {
    let shard = |begins: &str, ends: &str| Shard {
        id: "0".into(),
        parent: ShardId::default(),
        adjacent_parent: ShardId::default(),
        starting_hash_key: String::new(),
        ending_hash_key: String::new(),
        starting_sequence_number: begins.into(),
        ending_sequence_number: ends.into(),
    };
    let after = |number: &str, sub| Checkpoint::After(RowPosition::new(SequenceNumber::parse(number).unwrap(), sub));
    let closed = shard("100", "200");
    for at in [after("200", u32::MAX), after("201", 0), after("1000", 5), Checkpoint::ShardEnd] {
        assert_eq!(closed.position(at.clone()), Checkpoint::ShardEnd, "{at}");
    }
    for at in [after("200", 3), after("199", u32::MAX), Checkpoint::TrimHorizon, Checkpoint::AtTimestamp(9)] {
        assert_eq!(closed.position(at.clone()), at);
    }
    // An open shard continues, and an end before the start means nothing.
    for odd in
        [shard("100", ""), shard("49590338271490256608559692538361571095921575989136588898", "9223372036854775807")]
    {
        let at = after("49590338271490256608559692538361571095921575989136588999", u32::MAX);
        assert_eq!(odd.position(at.clone()), at);
    }
}
