//! The table in ClickHouse: whether its layout is that of `sql dynamodb`, and how a row is
//! converted back to an item.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{Key, key_value};
use super::value::{Item, Value};
use crate::dynamodb::KeyAttribute;
use crate::dynamodb::names::{attribute_of, column_of, mark_deleted};
use crate::error::CommandError;
use adapters::clickhouse::ClickHouse;
use domain::limits::{VERIFY_QUERY_BYTES, VERIFY_SILENCE};
use sql::quote::{identifier, literal, qualified};

/// A table whose layout has been checked.
pub struct Target {
    clickhouse: ClickHouse,
    /// Quoted, for SQL and for messages.
    pub name: String,
    keys: Vec<KeyAttribute>,
    columns: Vec<Column>,
}

/// The column of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    attribute: String,
    holds: Holds,
    /// The table's own type.
    ty: String,
}

/// The contents of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// A value, as ClickHouse's JSON shows it.
    Value,
    /// A set; an empty one means that there is none.
    Set,
    /// JSON as text.
    Json,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `None` for a row that marks its item as deleted.
    pub item: Option<Item>,
    /// Microseconds since 1970.
    pub version: i64,
    /// The key as the columns spell it: a number may be written in several ways.
    pub spelled: Vec<String>,
}

#[derive(Deserialize)]
struct TableRow {
    engine_full: String,
    wanted: String,
    sorting_key: String,
}

#[derive(Deserialize)]
struct ColumnRow {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    comment: String,
    default_kind: String,
}

impl Column {
    /// `None` for a column of the layout itself, and for one that takes no values.
    fn of(row: &ColumnRow, table: &str) -> Option<Result<Column, CommandError>> {
        let attribute = attribute_of(&row.name).filter(|_| matches!(&*row.default_kind, "" | "DEFAULT"))?.to_owned();
        let column = |holds| Column { name: row.name.clone(), attribute, holds, ty: row.ty.clone() };
        Some(Holds::of(&row.ty, &row.comment).map(column).ok_or_else(|| {
            CommandError::Refused(format!(
                "column {} of {table} has the type {}, which cannot hold a DynamoDB attribute: make it a MATERIALIZED or ALIAS column, or drop it",
                identifier(&row.name),
                row.ty
            ))
        }))
    }
}

impl Target {
    /// Checks the table.
    pub async fn open(
        clickhouse: ClickHouse,
        database: &str,
        table: &str,
        source: &str,
        keys: &[KeyAttribute],
    ) -> Result<Target, CommandError> {
        let name = qualified(database, table);
        let explained = || CommandError::of(&clickhouse);
        // Fails if the user may not see the table; system.tables only hides it.
        let exists = clickhouse.text(&format!("EXISTS TABLE {name}"), "TSV", &[]).await.map_err(explained())?;
        if exists.trim() != "1" {
            return Err(CommandError::Refused(format!(
                "ClickHouse at {} has no table {name}: name it with --target, or create it with `sql dynamodb`",
                clickhouse.server()
            )));
        }
        let wanted: Vec<String> =
            keys.iter().map(|key| column_of(&key.name).unwrap_or_else(|| key.name.clone())).collect();
        // Formatted by ClickHouse, so that quotes are where it puts them.
        let formatted =
            literal(&format!("SELECT {}", wanted.iter().map(|c| identifier(c)).collect::<Vec<_>>().join(", ")));
        let of_table = format!("database = {} AND table = {}", literal(database), literal(table));
        let sql = format!(
            "SELECT engine_full, sorting_key, formatQuerySingleLine({formatted}) AS wanted FROM system.tables \
             WHERE database = {} AND name = {}",
            literal(database),
            literal(table)
        );
        let found = clickhouse.rows::<TableRow>(&sql).await.map_err(explained())?.into_iter().next();
        let found = found.ok_or_else(|| {
            CommandError::Refused(format!(
                "ClickHouse reports nothing about {name}: the user lacks the privilege to see it"
            ))
        })?;
        let sql =
            format!("SELECT name, type, comment, default_kind FROM system.columns WHERE {of_table} ORDER BY position");
        let rows = clickhouse.rows::<ColumnRow>(&sql).await.map_err(explained())?;
        let has = |column: &str| rows.iter().any(|row| row.name == column);
        if !found.engine_full.contains("version, is_deleted)") || !found.engine_full.contains("ReplacingMergeTree(") {
            return Err(CommandError::Refused(format!(
                "{name} is not a table of change capture: its engine is {}, not ReplacingMergeTree(version, is_deleted); create the target with \
                 `sql dynamodb`",
                found.engine_full.split(" ORDER BY").next().unwrap_or_default()
            )));
        }
        if !has("rest") {
            return Err(CommandError::Refused(format!(
                "{name} has no column rest for the attributes that no other column holds exactly: create the target with `sql dynamodb`"
            )));
        }
        let wanted_key = found.wanted.strip_prefix("SELECT ").unwrap_or_default();
        // `ORDER BY (a)` keeps its parentheses.
        if found.sorting_key != wanted_key && found.sorting_key != format!("({wanted_key})") {
            return Err(CommandError::Refused(format!(
                "{name} is sorted by ({}), but the key of DynamoDB table '{source}' is ({}): its key schema was changed, or this is the target of another \
                 table; name the right one with --target, or create a new one with `sql dynamodb`",
                found.sorting_key, wanted_key
            )));
        }
        let columns = rows.iter().filter_map(|row| Column::of(row, &name));
        let mut columns = columns.collect::<Result<Vec<_>, _>>()?;
        // Key columns first, in key order.
        columns.sort_by_key(|column| wanted.iter().position(|name| *name == column.name).unwrap_or(wanted.len()));
        Ok(Target { clickhouse, name, keys: keys.to_vec(), columns })
    }

