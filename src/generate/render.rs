//! The statements of a pipe, from a plan.

use std::collections::HashSet;

use super::infer::is_element_name;
use super::landing::is_read;
use super::message;
use super::plan::{Column, Plan, RECORD_COLUMNS, unique};
use super::types::{Place, Type};
use crate::sql::quote::{comment, identifier, literal, literal_of_lines, qualified};

/// The structure of `/v1/pipes/{pipe}/next`.
const NEXT: &str = "_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), \
                    _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String";
/// What a record kept apart is known by, in the landing table, the errors table and between them.
const POSITION: &str = "_key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number";
const POSITION_COLUMNS: &str = "    _key String,\n    _timestamp DateTime64(3),\n    _stream LowCardinality(String),\n    \
                                _shard_id LowCardinality(String),\n    _sequence_number String,\n    _sub_sequence_number UInt32,\n";
const WINDOW: &str = "\nSETTINGS non_replicated_deduplication_window = 1000";

/// What the statements are about, beside the plan.
#[derive(Clone, Debug)]
pub struct Target {
    /// The table's database.
    pub database: String,
    /// The table.
    pub table: String,
    /// Whether it exists.
    pub exists: bool,
    /// The URL of the pipe's batches.
    pub url: String,
    /// The records are log events, whose messages have the fields.
    pub message: bool,
    /// The named collection has the token, so it must be used.
    pub collection: bool,
    /// Sorting key of a new table.
    pub order_by: String,
    /// New tables get a deduplication window.
    pub exactly_once: bool,
    /// What does not fit goes to a table of its own.
    pub errors: bool,
}

impl Target {
    /// The names of the tables and views that the statements create.
    pub fn creates(&self) -> Vec<String> {
        let own = if self.exists { &[][..] } else { &[""] };
        let around = if self.errors { &["_pipe", "_landing", "_errors", "_mv", "_errors_mv"][..] } else { &["_pipe"] };
        own.iter().chain(around).map(|suffix| format!("{}{suffix}", self.table)).collect()
    }

    fn named(&self, suffix: &str) -> String {
        qualified(&self.database, &format!("{}{suffix}", self.table))
    }

    fn source(&self) -> String {
        let url = literal(&self.url);
        let source = match self.collection {
            true => format!("url(kinesis_bridge, url = {url})"),
            false => format!("url({url}, 'ArrowStream',\n        {})", literal(NEXT)),
        };
        if self.message { message::source(&source) } else { source }
    }
}

/// The statements, in the order in which they must run; each with a comment.
pub fn statements(plan: &Plan, target: &Target) -> Vec<String> {
    let mut all = Vec::new();
    let window = if target.exactly_once { WINDOW } else { "" };
    if !target.exists {
        let payload = plan.columns.iter().map(|c| (identifier(&c.name), c.ty.to_string()));
        let types = |name: &&str| RECORD_COLUMNS.iter().find(|(n, _)| n == name).map_or("String", |(_, ty)| ty);
        let record = plan.record.iter().map(|name| (name.to_string(), types(name).to_string()));
        let columns: Vec<_> = payload.chain(record).map(|(name, ty)| format!("    {name} {ty}")).collect();
        let (table, order_by, columns) = (target.named(""), &target.order_by, columns.join(",\n"));
        all.push(format!("CREATE TABLE {table}\n(\n{columns}\n)\nENGINE = MergeTree\nORDER BY {order_by}{window}"));
    }
    let refresh = "REFRESH AFTER 0 SECOND\n\
                   SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000";
    let pipe = target.named("_pipe");
    let (order, settings) = order_and_settings(plan, target.errors);
    if !target.errors {
        let (table, rows) = (target.named(""), rows(plan, &format!("\n    FROM {}", target.source())));
        all.push(format!(
            "CREATE MATERIALIZED VIEW {pipe} {refresh}\nAPPEND TO {table} AS\n{rows}\n{order}\n{settings}"
        ));
        return all;
    }
    let (landing, errors) = (target.named("_landing"), target.named("_errors"));
    all.push(format!(
        "{}CREATE TABLE {landing}\n(\n{POSITION_COLUMNS}    _raw_message String,\n    _error String\n)\nENGINE = Null",
        comment("Keeps nothing: records pass through it to the two views below. _error is empty for those that fit.")
    ));
    all.push(format!(
        "{}CREATE TABLE {errors}\n(\n{POSITION_COLUMNS}    reason String,\n    raw_message String,\n    failed_at DateTime DEFAULT now()\n)\n\
         ENGINE = MergeTree\nORDER BY (_timestamp, _shard_id)\nTTL failed_at + INTERVAL 7 DAY{window}",
        comment("What does not fit, and why; for seven days.")
    ));
    let rows = rows(plan, &format!("\n    FROM {landing}\n    WHERE _error = ''"));
    all.push(format!("CREATE MATERIALIZED VIEW {} TO {} AS\n{rows}", target.named("_mv"), target.named("")));
    all.push(format!(
        "CREATE MATERIALIZED VIEW {} TO {errors} AS\n\
         SELECT {POSITION}, _error AS reason, _raw_message AS raw_message\nFROM {landing}\nWHERE _error != ''",
        target.named("_errors_mv")
    ));
    let sorted = sorted_out(plan, &format!("FROM {}", target.source()));
    all.push(format!(
        "CREATE MATERIALIZED VIEW {pipe} {refresh}\nAPPEND TO {landing} AS\n{sorted}\nWHERE {}\n{order}\n{settings}",
        is_read(&target.database, &target.table)
    ));
    all
}

