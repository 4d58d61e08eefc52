use proptest::prelude::*;

use super::*;
use crate::names::WorkerId;

/// Leases and their owners; simulates what workers do to them.
#[derive(Clone, Debug)]
struct Leases(Vec<(String, String, u64)>);

impl Leases {
    fn shares(&self) -> Vec<Share<'_>> {
        let leases = self.0.iter();
        leases.map(|l| Share { shard_id: &l.0, owner: &l.1, bytes_per_second: l.2, batch: None }).collect()
    }

    /// Every worker carries out its part, from the same rows. Returns how many leases changed hands
    /// or became free.
    fn round(&mut self, workers: &BTreeSet<WorkerId>) -> usize {
        let plans: Vec<(WorkerId, Plan)> =
            workers.iter().map(|w| (w.clone(), plan(&self.shares(), workers, w))).collect();
        let mut changed = 0;
        for (worker, plan) in plans {
            for (shard, owner, _) in &mut self.0 {
                if plan.take.contains(shard.as_str()) {
                    assert_eq!(owner, "", "{shard} is taken twice, or from a living worker");
                    *owner = worker.to_string();
                    changed += 1;
                } else if plan.release.contains(shard.as_str()) {
                    assert_eq!(worker, **owner);
                    owner.clear();
                    changed += 1;
                }
            }
        }
        changed
    }

    fn settle(&mut self, workers: &BTreeSet<WorkerId>) -> usize {
        let mut moves = 0;
        for _ in 0..50 {
            match self.round(workers) {
                0 => return moves,
                changed => moves += changed,
            }
        }
        panic!("it does not come to rest: {self:?}");
    }

    fn loads(&self, workers: &BTreeSet<WorkerId>) -> Vec<u64> {
        let load = |w: &WorkerId| self.0.iter().filter(|l| *w == *l.1).map(|l| l.2 + LEASE_BASE_WEIGHT).sum();
        workers.iter().map(load).collect()
    }
}

fn workers(count: usize) -> BTreeSet<WorkerId> {
    (0..count).map(|n| format!("worker-{n}").into()).collect()
}

