//! The printed SQL, compared with files, and run unchanged. UPDATE_SNAPSHOTS=1 rewrites the
//! expected SQL: review the diff.

use std::fs;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::DateTime;
use stack::Engine;

use super::{answers, bridge, captured, equals, functions, now, printed, put_event, run_script, send};
use crate::dynamodb::export::Export;
use crate::dynamodb::items::{Item, Key};
use crate::dynamodb::{ministack, put_items};
use crate::engines::{engine, on_each_engine};
use crate::world::sql;

on_each_engine!(a_table_with_its_export, a_table_of_which_nothing_is_known_but_its_keys,);

/// A value as a user writes it.
fn value(text: &str) -> AttributeValue {
    let list = |text: &str| text.split(',').map(String::from).collect();
    match text.split_once(':') {
        Some(("N", number)) => AttributeValue::N(number.into()),
        Some(("SS", texts)) => AttributeValue::Ss(list(texts)),
        Some(("NS", numbers)) => AttributeValue::Ns(list(numbers)),
        Some(("BOOL", bool)) => AttributeValue::Bool(bool == "true"),
        Some(("NULL", _)) => AttributeValue::Null(true),
        Some(("M", inner)) => AttributeValue::M([("inner".to_owned(), value(inner))].into()),
        Some(("L", inner)) => AttributeValue::L(vec![value(inner)]),
        _ => AttributeValue::S(text.into()),
    }
}

fn item(attributes: &[(&str, &str)]) -> Item {
    attributes.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect()
}

const STABLE: &str = "deduplicate_insert_select = 'enable_even_for_bad_queries', ";

fn is_snapshot(name: &str, script: &str, replaced: &[(&str, &str)]) {
    let mut script = replaced.iter().fold(script.to_owned(), |script, (from, to)| script.replace(from, to));
    if engine() == Engine::V25_8 {
        // It does not know the setting.
        assert!(!script.contains("deduplicate_insert_select"), "{script}");
        script = script.replace("deduplicate_blocks_in", &format!("{STABLE}deduplicate_blocks_in"));
    }
    let file = stack::checkout().join(format!("tests/it/sql_dynamodb/snapshots/{name}.sql"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&file, &script).expect("a snapshot");
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        expected == script,
        "{} is not what is printed; UPDATE_SNAPSHOTS=1 writes it anew:\n{script}",
        file.display()
    );
}

fn port(url: &str) -> &str {
    url.rsplit(':').next().expect("a port")
}

fn a_table_with_its_export() {
    // Otherwise the statements would create them first.
    functions::create();
    let table = captured("customers", &[("id", Key::S)]);
    let items = [
        item(&[
            ("id", "u-1"),
            ("name", "sally"),
            ("age", "N:26"),
            ("balance", "N:123456789012345678901234567890"),
            ("price", "N:19.99"),
            ("active", "BOOL:true"),
            ("tags", "SS:a,b"),
            ("scores", "NS:1,2"),
            ("address", "M:N:1.50"),
            ("history", "L:x"),
            ("pi", "N:3.14159265358979323846264338327950288"),
            ("mixed", "N:1"),
            ("nothing", "NULL:"),
            ("with.dot", "x"),
            ("version", "N:7"),
        ]),
        item(&[("id", "u-2"), ("name", "it's"), ("age", "NULL:"), ("mixed", "text"), ("tags", "NULL:")]),
    ];
    let late = item(&[
        ("id", "u-3"),
        ("name", "N:5"),
        ("age", "N:1.5"),
        ("scores", "NS:1,0.1"),
        ("new", "x"),
        ("active", "maybe"),
    ]);
    put_items("customers", items.iter().chain([&late]));
    send("customers", [put_event(&table, &items[0], now())]);
    ministack().create_bucket("sqld-customers").expect("a bucket");
    let at = now() + 1_000;
    let export =
        Export { table: &table, bucket: "sqld-customers", prefix: "exports", id: "01693685827463-2d8752fd", files: 2 };
    let url = export.full(&items, at, true);
    let script = printed("customers", &["--export", &url]);
    let created =
        script.split("_version >= ").nth(1).and_then(|rest| rest.split(')').next()).expect("a time").to_owned();
    let time = DateTime::from_timestamp_micros(at).expect("a time").format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let endpoint = ministack().endpoint();
    is_snapshot(
        "customers",
        &script,
        &[
            (&table.id, "ID"),
            (&created, "CREATED"),
            (&time, "TIME"),
            (&(at - 1).to_string(), "VERSION"),
            (port(bridge().address()), "PORT"),
            (port(&endpoint), "S3"),
        ],
    );
    run_script(&script);
    send("customers", [put_event(&table, &late, now() + 2_000)]);
    equals("customers", "default.customers", 3);
    assert_eq!(
        sql(
            "SELECT id, name, age, balance, price, active, tags, scores, address, history, pi, mixed, version_attribute, rest FROM customers_final \
             ORDER BY id FORMAT TSVRaw"
        ),
        "u-1\tsally\t26\t123456789012345678901234567890\t19.99\ttrue\t['a','b']\t[1,2]\t{\"inner\":1.50}\t[\"x\"]\t\
         3.14159265358979323846264338327950288\t1\t7\t{'nothing':'null','with.dot':'\"x\"'}\n\
         u-2\tit's\t\\N\t\\N\t\\N\t\\N\t[]\t[]\t\\N\t\\N\t\\N\t\"text\"\t\\N\t{'age':'null','tags':'null'}\n\
         u-3\t5\t\\N\t\\N\t\\N\t\\N\t[]\t[]\t\\N\t\\N\t\\N\t\\N\t\\N\t{'active':'\"maybe\"','age':'1.5','name':'5','new':'\"x\"','scores':'[1,0.1]'}\n"
    );
    // The query printed next to it.
    let query = script.lines().find_map(|line| line.strip_prefix("-- SELECT arrayJoin")).expect("a query");
    let new = sql(&format!("SELECT arrayJoin{query}"));
    assert!(new.lines().any(|line| line == "new\t1") && new.lines().any(|line| line == "age\t2"), "{new}");
    sql("DROP TABLE customers_pipe");
}

fn a_table_of_which_nothing_is_known_but_its_keys() {
    let table = captured("order-lines", &[("order", Key::S), ("line", Key::N)]);
    let script = printed("order-lines", &["--target", "default.order_lines", "--pipe", "lines", "--mode", "efo"]);
    let created =
        script.split("_version >= ").nth(1).and_then(|rest| rest.split(')').next()).expect("a time").to_owned();
    is_snapshot(
        "order_lines",
        &script,
        &[(&table.id, "ID"), (&created, "CREATED"), (port(bridge().address()), "PORT")],
    );
    run_script(&script);
    let item = item(&[("order", "o"), ("line", "N:1"), ("what", "M:BOOL:false")]);
    put_items("order-lines", [&item]);
    send("order-lines", [put_event(&table, &item, now())]);
    answers("SELECT `order`, line, rest FROM order_lines_final FORMAT TSVRaw", "o\t1\t{'what':'{\"inner\":false}'}\n");
    sql("DROP TABLE order_lines_pipe");
}
