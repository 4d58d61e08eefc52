//! The effects of the flags.

use std::io::Write;

use super::{bridge, printed, run_script, stream_of, wait_for_rows};
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(
    flags_change_the_statements_and_apply_runs_them,
    a_dry_run_shows_rows_and_changes_nothing,
    with_a_token_the_view_holds_no_secret,
    several_documents_in_a_record_are_noticed,
);

const PEOPLE: [&str; 3] = [
    r#"{"id": 1, "name": "Ana", "home": {"city": "Köln", "geo": {"lat": 50.9}}, "tags": ["a"]}"#,
    r#"{"id": 2, "name": "Bo", "home": {"city": "Bonn", "geo": {"lat": 50.7}}, "tags": []}"#,
    r#"{"id": 3, "name": null, "tags": ["b", "c"]}"#,
];

fn tables(like: &str) -> String {
    sql(&format!("SELECT name FROM system.tables WHERE database = 'default' AND name LIKE '{like}' ORDER BY name"))
}

fn flags_change_the_statements_and_apply_runs_them() {
    stream_of("sql-people", &PEOPLE);
    let flags = [
        "--apply",
        "--flatten",
        "--order-by",
        "(id, _timestamp)",
        "--map",
        "name=full_name",
        "--map",
        "home.geo.lat=latitude",
        "--pipe",
        "people-1",
        "--mode",
        "efo",
        "--start",
        "2020-01-01 00:00:00",
    ];
    let said = printed("sql-people", "sqlp_people", &flags);
    let url =
        "/v1/pipes/people-1/next?stream=sql-people&view=default.sqlp_people_pipe&start=2020-01-01%2000:00:00&mode=efo'";
    assert!(said.contains(url), "{said}");
    assert!(said.contains("ORDER BY (id, _timestamp)\nSETTINGS non_replicated_deduplication_window = 1000;"), "{said}");
    wait_for_rows("sqlp_people", 3);
    let rows = sql("SELECT id, full_name, home_city, latitude, tags FROM sqlp_people ORDER BY id");
    assert_eq!(rows, "1\tAna\tKöln\t50.9\t['a']\n2\tBo\tBonn\t50.7\t[]\n3\t\\N\t\\N\t\\N\t['b','c']\n");
    let columns = sql(
        "SELECT name, type FROM system.columns WHERE database = 'default' AND table = 'sqlp_people' ORDER BY position LIMIT 5",
    );
    let expected = "id\tInt64\nfull_name\tNullable(String)\nhome_city\tNullable(String)\nlatitude\tNullable(Float64)\ntags\tArray(String)\n";
    assert_eq!(columns, expected);
    sql("DROP TABLE sqlp_people_pipe");
    // The same again finds the table and its columns.
    let again = printed(
        "sql-people",
        "sqlp_people",
        &["--flatten", "--map", "name=full_name", "--map", "home.geo.lat=latitude"],
    );
    assert!(
        !again.contains("CREATE TABLE `default`.`sqlp_people`\n")
            && !again.contains("has no column")
            && again.contains("-- Exactly-once"),
        "{again}"
    );
    // Only on request.
    let once = printed("sql-people", "sqlp_other", &["--exactly-once=false"]);
    assert!(!once.contains("deduplication_window") && once.contains("-- At-least-once"), "{once}");
    assert_eq!(tables("sqlp_other%"), "");
}