fn leases(rates: &[u64]) -> Leases {
    Leases(rates.iter().enumerate().map(|(n, rate)| (format!("shard-{n:04}"), String::new(), *rate)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// From scratch, after a worker left, and after one joined: every lease has one live owner, and
    /// no move would improve the balance much.
    #[test]
    fn it_comes_to_rest_and_is_even(rates in prop::collection::vec(0..4_000_000u64, 0..60), count in 1..8usize, first in 1..8usize) {
        let mut leases = leases(&rates);
        for count in [first, count] {
            let workers = workers(count);
            for lease in &mut leases.0 {
                if !workers.contains(lease.1.as_str()) {
                    lease.1.clear();
                }
            }
            leases.settle(&workers);
            prop_assert!(leases.0.iter().all(|l| workers.contains(l.1.as_str())));
            let loads = leases.loads(&workers);
            let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
            let heaviest = rates.iter().max().map_or(0, |r| r + LEASE_BASE_WEIGHT);
            let average = loads.iter().sum::<u64>() / loads.len() as u64;
            prop_assert!(most - least <= (heaviest * 8 / 7 + 1).max(average / BALANCE_TOLERANCE), "{loads:?}");
            if rates.len() >= count {
                prop_assert!(*least > 0, "a worker has nothing to do: {loads:?}");
            }
        }
    }

    /// Equal shards are distributed evenly, with the fewest moves: each is released and taken once.
    #[test]
    fn as_few_as_possible_move(shards in 0..60usize, count in 1..6usize) {
        let mut leases = leases(&vec![1_000; shards]);
        leases.settle(&workers(count));
        let moves = leases.settle(&workers(count + 1));
        prop_assert!(moves <= 2 * (shards / (count + 1)), "{moves} moves of {shards} shards for worker {count}");
        let loads = leases.loads(&workers(count + 1));
        let one = 1_000 + LEASE_BASE_WEIGHT;
        let most = loads.iter().max().unwrap();
        prop_assert!(most - loads.iter().min().unwrap() <= one.max(most / BALANCE_TOLERANCE), "{loads:?}");
    }

    /// Small fluctuations in the rates move nothing.
    #[test]
    fn noise_moves_nothing(rates in prop::collection::vec(100_000..200_000u64, 8..60), count in 2..5usize, noise in prop::collection::vec(-3i64..=3, 60)) {
        let (mut leases, workers) = (leases(&rates), workers(count));
        leases.settle(&workers);
        let loads = leases.loads(&workers);
        let average = loads.iter().sum::<u64>() / loads.len() as u64;
        let calm = loads.iter().max().unwrap() - loads.iter().min().unwrap() <= average / 10;
        for (lease, percent) in leases.0.iter_mut().zip(&noise) {
            lease.2 = lease.2.saturating_add_signed(lease.2 as i64 * percent / 100);
        }
        prop_assert!(!calm || leases.round(&workers) == 0, "{loads:?}");
    }

    /// The leases of one batch go to one worker, and those of a worker that does not pull the pipe
    /// stay where they are.
    #[test]
    fn a_batch_goes_into_one_hand(shards in 1..20usize, count in 1..6usize, batches in 1..4usize) {
        let (ids, names): (Vec<String>, Vec<String>) =
            ((0..shards).map(|n| format!("shard-{n}")).collect(), (0..batches).map(|n| format!("batch-{n}")).collect());
        let shares: Vec<Share> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| Share {
                shard_id: id,
                owner: if n % 7 == 6 { "another" } else { "" },
                bytes_per_second: n as u64 * 10_000,
                batch: (n % 2 == 0).then(|| names[n / 2 % batches].as_str()),
            })
            .collect();
        let workers = workers(count);
        let mut by_batch = BTreeMap::new();
        for worker in &workers {
            let plan = plan(&shares, &workers, worker);
            prop_assert!(plan.release.is_empty());
            for share in &shares {
                let takes = plan.take.contains(share.shard_id);
                prop_assert!(!takes || share.owner.is_empty());
                if let (true, Some(batch)) = (takes, share.batch) {
                    prop_assert_eq!(by_batch.entry(batch).or_insert(worker), &worker);
                }
            }
        }
    }

    /// The order in which rows are read does not matter.
    #[test]
    fn the_same_for_everybody(rates in prop::collection::vec(0..100_000u64, 1..40), count in 1..6usize) {
        let (leases, workers) = (leases(&rates), workers(count));
        let mut backwards = leases.clone();
        backwards.0.reverse();
        for worker in &workers {
            prop_assert_eq!(plan(&leases.shares(), &workers, worker), plan(&backwards.shares(), &workers, worker));
        }
    }

    /// A steady stream converges to its rate, whatever the commit interval.
    #[test]
    fn a_rate_is_found_and_forgotten(rate in 1_000..10_000_000u64, pace_ms in 10..20_000i64) {
        let mut found = 0;
        for _ in 0..(20 * RATE_WINDOW_MS / pace_ms + 1) {
            found = rate_after(found, rate * pace_ms as u64 / 1_000, pace_ms);
        }
        let ratio = found as f64 / rate as f64;
        prop_assert!((0.8..1.25).contains(&ratio), "{found} for {rate}");
        prop_assert_eq!(rate_after(found, 0, 100 * RATE_WINDOW_MS), 0);
    }
}

#[test]
fn a_hot_shard_outweighs_many_quiet_ones() {
    let mut leases = leases(&[2_000_000, 0, 0, 0, 0]);
    let workers = workers(2);
    leases.settle(&workers);
    let hot = leases.0[0].1.clone();
    assert!(leases.0[1..].iter().all(|l| l.1 != hot), "{leases:?}");
}
