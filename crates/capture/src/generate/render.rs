//! The statements of a pipe, from a plan.

use std::collections::HashSet;

use super::column::Column;
use super::definer::Needs;
use super::fits::{Parts, Place, once};
use super::infer::is_element_name;
use super::landing::is_read;
use super::message;
use super::numbers::{MARK, has_mark, parsed, with};
use super::plan::{Plan, RECORD_COLUMNS, unique};
use super::rest::{Check, REST, REST_COMMENT, REST_TYPE, checks, known, rest};
use super::types::Type;
use domain::columns::{self, BATCH, PLACE, names, records, structure};
use sql::quote::{comment, comments, identifier, literal, literal_of_lines, qualified};

const WINDOW: &str = "\nSETTINGS non_replicated_deduplication_window = 1000";

/// The columns that identify a record that was set apart, in the landing table, the errors table
/// and between them. A batch is sorted by the first three, so `ORDER BY ALL` costs little.
fn position() -> String {
    names(PLACE.into_iter().chain([columns::KEY, columns::TIMESTAMP, columns::STREAM]))
}

/// Where a record was in the stream, as the columns of a new table.
pub fn position_columns() -> String {
    columns::POSITION.iter().map(|column| format!("    {},\n", column.definition())).collect()
}

/// The subject of the statements, in addition to the plan.
#[derive(Clone, Debug)]
pub struct Target {
    /// The table's database.
    pub database: String,
    /// The table.
    pub table: String,
    /// Whether it exists.
    pub exists: bool,
    /// The URL of the pipe's batches for each of its views.
    pub urls: Vec<String>,
    /// The records are log events whose messages contain the fields.
    pub message: bool,
    /// The named collection that has the token and must be used; `None` if there is no token.
    pub collection: Option<String>,
    /// Sorting key of a new table.
    pub order_by: String,
    /// Whether new tables get a deduplication window.
    pub exactly_once: bool,
    /// Whether what does not fit goes to a table of its own.
    pub errors: bool,
    /// The user that the views run as, as SQL; empty if it is whoever creates them.
    pub definer: String,
}

impl Target {
    /// The names of the tables and views that the statements create.
    pub fn creates(&self) -> Vec<String> {
        let own = if self.exists { &[][..] } else { &[""] };
        let around = if self.errors { &["_landing", "_errors", "_mv", "_errors_mv"][..] } else { &[] };
        let pipes = (1..=self.urls.len()).map(view_suffix);
        let suffixes = own.iter().chain(around).map(|suffix| (*suffix).to_owned()).chain(pipes);
        suffixes.map(|suffix| format!("{}{suffix}", self.table)).collect()
    }

    /// The views that pull, and what each reads.
    fn pipes(&self) -> impl Iterator<Item = (String, String)> {
        let numbered = self.urls.iter().zip(1..);
        numbered.map(|(url, number)| (self.named(&view_suffix(number)), self.source(url)))
    }

    /// What the views read and write.
    pub fn needs(&self) -> Needs<'_> {
        let collection = self.collection.as_deref();
        Needs { database: &self.database, table: &self.table, landing: self.errors, collection }
    }

    fn named(&self, suffix: &str) -> String {
        qualified(&self.database, &format!("{}{suffix}", self.table))
    }

    fn source(&self, url: &str) -> String {
        let url = literal(url);
        let source = match &self.collection {
            Some(name) => format!("url({name}, url = {url})"),
            None => format!("url({url}, 'ArrowStream',\n        {})", literal(&structure(records().chain([BATCH])))),
        };
        if self.message { message::source(&source) } else { source }
    }
}

/// A view runs with the profile of its definer. Each of these settings, if it differs there, loses
/// or duplicates rows without an error: measured on 25.8.
pub const WHATEVER_THE_PROFILE: &str =
    "insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw'";
/// What a repeated batch needs to complete the tables below; off by default before 26.2.
pub const DEPENDENT_VIEWS: &str = "deduplicate_blocks_in_dependent_materialized_views = 1";

/// When a pipe's view refreshes, and how it backs off after failures.
pub const REFRESH: &str = "REFRESH AFTER 2 SECOND\n\
    SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000";

/// What is added to the table's name for the view of this number, from 1 on.
pub fn view_suffix(number: usize) -> String {
    if number == 1 { "_pipe".into() } else { format!("_pipe_{number}") }
}