// 25.8 accepts no number for a DateTime, and reports it.
#[test]
fn a_table_that_exists_keeps_its_types_and_what_does_not_fit_is_told() {
    stream_of(
        "sql-existing",
        &[
            r#"{"id": 1, "price": 12.50, "userName": "a", "status": "paid", "extra": 1, "deep": {"er": {"x": 5}}, "when": 1795250000}"#,
            r#"{"id": 2, "price": "3.10", "userName": "b", "status": "lost", "extra": 2, "deep": {"er": {"x": 6}}, "when": 1795250001}"#,
            r#"{"id": 3, "price": 1.005, "userName": "c", "status": "open", "extra": 3, "deep": {"er": {"x": 7}}, "when": 1795250002}"#,
            r#"{"id": 4000000000000, "price": 4, "userName": "d", "status": "open", "deep": {"er": {"x": 8}}, "when": 1795250003}"#,
        ],
    );
    sql("CREATE TABLE sqlp_old (id UInt32, price Decimal(18, 2), `user name` LowCardinality(String), status Enum8('paid' = 1, 'open' = 2), x Nullable(UInt8),
         deep Tuple(er Tuple(x Int64)), `when` DateTime('UTC'), other String DEFAULT 'd', sums AggregateFunction(sum, UInt64), twice UInt64 MATERIALIZED id * 2)
         ENGINE = MergeTree ORDER BY id");
    let flags = ["--map", "userName=user name", "--map", "deep.er.x=x"];
    let said = printed("sql-existing", "sqlp_old", &flags);
    let head: Vec<&str> = said.lines().take_while(|line| line.starts_with("--")).collect();
    assert_eq!(
        head,
        [
            "-- A pipe from stream \"sql-existing\", made from 4 of its records.",
            "-- At-least-once: the table \"sqlp_old\" has no deduplication window. For exactly-once, first run",
            "-- ALTER TABLE `default`.`sqlp_old` MODIFY SETTING non_replicated_deduplication_window = 1000",
            "-- Records that do not fit go to \"sqlp_old_errors\" instead.",
            "-- Fields without a column are not kept. To keep them, first run ALTER TABLE `default`.`sqlp_old` ADD COLUMN rest Map(String, String) COMMENT 'fields without a column of their own, as JSON'",
            "-- The column \"other\" has no field in the sample: it gets its default.",
            "-- The column \"sums\" is left out: AggregateFunction(sum, UInt64) cannot be made from JSON.",
            "-- The field \"extra\" has no column and is not loaded: ADD COLUMN `extra` Nullable(Int64) would hold it.",
            "-- Values of \"id\" in the sample that do not fit the column \"id\" UInt32: 1, such as \"4000000000000\".",
            "-- Values of \"price\" in the sample that do not fit the column \"price\" Decimal(18, 2): 1, such as \"1.005\".",
            "-- Values of \"status\" in the sample that do not fit the column \"status\" Enum8('paid' = 1, 'open' = 2): 1, such as \"\\\"lost\\\"\".",
        ]
    );
    assert!(!said.contains("CREATE TABLE `default`.`sqlp_old`\n"), "{said}");
    run_script(&said);
    wait_for_rows("sqlp_old", 1);
    wait_for_rows("sqlp_old_errors", 3);
    let row = sql("SELECT id, price, `user name`, status, x, deep.er.x, `when`, other, twice FROM sqlp_old");
    assert_eq!(row, "1\t12.5\ta\tpaid\t5\t5\t2026-11-21 08:33:20\td\t2\n");
    let reasons = sql("SELECT reason FROM sqlp_old_errors ORDER BY toUInt256(_sequence_number)");
    assert_eq!(reasons, "does not fit: status\ndoes not fit: price\ndoes not fit: id\n");
    sql("DROP TABLE sqlp_old_pipe");
    for (window, guarantee) in [("0", "-- At-least-once: the table"), ("1000", "-- Exactly-once: see")] {
        sql(&format!("ALTER TABLE sqlp_old MODIFY SETTING non_replicated_deduplication_window = {window}"));
        assert!(printed("sql-existing", "sqlp_old", &flags).contains(guarantee), "{window}");
    }
    // Without the errors table, two batches of equal rows could not be told apart.
    let plain = printed("sql-existing", "sqlp_old", &["--no-errors"]);
    assert!(plain.contains("lacks _shard_id, _sequence_number or _sub_sequence_number"), "{plain}");
}

fn a_dry_run_shows_rows_and_changes_nothing() {
    let mut records: Vec<String> = (0..30).map(|n| format!("{{\"n\": {n}, \"s\": \"it's \\u00fc {n}\"}}")).collect();
    records[27] = "garbage".into();
    stream_of("sql-dry", &records.iter().map(String::as_str).collect::<Vec<_>>());
    let said = printed("sql-dry", "sqlp_dry", &["--dry-run", "--no-errors"]);
    assert_eq!(said.matches("Row ").count(), 10, "{said}");
    assert!(said.contains("-- n:                    29\n-- s:                    it's ü 29"), "{said}");
    assert!(!said.contains("it's ü 19\n"), "{said}");
    let said = printed("sql-dry", "sqlp_dry", &["--dry-run"]);
    assert_eq!(said.matches("Row ").count(), 10, "{said}");
    assert!(said.contains("-- reason:               no valid JSON\n-- raw_message:          garbage"), "{said}");
    assert_eq!(tables("sqlp_dry%"), "");
}

fn with_a_token_the_view_holds_no_secret() {
    stream_of("sql-token", &PEOPLE);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "a-very-secret-token").expect("a token");
    let said = printed("sql-token", "sqlp_token", &["--token-file", file.path().to_str().expect("a path")]);
    assert!(!said.contains("a-very-secret-token"), "{said}");
    let port = bridge().address().rsplit(':').next().expect("a port");
    let url = format!("http://localhost:{port}/v1/pipes/sqlp_token/next?stream=sql-token&view=default.sqlp_token_pipe");
    assert!(said.contains(&format!("FROM url(kinesis_bridge, url = '{url}')\n")), "{said}");
}

/// Consecutive objects, arrays, and a byte order mark, in the sample and after it.
fn several_documents_in_a_record_are_noticed() {
    stream_of(
        "sql-items",
        &["[{\"id\": 1, \"s\": \"a\"}, {\"id\": 2}]", "\u{feff}{\"id\": 3}{\"id\": 4}", "{\n\"id\": 5\n}"],
    );
    let said = printed("sql-items", "sqlp_items", &["--apply"]);
    assert!(
        said.contains("-- A record holds several JSON objects, or an array: split=json makes a row of each."),
        "{said}"
    );
    assert!(said.contains("&split=json"), "{said}");
    wait_for_rows("sqlp_items", 5);
    super::put("sql-items", [b"[{\"id\": 6}] {\"id\": 7}".to_vec()]);
    wait_for_rows("sqlp_items", 7);
    assert_eq!(sql("SELECT groupArray(id) FROM (SELECT id FROM sqlp_items ORDER BY id)"), "[1,2,3,4,5,6,7]\n");
    sql("DROP TABLE sqlp_items_pipe");
}
