//! Tables in the layout of `sql dynamodb`, and rows for items: written by the rules of that layout,
//! with none of the product's code.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::base64;
use serde_json::{Value, json};

use crate::dynamodb::items::{Item, Key, KeySchema};
use crate::world::sql;

/// The columns of every table here, besides its key, as kind and attribute. Not all items have
/// them, and not always in the type of the column.
const COLUMNS: [(&str, &str, Kind); 12] = [
    ("name", "Nullable(String)", Kind::Text),
    ("age", "Nullable(Int64)", Kind::Int),
    ("balance", "Nullable(Int128)", Kind::Int),
    ("price", "Nullable(Float64)", Kind::Float),
    ("huge", "Nullable(Float64)", Kind::Float),
    ("active", "Nullable(Bool)", Kind::Bool),
    ("tags", "Array(String)", Kind::Set),
    ("scores", "Array(Int64)", Kind::Set),
    ("photo", "Nullable(String)", Kind::Text),
    ("address", "Nullable(String) COMMENT 'JSON'", Kind::Json),
    ("mixed", "Nullable(String) COMMENT 'JSON: several types'", Kind::Json),
    ("version_attribute", "Nullable(Int64)", Kind::Int),
];

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Set,
    Json,
}

/// Creates the table; a name that is not a plain identifier must be quoted.
pub fn create(table: &str, keys: KeySchema) {
    let key =
        keys.iter().map(|(name, ty)| format!("{} {}", quoted(name), if *ty == Key::N { "Int64" } else { "String" }));
    let columns = COLUMNS.iter().map(|(name, ty, _)| format!("`{name}` {ty}"));
    let columns: Vec<String> = key.chain(columns).collect();
    let order: Vec<String> = keys.iter().map(|(name, _)| quoted(name)).collect();
    sql(&format!(
        "CREATE TABLE {table} ({}, rest Map(String, String), version Int64, is_deleted UInt8) \
         ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY ({})",
        columns.join(", "),
        order.join(", ")
    ));
}

/// An identifier.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "\\`"))
}

/// A row of an item.
pub fn row(item: &Item, version: i64) -> Value {
    let (mut row, mut rest) = (serde_json::Map::new(), serde_json::Map::new());
    for (name, value) in item {
        let text = plain(value);
        let attribute =
            |column: &str| if column == "version_attribute" { "version".to_owned() } else { column.to_owned() };
        let column = COLUMNS.iter().find(|(column, ..)| attribute(column) == *name);
        let (held, exact) = match (column.map(|(_, _, kind)| *kind), value) {
            (Some(Kind::Text), _) if text.starts_with('"') => (parsed(&text), true),
            // An inexact value stays in the column; `rest` has it exactly.
            (Some(Kind::Int), AttributeValue::N(n)) => {
                let int = n.parse::<i64>().ok();
                (json!(int), int.is_some_and(|int| int.to_string() == *n))
            }
            (Some(Kind::Float), AttributeValue::N(n)) => {
                let float: f64 = n.parse().expect("a number");
                let shown = json!(float).to_string();
                (json!(float), shown == *n)
            }
            (Some(Kind::Bool), AttributeValue::Bool(value)) => (json!(value), true),
            (Some(Kind::Set), AttributeValue::Ss(_) | AttributeValue::Ns(_)) => (parsed(&text), true),
            (Some(Kind::Json), _) => (json!(text), true),
            (None, _) if item_key(item, name) => (parsed(&text), true),
            _ => (Value::Null, false),
        };
        match column {
            Some((column, ..)) if !held.is_null() => {
                row.insert((*column).to_owned(), held);
            }
            None if exact => {
                row.insert(name.clone(), held);
            }
            _ => {}
        }
        if !exact {
            rest.insert(name.clone(), json!(text));
        }
    }
    row.insert("rest".into(), Value::Object(rest));
    row.insert("version".into(), json!(version));
    Value::Object(row)
}

/// The names of the keys in these tests.
fn item_key(_: &Item, name: &str) -> bool {
    matches!(name, "id" | "owner" | "at" | "it's `a` key")
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Inserts rows.
pub fn insert(table: &str, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    sql(&format!("INSERT INTO {table} FORMAT JSONEachRow\n{}", lines.join("\n")));
}

/// Marks an item as deleted.
pub fn delete(table: &str, key: &Item, version: i64) {
    let mut row = row(key, version);
    row["is_deleted"] = json!(1);
    insert(table, &[row]);
}

/// Plain JSON, numbers unchanged.
pub fn plain(value: &AttributeValue) -> String {
    let list = |values: Vec<String>| format!("[{}]", values.join(","));
    let text = |text: &str| json!(text).to_string();
    match value {
        AttributeValue::S(value) => text(value),
        AttributeValue::N(value) => value.clone(),
        AttributeValue::B(value) => text(&base64::encode(value)),
        AttributeValue::Bool(value) => value.to_string(),
        AttributeValue::Null(_) => "null".into(),
        AttributeValue::L(values) => list(values.iter().map(plain).collect()),
        AttributeValue::M(map) => {
            let map: Vec<_> = map.iter().map(|(name, value)| format!("{}:{}", text(name), plain(value))).collect();
            format!("{{{}}}", map.join(","))
        }
        AttributeValue::Ss(values) => list(values.iter().map(|value| text(value)).collect()),
        AttributeValue::Ns(values) => list(values.clone()),
        AttributeValue::Bs(values) => list(values.iter().map(|value| text(&base64::encode(value))).collect()),
        other => panic!("{other:?}"),
    }
}
