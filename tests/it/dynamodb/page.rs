//! docs/dynamodb.md: its commands and its SQL, as printed.

use aws_sdk_dynamodb::types::AttributeValue;

use super::events::{Change, Precision};
use super::export::Export;
use super::items::{Item, Key, KeySchema};
use super::{copy, create_table, enable_streaming, ministack, put_items, run};
use crate::engines::on_each_engine;
use crate::readme::markdown::{documents, statements};
use crate::world::{create_stream, put, sql, stack, wait_until};

on_each_engine!(the_page_takes_a_table_to_clickhouse,);

const PAGE: &str = "docs/dynamodb.md";
const KEYS: KeySchema = &[("id", Key::S)];
const USERS: usize = 100;
/// Where the page's bridge listens, and its bucket.
const DOCUMENTED: &str = "http://localhost:9020";
const DOCUMENTED_BUCKET: &str = "https://example-exports.s3.eu-central-1.amazonaws.com";

fn user(n: usize) -> Item {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let address = AttributeValue::M([("city".to_owned(), text("Köln"))].into());
    Item::from([
        ("id".to_owned(), text(&format!("user-{n}"))),
        ("name".to_owned(), text(&format!("name {n}"))),
        ("age".to_owned(), AttributeValue::N((20 + n % 60).to_string())),
        ("address".to_owned(), address),
    ])
}

fn the_page_takes_a_table_to_clickhouse() {
    let documents = documents();
    let page = documents.iter().find(|document| document.path == PAGE).expect(PAGE);
    let bridge = copy::bridge("page");
    let bucket = format!("{}/example-exports", ministack().endpoint());
    // A command from the page, with this machine's addresses.
    let command = |wanted: &str| {
        let of_page =
            page.blocks.iter().filter(|block| block.info == "sh").map(|block| block.text.replace("\\\n", " "));
        let line = of_page.filter_map(|text| text.find(wanted).map(|at| text[at..].to_owned())).next().expect(wanted);
        let line = line.lines().next().expect(wanted).replace(DOCUMENTED_BUCKET, &bucket);
        let words: Vec<&str> = line.split_whitespace().skip(1).chain(["--listen", bridge.address()]).collect();
        let output = run(&[], &words);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };

    // Steps 1 and 2.
    let table = create_table("users", KEYS);
    create_stream("users-changes", 2);
    enable_streaming("users", "users-changes", true);
    let users: Vec<Item> = (0..USERS).map(user).collect();
    put_items("users", &users);
    ministack().create_bucket("example-exports").expect("a bucket");
    let export =
        Export { table: &table, bucket: "example-exports", prefix: "users", id: "01700000000000-a1b2c3d4", files: 2 };
    let time = chrono::Utc::now().timestamp() * 1_000_000 + 1_000_000;
    export.full(&users, time, true);

    // Steps 3 and 4.
    let script = command("clickhouse-kinesis-bridge sql dynamodb --table users --stream users-changes --target");
    stack().clickhouse.run_script(&script).unwrap_or_else(|error| panic!("{error}\n{script}"));

    // A change with an attribute that no item had, and garbage.
    let mut changed = users[0].clone();
    changed.insert("nickname".to_owned(), AttributeValue::S("Al".to_owned()));
    put_items("users", [&changed]);
    let change = Change {
        table: "users",
        keys: KEYS,
        old: Some(&users[0]),
        new: Some(&changed),
        micros: time + 1,
        precision: Precision::Microsecond,
        ttl: false,
    };
    put("users-changes", [("0".to_owned(), change.event().into_bytes()), ("1".to_owned(), b"garbage".to_vec())]);
    wait_until("the garbage", || sql("SELECT count() FROM users_errors") == "1\n");

    // Step 5, and the queries.
    command("clickhouse-kinesis-bridge dynamodb verify");
    assert_eq!(sql("SELECT count() FROM users_final"), format!("{USERS}\n"));
    let mut run = 0;
    for block in page.blocks.iter().filter(|block| block.info == "sql dynamodb") {
        for statement in statements(&block.text) {
            let statement = statement.replace(DOCUMENTED, &bridge.url());
            assert_ne!(sql(&statement), "", "{}: no rows\n{statement}", block.at);
            run += 1;
        }
    }
    assert_eq!(run, 5, "statements of {PAGE}");
    copy::end(&bridge, &["default.users"]);
}