    /// Passes on every item of the table, one by one.
    pub async fn each(&self, mut take: impl FnMut(Key, Row)) -> Result<(), CommandError> {
        self.read(&self.select("FINAL"), &mut take).await
    }

    /// The rows of some keys: one per existing item (`FINAL`), or all that have not been merged
    /// away.
    pub async fn of_keys(&self, keys: &[Vec<String>], last: bool) -> Result<HashMap<Key, Vec<Row>>, CommandError> {
        let tuples: Vec<String> = keys.iter().map(|values| self.tuple(values)).collect();
        let sql = format!(
            "{} WHERE ({}) IN ({})",
            self.select(if last { "FINAL" } else { "" }),
            self.key_columns().join(", "),
            tuples.join(", ")
        );
        let mut found: HashMap<Key, Vec<Row>> = HashMap::new();
        self.read(&sql, &mut |key, row| found.entry(key).or_default().push(row)).await?;
        Ok(found)
    }

    async fn read(&self, sql: &str, take: &mut impl FnMut(Key, Row)) -> Result<(), CommandError> {
        let size = VERIFY_QUERY_BYTES.to_string();
        // Maps as objects. Only sent here: releases before 25 do not know it.
        let settings = [("max_query_size", &*size), ("output_format_json_map_as_array_of_tuples", "0")];
        let mut wrong = None;
        let each = |line: &[u8]| match self.row(line) {
            Ok((key, row)) => take(key, row),
            Err(error) => wrong = Some(error),
        };
        let lines = self.clickhouse.each_line(sql, "JSONCompactEachRow", &settings, VERIFY_SILENCE, each);
        lines.await.map_err(CommandError::of(&self.clickhouse))?;
        wrong.map_or(Ok(()), Err)
    }

    /// The newest version in the table, as a time in text form. `None` if the table is empty.
    pub async fn newest(&self) -> Result<Option<String>, CommandError> {
        let sql = format!("SELECT fromUnixTimestamp64Micro(max(version), 'UTC') FROM {} HAVING count() > 0", self.name);
        let text = self.clickhouse.text(&sql, "TSV", &[]).await.map_err(CommandError::of(&self.clickhouse))?;
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// The statement that marks rows older than `version` as deleted, after a table was dropped and
    /// recreated.
    pub fn mark_deleted(&self, version: i64) -> String {
        format!("{};\n", mark_deleted(&self.name, &self.key_columns(), version))
    }

    /// Quoted, in key order.
    fn key_columns(&self) -> Vec<String> {
        self.columns.iter().take(self.keys.len()).map(|column| identifier(&column.name)).collect()
    }

    fn select(&self, last: &str) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| identifier(&column.name)).collect();
        format!("SELECT {}, rest, version, is_deleted FROM {} {last}", names.join(", "), self.name)
    }

    /// A key in a list of keys. A value that the column's type cannot represent becomes NULL, which
    /// equals no key.
    fn tuple(&self, values: &[String]) -> String {
        let value = |(column, text): (&Column, &String)| match is_number(&column.ty) {
            true => format!("accurateCastOrNull({}, {})", literal(text), literal(&column.ty)),
            false => literal(text),
        };
        let values: Vec<String> = self.columns.iter().zip(values).map(value).collect();
        format!("({})", values.join(", "))
    }

    fn row(&self, line: &[u8]) -> Result<(Key, Row), CommandError> {
        read_row(&self.columns, &self.keys, line).ok_or_else(|| {
            let line = String::from_utf8_lossy(line);
            CommandError::ClickHouse(format!("a row of {} cannot be parsed: {line}", self.name))
        })
    }
}

fn is_number(ty: &str) -> bool {
    ["Int", "UInt", "Float", "Decimal"].iter().any(|name| ty.starts_with(name))
}

impl Holds {
    /// `None` for a type that `sql dynamodb` makes no column of.
    fn of(ty: &str, comment: &str) -> Option<Holds> {
        let inner = |ty: &'_ str, name: &str| -> Option<String> {
            Some(ty.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?.to_owned())
        };
        if let Some(ty) = inner(ty, "Array") {
            return Holds::of(&ty, "").filter(|holds| *holds == Holds::Value).map(|_| Holds::Set);
        }
        if let Some(ty) = inner(ty, "LowCardinality").or_else(|| inner(ty, "Nullable")) {
            return Holds::of(&ty, comment);
        }
        match ty {
            "String" if comment.starts_with("JSON") => Some(Holds::Json),
            "String" | "Bool" => Some(Holds::Value),
            _ => is_number(ty).then_some(Holds::Value),
        }
    }
}