/// The statements, in the order in which they must run; each with a comment.
pub fn statements(plan: &Plan, target: &Target) -> Vec<String> {
    let mut all = Vec::new();
    let window = if target.exactly_once { WINDOW } else { "" };
    if !target.exists {
        let payload = plan.columns.iter().map(|c| (identifier(&c.name), c.ty.to_string()));
        let record = plan.record.iter().map(|column| (column.name.into(), column.ty.clickhouse().into()));
        let rest = plan.rest.then(|| (REST.to_string(), format!("{REST_TYPE} COMMENT {}", literal(REST_COMMENT))));
        let columns: Vec<_> = payload.chain(rest).chain(record).map(|(name, ty)| format!("    {name} {ty}")).collect();
        let (table, order_by, columns) = (target.named(""), &target.order_by, columns.join(",\n"));
        all.push(format!("CREATE TABLE {table}\n(\n{columns}\n)\nENGINE = MergeTree\nORDER BY {order_by}{window}"));
    }
    let definer = &target.definer;
    let settings = settings_of_pipe(plan, target.errors);
    if !target.errors {
        let table = target.named("");
        all.extend(target.pipes().map(|(pipe, source)| {
            let rows = rows(plan, &with_json(&source, true), true);
            format!("CREATE MATERIALIZED VIEW {pipe} {REFRESH}\nAPPEND TO {table}{definer} AS\n{rows}\nORDER BY ALL\n{settings}")
        }));
        return all;
    }
    let (landing, errors) = (target.named("_landing"), target.named("_errors"));
    let (position, position_columns) = (position(), position_columns());
    let own = if plan.rest { format!("    {REST} {REST_TYPE},\n") } else { String::new() };
    all.push(format!(
        "{}CREATE TABLE {landing}\n(\n{position_columns}    _raw_message String,\n    _json String,\n{own}    _error String\n)\nENGINE = Null",
        comments(
            "Stores nothing: records pass through it to the two views below. _error is empty for those that fit;\n\
             _json is the record, with numbers quoted that ClickHouse would change."
        )
    ));
    all.push(format!(
        "{}CREATE TABLE {errors}\n(\n{position_columns}    reason String,\n    raw_message String,\n    failed_at DateTime DEFAULT now()\n)\n\
         ENGINE = MergeTree\nORDER BY (_timestamp, _shard_id)\nTTL failed_at + INTERVAL 7 DAY{window}",
        comment("What does not fit, and why; kept for seven days.")
    ));
    let rows = rows(plan, &format!("{landing}\n    WHERE _error = ''"), false);
    all.push(format!("CREATE MATERIALIZED VIEW {} TO {}{definer} AS\n{rows}", target.named("_mv"), target.named("")));
    all.push(format!(
        "CREATE MATERIALIZED VIEW {} TO {errors}{definer} AS\n\
         SELECT {position}, _error AS reason, _raw_message AS raw_message\nFROM {landing}\nWHERE _error != ''",
        target.named("_errors_mv")
    ));
    let is_read = is_read(&target.database, &target.table);
    all.extend(target.pipes().map(|(pipe, source)| {
        let sorted = sorted_out(plan, &source);
        format!(
            "CREATE MATERIALIZED VIEW {pipe} {REFRESH}\nAPPEND TO {landing}{definer} AS\n{sorted}\nWHERE {is_read}\nORDER BY ALL\n{settings}"
        )
    }));
    all
}

/// How to find fields that were added later.
pub fn look_into_rest(target: &Target) -> String {
    let table = target.named("");
    comments(&format!(
        "Fields without a column, and how often they occurred. Run this command again to see columns for them.\n\
         SELECT replaceRegexpAll(arrayJoin(mapKeys({REST})), '\\\\[[^]]*\\\\]', '[]') AS field, count() FROM {table} GROUP BY field ORDER BY count() DESC"
    ))
}

/// The first rows as they would arrive, read from `source`; with `errors`, also what would go to
/// the errors table.
pub fn dry_run(plan: &Plan, source: &str, errors: bool, rows_shown: usize) -> Vec<String> {
    let settings = settings(&parsing(plan));
    let settings = if settings.is_empty() { settings } else { format!("\n{settings}") };
    if !errors {
        return vec![format!("{}\nLIMIT {rows_shown}{settings}", rows(plan, &with_json(source, true), true))];
    }
    let (position, sorted) = (position(), format!("({})", sorted_out(plan, source)));
    let rows = rows(plan, &format!("{sorted}\n    WHERE _error = ''"), false);
    vec![
        format!("{rows}\nLIMIT {rows_shown}{settings}"),
        format!(
            "SELECT {position}, _error AS reason, _raw_message AS raw_message\nFROM {sorted}\nWHERE _error != ''\nLIMIT {rows_shown}{settings}"
        ),
    ]
}

