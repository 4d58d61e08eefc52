//! Changes that never reached the stream: a new full export repairs the copy.

use aws_sdk_dynamodb::types::AttributeValue;

use super::events::{Change, Precision};
use super::export::Export;
use super::items::{self, Item, Key, KeySchema};
use super::{client, copy, create_table, enable_streaming, ministack, put_items, scan};
use crate::engines::on_each_engine;
use crate::world::{block_on, create_stream, put, sql};

on_each_engine!(a_new_export_brings_back_what_a_gap_lost,);

const KEYS: KeySchema = &[("id", Key::S)];

fn item(number: u64, text: &str) -> Item {
    let text = ("text".to_owned(), AttributeValue::S(text.to_owned()));
    items::key(KEYS, number).into_iter().chain([text]).collect()
}

fn changed(old: Option<&Item>, new: Option<&Item>, micros: i64) -> (String, Vec<u8>) {
    let change = Change { table: "gap", keys: KEYS, old, new, micros, precision: Precision::Microsecond, ttl: false };
    ("key".to_owned(), change.event().into_bytes())
}

fn a_new_export_brings_back_what_a_gap_lost() {
    let name = "gap";
    let table = create_table(name, KEYS);
    create_stream(name, 1);
    enable_streaming(name, name, true);
    let before: Vec<Item> = (0..10).map(|n| item(n, "before")).collect();
    put_items(name, &before);
    let time = chrono::Utc::now().timestamp_micros();
    put(name, before.iter().map(|item| changed(None, Some(item), time)));
    let bridge = copy::bridge(name);
    copy::apply(&bridge, name, name, "default.gap", &[]);
    copy::assert_equal(name, "default.gap");

    // One item is deleted, one changed, one new, without any event.
    let delete = |number| {
        let key = items::key(KEYS, number).into_iter().collect();
        block_on(client().delete_item().table_name(name).set_key(Some(key)).send()).expect("a deletion");
    };
    delete(0);
    put_items(name, [&item(1, "in the gap"), &item(10, "in the gap")]);
    let exported = scan(name);
    // Then changes arrive again: one before the export, two after it, one of which recreates what
    // the gap lost.
    let at = (time / 1_000_000 + 60) * 1_000_000;
    put_items(name, [&item(2, "after"), &item(0, "again")]);
    delete(3);
    put(
        name,
        [
            changed(Some(&before[1]), Some(&item(1, "old")), at - 2),
            changed(Some(&before[2]), Some(&item(2, "after")), at + 1),
            changed(Some(&before[3]), None, at + 2),
            changed(None, Some(&item(0, "again")), at + 3),
        ],
    );
    delete(4);
    let (equal, said) = copy::verify(name, "default.gap", "5s");
    assert!(!equal, "{said}");

    let mut exported: Vec<Item> = exported;
    exported.retain(|item| item["id"] != before[4]["id"]);
    ministack().create_bucket(name).expect("a bucket");
    let export = Export { table: &table, bucket: name, prefix: "", id: "01700000000000-0000gap0", files: 1 };
    let url = export.full(&exported, at, true);
    let said = copy::apply(&bridge, name, name, "default.gap", &["--export", &url]);
    assert!(said.contains("1 AS is_deleted"), "{said}");
    copy::assert_equal(name, "default.gap");
    // Deleted in the gap, and known to be deleted.
    assert_eq!(sql(&format!("SELECT count() FROM gap FINAL WHERE version = {}", at - 1)), "7\n");
    copy::end(&bridge, &["default.gap"]);
}
