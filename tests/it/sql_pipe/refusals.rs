//! What cannot be done is reported, with what to do, and nothing is left half done.

use stack::{TEST_PASSWORD, WEAK_USER};

use super::{refused, run, run_in, stream_of};
use crate::engines::on_each_engine;
use crate::world::{create_stream, sql, stack};

on_each_engine!(
    streams_without_records_and_without_json,
    a_clickhouse_that_is_away_or_refuses,
    what_exists_is_not_touched,
    wrong_flags_are_told_before_anything_is_asked,
    fields_and_columns_that_are_not_there,
    a_pipe_that_feeds_another_table,
);

fn streams_without_records_and_without_json() {
    create_stream("sql-empty", 1);
    assert_eq!(
        refused(&run("sql-empty", "sqlp_none", &[])),
        "error: stream \"sql-empty\" has no records to derive a table from: write some, or run this again once there are some\n"
    );
    let missing = refused(&run("sql-missing", "sqlp_none", &[]));
    assert!(
        missing.starts_with("error: ") && missing.contains("'sql-missing'") && missing.lines().count() == 1,
        "{missing}"
    );
    stream_of("sql-no-json", &["text", "[1]", "\u{1f980}"]);
    assert_eq!(
        refused(&run("sql-no-json", "sqlp_none", &["--apply"])),
        "error: none of the 3 newest records of stream \"sql-no-json\" is a JSON object, so there are no fields to derive columns from: 2 of 3 records are \
         plain text: land them raw, see \"Raw landing\" in docs/sql.md; 1 of 3 records are JSON arrays: split=json in the URL of the pipe turns each element into a row\n"
    );
    assert_eq!(sql("SELECT count() FROM system.tables WHERE name LIKE 'sqlp_none%'"), "0\n");
}

fn a_clickhouse_that_is_away_or_refuses() {
    stream_of("sql-refused", &[r#"{"a": 1}"#]);
    let flags = ["--stream", "sql-refused", "--table", "sqlp_refused"];
    let away = refused(&run_in(&[("KINESIS_BRIDGE_CLICKHOUSE_URL", "http://127.0.0.1:1")], &flags));
    assert_eq!(
        away,
        "error: ClickHouse at http://127.0.0.1:1 does not answer: connection refused; is it running, and is --clickhouse-url its HTTP port?\n"
    );
    let weak = [("KINESIS_BRIDGE_CLICKHOUSE_USER", WEAK_USER), ("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", TEST_PASSWORD)];
    // It may look, and so it may print; it may not create.
    assert!(run_in(&weak, &flags).status.success());
    let forbidden = refused(&run_in(&weak, &[&flags[..], &["--apply"]].concat()));
    assert!(
        forbidden.starts_with("error: ClickHouse user 'weak' lacks a required privilege: weak: Not enough privileges.")
            && forbidden.ends_with(
                "; this was in CREATE TABLE `default`.`sqlp_refused`; 0 of 6 statements had run before it\n"
            ),
        "{forbidden}"
    );
    sql("CREATE DATABASE IF NOT EXISTS sqlp_secret");
    sql("CREATE TABLE IF NOT EXISTS sqlp_secret.t (a Int64) ENGINE = MergeTree ORDER BY a");
    let hidden = refused(&run_in(&weak, &["--stream", "sql-refused", "--table", "sqlp_secret.t"]));
    assert!(hidden.starts_with("error: ClickHouse user 'weak' lacks a required privilege: "), "{hidden}");
    let server = stack().clickhouse.url();
    let absent = refused(&run("sql-refused", "sqlp_absent.t", &["--apply"]));
    assert!(
        absent.starts_with(&format!("error: ClickHouse at {server} reports")) && absent.contains("sqlp_absent"),
        "{absent}"
    );
}

fn what_exists_is_not_touched() {
    stream_of("sql-twice", &[r#"{"a": 1}"#]);
    sql("CREATE TABLE IF NOT EXISTS sqlp_twice_landing (x Int64) ENGINE = Null");
    assert_eq!(
        refused(&run("sql-twice", "sqlp_twice", &["--apply"])),
        "error: \"sqlp_twice_landing\" exists in database \"default\" already, so nothing was changed: drop it, or run without --apply to see the statements\n"
    );
    assert_eq!(sql("SELECT name FROM system.tables WHERE name LIKE 'sqlp_twice%'"), "sqlp_twice_landing\n");
}

fn wrong_flags_are_told_before_anything_is_asked() {
    let environment =
        [("KINESIS_BRIDGE_CLICKHOUSE_URL", "http://127.0.0.1:1"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
    let said = |flags: &[&str]| refused(&run_in(&environment, flags));
    let base = ["--stream", "s", "--table", "t"];
    for (flags, expected) in [
        (&["--stream", "s", "--table", "a.b.c"][..], "--table is 'a.b.c': write <database>.<table>"),
        (&["--stream", "s s", "--table", "t"], "stream"),
        (&[&base[..], &["--map", "a"]].concat(), "--map is 'a': write a field, an equals sign and a column"),
        (&[&base[..], &["--mode", "fast"]].concat(), "mode='fast' is refused: it must be polling or efo"),
        (
            &[&base[..], &["--order-by", "a\n;DROP TABLE t"]].concat(),
            "--order-by is \"a\\n;DROP TABLE t\": it must be one",
        ),
        (&[&base[..], &["--start", "soon"]].concat(), "start='soon' is refused"),
        (&[&base[..], &["--pipe", "a/b"]].concat(), "pipe"),
    ] {
        let said = said(flags);
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
    let both = run_in(&[], &[&base[..], &["--apply", "--dry-run"]].concat());
    assert_eq!(both.status.code(), Some(2));
}

fn fields_and_columns_that_are_not_there() {
    stream_of("sql-maps", &[r#"{"a": 1}"#]);
    let unknown = refused(&run("sql-maps", "sqlp_maps", &["--map", "b=c"]));
    assert_eq!(unknown, "error: --map names the field \"b\", which no record of the sample has; it has \"a\"\n");
    sql("CREATE TABLE IF NOT EXISTS sqlp_maps (z Int64) ENGINE = MergeTree ORDER BY z");
    let unknown = refused(&run("sql-maps", "sqlp_maps", &["--map", "a=c"]));
    assert_eq!(unknown, "error: --map names the column \"c\", which the table does not have; it has \"z\"\n");
    let nothing = refused(&run("sql-maps", "sqlp_maps", &[]));
    assert!(nothing.contains("no column of \"sqlp_maps\" has a field in the sample"), "{nothing}");
}

fn a_pipe_that_feeds_another_table() {
    stream_of("sql-fed", &[r#"{"a": 1}"#]);
    assert!(run("sql-fed", "sqlp_fed", &["--apply"]).status.success());
    // The same again is not a second view; with another table it is.
    assert!(run("sql-fed", "sqlp_fed", &[]).status.success());
    let why = refused(&run("sql-fed", "sqlp_fed_too", &["--pipe", "sqlp_fed", "--apply"]));
    for part in ["pipe 'sqlp_fed'", "default.sqlp_fed_pipe into default.sqlp_fed", "default.sqlp_fed_too_pipe", "split"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(sql("SELECT count() FROM system.tables WHERE name LIKE 'sqlp_fed_too%'"), "0\n");
    sql("DROP VIEW sqlp_fed_pipe");
}
