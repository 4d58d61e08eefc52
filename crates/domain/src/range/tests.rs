use proptest::prelude::*;

use super::*;

fn record(timestamp_ms: i64, sequence_number: &str) -> RecordRef<'_> {
    RecordRef { key: "", timestamp_ms, sequence_number, sub_sequence: 0, payload: b"" }
}

fn number(n: u64) -> SequenceNumber {
    SequenceNumber::parse(&n.to_string()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every shard is read by exactly one part, now and with other shards.
    #[test]
    fn slices_partition_the_shards(count in 1..64u32, shards in prop::collection::vec("shardId-[0-9]{12}|[a-z-]{0,12}", 0..20)) {
        for shard in &shards {
            let readers = (0..count).filter(|index| SliceOf { index: *index, count }.reads(&shard.as_str().into())).count();
            prop_assert_eq!(readers, 1, "{}", shard);
        }
    }

    #[test]
    fn a_time_range_is_half_open(at in 0..1_000i64, from in 0..1_000i64, to in 0..1_000i64) {
        let inside = place(record(at, "1"), &Bound::Time(from), &Bound::Time(to), 2_000) == Place::Inside;
        prop_assert_eq!(inside, from <= at && at < to);
    }

    #[test]
    fn a_sequence_range_has_both_ends(at in 0..300u64, from in 0..300u64, to in 0..300u64) {
        let text = at.to_string();
        let found = place(record(0, &text), &Bound::Sequence(number(from)), &Bound::Sequence(number(to)), 0);
        prop_assert_eq!(found == Place::Inside, from <= at && at <= to);
        prop_assert_eq!(found == Place::Past, at > to);
    }

    /// Arrival times may be out of order within the slack; reading stops only where nothing earlier
    /// can follow.
    #[test]
    fn nothing_inside_follows_what_is_past(at in -20_000..20_000i64, earlier in 0..=TIMESTAMP_SLACK_MS, to in -9_000..9_000i64) {
        if place(record(at, "1"), &Bound::Open, &Bound::Time(to), 0) == Place::Past {
            prop_assert_ne!(place(record(at - earlier, "2"), &Bound::Open, &Bound::Time(to), 0), Place::Inside);
        }
        // Without an end: everything that had arrived when the request began.
        if place(record(at, "1"), &Bound::Open, &Bound::Open, 0) == Place::Past {
            prop_assert!(at - earlier > 0);
        }
    }

    /// With adjacent time ranges, every record is in exactly one of them.
    #[test]
    fn ranges_that_meet_have_every_record_once(at in 0..1_000i64, middle in 0..1_000i64) {
        let (low, high) = (Bound::Time(0), Bound::Time(1_000));
        let first = place(record(at, "1"), &low, &Bound::Time(middle), 2_000) == Place::Inside;
        let second = place(record(at, "1"), &Bound::Time(middle), &high, 2_000) == Place::Inside;
        prop_assert!(first != second);
    }
}
