//! `sql dynamodb --export` with hostile names: of objects in the bucket, in manifests, in items.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use super::dynamodb::{KEYS, NEW, item};
use super::{ATTACK, BREAKS, CLOSERS, bridge, just_these, names, plain, statements, victim, victim_lives};
use crate::common::wait_until;
use crate::dynamodb::export::{Changed, Export, put, url_of};
use crate::dynamodb::items::key_of;
use crate::dynamodb::{Table, client, compare, create_table, enable_streaming, ministack, put_items, run};
use crate::world::{block_on, create_stream, now_ms, sql};

const NAME: &str = "sql_hostile_export";
const TARGET: &str = "hostile.exported";
const BUCKET: &str = "sql-hostile-export";
/// Far longer than anything takes.
const DEADLINE: Duration = Duration::from_secs(90);
const SECOND: i64 = 1_000_000;
/// What ClickHouse cannot read in the name of an object.
const UNREADABLE: [char; 7] = ['*', '?', '{', '}', ',', '\n', '\0'];

fn made(flags: &[&str]) -> Output {
    let arguments = ["sql", "dynamodb", "--listen", bridge().address()];
    let what = ["--table", NAME, "--stream", NAME, "--target", TARGET];
    run(&[], &[&arguments[..], &what, flags].concat())
}

#[track_caller]
fn printed(flags: &[&str]) -> String {
    let output = made(flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A part of an object's name that contains each of these that ClickHouse can read: no patterns,
/// and no line breaks, at which it truncates the name.
fn hostile(ends: &[&str]) -> String {
    let allowed = ends.iter().filter(|end| !end.contains(UNREADABLE));
    allowed.map(|end| format!("x{};{ATTACK};--", end.replace('/', ""))).collect()
}

/// Exports of the table whose folders and files have such names.
fn export<'a>(table: &'a Table, prefix: &'a str, id: &'a str) -> Export<'a> {
    Export { table, bucket: BUCKET, prefix, id, files: 2 }
}

#[test]
fn names_in_exports_are_never_statements() {
    victim();
    let functions = sql::functions();
    functions.iter().for_each(|statement| drop(sql(statement)));
    let functions: Vec<&str> = functions.iter().map(|statement| statement.trim_end_matches(';')).collect();
    let names = names();
    let (first, later) = names.split_at(names.len() / 2);
    let table = create_table(NAME, KEYS);
    create_stream(NAME, 1);
    enable_streaming(NAME, NAME, true);
    ministack().create_bucket(BUCKET).expect("a bucket");
    let (prefix, id) = (hostile(&BREAKS), hostile(&CLOSERS));
    let at = now_ms() * 1_000 + SECOND;
    let (old, new) = (item(&names[0], first), item(&names[1], later));
    let full = export(&table, &prefix, &id).full([&old], at, true);
    let flags = ["--export", &full];
    let loaded = [&NEW[..], &["INSERT INTO"]].concat();
    just_these(&printed(&flags), &loaded, &functions);
    just_these(&printed(&[&flags[..], &["--dry-run"]].concat()), &[], &[]);
    put_items(NAME, [&old]);
    printed(&[&flags[..], &["--apply"]].concat());
    equal(1);

    // On top of it, with attributes added later, one deleted item and one new item.
    let changes = [
        Changed { micros: at + 1, old: Some(old.clone()), new: None },
        Changed { micros: at + 2, old: None, new: Some(new.clone()) },
    ];
    let incremental = export(&table, &id, &prefix).incremental(&changes, at, at + SECOND);
    let both = ["--export", &full, "--export", &incremental];
    let again = printed(&both);
    plain(&again);
    let begins: Vec<String> =
        statements(&again).iter().map(|s| s.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = ["ALTER TABLE", "ALTER TABLE", "CREATE OR", "INSERT INTO", "INSERT INTO", "INSERT INTO"];
    assert_eq!(begins, expected, "{again}");
    printed(&[&both[..], &["--apply"]].concat());
    let key = key_of(KEYS, &old).into_iter().collect();
    block_on(client().delete_item().table_name(NAME).set_key(Some(key)).send()).expect("a deletion");
    put_items(NAME, [&new]);
    equal(1);
    sql("DROP TABLE hostile.exported_pipe");
    refusals(&table, at);
    victim_lives();
}

#[track_caller]
fn equal(items: usize) {
    let expected = (true, format!("{items} items, 0 missing, 0 extra, 0 different, 0 twice\n"));
    wait_until(DEADLINE, || compare(NAME, TARGET) == expected, || compare(NAME, TARGET).1);
    victim_lives();
}

/// The message quotes what it refuses in a manifest; it must not move the cursor either.
fn refusals(table: &Table, at: i64) {
    let attack = format!("\n\r\u{1b}[2K\u{2028}\0`'\"\\*/;\n{ATTACK};\n--");
    let summary = |changed: &str, value: Value| {
        let mut summary = json!({
            "tableArn": table.arn, "tableId": table.id, "outputFormat": "DYNAMODB_JSON", "itemCount": 1,
            "exportTime": chrono::DateTime::from_timestamp_micros(at).expect("a time").to_rfc3339(),
            "manifestFilesS3Key": "AWSDynamoDB/odd/manifest-files.json",
        });
        summary[changed] = value;
        put(BUCKET, "AWSDynamoDB/odd/manifest-summary.json", summary.to_string().as_bytes());
    };
    let refused = |what: &str, part: &str| {
        let output = made(&["--export", &url_of(BUCKET, "AWSDynamoDB/odd"), "--apply"]);
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{what}: {text}");
        let hidden = |c: char| c != '\n' && (c.is_control() || c == '\u{2028}');
        assert!(text.contains(part) && !text.contains(hidden), "{what}: {text:?}");
        assert!(text.starts_with("error: ") && text.lines().count() == 1, "{what}: {text}");
        victim_lives();
    };
    let files = |key: &Value| {
        let line = json!({"itemCount": 1, "dataFileS3Key": key}).to_string();
        put(BUCKET, "AWSDynamoDB/odd/manifest-files.json", format!("{line}\n").as_bytes());
    };
    files(&json!("AWSDynamoDB/odd/data/none.json.gz"));
    for (field, part) in [
        ("tableArn", "is one of "),
        ("tableId", "an earlier table"),
        ("outputFormat", "is in the format"),
        ("exportTime", "no valid time"),
        ("manifestFilesS3Key", "its folder in the bucket is "),
        ("itemCount", "cannot be parsed"),
    ] {
        summary(field, attack.as_str().into());
        // Before the end of the manifest's key.
        if field == "manifestFilesS3Key" {
            summary(field, format!("{attack}/manifest-files.json").into());
        }
        refused(field, part);
    }
    summary("itemCount", 1.into());
    for (key, part) in [
        (json!(attack.replace('\n', "")), "is a pattern to ClickHouse"),
        (json!(attack), "truncates at the line break"),
        (json!([attack]), "cannot be parsed"),
    ] {
        files(&key);
        refused(&key.to_string(), part);
    }
}