/// The first rows as they would arrive, read from `source`; and with `errors`, what would be kept apart.
pub fn dry_run(plan: &Plan, source: &str, errors: bool, rows_shown: usize) -> Vec<String> {
    let settings = settings(&parsing(plan));
    let settings = if settings.is_empty() { settings } else { format!("\n{settings}") };
    if !errors {
        return vec![format!("{}\nLIMIT {rows_shown}{settings}", rows(plan, &format!("\n    FROM {source}")))];
    }
    let sorted = format!("({})", sorted_out(plan, &format!("FROM {source}")));
    let rows = rows(plan, &format!("\n    FROM {sorted}\n    WHERE _error = ''"));
    vec![
        format!("{rows}\nLIMIT {rows_shown}{settings}"),
        format!(
            "SELECT {POSITION}, _error AS reason, _raw_message AS raw_message\nFROM {sorted}\nWHERE _error != ''\nLIMIT {rows_shown}{settings}"
        ),
    ]
}

/// For each column that can be missed by a value: its index, the text of the value, and whether it fits, to be read from `source`.
pub fn judged(plan: &Plan, source: &str) -> Option<(Vec<usize>, String)> {
    let checks = checks(plan);
    if checks.is_empty() {
        return None;
    }
    let columns = checks.iter().map(|check| {
        let (at, value, fits) = (check.column, &check.value, &check.fits);
        format!("    toUInt32(countIf(NOT {fits})) AS m{at},\n    anyIf({value}, NOT {fits}) AS e{at}")
    });
    let columns: Vec<_> = columns.chain(["    toUInt32(count()) AS parsed".into()]).collect();
    let (json, quoted) = json(plan);
    let settings = settings(&parsing(plan));
    let sql = format!(
        "SELECT\n{}\nFROM (\n    SELECT {}\n    FROM (SELECT *{quoted} FROM {source})\n    WHERE JSONType({json}) = 'Object'\n)\n{settings}",
        columns.join(",\n"),
        fields(json)
    );
    Some((checks.iter().map(|check| check.column).collect(), sql))
}

/// What the pipe's SELECT is sorted by, and its settings.
fn order_and_settings(plan: &Plan, errors: bool) -> (&'static str, String) {
    let mut settings_of_pipe = vec!["http_max_tries = 1", "max_threads = 1"];
    let sortable = errors || plan.columns.iter().all(|column| column.ty.is_sortable());
    if !sortable {
        settings_of_pipe.push("deduplicate_insert_select = 'enable_even_for_bad_queries'");
    }
    if errors {
        settings_of_pipe.push("deduplicate_blocks_in_dependent_materialized_views = 1");
        // Measured on 300,000 orders: 1.2 s instead of 14 s. Almost every check is needed for almost every record.
        settings_of_pipe.push("short_circuit_function_evaluation = 'disable'");
    }
    settings_of_pipe.extend(parsing(plan));
    let order =
        if sortable { "ORDER BY ALL" } else { "ORDER BY _shard_id, toUInt256(_sequence_number), _sub_sequence_number" };
    (order, settings(&settings_of_pipe))
}

