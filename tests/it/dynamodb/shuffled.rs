//! Events in any order, and repeated, give the same table.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::events::{Change, Precision, plain};
use super::items::{self, Item, Key, KeySchema};
use super::{compare_with, copy, create_table, enable_streaming};
use crate::common::seed;
use crate::engines::on_each_engine;
use crate::world::{create_stream, put, sql, wait_until};

on_each_engine!(the_order_of_events_does_not_matter,);

const EVENTS: u64 = 4_000;
const ITEMS: u64 = 200;
/// The last records of each stream, enough for every shard to have some.
const LAST: u64 = 20;

/// A partition key and a record's data.
type Record = (String, Vec<u8>);

/// Random changes in order, and the resulting items.
fn history(rng: &mut Rng, table: &str, keys: KeySchema, begin: i64) -> (Vec<Record>, BTreeMap<u64, Item>) {
    let mut now: BTreeMap<u64, Item> = BTreeMap::new();
    let mut records = Vec::new();
    for n in 0..EVENTS {
        let number = rng.u64(..ITEMS);
        let old = now.remove(&number);
        let new = (old.is_none() || rng.u8(..4) > 0).then(|| items::item(rng, keys, number));
        // Some follow each other closely, but none have the same time.
        let micros = begin + n as i64 * 3;
        records.push(record(table, keys, old.as_ref(), new.as_ref(), micros));
        now.extend(new.map(|new| (number, new)));
    }
    (records, now)
}

fn record(table: &str, keys: KeySchema, old: Option<&Item>, new: Option<&Item>, micros: i64) -> Record {
    let change = Change { table, keys, old, new, micros, precision: Precision::Microsecond, ttl: false };
    (plain(&new.or(old).expect("an image")[keys[0].0]), change.event().into_bytes())
}

fn the_order_of_events_does_not_matter() {
    any_order("shuffled", &[("id", Key::N)]);
    any_order("shuffled_pairs", &[("owner", Key::B), ("at", Key::S)]);
}

fn any_order(name: &str, keys: KeySchema) {
    let mut rng = Rng::with_seed(seed(name));
    create_table(name, keys);
    // Events from before the table's creation would belong to another table.
    let begin = chrono::Utc::now().timestamp_micros();
    let end = begin + 1_000_000_000;
    let (ordered, mut now) = history(&mut rng, name, keys, begin);
    let mut shuffled = ordered.clone();
    rng.shuffle(&mut shuffled);
    let mut doubled: Vec<Record> = Vec::new();
    for record in &ordered {
        doubled.extend(vec![record.clone(); rng.usize(1..=3)]);
    }
    rng.shuffle(&mut doubled);
    // They come last everywhere, to show when all others have arrived.
    let last = (0..LAST).map(|n| items::key(keys, ITEMS + n));
    let last: Vec<(Record, Item)> = last.map(|item| (record(name, keys, None, Some(&item), end), item)).collect();
    now.extend((0..).map(|n| ITEMS + n).zip(last.iter().map(|(_, item)| item.clone())));

    let bridge = copy::bridge(name);
    let (mut targets, mut digests) = (Vec::new(), Vec::new());
    let mut versions = Vec::new();
    for (n, records) in [ordered, shuffled, doubled].into_iter().enumerate() {
        let stream = format!("{name}-{n}");
        let target = format!("default.{name}_{n}");
        create_stream(&stream, 3);
        enable_streaming(name, &stream, true);
        put(&stream, records.into_iter().chain(last.iter().map(|(record, _)| record.clone())));
        if n > 0 {
            // The sample of another stream starts with other items, so it could have other types.
            sql(&format!("CREATE TABLE {target} AS default.{name}_0"));
        }
        copy::apply(&bridge, name, &stream, &target, &["--pipe", &target]);
        let came = format!("SELECT count() FROM {target} FINAL WHERE version = {end}");
        wait_until("the last records", || sql(&came) == format!("{LAST}\n"));
        let (equal, said) = compare_with(now.values(), keys, &target);
        assert!(equal, "{target}: {said}");
        assert_eq!(sql(&format!("SELECT * FROM {target}_errors LIMIT 3 FORMAT Vertical")), "");
        digests.push(sql(&format!("SELECT count(), groupBitXor(cityHash64(toString(tuple(*)))) FROM {target} FINAL")));
        versions.push(sql(&format!("SELECT uniqExact(version) FROM {target} FINAL WHERE version != {end}")));
        targets.push(target);
    }
    copy::end(&bridge, &targets.iter().map(|target| &**target).collect::<Vec<_>>());
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert!(versions.iter().all(|count| *count == format!("{}\n", now.len() as u64 - LAST)), "{versions:?}");
}
