//! ClickHouse's guide for DynamoDB (`guide/dynamodb.md`): its SQL as printed, on an export and on a
//! pipe created by `sql pipe` the way the guide sets up its own.

use std::process::Command;

use stack::MiniStack;

use crate::world::{binary, bridge, create_stream, environment_with, put, sql, stack, wait_until};

const GUIDE: &str = include_str!("guide/dynamodb.md");
/// The guide's item, on one line as in an export.
const SALLY: &str =
    r#"{"age":{"N":"26"},"first_name":{"S":"sally"},"id":{"S":"0A556908-F72B-4BE6-9048-9E60715358D4"}}"#;

fn blocks() -> Vec<&'static str> {
    GUIDE.split("```sql\n").skip(1).map(|rest| rest.split("```").next().expect("a block")).collect()
}

/// A change of the item with this id, in the form in which DynamoDB writes it to Kinesis.
fn event(kind: &str, id: &str, age: u8, name: &str, version: i64) -> (String, Vec<u8>) {
    let text = format!(
        r#"{{"awsRegion":"us-east-1","eventID":"{id}-{version}","eventName":"{kind}","userIdentity":null,"recordFormat":"application/json",
            "tableName":"people","dynamodb":{{"ApproximateCreationDateTime":{version},"Keys":{{"id":{{"S":"{id}"}}}},
            "NewImage":{{"id":{{"S":"{id}"}},"age":{{"N":"{age}"}},"first_name":{{"S":"{name}"}}}},"SizeBytes":99,
            "ApproximateCreationDateTimePrecision":"MICROSECOND"}},"eventSource":"aws:dynamodb"}}"#
    );
    (id.to_owned(), text.into_bytes())
}

#[test]
fn the_guides_sql_runs_as_printed() {
    let [create, clean_up] = blocks().try_into().expect("two blocks");
    // Each as printed, but the view last: it is printed before the table that it fills, which
    // ClickHouse requires to exist.
    let [snapshot, view, destination, ""] = create.split_inclusive(';').map(str::trim).collect::<Vec<_>>()[..] else {
        panic!("{create}")
    };
    for statement in [snapshot, destination, view] {
        stack().clickhouse.run_script(statement).expect(statement);
    }

    // "Create the snapshot": lines as shown in the guide, and lines in the wrapper that DynamoDB
    // puts around them.
    let s3 = MiniStack::start().expect("an S3");
    let bucket = s3.create_bucket("guide").expect("a bucket");
    let data = format!("{bucket}/prefix/AWSDynamoDB/01700000000000-a1b2c3d4/data");
    let wrapped = r#"{"Item":{"id":{"S":"bo"},"age":{"N":"51"},"first_name":{"S":"bo"}}}"#;
    for (file, line) in [("plain", SALLY), ("wrapped", wrapped)] {
        sql(&format!("INSERT INTO FUNCTION s3('{data}/{file}.json.gz', 'TSVRaw', 'line String') VALUES ('{line}')"));
    }
    sql(&format!(
        "INSERT INTO snapshot SELECT if(JSONHas(json, 'Item'), JSONExtractRaw(json, 'Item'), json) FROM s3('{data}/*', 'JSONAsString', 'json String')"
    ));
    let people = || sql("SELECT id, first_name, age, version FROM destination FINAL ORDER BY id");
    let sally = "0A556908-F72B-4BE6-9048-9E60715358D4";
    assert_eq!(people(), format!("{sally}\tsally\t26\t0\nbo\tbo\t51\t0\n"));

    // "Create the Kinesis ClickPipe": flatten, ApproximateCreationDateTime to version, the fields
    // of the new image to their columns.
    create_stream("guide", 1);
    put("guide", [event("MODIFY", sally, 27, "sally", 1_719_347_890_250_647)]);
    let bridge = bridge("guide", &[]);
    let mut command = Command::new(binary());
    command.args(["sql", "pipe", "--listen", bridge.address(), "--stream", "guide", "--table", "default.destination"]);
    command.args(["--flatten", "--apply", "--map", "dynamodb.ApproximateCreationDateTime=version"]);
    for mapping in ["id.S=id", "age.N=age", "first_name.S=first_name"] {
        command.args(["--map", &format!("dynamodb.NewImage.{mapping}")]);
    }
    let output = command.envs(environment_with(&[])).output().expect("an end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let is = |expected: String| {
        wait_until(&format!("{expected:?} in place of {:?}", people()), || people() == expected);
    };
    is(format!("{sally}\tsally\t27\t1719347890250647\nbo\tbo\t51\t0\n"));
    // A late older change loses, a newer one wins, and a new item is there.
    put(
        "guide",
        [
            event("MODIFY", "bo", 53, "bo", 1_719_347_890_250_900),
            event("MODIFY", "bo", 52, "bob", 1_719_347_890_250_800),
            event("INSERT", "cy", 3, "cy", 1_719_347_890_251_000),
        ],
    );
    is(format!("{sally}\tsally\t27\t1719347890250647\nbo\tbo\t53\t1719347890250900\ncy\tcy\t3\t1719347890251000\n"));

    stack().clickhouse.run_script(clean_up).expect("the guide's end");
    assert_eq!(sql("SELECT count() FROM destination FINAL"), "3\n");
    sql("DROP TABLE destination_pipe");
    sql("DROP TABLE destination");
}
