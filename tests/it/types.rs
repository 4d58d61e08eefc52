//! The table of types in docs/sql.md is correct: every value in it goes through a stream and a pipe
//! into a column of that type.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::common::{is_committed, wait_until};
use crate::readme::markdown::{code_of, documents};
use crate::world::{NEXT, bridge, create_stream, drop_pipe, put, sql, stack};

/// The types that ClickPipes supports, and that pipes must support, too; after a bracket, anything
/// may follow.
const SUPPORTED: [&str; 42] = [
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Float32",
    "Float64",
    "BFloat16",
    "Int128",
    "UInt128",
    "Int256",
    "UInt256",
    "Decimal32(",
    "Decimal64(",
    "Decimal128(",
    "Decimal256(",
    "Bool",
    "String",
    "FixedString(",
    "Date",
    "Date32",
    "DateTime(",
    "DateTime64(",
    "Enum8(",
    "Enum16(",
    "UUID",
    "IPv4",
    "IPv6",
    "LowCardinality(",
    "LowCardinality(Nullable(",
    "Nullable(",
    "Map(",
    "Map(String, Array(Nullable(",
    "Map(LowCardinality(String), Nullable(",
    "Tuple(",
    "Array(",
    "Array(Nullable(",
    "Variant(String, Int64, DateTime(",
    "JSON(",
];
const AGGREGATE: &str = "SimpleAggregateFunction(";
const SHARDS: i32 = 2;

/// A line of the table.
struct Line {
    /// The name of its column and of the field in the record.
    name: String,
    column: String,
    /// The SELECT's expression for the field with this name.
    expression: String,
    cases: Vec<Case>,
}

/// Values of one key, and the final content of the column, all as JSON.
struct Case {
    key: String,
    values: Vec<String>,
    expected: String,
}

fn lines() -> Vec<Line> {
    let documents = documents();
    let sql = documents.iter().find(|document| document.path == "docs/sql.md").expect("docs/sql.md");
    let rows = sql.table("column").rows;
    rows.iter()
        .enumerate()
        .map(|(at, row)| {
            let name = format!("c{at}");
            let expression = code_of(&row[1])[0].replace("'v'", &format!("'{name}'"));
            Line { cases: cases(&row[2], &name), column: code_of(&row[0])[0].into(), expression, name }
        })
        .collect()
}

/// The types in the table.
pub fn documented_types() -> Vec<String> {
    lines().into_iter().map(|line| line.column).collect()
}

/// Values precede an arrow, all for one key; what becomes of them follows it.
fn cases(cell: &str, name: &str) -> Vec<Case> {
    let (mut cases, mut values) = (Vec::new(), Vec::new());
    let mut parts = cell.split('`');
    while let (Some(before), Some(code)) = (parts.next(), parts.next()) {
        match before.trim() {
            "→" => {
                let key = format!("{name}-{}", cases.len());
                cases.push(Case { key, values: std::mem::take(&mut values), expected: code.into() });
            }
            "" | "," => values.push(code.to_owned()),
            other => panic!("{name}: what is '{other}'?"),
        }
    }
    assert!(values.is_empty() && !cases.is_empty(), "{name}: {cell}");
    cases
}

impl Line {
    fn is_aggregate(&self) -> bool {
        self.column.starts_with(AGGREGATE)
    }

    /// The payload with this value in the line's field.
    fn record(&self, value: &str) -> String {
        format!("{{\"{}\": {value}}}", self.name)
    }
}

/// A pipe from the stream `types` into a table of this name and engine.
fn create_pipe(bridge_url: &str, pipe: &str, engine: &str, lines: &[&Line]) {
    let columns = lines.iter().fold(String::new(), |mut columns, line| {
        let _ = write!(columns, ", {} {}", line.name, line.column);
        columns
    });
    let expressions = lines.iter().fold(String::new(), |mut expressions, line| {
        let _ = write!(expressions, ", {} AS {}", line.expression, line.name);
        expressions
    });
    sql(&format!(
        "CREATE TABLE {pipe} (_key String{columns}) ENGINE = {engine} ORDER BY _key \
         SETTINGS non_replicated_deduplication_window = 1000, allow_suspicious_low_cardinality_types = 1"
    ));
    sql(&format!(
        "CREATE MATERIALIZED VIEW {pipe}_view REFRESH AFTER 2 SECOND \
         SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 1000 \
         APPEND TO {pipe} AS SELECT _key{expressions} \
         FROM url('{bridge_url}/v1/pipes/{pipe}/next?stream=types&view=default.{pipe}_view&linger_ms=200&wait_ms=500', 'ArrowStream', '{NEXT}') \
         ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1, allow_suspicious_types_in_order_by = 1, \
         date_time_input_format = 'best_effort'"
    ));
}