/// For each column whose values may not fit: its index, the text of the value, and whether it fits,
/// to be read from `source`.
pub fn judged(plan: &Plan, source: &str) -> (Vec<usize>, String) {
    let mut parts = Parts::default();
    let fields = parts.fields(&Place::record());
    let checks = checks(&plan.columns, plan.how(), &mut parts);
    let checks: Vec<(usize, &Check)> = checks.iter().filter_map(|check| Some((check.column?, check))).collect();
    let columns = checks.iter().map(|(at, check)| {
        let (value, fits) = (&check.value, &check.fits);
        format!("    toUInt32(countIf(NOT {fits})) AS m{at},\n    anyIf(written({value}), NOT {fits}) AS e{at}")
    });
    let twice = format!("    toUInt32(countIf(NOT ({}))) AS twice", once(&fields));
    let columns: Vec<_> = columns.chain([twice, "    toUInt32(count()) AS parsed".into()]).collect();
    let (columns, settings) = (columns.join(",\n"), settings(&parsing(plan)));
    let sql = format!(
        "{}SELECT\n{columns}\nFROM (\n    SELECT *, {}\n    FROM {}\n    WHERE JSONType(_json) = 'Object'\n)\n{settings}",
        with(&columns),
        parts.definitions().join(", "),
        with_json(source, false)
    );
    (checks.iter().map(|(at, _)| *at).collect(), sql)
}

/// The settings of the pipe's SELECT.
fn settings_of_pipe(plan: &Plan, errors: bool) -> String {
    let mut settings_of_pipe = vec!["http_max_tries = 1", "max_threads = 1", WHATEVER_THE_PROFILE, DEPENDENT_VIEWS];
    if !errors && !plan.columns.iter().all(|column| column.ty.is_sortable()) {
        settings_of_pipe.push("allow_suspicious_types_in_order_by = 1");
    }
    if errors {
        // Measured on 300,000 orders: 1.2 s instead of 14 s. Almost every check is needed for
        // almost every record.
        settings_of_pipe.push("short_circuit_function_evaluation = 'disable'");
    }
    settings_of_pipe.extend(parsing(plan));
    settings(&settings_of_pipe)
}

fn settings(all: &[&str]) -> String {
    if all.is_empty() { String::new() } else { format!("SETTINGS {}", all.join(", ")) }
}

/// Settings that control how text becomes values: older releases, and other profiles, differ in
/// them.
fn parsing(plan: &Plan) -> Vec<&'static str> {
    let has = |leaf: &dyn Fn(&str) -> bool| plan.columns.iter().any(|column| column.ty.has_leaf(leaf));
    let mut settings = Vec::new();
    if has(&|name| name.starts_with("Date")) {
        settings.push("date_time_input_format = 'best_effort'");
    }
    if has(&|name| name.contains("Float")) {
        settings.push("precise_float_parsing = 1");
    }
    if has(&|name| name.starts_with("JSON") || name.starts_with("Dynamic")) {
        // A string stays a string, unchanged, and so does a number when it is compared.
        settings.extend([
            "input_format_try_infer_dates = 0",
            "input_format_try_infer_datetimes = 0",
            "output_format_json_quote_64bit_integers = 0",
        ]);
    }
    settings
}

/// Rows with the columns of a pull, and `_json`; `once`: the payload as it is, because it is parsed
/// only once.
fn with_json(source: &str, once: bool) -> String {
    let parsed = parsed(once);
    let with = with(&parsed).replace('\n', "\n        ");
    format!("(\n        {with}SELECT *,\n            {parsed}\n        FROM {source}\n    )")
}

/// `JSONExtract` with the path of a field.
fn extract(json: &str, path: &[String], ty: &Type) -> String {
    let path: String = path.iter().map(|name| format!("{}, ", literal(name))).collect();
    format!("JSONExtract({json}, {path}{})", literal(&ty.per_row().to_string()))
}

