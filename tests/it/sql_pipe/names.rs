//! Odd names.

use ::sql::quote::{identifier, qualified};

use super::{bridge, printed, stream_of, wait_for_rows};
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(any_name_survives,);

/// Each field's value is its number.
const FIELDS: [&str; 45] = [
    "",
    "a.b",
    "a b",
    "it's",
    "`q`",
    "back\\slash",
    "ünï 🦀",
    "Id",
    "ID",
    "id",
    "_timestamp",
    "_key",
    "_raw_message",
    "_batch",
    "_error",
    "_json",
    "_row_exists",
    "r",
    "x",
    "1",
    "null",
    "size0",
    "keys",
    "{a|b}",
    "line\nbreak",
    "--",
    "select",
    "a_b",
    "fields",
    "misfits",
    "\"",
    "$$",
    "%41",
    "tab\t",
    "\0\u{7}\u{b}\u{1b}",
    "a\r\nb",
    "\u{85}\u{a0}\u{2028}\u{2029}",
    "\u{202e}\u{2066}\u{200b}\u{feff}",
    "*/ /* -- \\",
    "\\n \\x41 \\",
    "\nDROP TABLE victim;\n",
    "rest",
    "_wide",
    "fields_2",
    "p",
];

fn any_name_survives() {
    let object = |shift: usize| {
        let fields = FIELDS.iter().enumerate().map(|(n, name)| format!("{}:{}", serde_json::json!(name), n + shift));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    // Nested, too. ClickHouse has no tuple elements with an empty name, or with the name null.
    let nested = |shift: usize| object(shift).replacen("\"\":", "\"no name\":", 1).replace("\"null\":", "\"no null\":");
    let record = |shift| format!("{{\"top\":{},{}", nested(100 + shift), &object(shift)[1..]);
    stream_of("sql-names", &[&record(0), &record(1000)]);
    let database = identifier("it's a `db`.");
    sql(&format!("CREATE DATABASE IF NOT EXISTS {database}"));
    let tables = [
        ("`it's \\`a\\` {b|c}, --\\\\ ü.`", "it's `a` {b|c}, --\\ ü.", &["--apply", "--no-errors"][..]),
        ("`plain but 'quoted'`", "plain but 'quoted'", &["--apply", "--flatten", "--no-errors", "--no-rest"]),
        ("`with.errors`", "with.errors", &["--apply", "--flatten"]),
    ];
    for (given, name, flags) in tables {
        let said = printed("sql-names", &format!("{database}.{given}"), flags);
        assert!(said.contains(&format!(
            "http://localhost:{}/v1/pipes/",
            bridge().address().rsplit(':').next().expect("a port")
        )));
        let table = qualified("it's a `db`.", name);
        wait_for_rows(&table, 2);
        let rest = if flags.contains(&"--no-rest") { "" } else { ", rest" };
        let rows = sql(&format!(
            "SELECT * EXCEPT (_timestamp, _shard_id, _sequence_number, _sub_sequence_number{rest}) FROM {table} \
             ORDER BY toUInt256(_sequence_number) FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0, \
             output_format_json_named_tuples_as_objects = 0"
        ));
        for (row, shift) in rows.lines().zip([0, 1000]) {
            let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
            let columns = row.as_array().expect("columns");
            // The tuple as one column, or each of its elements; then the fields in order.
            let (first, rest) = match columns[0].as_array() {
                Some(elements) => (elements.clone(), &columns[1..]),
                None => {
                    columns.split_at_checked(FIELDS.len()).map(|(first, rest)| (first.to_vec(), rest)).expect("columns")
                }
            };
            let numbers = |from: usize| (from..from + FIELDS.len()).map(|n| serde_json::json!(n)).collect::<Vec<_>>();
            assert_eq!(first, numbers(100 + shift), "{name}");
            assert_eq!(rest, numbers(shift), "{name}");
        }
        sql(&format!("DROP TABLE {database}.{}", identifier(&format!("{name}_pipe"))));
    }
}
