//! Random items arrive unchanged, through pipe and views, before and after the sample.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{answers, captured, change, delete, drop_pipes, equals, now, printed, put_event, send};
use crate::common::seed;
use crate::dynamodb::items::{self, Item, Key, KeySchema};
use crate::dynamodb::put_items;
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(random_items_with_every_kind_of_key_arrive_exactly, times_in_the_wrong_unit_decide_nothing,);

const ITEMS: u64 = 240;

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
        // The sample has every fourth.
        let (first, later) = all.split_at(ITEMS as usize / 4);
        send(name, first.iter().zip(0..).map(|(item, n)| put_event(&table, item, began + n)));
        let script = printed(name, &["--apply"]);
        assert!(script.contains(" statements were run.\n"), "{script}");
        send(name, later.iter().zip(0..).map(|(item, n)| put_event(&table, item, began + 1_000_000 + n)));
        equals(name, &format!("default.{name}"), ITEMS as usize);
        // Then some change, and some are deleted. Events are repeated and late.
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

/// An event in the wrong unit neither wins nor loses: it is in the errors table, and the changes
/// around it count.
fn times_in_the_wrong_unit_decide_nothing() {
    let table = captured("sqld_units", &[("id", Key::S)]);
    let text = |text: &str| AttributeValue::S(text.into());
    let item = |value: &str| -> Item { [("id".into(), text("a")), ("value".into(), text(value))].into() };
    let began = now();
    send("sqld_units", [put_event(&table, &item("first"), began)]);
    printed("sqld_units", &["--apply"]);
    let wrong = put_event(&table, &item("wrong"), began);
    let in_unit = |time: i64, precision: &str| {
        let precise = "\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\"";
        assert!(wrong.contains(precise) && wrong.contains(&began.to_string()), "{wrong}");
        wrong.replace(&began.to_string(), &time.to_string()).replace(precise, precision)
    };
    let streams = |event: String| {
        let arn = "\"eventSourceARN\":\"arn:aws:dynamodb:eu-west-1:123456789012:table/sqld_units/stream/2026-11-21T10:00:00.000\"";
        event.replace("\"tableName\":\"sqld_units\"", arn)
    };
    let wrong = [
        // Milliseconds and microseconds where DynamoDB Streams has seconds.
        streams(in_unit(began / 1_000, "\"x\":1")),
        streams(in_unit(began, "\"x\":1")),
        // Seconds and microseconds without a precision, which means milliseconds.
        in_unit(began / 1_000_000, "\"x\":1"),
        in_unit(began, "\"x\":1"),
        // Not in the stated precision.
        in_unit(began / 1_000, "\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\""),
        in_unit(began, "\"ApproximateCreationDateTimePrecision\":\"MILLISECOND\""),
    ];
    let count = wrong.len();
    send("sqld_units", wrong.into_iter().chain([put_event(&table, &item("last"), began + 1)]));
    answers("SELECT value FROM sqld_units_final", "last\n");
    answers("SELECT max(version) FROM sqld_units", &format!("{}\n", began + 1));
    let errors = "SELECT count(), countIf(reason LIKE '%not between 2012 and 2100 if it counts %'), countIf(raw_message LIKE '%wrong%') FROM sqld_units_errors";
    answers(errors, &format!("{count}\t{count}\t{count}\n"));
    drop_pipes(&["sqld_units"]);
}
