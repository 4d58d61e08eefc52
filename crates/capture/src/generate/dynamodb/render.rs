//! The statements for a table.

use std::collections::HashSet;

use super::columns::{Columns, Key, Kind};
use crate::dynamodb::names::{OWN_COLUMNS, mark_deleted};
use crate::generate::definer::{Definer, Needs};
use crate::generate::landing::is_read;
use crate::generate::plan::{shown, unique};
use crate::generate::render::{DEPENDENT_VIEWS, REFRESH, WHATEVER_THE_PROFILE, position_columns};
use domain::columns::{BATCH, POSITION, events, names, structure};
use sql::quote::{comment, comments, identifier, literal, qualified};

/// The names of keys in an event, as JSON writes them. Values of keys are scalars, so one match is
/// a name, a colon and a value. (ClickHouse's JSON functions would return nothing for a key with
/// more than 64 bits.)
const KEY_NAMES: &str = r#"("(?:[^"\\]|\\.)*"):(?:"(?:[^"\\]|\\.)*"|[^",}]+)"#;

/// The subject of the statements.
pub struct Target<'a> {
    /// The target's database.
    pub database: &'a str,
    /// The target.
    pub table: &'a str,
    /// The table in DynamoDB.
    pub source: &'a str,
    /// What the target's comment says about that table.
    pub comment: &'a str,
    /// The URL of the pipe's batches.
    pub url: &'a str,
    /// The named collection that has the token and must be used; `None` if there is no token.
    pub collection: Option<String>,
    /// Changes before this time belong to another table of the same name; microseconds since 1970.
    pub created: Option<i64>,
    /// Whether ClickHouse must be told that a SELECT in stream order is stable. 25.8 does not know
    /// the setting, and drops a repeated block of any SELECT.
    pub told_stable: bool,
    /// The user that the views run as.
    pub definer: Option<&'a Definer>,
    /// The target's columns.
    pub columns: &'a Columns,
}

