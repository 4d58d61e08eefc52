//! A table that was dropped and recreated leaves rows behind, and verify reports how to mark them.

use aws_sdk_dynamodb::types::AttributeValue::S;

use super::{equal, layout, run, unequal};
use crate::dynamodb::items::{Item, Key, KeySchema};
use crate::dynamodb::{client, create_table, delete_table, put_items};
use crate::world::{block_on, sql, stack};

const KEYS: KeySchema = &[("id", Key::S), ("it's `a` key", Key::N)];

fn item(id: &str, name: &str) -> Item {
    let number = aws_sdk_dynamodb::types::AttributeValue::N("5".into());
    [("id".to_owned(), S(id.into())), (KEYS[1].0.to_owned(), number), ("name".to_owned(), S(name.into()))].into()
}

/// In microseconds since 1970.
fn created(table: &str) -> i64 {
    let described = block_on(client().describe_table().table_name(table).send()).expect("a description");
    let time = described.table.expect("a table").creation_date_time.expect("a time");
    time.to_millis().expect("a time") * 1_000
}

#[test]
fn rows_of_an_earlier_table_are_marked_by_the_printed_statement() {
    let name = "verify it's `again`";
    let (quoted, dynamodb) = ("`default`.`verify it's \\`again\\``", "verify_again");
    create_table(dynamodb, KEYS);
    let earlier = created(dynamodb);
    layout::create(quoted, KEYS);
    let old = [item("old", "1"), item("both", "1"), item("other", "1")];
    layout::insert(quoted, &old.each_ref().map(|item| layout::row(item, earlier + 1)));
    delete_table(dynamodb);
    // Its creation time has whole seconds.
    crate::world::wait_until("a later table", || {
        create_table(dynamodb, KEYS);
        let later = created(dynamodb) > earlier + 1;
        if !later {
            delete_table(dynamodb);
        }
        later
    });
    let now = created(dynamodb);
    put_items(dynamodb, &[item("both", "2"), item("new", "2")]);
    // What the pipe loads for the new table, including what was deleted meanwhile, and an item that
    // it should not have.
    layout::insert(quoted, &[layout::row(&item("both", "2"), now + 1), layout::row(&item("new", "2"), now + 2)]);
    layout::insert(quoted, &[layout::row(&item("extra", "2"), now + 3)]);
    let target = format!("default.`{}`", name.replace('`', "\\`"));
    let flags = ["--target", &target, "--timeout", "5s"];
    let said = unequal(&run(dynamodb, &flags));
    let (list, hint) = said
        .split_once("2 items that are only in ClickHouse are older than DynamoDB table 'verify_again'")
        .expect(&said);
    assert!(list.starts_with("only in ClickHouse: 3\n"), "{list}");
    let (sentence, statement) = hint.split_once('\n').expect("a statement");
    assert_eq!(sentence, ": it was dropped and recreated. This marks what is older as deleted:");
    assert!(!statement.starts_with("--"), "{statement}");
    stack().clickhouse.run_script(statement).expect(statement);
    let said = unequal(&run(dynamodb, &flags));
    assert!(
        said.starts_with("only in ClickHouse: 1\n  {\"id\":\"extra\",\"it's `a` key\":5}\n")
            && !said.contains("INSERT"),
        "{said}"
    );
    layout::delete(quoted, &item("extra", "2"), now + 4);
    equal(&run(dynamodb, &flags));
    assert_eq!(sql(&format!("SELECT id FROM {quoted} FINAL ORDER BY id")), "both\nnew\n");
}

/// The statement would mark rows that are correct, so the report says so.
#[test]
fn equal_rows_that_are_older_are_told() {
    let name = "verify_older";
    create_table(name, &[("id", Key::S)]);
    layout::create(name, &[("id", Key::S)]);
    let item = |id: &str| -> Item { [("id".to_owned(), S(id.into()))].into() };
    put_items(name, &[item("equal")]);
    layout::insert(name, &[layout::row(&item("equal"), 1), layout::row(&item("extra"), 1)]);
    let said = unequal(&run(name, &["--timeout", "5s"]));
    assert!(said.contains("\n-- 1 equal items are older, too, and would be marked: first load an export"), "{said}");
}