/// The rule of the layout: the values of the columns, overlaid with `rest`.
fn read_row(columns: &[Column], keys: &[KeyAttribute], line: &[u8]) -> Option<(Key, Row)> {
    // Invalid UTF-8 equals nothing: DynamoDB has only text.
    let text = String::from_utf8_lossy(line);
    let fields: Vec<&RawValue> = serde_json::from_str(&text).ok()?;
    let (values, own) = fields.split_at_checked(columns.len())?;
    let [rest, version, is_deleted] = own else { return None };
    let mut item = Item::new();
    let (mut key, mut spelled) = (Vec::new(), Vec::new());
    for (at, (column, raw)) in columns.iter().zip(values).enumerate() {
        let mut value = match (Value::from_raw(raw), column.holds) {
            (Value::Null, _) => continue,
            (Value::Text(text), Holds::Json) => Value::from_json(&text),
            (Value::List(values), Holds::Set) if values.is_empty() => continue,
            (value, _) => value,
        };
        if let Some(attribute) = keys.get(at) {
            spelled.push(match &value {
                Value::Text(text) | Value::Number(text) => text.clone(),
                other => other.shown(),
            });
            value = key_value(value, attribute.ty);
            key.push(match &value {
                Value::Text(text) | Value::Number(text) | Value::Broken(text) => text.clone(),
                other => other.shown(),
            });
        }
        item.insert(column.attribute.clone(), value);
    }
    for (name, json) in serde_json::from_str::<HashMap<String, String>>(rest.get()).ok()? {
        item.insert(name, Value::from_json(&json));
    }
    let valid = std::str::from_utf8(line).is_ok();
    if !valid {
        item.insert(String::new(), Value::Broken("bytes that are not text".into()));
    }
    let version = version.get().parse().ok()?;
    let item = (is_deleted.get() != "1").then_some(item);
    Some((Key::new(&key), Row { item, version, spelled }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamodb::KeyType;

    fn column(name: &str, ty: &str, comment: &str) -> Column {
        let attribute = attribute_of(name).unwrap().to_owned();
        Column { name: name.into(), attribute, holds: Holds::of(ty, comment).unwrap(), ty: ty.into() }
    }

    fn row(columns: &[Column], keys: &[KeyAttribute], line: &str) -> (Key, Row) {
        read_row(columns, keys, line.as_bytes()).unwrap()
    }

    #[test]
    fn a_row_is_its_columns_overlaid_with_rest() {
        let keys = [KeyAttribute { name: "id".into(), ty: KeyType::N }];
        let columns = [
            column("id", "String", ""),
            column("age", "Nullable(Int64)", ""),
            column("name", "LowCardinality(Nullable(String))", ""),
            column("tags", "Array(String)", ""),
            column("empty", "Array(Int64)", ""),
            column("m", "Nullable(String)", "JSON: a map"),
            column("version_attribute", "Nullable(Float64)", ""),
        ];
        let line = r#"["1.50",1,null,["b","a"],[],"{\"x\":1.0}",1e21,{"age":"123456789012345678901","n":"null"},7,0]"#;
        let (key, row) = row(&columns, &keys, line);
        assert_eq!((key, row.version, &row.spelled[..]), (Key::new(&["1.5".into()]), 7, &["1.50".to_owned()][..]));
        let expected = r#"{"age":123456789012345678901,"id":1.5,"m":{"x":1},"n":null,"tags":["b","a"],"version":1000000000000000000000}"#;
        assert_eq!(super::super::value::shown(&row.item.unwrap()), expected);
    }

    #[test]
    fn what_is_no_text_and_no_json_is_equal_to_nothing() {
        let keys = [KeyAttribute { name: "id".into(), ty: KeyType::S }];
        let columns = [column("id", "String", ""), column("m", "Nullable(String)", "JSON")];
        let (_, row) = row(&columns, &keys, r#"["a","{",{},7,0]"#);
        assert_eq!(row.item.unwrap()["m"], Value::Broken("{".into()));
        let (key, row) = read_row(&columns, &keys, b"[\"a\xff\",null,{},7,1]").unwrap();
        assert_eq!((key.values()[0], row.item), ("a\u{fffd}", None));
        let (_, row) = read_row(&columns, &keys, b"[\"a\xff\",null,{},7,0]").unwrap();
        assert_eq!(row.item.unwrap()[""], Value::Broken("bytes that are not text".into()));
    }

    #[test]
    fn types_that_hold_attributes() {
        for ty in [
            "String",
            "Nullable(Int128)",
            "Float64",
            "Decimal(38, 3)",
            "Bool",
            "Array(String)",
            "Array(Nullable(UInt8))",
        ] {
            assert!(Holds::of(ty, "").is_some(), "{ty}");
        }
        for ty in ["DateTime", "Array(Array(String))", "Map(String, String)", "JSON", "Nullable(UUID)"] {
            assert_eq!(Holds::of(ty, ""), None, "{ty}");
        }
    }
}