impl Target<'_> {
    /// The name of the target plus a suffix, quoted.
    pub fn named(&self, suffix: &str) -> String {
        qualified(self.database, &format!("{}{suffix}", self.table))
    }

    /// What the views read and write.
    pub fn needs(&self) -> Needs<'_> {
        let collection = self.collection.as_deref();
        Needs { database: self.database, table: self.table, landing: true, collection }
    }

    fn definer(&self) -> String {
        self.definer.map_or_else(String::new, Definer::clause)
    }

    /// The target.
    pub fn table(&self) -> String {
        let keys = self.columns.keys.iter().map(Key::definition);
        let others = self.columns.others.iter().map(super::columns::Column::definition);
        let columns: String = keys.chain(others).map(|column| format!("    {column},\n")).collect();
        let order: Vec<String> = self.columns.keys.iter().map(|key| identifier(&key.name)).collect();
        let (table, order, about) = (self.named(""), order.join(", "), literal(self.comment));
        let head = comment(
            "Read it with FINAL, or through the view below: of all rows of an item the one with the highest version counts.",
        );
        format!(
            "{head}CREATE TABLE {table}\n(\n{columns}    rest Map(String, String) COMMENT 'attributes that the other columns do not hold exactly, as JSON',\n    \
             version Int64 COMMENT 'when the item was written, microseconds since 1970',\n    is_deleted UInt8\n)\n\
             ENGINE = ReplacingMergeTree(version, is_deleted)\nORDER BY ({order})\nCOMMENT {about}"
        )
    }

    /// For a target that was made for an earlier table.
    pub fn new_comment(&self) -> String {
        format!(
            "{}ALTER TABLE {} MODIFY COMMENT {}",
            comment("The table was created again, and nothing of the earlier one is left here."),
            self.named(""),
            literal(self.comment)
        )
    }

    /// For a target that already had items when a full export, complete at `version`, was loaded.
    pub fn gone(&self, version: i64) -> String {
        let keys: Vec<String> = self.columns.keys.iter().map(|key| identifier(&key.name)).collect();
        format!(
            "{}{}",
            comment(
                "What is older than the export and not in it was deleted before, while no change reached the stream."
            ),
            mark_deleted(&self.named(""), &keys, version)
        )
    }

    /// The table that pipe and exports are inserted into.
    pub fn landing(&self) -> String {
        let fits: String = self
            .columns
            .keys
            .iter()
            .map(|key| {
                let (fits, reason) = key.fits(&attribute("attributes", &key.attribute));
                format!("        NOT {fits}, {reason},\n")
            })
            .collect();
        let position_columns = position_columns();
        format!(
            "{}CREATE TABLE {}\n(\n    attributes Map(String, String),\n    version Int64,\n    is_deleted UInt8,\n{position_columns}    \
             _raw_message String,\n    _error String,\n    reason String MATERIALIZED multiIf(\n        _error != '', _error,\n{fits}        '')\n)\n\
             ENGINE = Null",
            comment(
                "Stores nothing: changes and exports pass through it to the two views below. reason is empty for what fits."
            ),
            self.named("_landing")
        )
    }

    /// The table for what does not fit.
    pub fn errors(&self) -> String {
        let position_columns = position_columns();
        format!(
            "{}CREATE TABLE {}\n(\n{position_columns}    reason String,\n    raw_message String,\n    version Int64,\n    is_deleted UInt8,\n    \
             failed_at DateTime DEFAULT now()\n)\nENGINE = MergeTree\nORDER BY (_timestamp, _shard_id)\nTTL failed_at + INTERVAL 7 DAY\n\
             SETTINGS non_replicated_deduplication_window = 1000",
            comment("What is not a change event, or has a key that does not fit, and why; kept for seven days."),
            self.named("_errors")
        )
    }

    /// The view that fills the errors table.
    pub fn errors_view(&self) -> String {
        format!(
            "CREATE MATERIALIZED VIEW {} TO {}{} AS\nSELECT {}, reason,\n    if(_raw_message != '', _raw_message, concat('{{', arrayStringConcat(\n        \
             arrayMap((name, value) -> concat(toJSONString(name), ':', value), mapKeys(attributes), mapValues(attributes)), ','), '}}')) AS raw_message,\n    \
             version, is_deleted\nFROM {}\nWHERE reason != ''",
            self.named("_errors_mv"),
            self.named("_errors"),
            self.definer(),
            names(POSITION),
            self.named("_landing")
        )
    }

    /// The view that fills the target.
    pub fn view(&self) -> String {
        let (view, target, definer) = (self.named("_mv"), self.named(""), self.definer());
        format!("CREATE MATERIALIZED VIEW {view} TO {target}{definer} AS\n{}", self.view_query())
    }

    /// Its query.
    pub fn view_query(&self) -> String {
        self.flattened(&self.named("_landing"), "reason = ''")
    }

    /// Rows of the target from rows with `attributes`, `version` and `is_deleted`.
    pub fn flattened(&self, from: &str, condition: &str) -> String {
        // An attribute may have any name, so ours must differ from all of them.
        let mut taken = self.taken();
        let mut own = |name: &str| {
            let name = unique(name, &taken);
            taken.insert(name.clone());
            name
        };
        let (row, name, value) = (own("item"), own("name"), own("value"));
        let attributes = format!("{row}.attributes");
        let keys = self.columns.keys.iter();
        let keys = keys.map(|key| (&key.name, key.value(&attribute(&attributes, &key.attribute))));
        let others = self.columns.others.iter();
        let others = others.map(|column| (&column.name, column.kind.value(&attribute(&attributes, &column.attribute))));
        let columns: String =
            keys.chain(others).map(|(name, value)| format!("    {value} AS {},\n", identifier(name))).collect();
        let held = self.held(&name, &value);
        format!(
            "SELECT\n{columns}    mapFilter(({name}, {value}) -> NOT multiIf(\n{held}        false), {attributes}) AS rest,\n    \
             {row}.version AS version,\n    {row}.is_deleted AS is_deleted\nFROM {from} AS {row}\nWHERE {row}.{condition}"
        )
    }

    /// Which attributes do not need to be in `rest`, kind by kind.
    fn held(&self, name: &str, value: &str) -> String {
        let mut always: Vec<&str> = self.columns.keys.iter().map(|key| &*key.attribute).collect();
        let mut kinds: Vec<(&Kind, Vec<&str>)> = Vec::new();
        for column in &self.columns.others {
            match kinds.iter_mut().find(|(kind, _)| **kind == column.kind) {
                _ if column.kind == Kind::Json => always.push(&column.attribute),
                Some((_, names)) => names.push(&column.attribute),
                None => kinds.push((&column.kind, vec![&column.attribute])),
            }
        }
        let line = |names: &[&str], held: &str| {
            let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
            format!("        {name} IN ({}), {held},\n", names.join(", "))
        };
        let of_kinds = kinds.iter().filter_map(|(kind, names)| Some(line(names, &kind.held(value)?)));
        std::iter::once(line(&always, "true")).chain(of_kinds).collect()
    }

    /// The view for readers.
    pub fn readers(&self) -> String {
        let row = unique("item", &self.taken());
        let keys = self.columns.keys.iter().map(|key| format!("{row}.{}", identifier(&key.name)));
        let others = self.columns.others.iter().map(|column| {
            let rest = attribute(&format!("{row}.rest"), &column.attribute);
            let name = identifier(&column.name);
            format!("{} AS {name}", column.kind.with_rest(&format!("{row}.{name}"), &rest))
        });
        let columns: String = keys.chain(others).map(|column| format!("    {column},\n")).collect();
        let head = comments(
            "The current items. An attribute that had no column yet when its item arrived is read from rest. Maps and lists stay text: the type JSON\n\
             refuses numbers beyond 64 bits and drops nulls and empty maps. If yours have none of these, use CAST(column, 'JSON').",
        );
        format!(
            "{head}CREATE OR REPLACE VIEW {} AS\nSELECT\n{columns}    {row}.rest AS rest\nFROM {} AS {row} FINAL",
            self.named("_final"),
            self.named("")
        )
    }

    fn taken(&self) -> HashSet<String> {
        let keys = self.columns.keys.iter().map(|key| &key.name);
        let others = self.columns.others.iter().map(|column| &column.name);
        let own = ["attributes", "reason"].into_iter().chain(OWN_COLUMNS).map(String::from);
        keys.chain(others).cloned().chain(own).collect()
    }

    /// The pipe.
    pub fn pipe(&self) -> String {
        let (position, structure) = (names(POSITION), literal(&structure(events().chain([BATCH]))));
        let source = match &self.collection {
            Some(name) => format!("url({name}, url = {}, structure =\n    {})", literal(self.url), structure),
            None => format!("url({}, 'ArrowStream',\n    {})", literal(self.url), structure),
        };
        let table = literal(self.source);
        let of_this = match self.created {
            Some(created) => format!("_table IN ('', {table}) AND (_error != '' OR _version >= {created})"),
            None => format!("_table IN ('', {table})"),
        };
        let mut names: Vec<&str> = self.columns.keys.iter().map(|key| &*key.attribute).collect();
        names.sort_unstable();
        let keys = names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
        let shown_keys = names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        let stop = literal(&format!(
            "the changes of DynamoDB table {} have other key attributes than {shown_keys}: it was recreated with other keys; nothing is lost \
             while this view waits; drop it and run sql dynamodb for another target",
            shown(self.source)
        ));
        let pattern = literal(KEY_NAMES);
        let stable = if self.told_stable { "deduplicate_insert_select = 'enable_even_for_bad_queries', " } else { "" };
        let head =
            comment("A change with other keys than the target's stops the pipe before anything of it is inserted.");
        format!(
            "{head}CREATE MATERIALIZED VIEW {} {REFRESH}\n\
             APPEND TO {}{} AS\nSELECT\n    _attributes AS attributes, _version AS version, _is_deleted AS is_deleted,\n    {position}, _raw_message, _error\n\
             FROM {source}\n\
             WHERE {}\n    AND {of_this}\n    AND NOT throwIf({of_this} AND _error = ''\n        \
             AND arraySort(arrayMap(name -> JSONExtractString(name), extractAll(_keys, {pattern}))) != [{keys}],\n        {stop})\n\
             ORDER BY _shard_id, length(_sequence_number), _sequence_number, _sub_sequence_number\n\
             SETTINGS http_max_tries = 1, max_threads = 1, {WHATEVER_THE_PROFILE}, {stable}{DEPENDENT_VIEWS}",
            self.named("_pipe"),
            self.named("_landing"),
            self.definer(),
            is_read(self.database, self.table)
        )
    }
}

/// SQL for the JSON of an attribute.
fn attribute(map: &str, name: &str) -> String {
    format!("{map}[{}]", literal(name))
}