fn settings(all: &[&str]) -> String {
    if all.is_empty() { String::new() } else { format!("SETTINGS {}", all.join(", ")) }
}

/// Settings that say how text becomes values: older releases, and other profiles, differ in them.
fn parsing(plan: &Plan) -> Vec<&'static str> {
    let has = |leaf: &dyn Fn(&str) -> bool| plan.columns.iter().any(|column| column.ty.has_leaf(leaf));
    let mut settings = Vec::new();
    if has(&|name| name.starts_with("Date")) {
        settings.push("date_time_input_format = 'best_effort'");
    }
    if has(&|name| name.starts_with("JSON")) {
        // A string stays one, as it is.
        settings.extend(["input_format_try_infer_dates = 0", "input_format_try_infer_datetimes = 0"]);
    }
    settings
}

/// The payload's text as it is parsed; and, with wide numbers, the column that has it, to stand behind a `*`.
fn json(plan: &Plan) -> (&'static str, &'static str) {
    // Each token of the text; strings are one, so that digits in them are left alone. Bytes that are no text are left to the parser to refuse.
    const QUOTED: &str = r#", if(
            isValidUTF8(_raw_message) AND match(_raw_message, '[0-9][0-9.]{17}'),
            arrayStringConcat(arrayMap(
                token -> if(match(token, '^-?[0-9][0-9.]{17,}$'), concat('"', token, '"'), token),
                extractAll(_raw_message, '"(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.eE+-]*|[^"0-9-]+|[-"]'))),
            _raw_message) AS _json"#;
    if plan.wide_numbers { ("_json", QUOTED) } else { ("_raw_message", "") }
}

fn fields(json: &str) -> String {
    format!("CAST(JSONExtractKeysAndValuesRaw({json}), 'Map(String, String)') AS fields")
}

/// `JSONExtract` with the path of a field.
fn extract(json: &str, path: &[String], ty: &Type) -> String {
    let path: String = path.iter().map(|name| format!("{}, ", literal(name))).collect();
    format!("JSONExtract({json}, {path}{})", literal(&ty.to_string()))
}

/// The SELECT that makes the table's rows. `from` is what it reads, with the WHERE.
fn rows(plan: &Plan, from: &str) -> String {
    let mut taken: HashSet<String> = plan.columns.iter().map(|column| column.name.clone()).collect();
    taken.extend(RECORD_COLUMNS.iter().map(|(name, _)| name.to_string()));
    let record = unique("r", &taken);
    taken.insert(record.clone());
    let (json, quoted) = json(plan);
    let (mut tree, mut inner, mut outer) = (Vec::new(), Vec::new(), Vec::new());
    for column in &plan.columns {
        let value = match insert(&mut tree, &column.path, &column.ty) {
            true => column.path.iter().fold(record.clone(), |value, name| element(&value, name)),
            false => {
                let alias = unique("x", &taken);
                taken.insert(alias.clone());
                inner.push(format!("{} AS {alias}", extract(json, &column.path, &column.ty)));
                alias
            }
        };
        outer.push(format!("    {value} AS {}", identifier(&column.name)));
    }
    if !tree.is_empty() {
        let last = tree.len() - 1;
        let elements = tree.iter().enumerate().map(|(at, (name, node))| {
            let comma = if at == last { "" } else { "," };
            format!("            {} {}{comma}", identifier(name), node.ty())
        });
        let lines: Vec<_> = ["Tuple(".into()].into_iter().chain(elements).chain(["        )".into()]).collect();
        let tuple = literal_of_lines(lines.iter().map(String::as_str));
        inner.insert(0, format!("JSONExtract({json}, {tuple}) AS {record}"));
    }
    let mut through: Vec<&str> = plan.record.clone();
    if !order_is_all(plan) {
        let position = ["_shard_id", "_sequence_number", "_sub_sequence_number"];
        through.extend(position.iter().filter(|name| !plan.record.contains(name)));
    }
    inner.push(through.join(", "));
    inner.retain(|part| !part.is_empty());
    if !plan.record.is_empty() {
        outer.push(format!("    {}", plan.record.join(", ")));
    }
    let (outer, inner) = (outer.join(",\n"), inner.join(",\n        "));
    let from = match quoted.is_empty() {
        true => from.to_string(),
        false => format!("\n    FROM (\n        SELECT *{quoted}{}\n    )", from.replace("\n    ", "\n        ")),
    };
    format!("SELECT\n{outer}\nFROM (\n    SELECT\n        {inner}{from}\n)")
}

