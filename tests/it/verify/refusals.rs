//! What cannot be compared is reported in one sentence.

use stack::{REGION, TEST_PASSWORD, WEAK_USER};

use super::{command, layout, refused, run};
use crate::dynamodb::items::{Item, Key};
use crate::dynamodb::{create_table, ministack, put_items};
use crate::proxy::{Fault, Proxy};
use crate::world::{sql, stack};

const NAME: &str = "verify_refused";

/// The table in DynamoDB, once.
fn table() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        create_table(NAME, &[("id", Key::S)]);
        layout::create(NAME, &[("id", Key::S)]);
        let item: Item = [("id".to_owned(), aws_sdk_dynamodb::types::AttributeValue::S("a".into()))].into();
        put_items(NAME, &[item]);
    });
}

fn with(changes: &[(&str, &str)]) -> String {
    refused(&command(changes, NAME, &["--timeout", "5s"]).output().expect("an end"))
}

#[test]
fn tables_that_are_not_there_or_not_of_this_layout() {
    table();
    let dynamodb = refused(&run("verify_nowhere", &[]));
    assert!(
        dynamodb.starts_with(&format!(
            "error: DynamoDB table 'verify_nowhere' in region {REGION} does not exist: check the name"
        )) && dynamodb.lines().count() == 1,
        "{dynamodb}"
    );
    let server = stack().clickhouse.url();
    let target = |target: &str| refused(&run(NAME, &["--target", target]));
    assert_eq!(
        target("default.verify_absent"),
        format!(
            "error: ClickHouse at {server} has no table `default`.`verify_absent`: name it with --target, or create it with `sql dynamodb`\n"
        )
    );
    assert_eq!(
        target("a.b.c"),
        "error: --target is 'a.b.c': write <database>.<table>, with backquotes around a part that is not a plain identifier\n"
    );
    let columns = "rest Map(String, String), version Int64, is_deleted UInt8";
    for (name, columns, engine, sentence) in [
        (
            "verify_engine",
            format!("id String, {columns}"),
            "ReplacingMergeTree(version) ORDER BY id",
            "`default`.`verify_engine` is not a table of change capture: its engine is ReplacingMergeTree(version), not ReplacingMergeTree(version, \
             is_deleted); create the target with `sql dynamodb`",
        ),
        (
            "verify_memory",
            format!("id String, {columns}"),
            "Memory",
            "`default`.`verify_memory` is not a table of change capture: its engine is Memory, not ReplacingMergeTree(version, is_deleted); create the target with `sql dynamodb`",
        ),
        (
            "verify_no_rest",
            "id String, version Int64, is_deleted UInt8".into(),
            "ReplacingMergeTree(version, is_deleted) ORDER BY id",
            "`default`.`verify_no_rest` has no column rest for the attributes that no other column holds exactly: create the target with `sql dynamodb`",
        ),
        (
            "verify_other_key",
            format!("id String, at Int64, {columns}"),
            "ReplacingMergeTree(version, is_deleted) ORDER BY (id, at)",
            "`default`.`verify_other_key` is sorted by (id, at), but the key of DynamoDB table 'verify_refused' is (id): its key schema was changed, or \
             this is the target of another table; name the right one with --target, or create a new one with `sql dynamodb`",
        ),
        (
            "verify_expression",
            format!("id String, {columns}"),
            "ReplacingMergeTree(version, is_deleted) ORDER BY lower(id)",
            "`default`.`verify_expression` is sorted by (lower(id)), but the key of DynamoDB table 'verify_refused' is (id): its key schema was changed, \
             or this is the target of another table; name the right one with --target, or create a new one with `sql dynamodb`",
        ),
        (
            "verify_type",
            format!("id String, seen DateTime, {columns}"),
            "ReplacingMergeTree(version, is_deleted) ORDER BY id",
            "column `seen` of `default`.`verify_type` has the type DateTime, which cannot hold a DynamoDB attribute: make it a MATERIALIZED or ALIAS column, or drop it",
        ),
    ] {
        sql(&format!("CREATE TABLE {name} ({columns}) ENGINE = {engine}"));
        assert_eq!(target(name), format!("error: {sentence}\n"));
    }
    // Computed columns are not attributes.
    sql("ALTER TABLE verify_type MODIFY COLUMN seen DateTime MATERIALIZED now()");
    sql("INSERT INTO verify_type (id, version) VALUES ('a', 1)");
    super::equal(&run(NAME, &["--target", "verify_type"]));
}

