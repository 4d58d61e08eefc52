//! `sql pipe` on a stream of hostile records, into new tables and an existing one.

use serde_json::{Map, Value, json};

use super::{bridge, just_these, names, victim, victim_lives};
use crate::dynamodb::run;
use crate::world::{create_stream, put, sql, wait_until};

const STREAM: &str = "sql-hostile";
const NEW: [&str; 2] = ["CREATE TABLE", "CREATE MATERIALIZED"];
const WITH_ERRORS: [&str; 6] = [
    "CREATE TABLE",
    "CREATE TABLE",
    "CREATE TABLE",
    "CREATE MATERIALIZED",
    "CREATE MATERIALIZED",
    "CREATE MATERIALIZED",
];

/// What `sql pipe` prints.
#[track_caller]
fn printed(table: &str, flags: &[&str]) -> String {
    printed_of(STREAM, table, flags)
}

#[track_caller]
fn printed_of(stream: &str, table: &str, flags: &[&str]) -> String {
    let arguments = ["sql", "pipe", "--listen", bridge().address(), "--stream", stream, "--table", table];
    let output = run(&[], &[&arguments, flags].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The name of something that belongs to a table.
fn with_suffix(table: &str, suffix: &str) -> String {
    match table.strip_suffix('`') {
        Some(quoted) => format!("{quoted}{suffix}`"),
        None => format!("{table}{suffix}"),
    }
}

/// A record with each name at each depth: as a field, nested twice, in elements of an array, as
/// data, in objects that differ a lot; and as the value of fields with one kind of value and with
/// several.
fn record(names: &[String], n: usize) -> Value {
    let object = |value: &dyn Fn(usize) -> Value| {
        let fields = names.iter().enumerate().filter(|(_, name)| !name.is_empty());
        Value::Object(fields.map(|(at, name)| (name.clone(), value(at))).collect::<Map<_, _>>())
    };
    let mut record = object(&|at| json!(at));
    record["deep"] = object(&|_| object(&|at| if at % 2 == 0 { json!(at) } else { json!("x") }));
    record["list"] = json!([object(&|at| json!(at)), object(&|at| json!([at]))]);
    // A different third of them in every object.
    record["loose"] = Value::Object(
        names.iter().skip(n % 3).step_by(3).map(|name| (format!("{name}{n}"), json!({"y": names}))).collect(),
    );
    record["data"] = Value::Object(names.iter().map(|name| (format!("{name}{n}"), json!(n))).collect());
    record["text"] = json!(names[n % names.len()]);
    record["mixed"] = if n.is_multiple_of(2) { json!(names) } else { json!(names[1]) };
    record["sometimes"] = if n.is_multiple_of(2) { json!(n) } else { Value::Null };
    record
}

#[test]
fn names_in_records_are_never_statements() {
    victim();
    let names = names();
    create_stream(STREAM, 1);
    // Few names are at every depth, all are at the top.
    let few: Vec<String> = names.iter().take(9).chain(names.iter().rev().take(3)).cloned().collect();
    let nested = (0..6).map(|n| record(&few, n));
    let flat = names.chunks(40).map(|some| {
        Value::Object(some.iter().enumerate().map(|(at, name)| (name.clone(), json!({ name.clone(): at }))).collect())
    });
    let records: Vec<Value> = nested.chain(flat).collect();
    put(STREAM, records.iter().map(|record| ("key".to_owned(), record.to_string().into_bytes())));
    let count = records.len();

    let map = format!("{}=to {}", few[0], few[1]);
    for (table, flags, kinds) in [
        ("hostile.plain", &["--no-errors"][..], &NEW[..]),
        ("hostile.flat", &["--no-errors", "--no-rest", "--flatten", "--map", &map], &NEW),
        ("hostile.errors", &[], &WITH_ERRORS),
        ("hostile.`it's \\`\\xE2\\x80\\xA8`", &["--flatten"], &WITH_ERRORS),
    ] {
        just_these(&printed(table, flags), kinds, &[]);
        just_these(&printed(table, &[flags, &["--dry-run"]].concat()), &[], &[]);
        printed(table, &[flags, &["--apply"]].concat());
        // What does not fit is in the errors table.
        let beside = if kinds == NEW {
            "0".to_owned()
        } else {
            format!("(SELECT count() FROM {})", with_suffix(table, "_errors"))
        };
        let rows = || sql(&format!("SELECT count() + {beside} FROM {table}"));
        let count = format!("{count}\n");
        wait_until(&format!("{count} rows in {table} and its errors, not {}", rows()), || rows() == count);
        victim_lives();
    }
    for pipe in ["plain_pipe", "flat_pipe", "errors_pipe", "`it's \\`\\xE2\\x80\\xA8_pipe`"] {
        sql(&format!("DROP TABLE hostile.{pipe}"));
    }
    into_a_table_that_exists(&names, &few);
}

#[test]
fn names_in_log_events_are_never_statements() {
    victim();
    let names: Vec<String> = names().into_iter().take(24).collect();
    let stream = "sql-hostile-messages";
    create_stream(stream, 1);
    let event = |(n, name): (usize, &String)| {
        let message = if n % 3 == 2 { name.clone() } else { record(&names[n..n + 1], 0).to_string() };
        json!({"id": name, "timestamp": n, "message": message, name.as_str(): name})
    };
    let events: Vec<Value> = names.iter().enumerate().map(event).collect();
    let envelope = json!({"messageType": "DATA_MESSAGE", "owner": names[0], "logGroup": names[1], "logStream": names[2], "logEvents": events});
    put(stream, [("key".to_owned(), envelope.to_string().into_bytes())]);
    let table = "hostile.messages";
    for flags in [&["--message"][..], &["--message", "--flatten"]] {
        just_these(&printed_of(stream, table, flags), &WITH_ERRORS, &[]);
        just_these(&printed_of(stream, table, &[flags, &["--dry-run"]].concat()), &[], &[]);
    }
    just_these(&printed_of(stream, table, &[]), &WITH_ERRORS, &[]);
    printed_of(stream, table, &["--message", "--apply"]);
    let rows = || sql("SELECT count() + (SELECT count() FROM hostile.messages_errors) FROM hostile.messages");
    let expected = format!("{}\n", names.len());
    wait_until(&format!("{expected} rows, not {}", rows()), || rows() == expected);
    sql("DROP TABLE hostile.messages_pipe");
    victim_lives();
}

/// A table with hostile names and strings in its columns and types, which the comments repeat:
/// values that do not fit, columns without fields, fields without columns, omitted types.
fn into_a_table_that_exists(names: &[String], few: &[String]) {
    let quoted = |text: &str, quote: char| {
        // Without the product's code: escapes only what must be escaped.
        format!("{quote}{}{quote}", text.replace('\\', "\\\\").replace(quote, &format!("\\{quote}")))
    };
    let columns: Vec<String> = names
        .iter()
        .enumerate()
        .filter(|(_, name)| !name.is_empty() && !name.contains('.'))
        .map(|(at, name)| match at % 5 {
            0 => format!("{} UInt8", quoted(name, '`')),
            1 => format!("{} Enum8({} = 0)", quoted(name, '`'), quoted(name, '\'')),
            2 => format!("{} Tuple({} UInt8, x String)", quoted(name, '`'), quoted(name, '`')),
            3 => format!("{} AggregateFunction(groupConcat({}), String)", quoted(name, '`'), quoted(name, '\'')),
            _ => format!("{} String COMMENT {}", quoted(&format!("no {name}"), '`'), quoted(name, '\'')),
        })
        .collect();
    let deep = format!("deep Tuple({} Tuple({} UInt8))", quoted(&few[0], '`'), quoted(&few[2], '`'));
    let create = format!(
        "CREATE TABLE hostile.old ({}, {deep}, text Enum8({} = 0)) ENGINE = MergeTree ORDER BY tuple()",
        columns.join(", "),
        quoted(&few[3], '\'')
    );
    sql(&create);
    let map = format!("text=no {}", names[4]);
    for flags in [&["--no-errors"][..], &[], &["--no-errors", "--flatten", "--map", &map]] {
        let kinds = if flags.is_empty() { &WITH_ERRORS[1..] } else { &NEW[1..] };
        let text = printed("hostile.old", flags);
        for said in ["that do not fit the column", "is left out: ", "No record of the sample has the field"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        just_these(&text, kinds, &[&create]);
        just_these(&printed("hostile.old", &[flags, &["--dry-run"]].concat()), &[], &[]);
    }
    printed("hostile.old", &["--apply"]);
    wait_until("errors", || sql("SELECT count() > 0 FROM hostile.old_errors") == "1\n");
    sql("DROP TABLE hostile.old_pipe");
    victim_lives();
}
