//! The search in isolation: a table that refuses some rows, and buffers that hold the rest.

use proptest::prelude::*;

use super::*;
use crate::names::ShardId;

/// Isolates the bad rows of several shards; returns the number of batches tried.
fn isolate(shards: &[Vec<bool>], most: usize) -> Result<usize, TestCaseError> {
    let mut buffers: BTreeMap<ShardId, Vec<(usize, bool)>> = BTreeMap::new();
    for (n, shard) in shards.iter().enumerate() {
        buffers.insert(format!("shard-{n}").into(), shard.iter().copied().enumerate().collect());
    }
    let all = buffers.clone();
    let (mut inserted, mut found) = (BTreeMap::<ShardId, Vec<usize>>::new(), BTreeMap::<ShardId, Vec<usize>>::new());
    let (mut search, mut tries) = (Search::default(), 0);
    while buffers.values().any(|rows| !rows.is_empty()) {
        let searched = search.active();
        let mut counts = search.take(|id| buffers[id].len());
        prop_assert_eq!(searched, !counts.is_empty());
        if counts.is_empty() {
            // The batch that is refused initially.
            let mut left = most;
            for (id, rows) in &buffers {
                let n = rows.len().min(left);
                left -= n;
                counts.insert(id.clone(), n);
            }
        }
        let mut batch: Vec<(ShardId, usize, bool)> = Vec::new();
        for (id, n) in &counts {
            batch.extend(buffers.get_mut(id).unwrap().drain(..*n).map(|(row, bad)| (id.clone(), row, bad)));
        }
        prop_assert!(!batch.is_empty());
        loop {
            tries += 1;
            prop_assert!(tries < 100_000, "it does not come to an end");
            if !batch.iter().any(|(_, _, bad)| *bad) {
                search.went_in();
                batch.drain(..).for_each(|(id, row, _)| inserted.entry(id).or_default().push(row));
                break;
            }
            if batch.len() == 1 {
                search.found();
                batch.drain(..).for_each(|(id, row, _)| found.entry(id).or_default().push(row));
                break;
            }
            let mut rest: BTreeMap<ShardId, usize> = BTreeMap::new();
            for (id, row, bad) in batch.split_off(batch.len() / 2).into_iter().rev() {
                *rest.entry(id.clone()).or_default() += 1;
                buffers.get_mut(&id).unwrap().insert(0, (row, bad));
            }
            search.halved(rest.iter().map(|(id, rows)| (id, *rows)));
        }
    }
    let rows = |bad: bool| {
        let of = |rows: &Vec<(usize, bool)>| rows.iter().filter(|r| r.1 == bad).map(|r| r.0).collect::<Vec<_>>();
        let all: BTreeMap<ShardId, Vec<usize>> = all.iter().map(|(id, rows)| (id.clone(), of(rows))).collect();
        all.into_iter().filter(|(_, rows)| !rows.is_empty()).collect::<BTreeMap<_, _>>()
    };
    prop_assert_eq!(inserted, rows(false));
    prop_assert_eq!(found, rows(true));
    Ok(tries)
}

/// Upper bound on the attempts to find `bad` rows among `rows`: for each bad row, the halvings down
/// to it and the growing steps after it, plus one for the whole batch.
fn bound(rows: usize, bad: usize, batches: usize) -> usize {
    let halvings = rows.next_power_of_two().ilog2() as usize;
    let steps = halvings.div_ceil(ISOLATE_GROWTH.ilog2() as usize);
    batches + bad * (2 * halvings + steps + 2)
}

fn check(shards: &[Vec<bool>], most: usize) -> Result<(), TestCaseError> {
    let rows: usize = shards.iter().map(Vec::len).sum();
    let bad = shards.iter().flatten().filter(|bad| **bad).count();
    let (tries, bound) = (isolate(shards, most)?, bound(rows.min(most), bad, rows.div_ceil(most.max(1))));
    prop_assert!(tries <= bound, "{tries} attempts for {bad} bad of {rows} rows, and not more than {bound}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whichever rows are bad: exactly those are found, every other row is inserted once and in
    /// order, and the number of attempts stays within the bound.
    #[test]
    fn exactly_the_bad_rows_are_found(
        shards in prop::collection::vec(prop::collection::vec(prop::bool::weighted(0.1), 0..200), 1..6),
        most in 1..1_200usize,
    ) {
        check(&shards, most)?;
    }

    #[test]
    fn also_when_bad_rows_come_together(lengths in prop::collection::vec((0..60usize, any::<bool>()), 1..12), most in 1..700usize) {
        let shard: Vec<bool> = lengths.into_iter().flat_map(|(n, bad)| vec![bad; n]).collect();
        check(&[shard], most)?;
    }
}

#[test]
fn a_few_among_many_take_few_attempts() {
    for bad in [vec![0], vec![99_999], vec![49_999, 50_000], vec![7, 8, 9, 10, 11, 12, 13], vec![0, 20_000, 99_999]] {
        let mut shard = vec![false; 100_000];
        bad.iter().for_each(|n| shard[*n] = true);
        check(&[shard], 100_000).unwrap();
    }
}

#[test]
fn all_bad_is_one_attempt_each_behind_the_first() {
    assert_eq!(isolate(&[vec![true; 64]], 64).unwrap(), 7 + 63);
}

#[test]
fn what_is_not_buffered_any_more_is_forgotten() {
    let mut search = Search::default();
    let [a, b] = ["a", "b"].map(ShardId::from);
    search.halved([(&a, 5), (&b, 6)]);
    assert!(search.active());
    assert_eq!(search.take(|_| 0), BTreeMap::new());
    assert_eq!(search.take(|id| if *id == b { 2 } else { 0 }), BTreeMap::from([(b.clone(), 2)]));
}