/// The types whose expression throws, if a pipe makes no progress.
fn throwing(lines: &[Line]) -> String {
    let mut told = sql("SELECT view, exception FROM system.view_refreshes WHERE view LIKE 'types\\_%' FORMAT TSVRaw");
    for line in lines {
        for value in line.cases.iter().flat_map(|case| &case.values) {
            let record = line.record(value).replace('\\', "\\\\").replace('\'', "\\'");
            let alone = format!("SELECT {} FROM (SELECT '{record}' AS _raw_message)", line.expression);
            if let Err(error) = stack().clickhouse.query(&alone) {
                let _ = writeln!(told, "{}, value {value}: {error}", line.column);
            }
        }
    }
    told
}

/// What a table has: by key, the line's values in order, as JSON.
fn found(table: &str, lines: &[&Line]) -> BTreeMap<String, Vec<String>> {
    let columns = lines.iter().fold(String::new(), |mut columns, line| {
        let _ = write!(columns, ", ifNull(toJSONString({}), 'null')", line.name);
        columns
    });
    let rows = sql(&format!("SELECT _key{columns} FROM {table} FORMAT JSONCompactEachRow"));
    let rows = rows.lines().map(|row| serde_json::from_str::<Vec<String>>(row).expect(row));
    rows.map(|mut row| (row.remove(0), row)).collect()
}

/// A test for each engine: see `versions`.
pub fn every_value_comes_into_its_type_as_documented() {
    let lines = lines();
    for supported in SUPPORTED.iter().chain(&[AGGREGATE]) {
        let is =
            |line: &Line| line.column == *supported || supported.ends_with('(') && line.column.starts_with(supported);
        assert!(lines.iter().any(is), "docs/sql.md has no line for {supported}");
    }
    create_stream("types", SHARDS);
    let all = |line: &Line| -> Vec<(String, Vec<u8>)> {
        let record = |case: &Case, value: &String| (case.key.clone(), line.record(value).into_bytes());
        line.cases
            .iter()
            .flat_map(|case| case.values.iter().map(|value| record(case, value)).collect::<Vec<_>>())
            .collect()
    };
    let records: Vec<_> = lines.iter().flat_map(all).collect();
    let count = records.len() as u64;
    put("types", records);

    let bridge = bridge("types", &[]);
    let (aggregate, plain): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|line| line.is_aggregate());
    let pipes = [
        ("types_plain", "MergeTree", &plain),
        ("types_aggregating", "AggregatingMergeTree", &aggregate),
        ("types_summing", "SummingMergeTree", &aggregate),
    ];
    for (pipe, engine, lines) in pipes {
        create_pipe(&bridge.url(), pipe, engine, lines);
    }
    let mut wrong = String::new();
    for (pipe, _, of_pipe) in pipes {
        let came = || is_committed(&bridge, pipe, count);
        wait_until(Duration::from_secs(60), came, || format!("{pipe} did not get on: {}", throwing(&lines)));
        let table = if of_pipe[0].is_aggregate() { format!("{pipe} FINAL") } else { pipe.to_owned() };
        let found = found(&table, of_pipe);
        for (at, line) in of_pipe.iter().enumerate() {
            for case in &line.cases {
                let got = found.get(&case.key).map(|row| row[at].as_str());
                if got != Some(case.expected.as_str()) {
                    let (table, values) = (pipe, case.values.join(", "));
                    let _ =
                        writeln!(wrong, "{table}, {}: {values} gave {got:?} instead of {}", line.column, case.expected);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for (pipe, ..) in pipes {
        drop_pipe(pipe);
    }
}
