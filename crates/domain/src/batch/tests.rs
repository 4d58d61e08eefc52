use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::limits::{DEFAULT_MAX_BYTES, DEFAULT_MAX_ROWS, MAX_MAX_BYTES, MAX_MAX_ROWS};
use crate::names::ShardId;
use crate::record::Chunk;
use crate::shape::BatchShape;

/// Slices whose records have payloads of these lengths, numbered consecutively.
fn slices(lengths: &[Vec<u16>]) -> Vec<Slice> {
    let mut number = 0;
    let chunk = |lengths: &Vec<u16>| {
        let mut chunk = Chunk::default();
        for length in lengths {
            number += 1;
            let (sequence_number, payload) = (number.to_string(), vec![b'x'; (*length).into()]);
            assert!(chunk.push(RecordRef {
                key: "",
                timestamp_ms: 0,
                sequence_number: &sequence_number,
                sub_sequence: 0,
                payload: &payload,
            }));
        }
        Slice::whole(Arc::new(chunk))
    };
    lengths.iter().map(chunk).collect()
}

fn shards() -> impl Strategy<Value = Vec<Vec<Vec<u16>>>> {
    let length = prop_oneof![8 => 0..50u16, 1 => 500..5_000u16];
    prop::collection::vec(prop::collection::vec(prop::collection::vec(length, 0..6), 0..5), 0..6)
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..40usize, 1..2_000usize).prop_map(|(max_rows, max_bytes)| Limits { max_rows, max_bytes })
}

/// Rows and bytes of the first `count` records.
fn size(slices: &[Slice], count: usize) -> usize {
    slices.iter().flat_map(Slice::records).take(count).map(|r| r.size()).sum()
}

fn rows(slices: &[Slice]) -> usize {
    slices.iter().map(Slice::len).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The first rows of a batch plus the rest make up the batch: each row once, in order, no empty
    /// range.
    #[test]
    fn a_batch_is_cut_in_two(shards in shards(), rows in 0..200usize) {
        let range = |(n, s): (usize, &Vec<Vec<u16>>)| ShardRange { shard_id: format!("shard-{n}").into(), slices: slices(s) };
        let ranges: Vec<ShardRange> = shards.iter().enumerate().map(range).filter(|range| range.rows() > 0).collect();
        let batch = Batch { id: "b".into(), stream: "s".into(), ranges };
        let (first, rest) = batch.split_at(rows);
        let numbers = |ranges: &[ShardRange]| -> Vec<(ShardId, String)> {
            ranges.iter().flat_map(|r| r.records().map(|row| (r.shard_id.clone(), row.sequence_number.into()))).collect()
        };
        prop_assert_eq!(numbers(&first).len(), rows.min(batch.rows()));
        prop_assert!(first.iter().chain(&rest).all(|range| range.rows() > 0));
        prop_assert_eq!([numbers(&first), numbers(&rest)].concat(), numbers(&batch.ranges));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A batch stays within its limits, which are below the point where ClickHouse would split it
    /// into several blocks; only a single record may exceed them.
    #[test]
    fn one_block(shards in shards(), limits in limits()) {
        let buffered: Vec<Vec<Slice>> = shards.iter().map(|s| slices(s)).collect();
        let counts = choose(&buffered, limits);
        let bytes: usize = buffered.iter().zip(&counts).map(|(s, n)| size(s, *n)).sum();
        let total: usize = counts.iter().sum();
        prop_assert!(total <= limits.max_rows);
        prop_assert!(bytes <= limits.max_bytes || total == 1);
    }

    #[test]
    fn at_least_one_record_is_taken_and_none_that_is_not_there(shards in shards(), limits in limits()) {
        let buffered: Vec<Vec<Slice>> = shards.iter().map(|s| slices(s)).collect();
        let counts = choose(&buffered, limits);
        prop_assert_eq!(counts.len(), buffered.len());
        prop_assert!(counts.iter().zip(&buffered).all(|(n, s)| *n <= rows(s)));
        prop_assert_eq!(counts.iter().any(|n| *n > 0), buffered.iter().any(|s| rows(s) > 0));
    }

    /// No room is wasted: no shard's next record would have fitted.
    #[test]
    fn a_batch_is_filled(shards in shards(), limits in limits()) {
        let buffered: Vec<Vec<Slice>> = shards.iter().map(|s| slices(s)).collect();
        let counts = choose(&buffered, limits);
        let bytes: usize = buffered.iter().zip(&counts).map(|(s, n)| size(s, *n)).sum();
        if counts.iter().sum::<usize>() < limits.max_rows {
            for (slices, count) in buffered.iter().zip(&counts).filter(|(s, n)| **n < rows(s)) {
                let next = size(slices, count + 1) - size(slices, *count);
                prop_assert!(bytes + next > limits.max_bytes);
            }
        }
    }

    /// Each shard gets its even share, or all it has, whatever the others hold.
    #[test]
    fn no_shard_is_starved(lengths in prop::collection::vec(1..60usize, 1..6), max_rows in 1..100usize) {
        let buffered: Vec<Vec<Slice>> = lengths.iter().map(|n| slices(&[vec![1; *n]])).collect();
        let counts = choose(&buffered, Limits { max_rows, max_bytes: 1 << 30 });
        for (count, length) in counts.iter().zip(&lengths) {
            prop_assert!(*count >= (max_rows / lengths.len()).min(*length));
        }
        prop_assert_eq!(counts.iter().sum::<usize>(), max_rows.min(lengths.iter().sum()));
    }
}

#[test]
fn limits_stay_under_the_insert_thresholds() {
    // ClickHouse: min_insert_block_size_rows, min_insert_block_size_bytes.
    let (rows, bytes) = (1_048_449, 268_402_944);
    const { assert!(DEFAULT_MAX_ROWS <= MAX_MAX_ROWS && DEFAULT_MAX_BYTES <= MAX_MAX_BYTES) };
    assert!(MAX_MAX_ROWS < rows && MAX_MAX_BYTES < bytes);
}

#[test]
fn an_offer_is_what_the_range_holds() {
    let range =
        ShardRange { shard_id: "shard-0".into(), slices: slices(&[vec![], vec![1, 2], vec![], vec![3], vec![]]) };
    let offer = range.offer(&"b".into(), &BatchShape::of_column("ArrowStream"), 3).unwrap();
    assert_eq!(
        (offer.first.sequence.as_str(), offer.through.sequence.as_str(), offer.rows, offer.shards),
        ("1", "3", 3, 3)
    );
    let empty = ShardRange { shard_id: "shard-0".into(), slices: slices(&[vec![]]) };
    assert!(matches!(empty.offer(&"b".into(), &BatchShape::of_column("ArrowStream"), 1), Err(Error::Internal(_))));
}
