//! Differences are reported exactly, and nothing else is.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue::{self, B, Bool, L, M, N, Null, S, Ss};
use serde_json::json;

use super::layout::{self, row};
use super::{run, unequal};
use crate::dynamodb::items::{Item, Key};
use crate::dynamodb::{create_table, put_items};
use crate::world::sql;

fn item(id: &str, attributes: &[(&str, AttributeValue)]) -> Item {
    let id = ("id".to_owned(), S(id.into()));
    attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).chain([id]).collect()
}

fn number(text: &str) -> AttributeValue {
    N(text.into())
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// What DynamoDB has, and what ClickHouse has.
fn compare(name: &str, pairs: &[(Option<Item>, Option<Item>)], flags: &[&str]) -> String {
    create_table(name, &[("id", Key::S)]);
    layout::create(name, &[("id", Key::S)]);
    put_items(name, pairs.iter().filter_map(|(ours, _)| ours.as_ref()));
    let rows: Vec<_> =
        pairs.iter().filter_map(|(_, theirs)| Some(row(theirs.as_ref()?, 4_000_000_000_000_000))).collect();
    layout::insert(name, &rows);
    unequal(&run(name, &[&["--rcu", "100000", "--timeout", "5s"], flags].concat()))
}

#[test]
fn each_difference_is_named() {
    let both = |id: &str, ours: AttributeValue, theirs: AttributeValue| {
        (Some(item(id, &[("a", ours), ("z", Bool(true))])), Some(item(id, &[("a", theirs), ("z", Bool(true))])))
    };
    let list = |values: &[&str]| L(values.iter().map(|value| number(value)).collect());
    let map = |value: AttributeValue| M([("b".to_owned(), value)].into());
    let pairs = [
        both("01 equal", number("1.50"), number("15E-1")),
        both("02 sets have no order", Ss(texts(&["a", "b", "c"])), Ss(texts(&["c", "a", "b"]))),
        both("03 also within lists", L(vec![Ss(texts(&["a", "b"]))]), L(vec![Ss(texts(&["b", "a"]))])),
        both("10 lists have", list(&["1", "2"]), list(&["2", "1"])),
        both(
            "11 the last digit",
            number("12345678901234567890123456789012345678"),
            number("12345678901234567890123456789012345679"),
        ),
        both("12 type", number("1"), S("1".into())),
        both("13 null is no text", Null(true), S("null".into())),
        both("14 within", map(list(&["1"])), map(list(&["1", "1"]))),
        both("15 an element of a set", Ss(texts(&["a", "b"])), Ss(texts(&["a", "c"]))),
        both("16 bytes", B(Blob::new("abc")), B(Blob::new("abd"))),
        (Some(item("17 more", &[("a", S("x\ny".into()))])), Some(item("17 more", &[("b", Null(true))]))),
        (Some(item("20 missing", &[])), None),
        (None, Some(item("30 extra", &[("a", number("1"))]))),
    ];
    assert_eq!(
        compare("verify_different", &pairs, &[]),
        r#"missing in ClickHouse: 1
  {"id":"20 missing"}
only in ClickHouse: 1
  {"id":"30 extra"}
different: 8
  {"id":"10 lists have"}
    a: DynamoDB has [1,2], ClickHouse [2,1]
  {"id":"11 the last digit"}
    a: DynamoDB has 12345678901234567890123456789012345678, ClickHouse 12345678901234567890123456789012345679
  {"id":"12 type"}
    a: DynamoDB has 1, ClickHouse "1"
  {"id":"13 null is no text"}
    a: DynamoDB has null, ClickHouse "null"
  {"id":"14 within"}
    a: DynamoDB has {"b":[1]}, ClickHouse {"b":[1,1]}
  {"id":"15 an element of a set"}
    a: DynamoDB has ["a","b"], ClickHouse ["a","c"]
  {"id":"16 bytes"}
    a: DynamoDB has "YWJj", ClickHouse "YWJk"
  {"id":"17 more"}
    a: DynamoDB has "x\ny", ClickHouse nothing
    b: DynamoDB has nothing, ClickHouse null
the newest change in `default`.`verify_different` is from 2096-10-02 07:06:40.000000 UTC
"#
    );
}

#[test]
fn a_number_that_its_column_cannot_say_is_that_of_rest() {
    let price = "0.12345678901234567890123456789012345678";
    let exact = item("exact", &[("price", number(price)), ("version", number("18446744073709551616"))]);
    let other = item("other", &[("price", number(price))]);
    let near = item("other", &[("price", number("0.12345678901234567890123456789012345679"))]);
    let said = compare("verify_rest", &[(Some(exact.clone()), Some(exact)), (Some(other), Some(near))], &[]);
    assert!(
        said.starts_with(
            "different: 1\n  {\"id\":\"other\"}\n    price: DynamoDB has 0.12345678901234567890123456789012345678, "
        ),
        "{said}"
    );
    // Both columns of the target have the same nearest value.
    assert_eq!(sql("SELECT uniqExact(price), countIf(price IS NULL) FROM verify_rest FINAL"), "1\t0\n");
}

#[test]
fn only_so_many_are_shown() {
    let long = || S("x".repeat(1_000));
    let many: Vec<_> = (0..12).map(|n| (format!("a{n:02}"), long())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let mut pairs: Vec<_> = (0..5).map(|n| (Some(item(&format!("k{n}"), &[])), None)).collect();
    pairs.push((Some(item("many", &many)), Some(item("many", &[]))));
    let said = compare("verify_many", &pairs, &["--limit", "2"]);
    let expected =
        "missing in ClickHouse: 5\n  {\"id\":\"k0\"}\n  {\"id\":\"k1\"}\n  and 3 more, see --limit\ndifferent: 1\n";
    assert!(said.starts_with(expected), "{said}");
    let shown = format!("    a00: DynamoDB has \"{}…, ClickHouse nothing\n", "x".repeat(99));
    assert!(said.contains(&shown) && said.contains("    a09: ") && !said.contains("    a10: "), "{said}");
    assert!(said.contains("\n    and 2 more attributes\n"), "{said}");
}

/// A number as a key in a text column may be written in any way, but there must be only one row for
/// it.
#[test]
fn numbers_as_keys_in_a_column_of_text() {
    let name = "verify_text_key";
    create_table(name, &[("id", Key::N)]);
    sql(&format!(
        "CREATE TABLE {name} (id LowCardinality(String), rest Map(String, String), version Int64, is_deleted UInt8) \
         ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY id"
    ));
    let items: Vec<Item> =
        ["1.5", "100", "-7", "0.25"].iter().map(|id| [("id".to_owned(), number(id))].into()).collect();
    put_items(name, &items);
    let row = |id: &str| json!({"id": id, "version": 1});
    layout::insert(name, &[row("1.50"), row("1E+2"), row("-7"), row("0.25"), row("25e-2")]);
    let said = unequal(&run(name, &["--rcu", "100000", "--timeout", "5s"]));
    let expected = "different: 1\n  {\"id\":0.25}\n    (rows of this key): DynamoDB has 1, ClickHouse 2\n";
    assert!(said.starts_with(expected), "{said}");
}
