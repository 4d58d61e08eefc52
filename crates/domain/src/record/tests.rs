use proptest::prelude::*;

use super::*;

/// A record, owned.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    key: String,
    timestamp_ms: i64,
    sequence: String,
    sub: u32,
    payload: Vec<u8>,
}

impl Plain {
    fn borrowed(&self) -> RecordRef<'_> {
        RecordRef {
            key: &self.key,
            timestamp_ms: self.timestamp_ms,
            sequence_number: &self.sequence,
            sub_sequence: self.sub,
            payload: &self.payload,
        }
    }
}

fn records() -> impl Strategy<Value = Vec<Plain>> {
    let payload = prop::collection::vec(any::<u8>(), 0..20);
    let record = (".{0,6}", any::<i64>(), "[0-9]{1,20}", any::<u32>(), payload)
        .prop_map(|(key, timestamp_ms, sequence, sub, payload)| Plain { key, timestamp_ms, sequence, sub, payload });
    prop::collection::vec(record, 0..20)
}

fn chunk(records: &[Plain]) -> Chunk {
    let mut chunk = Chunk::with_capacity(records.len() / 2, 10);
    for record in records {
        assert!(chunk.push(record.borrowed()));
    }
    chunk
}

fn listed<'a>(records: impl Iterator<Item = RecordRef<'a>>) -> Vec<Plain> {
    let owned = |r: RecordRef| Plain {
        key: r.key.into(),
        timestamp_ms: r.timestamp_ms,
        sequence: r.sequence_number.into(),
        sub: r.sub_sequence,
        payload: r.payload.into(),
    };
    records.map(owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_chunk_gives_back_what_was_put_in(records in records()) {
        let mut chunk = chunk(&records);
        chunk.shrink();
        prop_assert_eq!(listed(chunk.records()), records.clone());
        prop_assert_eq!(chunk.last().map(|r| r.sequence_number.to_string()), records.last().map(|r| r.sequence.clone()));
        prop_assert_eq!((chunk.len(), chunk.is_empty()), (records.len(), records.is_empty()));
        prop_assert_eq!(chunk.payload_bytes(), records.iter().map(|r| r.payload.len()).sum::<usize>());
        prop_assert!(chunk.memory() >= records.iter().map(|r| r.borrowed().size()).sum());
    }

    #[test]
    fn slices_cut_anywhere_are_the_whole(records in records(), cuts in prop::collection::vec(0..25usize, 0..6)) {
        let whole = Slice::whole(Arc::new(chunk(&records)));
        let (mut rest, mut parts) = (whole.clone(), Vec::new());
        for cut in cuts {
            let (front, back) = rest.split_at(cut);
            prop_assert_eq!((front.len() + back.len(), front.size() + back.size()), (rest.len(), rest.size()));
            prop_assert_eq!(front.len(), cut.min(rest.len()));
            parts.push(front);
            rest = back;
        }
        parts.push(rest);
        prop_assert_eq!(listed(parts.iter().flat_map(Slice::records)), records.clone());
        for part in &parts {
            prop_assert_eq!(part.size(), part.records().map(|r| r.size()).sum::<usize>());
            prop_assert_eq!(part.is_empty(), part.first().is_none());
            let all: Vec<RecordRef> = part.records().collect();
            prop_assert_eq!((part.first(), part.last()), (all.first().copied(), all.last().copied()));
        }
        prop_assert_eq!(whole.size(), parts.iter().map(Slice::size).sum::<usize>());
    }

    #[test]
    fn the_most_that_fits_fits_and_one_more_does_not(records in records(), skip in 0..10usize, rows in 0..25usize, bytes in 0..300usize) {
        let (_, slice) = Slice::whole(Arc::new(chunk(&records))).split_at(skip);
        let n = slice.fitting(rows, bytes);
        prop_assert!(n <= rows.min(slice.len()) && slice.split_at(n).0.size() <= bytes);
        if n < rows.min(slice.len()) {
            prop_assert!(slice.split_at(n + 1).0.size() > bytes);
        }
    }
}

#[test]
fn what_is_held_is_let_go_with_the_last_slice() {
    let held = Arc::new(());
    let mut chunk = chunk(&[]);
    chunk.hold(held.clone());
    let (front, back) = Slice::whole(Arc::new(chunk)).split_at(0);
    drop(front);
    assert_eq!(Arc::strong_count(&held), 2);
    drop(back);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_payload_may_be_written_in_place() {
    let mut chunk = Chunk::default();
    let written = |text: &'static [u8], done: bool| {
        move |payload: &mut Vec<u8>| {
            payload.extend_from_slice(text);
            done
        }
    };
    assert!(chunk.push_with("k", 5, "1", written(b"one", true)).is_some());
    assert!(chunk.push_with("lost", 6, "2", written(b"half of", false)).is_none());
    assert!(chunk.push_with("", 7, "3", written(b"three", true)).is_some());
    let records: Vec<_> = chunk.records().map(|r| (r.key, r.timestamp_ms, r.sequence_number, r.payload)).collect();
    assert_eq!(records, [("k", 5, "1", &b"one"[..]), ("", 7, "3", &b"three"[..])]);
}
