//! What cannot be done is reported, with what to do, and nothing is left half done.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use super::{bridge, captured, now, printed, put_event, refused, run, run_in, send, succeeded};
use crate::dynamodb::export::{Export, put};
use crate::dynamodb::items::{Item, Key};
use crate::dynamodb::{Table, create_table, delete_table, enable_streaming, ministack};
use crate::engines::on_each_engine;
use crate::world::{create_stream, sql};

on_each_engine!(
    wrong_flags_are_told_before_anything_is_asked,
    without_dynamodb_the_keys_must_be_named,
    exports_that_are_none_or_of_something_else,
    a_clickhouse_that_is_away_or_has_something_there,
);

const SECOND: i64 = 1_000_000;

fn item(id: &str) -> Item {
    [("id".to_owned(), AttributeValue::S(id.into()))].into()
}

fn export<'a>(table: &'a Table, bucket: &'a str, id: &'a str) -> Export<'a> {
    Export { table, bucket, prefix: "p", id, files: 1 }
}

fn wrong_flags_are_told_before_anything_is_asked() {
    let environment = [
        ("KINESIS_BRIDGE_CLICKHOUSE_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1"),
    ];
    let base = ["--stream", "s", "--table", "t"];
    for (flags, expected) in [
        (&["--target", "a.b.c"][..], "--target is 'a.b.c': write <database>.<table>"),
        (&["--mode", "fast"], "mode='fast' is refused: it must be polling or efo"),
        (&["--start", "soon"], "start='soon' is refused"),
        (&["--pipe", "a/b"], "pipe"),
        (&["--key", "id"], "--key is 'id': write an attribute, a colon and S, N or B, as in --key id:S"),
        (&["--key", ":S"], "--key is ':S'"),
        (&["--key", "a:S", "--key", "b:S", "--key", "c:S"], "--key is given more than twice"),
    ] {
        let said = refused(&run_in(&environment, &[&base[..], flags].concat()));
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
    let both = run_in(&[], &[&base[..], &["--apply", "--dry-run"]].concat());
    assert_eq!(both.status.code(), Some(2));
}

fn without_dynamodb_the_keys_must_be_named() {
    captured("sqld_away", &[("a:b", Key::S), ("at", Key::N)]);
    let away = [("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")];
    let flags = ["--listen", bridge().address(), "--table", "sqld_away", "--stream", "sqld_away"];
    let said = refused(&run_in(&away, &flags));
    assert!(
        said.starts_with("DescribeTable on DynamoDB table 'sqld_away' in region us-east-1 did not reach DynamoDB at ")
            && said
                .ends_with("; if DynamoDB is not accessible, name the keys with --key NAME:TYPE (TYPE is S, N or B)"),
        "{said}"
    );
    let named = [&flags[..], &["--key", "a:b:S", "--key", "at:N"]].concat();
    let script = succeeded(run_in(&away, &named));
    assert!(
        script.contains(
            "-- DynamoDB is not accessible, so keys, streaming and the table's identity were not checked: DescribeTable"
        ),
        "{script}"
    );
    assert!(
        script.contains("ORDER BY (`a:b`, `at`)\nCOMMENT 'DynamoDB table sqld_away';")
            && !script.contains("_version >="),
        "{script}"
    );
    // With both, they must agree.
    let script = printed("sqld_away", &["--key", "a:b:S", "--key", "at:N"]);
    assert!(script.contains("_version >= "), "{script}");
    assert_eq!(
        refused(&run("sqld_away", &["--key", "at:N", "--key", "a:b:S"])),
        "--key says at:N, a:b:S, but the keys of DynamoDB table \"sqld_away\" are a:b:S, at:N"
    );
    let missing = refused(&run_in(&[], &["--table", "sqld_nowhere", "--stream", "sqld_away"]));
    assert!(missing.starts_with("DynamoDB table 'sqld_nowhere' in region us-east-1 does not exist: "), "{missing}");
    let missing = refused(&run_in(&[], &["--table", "sqld_away", "--stream", "sqld-nowhere"]));
    assert!(missing.contains("'sqld-nowhere'"), "{missing}");
    captured("sqld_reserved", &[("version_attribute", Key::S)]);
    assert_eq!(
        refused(&run("sqld_reserved", &[])),
        "the key attribute \"version_attribute\" cannot be a column: its name is reserved, or not a valid column name"
    );
}

fn exports_that_are_none_or_of_something_else() {
    let table = captured("sqld_refuse", &[("id", Key::S)]);
    let bucket = "sqld-refuse";
    let root = ministack().create_bucket(bucket).expect("a bucket");
    send("sqld_refuse", [put_event(&table, &item("a"), now())]);
    let at = now() + SECOND;
    let said = |urls: &[&str]| {
        let flags: Vec<&str> = urls.iter().flat_map(|url| ["--export", url]).collect();
        refused(&run("sqld_refuse", &[&flags[..], &["--apply"]].concat()))
    };
    let started = export(&table, bucket, "01-started").started();
    assert_eq!(
        said(&[&started]),
        format!(
            "the export at {started} is not finished, it has no manifest-summary.json yet: run this again when DynamoDB reports it as COMPLETED"
        )
    );
    assert_eq!(
        said(&[&format!("{root}/nothing/")]),
        format!(
            "there is no export at {root}/nothing: the URL must be that of the folder named after the export, such as https://BUCKET.s3.REGION.amazonaws.com/PREFIX/AWSDynamoDB/ID"
        )
    );
    let refusing = said(&["http://127.0.0.1:1/bucket/p"]);
    assert!(
        refusing.starts_with("ClickHouse cannot read http://127.0.0.1:1/bucket/p/manifest-summary.json: "),
        "{refusing}"
    );
    let full = export(&table, bucket, "02-full").full([&item("a")], at, true);
    // The same with other text in its summary.
    let with = |id: &'static str, field: &str, value: Value| {
        let url = export(&table, bucket, id).full([&item("a")], at, true);
        let text =
            sql(&format!("SELECT text FROM s3('{url}/manifest-summary.json', 'RawBLOB', 'text String') FORMAT TSVRaw"));
        let mut summary: Value = serde_json::from_str(&text).expect("a summary");
        summary[field] = value;
        put(bucket, &format!("p/AWSDynamoDB/{id}/manifest-summary.json"), summary.to_string().as_bytes());
        url
    };
    let ion = with("03-ion", "outputFormat", "ION".into());
    assert_eq!(
        said(&[&ion]),
        format!("the export at {ion} is in the format ION: export again in the format DynamoDB JSON")
    );
    let timeless = with("04-timeless", "exportTime", Value::Null);
    assert_eq!(said(&[&timeless]), format!("manifest-summary.json of the export at {timeless} has no valid time"));
    let moved = with("05-moved", "manifestFilesS3Key", "q/AWSDynamoDB/05-moved/manifest-files.json".into());
    assert_eq!(
        said(&[&moved]),
        format!(
            "the export at {moved} says that its folder in the bucket is q/AWSDynamoDB/05-moved: give the URL to which DynamoDB exported"
        )
    );
    put(bucket, "p/AWSDynamoDB/06-broken/manifest-summary.json", b"{\"tableArn\":");
    let broken = said(&[&format!("{root}/p/AWSDynamoDB/06-broken")]);
    assert!(
        broken.starts_with("manifest-summary.json of the export at ") && broken.contains(" cannot be parsed: "),
        "{broken}"
    );
    let other = create_table("sqld_refuse_other", &[("id", Key::S)]);
    let other = export(&other, bucket, "07-other").full([&item("a")], at, true);
    assert_eq!(
        said(&[&other]),
        format!(
            "the export at {other} is one of arn:aws:dynamodb:us-east-1:000000000000:table/sqld_refuse_other, not of DynamoDB table \"sqld_refuse\""
        )
    );
    let earlier = with("08-earlier", "tableId", "an earlier id".into());
    assert_eq!(
        said(&[&earlier]),
        format!(
            "the export at {earlier} is one of an earlier table \"sqld_refuse\" (its id was an earlier id, it is {} now): export again",
            table.id
        )
    );

    // Their order.
    let incremental = |id, from, to| export(&table, bucket, id).incremental(&[], from, to);
    let hole = incremental("09-hole", at + SECOND, at + 2 * SECOND);
    let hole = said(&[&hole, &full]);
    assert!(
        hole.starts_with(&format!("between the exports at {full} and "))
            && hole.contains(" are missing: also give, or make, the incremental export"),
        "{hole}"
    );
    let inside = incremental("10-inside", at - SECOND, at);
    let inside = said(&[&full, &inside]);
    assert!(inside.contains(" has everything up to ") && inside.ends_with(": leave it out"), "{inside}");
    let second = export(&table, bucket, "11-full").full([&item("a")], at, true);
    let twice = said(&[&full, &second]);
    assert!(twice.ends_with(" are both full exports: give one, and the incremental exports after it"), "{twice}");
    let alone = incremental("12-alone", at, at + SECOND);
    let first = said(&[&alone]);
    assert!(first.contains(" has only the changes from ") && first.ends_with(": also give the full export"), "{first}");

    // Their order relative to the stream.
    let late = refused(&run("sqld_refuse", &["--export", &full, "--start", "latest"]));
    assert!(late.starts_with("--start latest leaves out changes after the export of "), "{late}");
    let late = refused(&run("sqld_refuse", &["--export", &full, "--start", "2100-01-01T00:00:00Z"]));
    assert!(late.starts_with("--start 2100-01-01T00:00:00Z leaves out changes after the export of "), "{late}");
    let old = export(&table, bucket, "13-old").full([&item("a")], now() - 3_600 * SECOND, true);
    let old = said(&[&old]);
    assert!(
        old.starts_with("stream \"sqld_refuse\" was created at ")
            && old.ends_with(" so changes between them are lost: export again"),
        "{old}"
    );
    create_stream("sqld_refuse_stream", 1);
    let flags = ["--table", "sqld_refuse", "--stream", "sqld_refuse_stream", "--export", &full];
    assert_eq!(
        refused(&run_in(&[], &flags)),
        "the changes of DynamoDB table \"sqld_refuse\" do not go to stream \"sqld_refuse_stream\": enable it first, then export again, so that no change falls \
         between export and stream"
    );
    assert_eq!(sql("SELECT count() FROM system.tables WHERE name LIKE 'sqld_refuse%'"), "0\n");

    // What is only noted.
    let script = printed("sqld_refuse", &["--export", &full]);
    assert!(!script.contains("could not be proved") && !script.contains("milliseconds"), "{script}");
    enable_streaming("sqld_refuse", "sqld_refuse_stream", false);
    let at = now();
    let unproved = export(&table, bucket, "14-unproved").full([&item("a")], at, true);
    let flags = ["--table", "sqld_refuse", "--stream", "sqld_refuse_stream", "--export", &unproved];
    let script = succeeded(run_in(&[], &flags));
    for note in [
        "-- It could not be proved that changes of table \"sqld_refuse\" went to stream \"sqld_refuse_stream\" before the export of ",
        "-- Changes carry milliseconds, so two changes of an item within the same millisecond have equal versions",
        "-- So there",
        "UPDATE",
    ] {
        assert_eq!(script.contains(note), !matches!(note, "-- So there" | "UPDATE"), "{note}: {script}");
    }
    delete_table("sqld_refuse_other");
}