#[test]
fn what_dynamodb_refuses() {
    table();
    let place = format!("DynamoDB table '{NAME}' in region {REGION}");
    assert_eq!(
        with(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("HOME", "/nowhere")]),
        format!(
            "error: there are no AWS credentials for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role\n"
        )
    );
    assert_eq!(
        with(&[("AWS_REGION", ""), ("HOME", "/nowhere")]),
        "error: no AWS region is configured: set AWS_REGION, or region in the profile that AWS_PROFILE names\n"
    );
    for denied in ["DescribeTable", "Scan", "BatchGetItem"] {
        let script = move |call: &crate::proxy::Call<'_>| {
            if call.operation == denied { Fault::Aws(400, "AccessDeniedException") } else { Fault::None }
        };
        let proxy = Proxy::start(&ministack().endpoint(), script);
        assert_eq!(
            with(&[("AWS_ENDPOINT_URL_DYNAMODB", &proxy.endpoint())]),
            format!(
                "error: AWS does not allow {denied} on {place} (AccessDeniedException): the policy must allow dynamodb:{denied} (said by the test)\n"
            )
        );
    }
    let away = with(&[("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")]);
    assert_eq!(
        away,
        format!(
            "error: DescribeTable on {place} did not reach DynamoDB at 127.0.0.1:9: Connection refused (os error 111)\n"
        )
    );
}

#[test]
fn a_table_that_throttles_is_waited_for() {
    table();
    let script = move |call: &crate::proxy::Call<'_>| {
        if call.number <= 2 { Fault::Aws(400, "ProvisionedThroughputExceededException") } else { Fault::None }
    };
    let proxy = Proxy::start(&ministack().endpoint(), script);
    let environment = [("AWS_ENDPOINT_URL_DYNAMODB", &*proxy.endpoint())];
    let output = command(&environment, NAME, &["--timeout", "5s", "--segments", "1"]).output().expect("an end");
    assert!(super::unequal(&output).starts_with("missing in ClickHouse: 1\n"));
}

/// Keys that expire while tables are compared, and are replaced a while later.
#[test]
fn keys_that_are_replaced_meanwhile_are_read_again() {
    table();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_owned();
    let profile = |key: &str| format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    std::fs::write(&path, profile("AKIAOLD")).expect("a profile");
    let new = path.clone();
    let proxy = Proxy::start(&ministack().endpoint(), move |call| match (call.operation, call.key()) {
        ("Scan", "AKIAOLD") => {
            std::fs::write(&new, profile("AKIANEW")).expect("a profile");
            Fault::Aws(400, "ExpiredTokenException")
        }
        _ => Fault::None,
    });
    let environment = [
        ("AWS_ENDPOINT_URL_DYNAMODB", &*proxy.endpoint()),
        ("AWS_SHARED_CREDENTIALS_FILE", &path.display().to_string()),
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ];
    let output = command(&environment, NAME, &["--timeout", "5s", "--segments", "1"]).output().expect("an end");
    assert!(super::unequal(&output).starts_with("missing in ClickHouse: 1\n"));
    assert!(proxy.faults() > 0);
}

#[test]
fn what_clickhouse_refuses() {
    table();
    assert_eq!(
        with(&[("KINESIS_BRIDGE_CLICKHOUSE_URL", "http://127.0.0.1:1")]),
        "error: ClickHouse at http://127.0.0.1:1 does not answer: connection refused; is it running, and is --clickhouse-url its HTTP port?\n"
    );
    sql("CREATE DATABASE IF NOT EXISTS verify_hidden");
    sql("CREATE TABLE IF NOT EXISTS verify_hidden.t (id String) ENGINE = MergeTree ORDER BY id");
    let weak = [("KINESIS_BRIDGE_CLICKHOUSE_USER", WEAK_USER), ("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", TEST_PASSWORD)];
    let hidden = refused(&command(&weak, NAME, &["--target", "verify_hidden.t"]).output().expect("an end"));
    assert!(hidden.starts_with("error: ClickHouse user 'weak' lacks a required privilege: "), "{hidden}");
    // SELECT on the target is all it needs.
    let output = command(&weak, NAME, &["--timeout", "5s"]).output().expect("an end");
    assert!(super::unequal(&output).starts_with("missing in ClickHouse: 1\n"));
}

#[test]
fn flags_are_checked() {
    for (flags, said) in [
        (&["--segments", "0"][..], "0 is not in 1..=256"),
        (&["--rcu", "none"], "invalid digit"),
        (&["--timeout", "1s"], "it must be a duration from 5s to 1day, such as 30s or 2m"),
    ] {
        let output = run(NAME, flags);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(said), "{told}");
    }
}
