//! Equal tables are equal, whatever they contain.

use stack::Engine;

use super::layout;
use super::{equal, run};
use crate::common::seed;
use crate::dynamodb::items::{self, Item, Key, KeySchema};
use crate::dynamodb::{create_table, put_items};
use crate::engines::on;
use crate::hostile_profile::HOSTILE;
use crate::world::sql;

const ITEMS: u64 = 1_500;

fn all_types(name: &str, keys: KeySchema, flags: &[&str]) -> String {
    let mut rng = fastrand::Rng::with_seed(seed(name));
    let items: Vec<Item> = (0..ITEMS).map(|n| items::item(&mut rng, keys, n)).collect();
    create_table(name, keys);
    put_items(name, &items);
    layout::create(name, keys);
    let rows: Vec<_> = items.iter().map(|item| layout::row(item, 7)).collect();
    layout::insert(name, &rows);
    // An older version, and one of a deleted item.
    let older: Vec<_> = (0..100).map(|n| layout::row(&items::item(&mut rng, keys, n), 6)).collect();
    layout::insert(name, &older);
    layout::delete(name, &items::key(keys, ITEMS + 1), 6);
    equal(&run(name, &[&["--rcu", "100000"], flags].concat()))
}

#[test]
fn all_types_under_text_keys() {
    let said = all_types("verify_s", &[("id", Key::S)], &[]);
    assert!(said.starts_with("1500 items in DynamoDB table 'verify_s', 1500 in `default`.`verify_s`\n"), "{said}");
    assert!(said.contains("\n1500 items compared, "), "{said}");
}

#[test]
fn all_types_under_numbers_and_a_sort_key() {
    all_types("verify_n", &[("id", Key::N), ("it's `a` key", Key::S)], &["--segments", "1"]);
}

#[test]
fn all_types_under_bytes_and_a_numeric_sort_key() {
    all_types("verify_b", &[("id", Key::B), ("at", Key::N)], &["--segments", "16"]);
}

/// Only 25.8 has SQL-managed users.
#[test]
fn all_types_under_a_profile_that_turns_defaults_around() {
    on(Engine::V25_8, || {
        let settings: Vec<_> = HOSTILE.iter().map(|(name, value)| format!("{name} = '{value}'")).collect();
        sql(&format!("CREATE USER verify_odd SETTINGS {}", settings.join(", ")));
        sql("GRANT SELECT ON *.* TO verify_odd");
        all_types("verify_odd", &[("id", Key::S)], &["--clickhouse-user", "verify_odd"]);
        sql("DROP USER verify_odd");
    });
}

#[test]
fn empty_tables_are_equal() {
    create_table("verify_empty", &[("id", Key::S)]);
    layout::create("verify_empty", &[("id", Key::S)]);
    let said = equal(&run("verify_empty", &["--target", "verify_empty"]));
    assert!(said.contains("\n0 items compared, 0 of them rechecked in 0 rounds; "), "{said}");
}
