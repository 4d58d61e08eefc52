//! That `compare.py` finds what differs, and nothing if nothing does.

use aws_sdk_dynamodb::types::AttributeValue;

use super::events::plain;
use super::items::{self, Item, Key, KeySchema};
use super::{compare, create_table, put_items};
use crate::common::seed;
use crate::engines::on_each_engine;
use crate::world::{sql, stack};

on_each_engine!(it_finds_what_differs_and_nothing_else,);

const ITEMS: u64 = 300;

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A row of the copy: the key, `name`, `history`, `tags` and `age` where they can represent the
/// item's values, and the others in `rest`.
fn row(keys: KeySchema, item: &Item, version: i64) -> String {
    let mut rest = Vec::new();
    let (mut name, mut age, mut tags, mut history) =
        ("NULL".to_owned(), "NULL".to_owned(), "[]".to_owned(), "NULL".to_owned());
    for (attribute, value) in item.iter().filter(|(attribute, _)| keys.iter().all(|(key, _)| key != attribute)) {
        match (&**attribute, value) {
            ("name", AttributeValue::S(text)) => name = literal(text),
            ("age", AttributeValue::N(number)) => age = number.clone(),
            ("tags", AttributeValue::Ss(texts)) => {
                tags = format!("[{}]", texts.iter().rev().map(|text| literal(text)).collect::<Vec<_>>().join(","));
            }
            ("history", value) => history = literal(&plain(value)),
            (_, value) => rest.extend([literal(attribute), literal(&plain(value))]),
        }
    }
    let keys = keys.iter().map(|(key, _)| match plain(&item[*key]) {
        text if text.starts_with('"') => literal(&serde_json::from_str::<String>(&text).expect("a text")),
        number => number,
    });
    let keys = keys.collect::<Vec<_>>().join(",");
    // An explicit map type, since map() without arguments has none.
    format!("({keys},{name},{age},{tags},{history},CAST(map({}), 'Map(String, String)'),{version},0)", rest.join(","))
}

fn it_finds_what_differs_and_nothing_else() {
    let mut rng = fastrand::Rng::with_seed(seed("compare"));
    for (name, keys, columns) in [
        ("compare_text", &[("id", Key::S)] as KeySchema, "id String"),
        ("compare_sorted", &[("owner", Key::B), ("at", Key::N)], "owner String, at Int64"),
    ] {
        create_table(name, keys);
        let items: Vec<Item> = (0..ITEMS).map(|n| items::item(&mut rng, keys, n)).collect();
        put_items(name, &items);
        let order = keys.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(",");
        sql(&format!(
            "CREATE TABLE {name} ({columns}, name Nullable(String), age Nullable(Int64), tags Array(String), \
             history Nullable(String) COMMENT 'JSON: a list', rest Map(String, String), version Int64, is_deleted UInt8) \
             ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY ({order})"
        ));
        let rows: Vec<String> = items.iter().map(|item| row(keys, item, 1)).collect();
        // Older rows, which FINAL hides.
        let old: Vec<String> = (0..ITEMS).map(|n| row(keys, &items::item(&mut rng, keys, n), 0)).collect();
        for rows in [old, rows] {
            stack().clickhouse.query(&format!("INSERT INTO {name} VALUES {}", rows.join(","))).expect("rows");
        }
        let target = format!("default.{name}");
        assert_eq!(
            compare(name, &target),
            (true, format!("{ITEMS} items, 0 missing, 0 extra, 0 different, 0 twice\n"))
        );

        let one = |statement: &str| sql(&statement.replace("{name}", name).replace("{order}", &order));
        let columns = format!("{order}, name, age, tags, history, rest");
        let take = |n: u32, change: &str| {
            one(&format!(
                "INSERT INTO {{name}} SELECT {columns}, version + 1, is_deleted FROM \
                 (SELECT * REPLACE({change}) FROM {{name}} FINAL ORDER BY {{order}} LIMIT 1 OFFSET {n})"
            ));
        };
        take(3, "mapConcat(rest, map('planted', '1')) AS rest");
        take(5, "if(age = 7, 8, 7) AS age");
        take(7, "'[\"planted\"]' AS history");
        take(9, "1 AS is_deleted");
        let first = keys[0].0;
        one(&format!("INSERT INTO {{name}} ({first}, version, is_deleted) VALUES ('nobody', 1, 0)"));
        let (equal, printed) = compare(name, &target);
        assert!(!equal);
        let last = printed.lines().last().expect("a line");
        assert_eq!(last, format!("{ITEMS} items, 1 missing, 1 extra, 3 different, 0 twice"), "{printed}");
    }
}