/// The SELECT that produces the table's rows. `from` is what it reads, with the WHERE: rows with
/// `_json`. `own_rest`: fields without a column are collected here.
fn rows(plan: &Plan, from: &str, own_rest: bool) -> String {
    let mut taken: HashSet<String> = plan.columns.iter().map(|column| column.name.clone()).collect();
    taken.extend(RECORD_COLUMNS.iter().map(|column| column.name.to_string()).chain([REST.to_string()]));
    let record = unique("r", &taken);
    taken.insert(record.clone());
    let json = "unmarked(_json)";
    let (mut tree, mut inner, mut outer) = (Vec::new(), Vec::new(), Vec::new());
    for column in &plan.columns {
        let value = match !column.as_text && insert(&mut tree, &column.path, &column.ty) {
            true => column.path.iter().fold(record.clone(), |value, name| element(&value, name)),
            false => {
                let alias = unique("x", &taken);
                taken.insert(alias.clone());
                inner.push(format!("{} AS {alias}", alone(json, column)));
                alias
            }
        };
        let (ty, read) = (column.ty.to_string(), column.ty.per_row().to_string());
        let value = if ty == read { value } else { format!("CAST({value}, {})", literal(&ty)) };
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
    if plan.rest {
        outer.push(format!("    {REST}"));
        inner.extend(if own_rest { of_rest(plan) } else { vec![REST.into()] });
    }
    inner.push(names(plan.record.iter().copied()));
    inner.retain(|part| !part.is_empty());
    let (first, last): (Vec<columns::Column>, Vec<columns::Column>) =
        plan.record.iter().partition(|column| own_rest && PLACE.contains(column));
    outer.splice(0..0, line_of(&first));
    outer.extend(line_of(&last));
    let (outer, inner) = (outer.join(",\n"), inner.join(",\n        "));
    let with = with(&inner).replace('\n', "\n    ");
    format!("SELECT\n{outer}\nFROM (\n    {with}SELECT\n        {inner}\n    FROM {from}\n)")
}

fn line_of(columns: &[columns::Column]) -> Option<String> {
    (!columns.is_empty()).then(|| format!("    {}", names(columns.iter().copied())))
}

/// The fields that have no column, if no check needs those that have one.
fn of_rest(plan: &Plan) -> Vec<String> {
    let mut parts = Parts::default();
    let rest = rest(&known(&plan.columns), &mut parts);
    parts.definitions().into_iter().chain([format!("{rest} AS {REST}")]).collect()
}

/// The value of a column that has no place in the tuple. The text of objects and arrays has wide
/// numbers as they were written.
fn alone(json: &str, column: &Column) -> String {
    let value = extract(json, &column.path, &column.ty);
    if !column.as_text {
        return value;
    }
    let path: String = column.path.iter().map(|name| format!(", {}", literal(name))).collect();
    let raw = format!("JSONExtractRaw(_json{path})");
    format!("if(match({raw}, '^[{{[]'), written({raw}), {value})")
}

/// An element of a tuple. Some plain names mean something else after a dot: `size0`, `null`, a
/// number.
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
            Node::Leaf(ty) => ty.per_row(),
            Node::Branch(nodes) => Type::Tuple(nodes.iter().map(|(name, node)| (name.clone(), node.ty())).collect()),
        }
    }
}

/// Puts a field into the tuple that the payload is parsed as. Returns false if it has no place
/// there: another column takes it, or an element may not have its name.
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

/// The SELECT that brings records into the landing table, each with what is wrong with it.
fn sorted_out(plan: &Plan, source: &str) -> String {
    let mut parts = Parts::default();
    let fields = parts.fields(&Place::record());
    let checks = checks(&plan.columns, plan.how(), &mut parts);
    let misfits: Vec<_> =
        checks.iter().map(|check| format!("            if({}, '', {})", check.fits, literal(&check.field))).collect();
    let (last, misfits) = match misfits.is_empty() {
        true => ("''".into(), None),
        false => (
            "if(empty(misfits), '', concat('does not fit: ', arrayStringConcat(misfits, ', ')))".to_string(),
            Some(format!("arrayFilter(field -> field != '', [\n{}\n        ]) AS misfits", misfits.join(",\n"))),
        ),
    };
    let rest = plan.rest.then(|| format!("{} AS {REST}", rest(&known(&plan.columns), &mut parts)));
    let computed: Vec<String> = parts.definitions().into_iter().chain(rest).chain(misfits).collect();
    let rest = if plan.rest { format!(" {REST},") } else { String::new() };
    let (marked, mark) = (has_mark(), literal(&format!("a string has {MARK}, which marks numbers here")));
    let computed = computed.join(",\n        ");
    let with = with(&computed).replace('\n', "\n    ");
    format!(
        "SELECT\n    {}, _raw_message, _json,{rest}\n    \
         multiIf(\n        {marked}, {mark},\n        NOT isValidJSON(if(empty({fields}), _json, '{{}}')), 'no valid JSON',\n        \
         JSONType(if(empty({fields}), _json, '{{}}')) != 'Object', 'no JSON object',\n        \
         NOT ({}), 'a field comes twice',\n        {last}) AS _error\n\
         FROM (\n    {with}SELECT *,\n        {computed}\n    FROM {}\n)",
        position(),
        once(&fields),
        with_json(source, false)
    )
}
