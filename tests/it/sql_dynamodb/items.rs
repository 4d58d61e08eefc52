//! Random items arrive as they are, through pipe and views, before and after the sample.

use super::{captured, change, delete, drop_pipes, equals, now, printed, put_event, send};
use crate::common::seed;
use crate::dynamodb::items::{self, Item, Key, KeySchema};
use crate::dynamodb::put_items;
use crate::world::sql;

const ITEMS: u64 = 240;

#[test]
fn random_items_with_every_kind_of_key_arrive_exactly() {
    let mut rng = fastrand::Rng::with_seed(seed("sql_dynamodb"));
    let tables = [
        ("sqld_s", &[("id", Key::S)] as KeySchema),
        ("sqld_n", &[("id", Key::N)]),
        ("sqld_b", &[("id", Key::B)]),
        ("sqld_sorted", &[("owner", Key::S), ("at", Key::N)]),
        ("sqld_bytes_sorted", &[("at", Key::N), ("what", Key::B)]),
    ];
    for (name, keys) in tables {
        let table = captured(name, keys);
        let began = now();
        let all: Vec<Item> = (0..ITEMS).map(|n| items::item(&mut rng, keys, n)).collect();
        put_items(name, &all);
        // The sample has one in four.
        let (first, later) = all.split_at(ITEMS as usize / 4);
        send(name, first.iter().zip(0..).map(|(item, n)| put_event(&table, item, began + n)));
        let script = printed(name, &["--apply"]);
        assert!(script.contains(" statements were run.\n"), "{script}");
        send(name, later.iter().zip(0..).map(|(item, n)| put_event(&table, item, began + 1_000_000 + n)));
        equals(name, &format!("default.{name}"), ITEMS as usize);
        // Then some change, and some are deleted. Events come twice and late.
        let mut events = Vec::new();
        for (n, old) in (0..ITEMS).zip(&all).filter(|(n, _)| n % 3 == 0) {
            let micros = began + 2_000_000 + n as i64;
            if n % 2 == 0 {
                delete(&table, old);
                events.push(change(&table, Some(old), None, micros));
            } else {
                let new = items::item(&mut rng, keys, n);
                put_items(name, [&new]);
                events.push(change(&table, Some(old), Some(&new), micros));
            }
            events.push(put_event(&table, old, began + n as i64));
        }
        let left = ITEMS as usize - events.len() / 4;
        events.extend(events.clone());
        rng.shuffle(&mut events);
        send(name, events);
        equals(name, &format!("default.{name}"), left);
        assert_eq!(sql(&format!("SELECT count() FROM {name}_errors")), "0\n");
        let view = sql(&format!("SELECT count(), countIf(notEmpty(rest)) > 0 FROM {name}_final"));
        assert_eq!(view, format!("{left}\t1\n"));
    }
    drop_pipes(&tables.map(|(name, _)| name));
}