fn order_is_all(plan: &Plan) -> bool {
    plan.columns.iter().all(|column| column.ty.is_sortable())
}

/// An element of a tuple. Some plain names mean something else behind a dot: `size0`, `null`, a number.
fn element(tuple: &str, name: &str) -> String {
    let special = ["null", "keys", "values", "size"].iter().any(|word| name.starts_with(word));
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    match first && !special && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => format!("{tuple}.{}", identifier(name)),
        false => format!("tupleElement({tuple}, {})", literal(name)),
    }
}

enum Node {
    Leaf(Type),
    Branch(Vec<(String, Node)>),
}

impl Node {
    fn ty(&self) -> Type {
        match self {
            Node::Leaf(ty) => ty.clone(),
            Node::Branch(nodes) => Type::Tuple(nodes.iter().map(|(name, node)| (name.clone(), node.ty())).collect()),
        }
    }
}

/// Puts a field into the tuple that the payload is parsed as. False when it has no place there: another column takes it, or no element may have its name.
fn insert(tree: &mut Vec<(String, Node)>, path: &[String], ty: &Type) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if !path.iter().all(|name| is_element_name(name)) {
        return false;
    }
    let at = tree.iter().position(|(name, _)| name == first);
    match (at.map(|at| &mut tree[at].1), rest) {
        (None, []) => tree.push((first.clone(), Node::Leaf(ty.clone()))),
        (None, rest) => {
            let mut nodes = Vec::new();
            insert(&mut nodes, rest, ty);
            tree.push((first.clone(), Node::Branch(nodes)));
        }
        (Some(Node::Branch(nodes)), rest @ [_, ..]) => return insert(nodes, rest, ty),
        (Some(_), _) => return false,
    }
    true
}

struct Check {
    column: usize,
    value: String,
    fits: String,
}

fn checks(plan: &Plan) -> Vec<Check> {
    let check = |(at, column): (usize, &Column)| {
        let (first, rest) = column.path.split_first()?;
        let place = Place::whole(format!("fields[{}]", literal(first)));
        let place = rest.iter().fold(place, |place, name| place.field(name));
        let (value, fits) = (place.raw(), column.ty.fits(&place, plan.strict)?);
        Some(Check { column: at, value, fits })
    };
    plan.columns.iter().enumerate().filter_map(check).collect()
}

/// The SELECT that brings records into the landing table, each with what is wrong with it.
fn sorted_out(plan: &Plan, from: &str) -> String {
    let (json, quoted) = json(plan);
    let checks = checks(plan);
    let misfits: Vec<_> = checks
        .iter()
        .map(|check| {
            let field = literal(&plan.columns[check.column].path.join("."));
            format!("            if({}, '', {field})", check.fits)
        })
        .collect();
    let (last, misfits) = match misfits.is_empty() {
        true => ("''".into(), String::new()),
        false => (
            "if(empty(misfits), '', concat('does not fit: ', arrayStringConcat(misfits, ', ')))".to_string(),
            format!(",\n        arrayFilter(field -> field != '', [\n{}\n        ]) AS misfits", misfits.join(",\n")),
        ),
    };
    format!(
        "SELECT\n    {POSITION}, _raw_message,\n    \
         multiIf(\n        NOT isValidJSON({json}), 'no valid JSON, or a number beyond 64 bits',\n        \
         JSONType({json}) != 'Object', 'no JSON object',\n        \
         length(arrayDistinct(mapKeys(fields))) != length(fields), 'a field comes twice',\n        {last}) AS _error\n\
         FROM (\n    SELECT *{quoted},\n        {}{misfits}\n    {from}\n)",
        fields(json)
    )
}
