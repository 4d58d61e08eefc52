//! Items near DynamoDB's limit of 400 KB, of which a change has two.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::events::{Change, Precision};
use super::items::{Item, Key, KeySchema};
use super::{copy, create_table, enable_streaming, put_items};
use crate::engines::on_each_engine;
use crate::world::{create_stream, put, sql};

on_each_engine!(items_near_the_limit_are_copied,);

const KEYS: KeySchema = &[("id", Key::S)];
/// The emulated Kinesis' limit for a record.
const RECORD_BYTES: usize = 1 << 20;

/// An item of about 385 KB, in one attribute or in thousands.
fn item(id: &str, seed: u32) -> Item {
    let mut item = Item::from([("id".to_owned(), AttributeValue::S(id.to_owned()))]);
    match id {
        "text" => drop(item.insert("text".into(), AttributeValue::S(format!("{seed:09}\"\n").repeat(35_000)))),
        "bytes" => drop(item.insert("bytes".into(), AttributeValue::B(Blob::new(vec![seed as u8; 285_000])))),
        _ => item
            .extend((0..10_000).map(|n| (format!("attribute{n}"), AttributeValue::N((seed * 10_000 + n).to_string())))),
    }
    item
}

fn items_near_the_limit_are_copied() {
    let name = "large_items";
    create_table(name, KEYS);
    create_stream(name, 1);
    enable_streaming(name, name, true);
    let mut time = chrono::Utc::now().timestamp_micros() + 1_000_000;
    let mut largest = 0;
    for id in ["text", "bytes", "many"] {
        let (old, new) = (item(id, 1), item(id, 2));
        for (old, new) in [(None, &old), (Some(&old), &new)] {
            put_items(name, [new]);
            time += 1;
            let change = Change {
                table: name,
                keys: KEYS,
                old,
                new: Some(new),
                micros: time,
                precision: Precision::Microsecond,
                ttl: false,
            };
            let event = change.event().into_bytes();
            largest = largest.max(event.len());
            put(name, [(id.to_owned(), event)]);
        }
    }
    assert!((RECORD_BYTES * 3 / 4..=RECORD_BYTES).contains(&largest), "{largest}");
    let bridge = copy::bridge(name);
    let target = "default.large_items";
    copy::apply(&bridge, name, name, target, &[]);
    copy::assert_equal(name, target);
    copy::end(&bridge, &[target]);
    // More attributes than a table gets columns: the others are in rest.
    assert_eq!(sql("SELECT length(rest) > 5000 FROM large_items FINAL WHERE id = 'many'"), "1\n");
}
