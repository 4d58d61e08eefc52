//! Fields without a column are in `rest`, wherever in a record they are, as written.

use super::{printed, put, run_script, stream_of, wait_for_rows};
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(
    nothing_of_a_record_is_lost,
    a_table_that_exists_keeps_them_if_it_has_the_column,
    without_it_there_are_plain_columns,
);

const KNOWN: &str = r#"{"id": 1, "u": {"n": "a", "p": {"q": 1}}, "lines": [{"q": 1}], "by": {"k1": {"n": 1}}}"#;
const MORE_KNOWN: [&str; 2] = [
    r#"{"id": 2, "u": {"n": "b", "p": {"q": 2}}, "lines": [{"q": 2}, {"q": 3}], "by": {"k2": {"n": 1}}}"#,
    r#"{"id": 3, "u": {"n": "b", "p": {"q": 2}}, "lines": [], "by": {"k3": {"n": 1}}}"#,
];
/// With fields that the sample does not have, at every depth.
const LATER: &str = r#"{"id": 4, "u": {"n": "c", "x": {"y": [1, "z"]}, "p": {"q": 3, "r": 18446744073709551616}}, "lines": [{"q": 4}, {"q": 5, "d": null, "it's": true}],
    "by": {"k\"9": {"n": 2, "m": 8.232762829599804}}, "new": {"a": [1.5, {"b": 1e400}]}, "": "\u0000 \"é\""}"#;
/// The paths under which ClickHouse would find them, and their values.
const EXPECTED: [(&str, &str); 7] = [
    ("", r#""\u0000 \"é\"""#),
    ("by['k\"9'].m", "8.232762829599804"),
    ("lines[2].d", "null"),
    ("lines[2].it's", "true"),
    ("new", r#"{"a":[1.5,{"b":1e400}]}"#),
    ("u.p.r", "18446744073709551616"),
    ("u.x", r#"{"y":[1,"z"]}"#),
];

/// The contents of `rest`, row by row, in the order of `id`.
fn rests(table: &str) -> Vec<Vec<(String, String)>> {
    let rows = sql(&format!(
        "SELECT arraySort(CAST(rest, 'Array(Tuple(String, String))')) AS r FROM {table} ORDER BY id FORMAT JSONEachRow \
         SETTINGS output_format_json_named_tuples_as_objects = 0"
    ));
    let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    rows.lines().map(|line| serde_json::from_value(row(line)["r"].take()).expect("pairs")).collect()
}

fn nothing_of_a_record_is_lost() {
    stream_of("sql-rest", &[&[KNOWN][..], &MORE_KNOWN].concat());
    let variants: [(&str, &[&str]); 3] =
        [("sqlp_rest", &[]), ("sqlp_rest_flat", &["--flatten"]), ("sqlp_rest_plain", &["--no-errors"])];
    let mut said = Vec::new();
    for (table, flags) in variants {
        said.push(printed("sql-rest", table, flags));
        run_script(&said[said.len() - 1]);
    }
    put("sql-rest", [LATER.as_bytes().to_vec()]);
    for ((table, _), said) in variants.iter().zip(&said) {
        wait_for_rows(table, 4);
        let rests = rests(table);
        let expected: Vec<_> = EXPECTED.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(rests, [vec![], vec![], vec![], expected], "{table}");
        // The query for them is printed at the end.
        let query = said.lines().last().and_then(|line| line.strip_prefix("-- ")).expect("a comment");
        let fields: Vec<String> =
            sql(query).lines().filter_map(|line| Some(line.split_once('\t')?.0.to_string())).collect();
        assert_eq!(fields.len(), 7, "{fields:?}");
        for field in ["u.x", "lines[].d", "by[].m"] {
            assert!(fields.iter().any(|found| found == field), "{field} in {fields:?}");
        }
        sql(&format!("DROP TABLE {table}_pipe"));
    }
    assert_eq!(sql("SELECT count() FROM sqlp_rest_errors"), "0\n");
    assert_eq!(
        sql("SELECT id, u.n, u.p.q, lines.q, mapKeys(by), by['k\"9'].n FROM sqlp_rest WHERE id = 4"),
        "4\tc\t3\t[4,5]\t['k\"9']\t2\n"
    );
}

fn a_table_that_exists_keeps_them_if_it_has_the_column() {
    stream_of("sql-rest-old", &[r#"{"id": 1, "u": {"n": 1}, "extra": [1.10], "rest": 7}"#]);
    let tables = [
        ("sqlp_rest_with", ", rest Map(String, String) COMMENT 'fields without a column of their own, as JSON'"),
        ("sqlp_rest_without", ""),
    ];
    let mut said = Vec::new();
    for (table, rest) in tables {
        sql(&format!(
            "CREATE TABLE {table} (id UInt64, u Tuple(n UInt8), later Nullable(String), given String DEFAULT 'd'{rest}) ENGINE = MergeTree ORDER BY id"
        ));
        said.push(printed("sql-rest-old", table, &[]));
        run_script(&said[said.len() - 1]);
    }
    assert!(said[0].contains("-- The field \"extra\" has no column and is only in rest: ADD COLUMN"), "{}", said[0]);
    let advice = "-- Fields without a column are not kept. To keep them, first run ALTER TABLE `default`.`sqlp_rest_without` ADD COLUMN rest Map(String, String)";
    assert!(said[1].contains(advice) && !said[1].contains("mapKeys(rest)"), "{}", said[1]);
    // A column without a field in the sample takes the field once it arrives.
    put("sql-rest-old", [br#"{"id": 2, "u": {"n": 2, "m": 3}, "later": "here", "given": "g"}"#.to_vec()]);
    for (table, _) in tables {
        wait_for_rows(table, 2);
        let rows = sql(&format!("SELECT id, u.n, later, given FROM {table} ORDER BY id"));
        assert_eq!(rows, "1\t1\t\\N\td\n2\t2\there\td\n", "{table}");
        sql(&format!("DROP TABLE {table}_pipe"));
    }
    let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    let expected = [pairs(&[("extra", "[1.1]"), ("rest", "7")]), pairs(&[("given", "\"g\""), ("u.m", "3")])];
    assert_eq!(rests("sqlp_rest_with"), expected);
}

fn without_it_there_are_plain_columns() {
    stream_of("sql-rest-none", &[r#"{"id": 1, "rest": 5}"#]);
    let plain = printed("sql-rest-none", "sqlp_rest_none", &["--no-errors", "--no-rest"]);
    assert!(!plain.contains("_errors") && !plain.contains("mapKeys"), "{plain}");
    assert!(
        plain.contains("-- Fields without a column are not kept.") && plain.contains("    `rest` Int64,\n"),
        "{plain}"
    );
    let both = printed("sql-rest-none", "sqlp_rest_none", &["--no-errors", "--errors"]);
    assert!(both.contains("`sqlp_rest_none_errors`") && both.contains("    `rest_2` Int64,\n    rest Map"), "{both}");
}
