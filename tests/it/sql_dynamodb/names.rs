//! Odd names of targets, attributes and keys.

use aws_sdk_dynamodb::types::AttributeValue;
use sql::quote::{identifier, literal, qualified};

use super::{captured, equals, now, put_event, run_in, send, succeeded};
use crate::dynamodb::items::{Item, Key};
use crate::dynamodb::put_items;
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(any_name_survives,);

const NAMES: [&str; 51] = [
    "a.b",
    "a b",
    "it's",
    "`q`",
    "back\\slash",
    "ünï 🦀",
    "Id",
    "ID",
    "_timestamp",
    "_key",
    "_raw_message",
    "_error",
    "_table",
    "_part",
    "_row_exists",
    "_block_number",
    "item",
    "item_2",
    "name",
    "value",
    "x",
    "attributes",
    "attribute",
    "reason",
    "version",
    "is_deleted",
    "rest",
    "version_attribute",
    "rest_attribute",
    "1",
    "null",
    "size0",
    "keys",
    "{a|b}",
    "line\nbreak",
    "--",
    ";",
    "select",
    "\"",
    "$$",
    "%41",
    "tab\t",
    "\u{85}",
    "\u{a0}\u{2028}\u{2029}",
    "\u{202e}\u{2066}\u{200b}\u{feff}",
    "*/ /* -- \\",
    "\\n \\x41 \\",
    "a.null",
    "rest.keys",
    "true",
    "l",
];

fn any_name_survives() {
    let table = captured("sqld.it-s_Table", &[("it's `the` key.x", Key::S), ("version", Key::N)]);
    let name = "sqld.it-s_Table";
    // Each name with each kind of value, and the same in another order, so that columns get values
    // of other kinds.
    let value = |n: usize| match n % 6 {
        0 => AttributeValue::S(format!("text {n}")),
        1 => AttributeValue::N(n.to_string()),
        2 => AttributeValue::Bool(n.is_multiple_of(4)),
        3 => AttributeValue::Ss(vec![format!("a{n}"), "b".into()]),
        4 => AttributeValue::Ns(vec![n.to_string(), "-1".into()]),
        _ => AttributeValue::M([("q\"".to_owned(), AttributeValue::N("0.10".into()))].into()),
    };
    let item = |key: usize, shift: usize| {
        let keys = [
            ("it's `the` key.x".to_owned(), AttributeValue::S("k'".into())),
            ("version".to_owned(), AttributeValue::N(key.to_string())),
        ];
        let others = NAMES.iter().enumerate().map(|(n, name)| ((*name).to_owned(), value(n + shift)));
        others.chain(keys).collect::<Item>()
    };
    let (sampled, later) = (item(1, 0), item(2, 1));
    put_items(name, [&sampled, &later]);
    send(name, [put_event(&table, &sampled, now())]);
    let database = "it's a `db`";
    sql(&format!("CREATE DATABASE IF NOT EXISTS {}", identifier(database)));
    let target = "it's `a` {b|c}, --\\ ü";
    let flags = ["--listen", super::bridge().address(), "--table", name, "--stream", name, "--apply", "--target"];
    let quoted = format!("{}.{}", identifier(database), identifier(target));
    let script = succeeded(run_in(&[], &[&flags[..], &[&quoted]].concat()));
    assert!(script.contains("-- Only in rest, since no column may have such a name: "), "{script}");
    send(name, [put_event(&table, &later, now())]);
    equals(name, &format!("{database}.{target}"), 2);
    // Nearly all are columns, and both views can be read.
    let columns = sql(&format!(
        "SELECT count() FROM system.columns WHERE database = {} AND table = {}",
        literal(database),
        literal(target)
    ));
    let left_out = [
        "a.b",
        "_row_exists",
        "_block_number",
        "line\nbreak",
        "tab\t",
        "\u{85}",
        "a.null",
        "rest.keys",
        "version_attribute",
        "rest_attribute",
    ];
    // One of the names is that of the key `version`.
    assert_eq!(columns, format!("{}\n", 2 + NAMES.len() - 1 - left_out.len() + 3));
    for suffix in ["_final", "_errors"] {
        sql(&format!("SELECT * FROM {} FORMAT JSONEachRow", qualified(database, &format!("{target}{suffix}"))));
    }
    sql(&format!("DROP TABLE {}", qualified(database, &format!("{target}_pipe"))));
}
