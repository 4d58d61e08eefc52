//! Exports only: a full one and two incremental ones on top, loaded by `sql dynamodb --export`.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use fastrand::Rng;

use super::export::{Changed, Export};
use super::items::{self, Item, Key, KeySchema};
use super::{Table, compare_with, copy, create_table, enable_streaming, ministack};
use crate::common::seed;
use crate::engines::on_each_engine;
use crate::world::{create_stream, sql};

on_each_engine!(incremental_exports_go_on_top_of_a_full_one, an_export_may_have_its_items_without_a_wrapper,);

const ITEMS: u64 = 200_000;
const CHANGES: u64 = 20_000;
const FEW: u64 = 2_000;
const MINUTE: i64 = 60_000_000;

/// An item of a common table; every twentieth has everything that is possible.
fn item(rng: &mut Rng, keys: KeySchema, number: u64) -> Item {
    if number.is_multiple_of(20) {
        let mut item = items::item(rng, keys, number);
        // Names like those of types, only in this test: ministack never sees these items.
        item.insert("M".to_owned(), items::value(rng, 2));
        item.insert("L".to_owned(), items::value(rng, 2));
        return item;
    }
    let mut item = items::key(keys, number);
    item.extend([
        ("name".to_owned(), AttributeValue::S(format!("name {}", rng.u32(..)))),
        ("age".to_owned(), AttributeValue::N(rng.u8(..).to_string())),
        ("price".to_owned(), AttributeValue::N(format!("{}.{:02}", rng.u16(..), rng.u8(..100)))),
        ("active".to_owned(), AttributeValue::Bool(rng.bool())),
    ]);
    item
}

/// A table with an active destination, for which no events arrive.
fn table(name: &str, keys: KeySchema) -> Table {
    let table = create_table(name, keys);
    create_stream(name, 1);
    enable_streaming(name, name, true);
    ministack().create_bucket(&name.replace('_', "-")).expect("a bucket");
    table
}

/// A whole minute from now: later than the stream's creation. The exports do not wait for it.
fn next_minute() -> i64 {
    (chrono::Utc::now().timestamp() / 60 + 1) * MINUTE
}

fn incremental_exports_go_on_top_of_a_full_one() {
    let mut rng = Rng::with_seed(seed("snapshot"));
    let name = "exported";
    let keys: KeySchema = &[("owner", Key::S), ("at", Key::N)];
    let table = table(name, keys);
    let mut now: BTreeMap<u64, Item> = (0..ITEMS).map(|n| (n, item(&mut rng, keys, n))).collect();
    let mut time = next_minute();
    let export = Export { table: &table, bucket: name, prefix: "", id: "01700000000000-aaaaaaaa", files: 6 };
    let mut urls = vec![export.full(now.values(), time, true)];
    for id in ["01700000000001-bbbbbbbb", "01700000000002-cccccccc"] {
        let mut changes = BTreeMap::new();
        for _ in 0..CHANGES {
            // Also new ones, and some that were deleted.
            let number = rng.u64(..ITEMS + CHANGES);
            let old = now.remove(&number);
            let new = (rng.u8(..4) > 0).then(|| item(&mut rng, keys, number));
            now.extend(new.clone().map(|new| (number, new)));
            if old.is_some() || new.is_some() {
                // An export has the first and the last of several changes.
                let micros = time + rng.i64(0..15 * MINUTE);
                let change = changes.entry(number).or_insert(Changed { micros, old, new: None });
                change.new = new;
            }
        }
        changes.retain(|_, change| change.old.is_some() || change.new.is_some());
        let changes: Vec<Changed> = changes.into_values().collect();
        let incremental = Export { id, files: 3, ..export };
        urls.push(incremental.incremental(&changes, time, time + 15 * MINUTE));
        time += 15 * MINUTE;
    }
    let bridge = copy::bridge(name);
    let exports: Vec<&str> = urls.iter().flat_map(|url| ["--export", url]).collect();
    let began = std::time::Instant::now();
    copy::apply(&bridge, name, name, "default.exported", &exports);
    println!("loaded in {:.1} s", began.elapsed().as_secs_f64());
    copy::end(&bridge, &["default.exported"]);
    let (equal, said) = compare_with(now.values(), keys, "default.exported");
    assert!(equal, "{said}");
    println!("{said}");
    assert_eq!(sql("SELECT * FROM default.exported_errors LIMIT 3 FORMAT Vertical"), "");
}

fn an_export_may_have_its_items_without_a_wrapper() {
    let mut rng = Rng::with_seed(seed("snapshot"));
    let name = "snapshot_plain";
    let keys: KeySchema = &[("id", Key::B)];
    let table = table(name, keys);
    let mut items: Vec<Item> = (0..FEW).map(|n| item(&mut rng, keys, n)).collect();
    // What looks like a wrapper is not one.
    let wrapped = AttributeValue::M(items[0].clone().into_iter().collect());
    items[1].insert("Item".to_owned(), wrapped);
    let export =
        Export { table: &table, bucket: "snapshot-plain", prefix: "a/b", id: "01700000000000-aaaaaaaa", files: 2 };
    let url = export.full(&items, next_minute(), false);
    let bridge = copy::bridge(name);
    copy::apply(&bridge, name, name, "default.snapshot_plain", &["--export", &url]);
    copy::end(&bridge, &["default.snapshot_plain"]);
    let (equal, said) = compare_with(&items, keys, "default.snapshot_plain");
    assert!(equal, "{said}");
}
