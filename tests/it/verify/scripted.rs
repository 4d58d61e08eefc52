//! What no emulator does: a scripted DynamoDB, for limits and for unfinished responses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

use super::{command, equal, layout, refused};
use crate::dynamodb::items::Key;
use crate::world::sql;

/// The response to an operation with this request.
type Script = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// Serves until the test process ends; returns the endpoint.
fn serve(script: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let script: Arc<Script> = Arc::new(script);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = script.clone();
            thread::spawn(move || answer(stream, &*script));
        }
    });
    endpoint
}

/// One request after the other, until the client disconnects.
fn answer(stream: TcpStream, script: &Script) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut operation, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            (reader.read_line(&mut line).ok()? > 0).then_some(())?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                if line.trim().is_empty() {
                    break;
                }
                continue;
            };
            match &*name.to_lowercase() {
                "x-amz-target" => operation = value.rsplit('.').next()?.to_owned(),
                "content-length" => length = value.parse().ok()?,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let said = script(&operation, &serde_json::from_slice(&body).ok()?).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
            said.len()
        );
        writer.write_all(head.as_bytes()).ok()?;
        writer.write_all(said.as_bytes()).ok()?;
    }
}

fn described(table: &str) -> Value {
    json!({"Table": {
        "TableName": table, "TableStatus": "ACTIVE", "CreationDateTime": 1_700_000_000.0,
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    }})
}

#[test]
fn a_table_that_is_larger_than_memory_is_told() {
    let name = "verify_large";
    layout::create(name, &[("id", Key::S)]);
    // Endless pages.
    let endpoint = serve(move |operation, request| match operation {
        "DescribeTable" => described(name),
        "Scan" => {
            let page =
                request["ExclusiveStartKey"]["id"]["S"].as_str().map_or(0, |page| page.parse::<u64>().expect("a page"));
            let segment = &request["Segment"];
            let items: Vec<Value> =
                (0..10_000).map(|n| json!({"id": {"S": format!("{segment}-{page}-{n:024}")}})).collect();
            json!({"Items": items, "LastEvaluatedKey": {"id": {"S": (page + 1).to_string()}}})
        }
        other => panic!("{other}"),
    });
    let changes = [("AWS_ENDPOINT_URL_DYNAMODB", &*endpoint), ("KINESIS_BRIDGE_MEMORY", "32MiB")];
    let said = refused(&command(&changes, name, &["--rcu", "1000000"]).output().expect("an end"));
    let Some((items, rest)) = said
        .strip_prefix(
            "error: the keys of DynamoDB table 'verify_large' need more than --memory 32 MiB: that was enough for ",
        )
        .and_then(|rest| rest.split_once(" items, about "))
    else {
        panic!("{said}")
    };
    assert!((200_000..400_000).contains(&items.parse::<u64>().expect("a number")), "{said}");
    assert!(rest.ends_with(" bytes each; raise it\n"), "{said}");
}

/// The scan finds nothing, so all items are looked up by their keys; DynamoDB returns only a few of
/// them at a time.
#[test]
fn keys_that_are_left_undone_are_asked_for_again() {
    let name = "verify_unprocessed";
    layout::create(name, &[("id", Key::S)]);
    sql(&format!("INSERT INTO {name} (id, version) SELECT 'key-' || toString(number), 1 FROM numbers(250)"));
    let endpoint = serve(move |operation, request| match operation {
        "DescribeTable" => described(name),
        "Scan" => json!({"Items": []}),
        "BatchGetItem" => {
            let asked = &request["RequestItems"][name];
            assert_eq!(asked["ConsistentRead"], true);
            let keys = asked["Keys"].as_array().expect("keys");
            assert!(keys.len() <= 100, "{}", keys.len());
            let (done, left) = keys.split_at(keys.len().min(30));
            let again = if left.is_empty() { json!({}) } else { json!({name: {"Keys": left, "ConsistentRead": true}}) };
            json!({"Responses": {name: done}, "UnprocessedKeys": again})
        }
        other => panic!("{other}"),
    });
    let changes = [("AWS_ENDPOINT_URL_DYNAMODB", &*endpoint)];
    let said = equal(&command(&changes, name, &["--rcu", "1000000"]).output().expect("an end"));
    assert!(said.contains("\n250 items compared, 250 of them rechecked in 1 rounds; "), "{said}");
    // A unit for each item, computed from its size; the scan was free.
    assert!(said.contains(" s, 250.0 read capacity units\n"), "{said}");
}

#[test]
fn more_differences_than_can_be_looked_at_are_told() {
    let name = "verify_foreign";
    layout::create(name, &[("id", Key::S)]);
    sql(&format!("INSERT INTO {name} (id, version) SELECT 'key-' || toString(number), 1 FROM numbers(40000)"));
    let endpoint = serve(move |operation, _| match operation {
        "DescribeTable" => described(name),
        "Scan" => json!({"Items": [{"id": {"S": "a"}}, {"id": {"S": "key-1"}}]}),
        other => panic!("{other}"),
    });
    let changes = [("AWS_ENDPOINT_URL_DYNAMODB", &*endpoint), ("KINESIS_BRIDGE_MEMORY", "32MiB")];
    assert_eq!(
        refused(&command(&changes, name, &["--segments", "1"]).output().expect("an end")),
        "error: 40000 of 40001 items are not equal, more than can be rechecked with --memory 32 MiB: is `default`.`verify_foreign` the target of \
         this table, and was it loaded?\n"
    );
}
