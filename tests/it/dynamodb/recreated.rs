//! A table that was dropped and recreated under the same name.

use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use super::events::{Change, Precision, plain};
use super::items::{self, Item, Key, KeySchema};
use super::{compare, copy, create_table, delete_table, enable_streaming, put_items};
use crate::common::seed;
use crate::engines::on_each_engine;
use crate::world::{create_stream, put, sql, stack, wait_until};

on_each_engine!(the_items_of_the_earlier_table_are_found_and_marked,);

const KEYS: KeySchema = &[("id", Key::S)];

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_micros() as i64
}

/// Writes items and their events, with times of any precision.
fn write(table: &str, items: &[Item]) {
    let precisions = [Precision::Absent, Precision::Millisecond, Precision::Microsecond];
    put_items(table, items);
    put(
        table,
        items.iter().zip(precisions.into_iter().cycle()).map(|(item, precision)| {
            let change = Change { table, keys: KEYS, old: None, new: Some(item), micros: now(), precision, ttl: false };
            (plain(&item["id"]), change.event().into_bytes())
        }),
    );
}

/// Creates the table and its destination at the beginning of a second, since ministack truncates
/// the creation time to seconds.
fn create(name: &str) {
    let second = now() / 1_000_000;
    wait_until("the next second", || now() / 1_000_000 > second);
    create_table(name, KEYS);
    enable_streaming(name, name, true);
}

fn the_items_of_the_earlier_table_are_found_and_marked() {
    let mut rng = Rng::with_seed(seed("recreated"));
    let name = "recreated";
    create_stream(name, 2);
    create(name);
    let items: Vec<Item> = (0..60).map(|n| items::item(&mut rng, KEYS, n)).collect();
    write(name, &items[..40]);
    let bridge = copy::bridge(name);
    copy::apply(&bridge, name, name, "default.recreated", &[]);
    copy::assert_equal(name, "default.recreated");

    // DynamoDB writes no events for items that are deleted with their table.
    delete_table(name);
    create(name);
    write(name, &items[30..]);
    let came = "SELECT count() FROM default.recreated FINAL";
    wait_until("the new items", || sql(came) == "60\n");
    let (equal, said) = copy::verify(name, "default.recreated", "5s");
    assert!(!equal, "{said}");
    let begin = said.find("INSERT INTO").unwrap_or_else(|| panic!("no statement: {said}"));
    let statement = said[begin..].split_inclusive(';').next().expect("a statement");
    stack().clickhouse.run_script(statement).unwrap_or_else(|error| panic!("{error}\nin\n{statement}"));
    copy::assert_equal(name, "default.recreated");

    // A copy that is created now has nothing of the earlier table, whose events are still in the
    // stream.
    copy::apply(&bridge, name, name, "default.recreated_later", &["--pipe", "default.recreated_later"]);
    copy::assert_equal(name, "default.recreated_later");
    let (_, said) = compare(name, "default.recreated_later");
    assert!(said.starts_with("30 items"), "{said}");
    assert_eq!(sql("SELECT count() FROM default.recreated_later"), "30\n");
    copy::end(&bridge, &["default.recreated", "default.recreated_later"]);
}