fn a_clickhouse_that_is_away_or_has_something_there() {
    captured("sqld_there", &[("id", Key::S)]);
    let flags = ["--table", "sqld_there", "--stream", "sqld_there"];
    let away = refused(&run_in(&[("KINESIS_BRIDGE_CLICKHOUSE_URL", "http://127.0.0.1:1")], &flags));
    assert!(away.starts_with("ClickHouse at http://127.0.0.1:1 does not answer: connection refused"), "{away}");
    sql("CREATE TABLE sqld_there_landing (x Int64) ENGINE = Null");
    assert_eq!(
        refused(&run("sqld_there", &["--apply"])),
        "\"sqld_there_landing\" exists in database \"default\" already, without the target that belongs to it, so nothing was changed: drop it, or choose \
         another --target"
    );
    assert_eq!(sql("SELECT name FROM system.tables WHERE name LIKE 'sqld_there%'"), "sqld_there_landing\n");
    for (create, why) in [
        (
            "(id String, rest Map(String, String), version Int64, is_deleted UInt8, other String) ENGINE = MergeTree ORDER BY (other, id)",
            "it is sorted by \"id\", \"other\", and the keys are \"id\"",
        ),
        ("(id Int32) ENGINE = MergeTree ORDER BY id", "its column \"id\" is Int32"),
        ("(other String) ENGINE = MergeTree ORDER BY other", "its column \"id\" is not there"),
        ("(id String) ENGINE = MergeTree ORDER BY id", "it has no column version Int64"),
        (
            "(id String, rest Map(String, String), version Int64, is_deleted UInt8) ENGINE = MergeTree ORDER BY id",
            "it is a MergeTree, not a ReplacingMergeTree(version, is_deleted)",
        ),
    ] {
        sql(&format!("CREATE OR REPLACE TABLE sqld_there {create}"));
        assert_eq!(
            refused(&run("sqld_there", &["--apply"])),
            format!(
                "\"default.sqld_there\" is not a target for DynamoDB table \"sqld_there\": {why}. If its keys have changed, choose another --target"
            )
        );
    }
    sql("DROP TABLE sqld_there");
}
