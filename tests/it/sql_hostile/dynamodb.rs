//! `sql dynamodb` and `dynamodb verify` with hostile attributes, keys and texts.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{bridge, just_these, names, plain, statements, victim, victim_lives};
use crate::dynamodb::events::{Change, Precision};
use crate::dynamodb::items::{Item, Key, KeySchema};
use crate::dynamodb::{create_table, enable_streaming, put_items, run};
use crate::world::{create_stream, put, sql, wait_until};

const NAME: &str = "sql_hostile_table";
const TARGET: &str = "hostile.items";
pub const KEYS: KeySchema = &[("k`'\"\\\u{2028}; DROP TABLE hostile_victim; --", Key::S), ("*/ ;\u{202e}", Key::S)];
/// Target, landing, errors, the two views, the view for readers, the pipe.
pub const NEW: [&str; 7] = [
    "CREATE TABLE",
    "CREATE TABLE",
    "CREATE TABLE",
    "CREATE MATERIALIZED",
    "CREATE MATERIALIZED",
    "CREATE OR",
    "CREATE MATERIALIZED",
];

#[track_caller]
fn printed(environment: &[(&str, &str)], flags: &[&str]) -> String {
    let arguments =
        ["sql", "dynamodb", "--listen", bridge().address(), "--table", NAME, "--stream", NAME, "--target", TARGET];
    let output = run(environment, &[&arguments, flags].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// An item with these names: as attributes and in maps, also in maps within lists, with texts that
/// are names.
pub fn item(key: &str, names: &[String]) -> Item {
    let number = |at: usize| AttributeValue::N(at.to_string());
    let nested = |of: AttributeValue| AttributeValue::M(names.iter().map(|name| (name.clone(), of.clone())).collect());
    // It would be too large if every name contained every name.
    let deep = |name: &String, at| AttributeValue::M([(name.clone(), nested(number(at)))].into());
    let value = |(at, name): (usize, &String)| match at % 5 {
        0 => AttributeValue::S(name.clone()),
        1 => nested(number(at)),
        2 => AttributeValue::Ss(vec![name.clone()]),
        3 => AttributeValue::L(vec![deep(name, at), AttributeValue::S(name.clone())]),
        _ => number(at),
    };
    let attributes = names.iter().enumerate().map(|entry| (entry.1.clone(), value(entry)));
    let keys = KEYS.iter().map(|(name, _)| ((*name).to_owned(), AttributeValue::S(key.into())));
    attributes.chain(keys).collect()
}

fn send(item: &Item) {
    let micros = chrono::Utc::now().timestamp_micros();
    let precision = Precision::Microsecond;
    let event = Change { table: NAME, keys: KEYS, old: None, new: Some(item), micros, precision, ttl: false }.event();
    put(NAME, [("key".to_owned(), event.into_bytes())]);
}

#[test]
fn names_in_items_are_never_statements() {
    victim();
    let names = names();
    let (first, later) = names.split_at(names.len() / 2);
    create_table(NAME, KEYS);
    create_stream(NAME, 1);
    enable_streaming(NAME, NAME, true);
    send(&item(&names[0], first));
    just_these(&printed(&[], &[]), &NEW, &[]);
    just_these(&printed(&[], &["--dry-run"]), &[], &[]);
    // If DynamoDB is not accessible, the error of the AWS SDK is in the head.
    let keys: Vec<String> = KEYS.iter().flat_map(|(name, _)| ["--key".to_owned(), format!("{name}:S")]).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let away = printed(&[("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")], &keys);
    assert!(away.contains("-- DynamoDB is not accessible"), "{away}");
    just_these(&away, &NEW, &[]);
    printed(&[], &["--apply"]);

    // Again, with attributes that were added later: columns are added, and views are replaced.
    put_items(NAME, [&item(&names[1], later)]);
    send(&item(&names[1], later));
    let again = printed(&[], &[]);
    plain(&again);
    let begins: Vec<String> =
        statements(&again).iter().map(|s| s.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(begins, ["ALTER TABLE", "ALTER TABLE", "CREATE OR"], "{again}");
    printed(&[], &["--apply"]);
    wait_until("two items", || sql("SELECT count() FROM hostile.items_final") == "2\n");
    victim_lives();

    // One item is missing in DynamoDB, and its row is older than the table; the other one differs.
    put_items(NAME, [&item(&names[1], first)]);
    sql("INSERT INTO hostile.items SELECT * REPLACE (1 AS version) FROM hostile.items");
    sql("ALTER TABLE hostile.items DELETE WHERE version > 1 SETTINGS mutations_sync = 1");
    let output = run(&[], &["dynamodb", "verify", "--table", NAME, "--target", TARGET, "--timeout", "5s"]);
    let report = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{report}");
    let hidden = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{202e}'));
    assert!(!report.contains(hidden), "{report:?}");
    let at = report.find("\nINSERT INTO ").expect(&report);
    assert_eq!(statements(&report[at..]).len(), 1, "{report}");
    let is_ours =
        |line: &str| line.starts_with(|c: char| c == ' ' || c.is_ascii_digit()) || line.contains("ClickHouse: ");
    report[..at].lines().skip(2).for_each(|line| {
        assert!(is_ours(line) || line.starts_with("different: ") || line.starts_with("the newest"), "{line}")
    });
    sql(report[at..].trim().trim_end_matches(';'));
    sql("DROP TABLE hostile.items_pipe");
    victim_lives();
}
