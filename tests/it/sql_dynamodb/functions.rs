//! The functions of `sql setup` for DynamoDB's JSON.

use aws_sdk_dynamodb::types::AttributeValue;
use sql::quote::literal;

use crate::common::seed;
use crate::dynamodb::events::{marshalled, marshalled_value, plain};
use crate::dynamodb::items::{self, Key};
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(any_value_becomes_plain_json_with_all_digits, white_space_and_bare_numbers_are_no_matter,);

/// DynamoDB's limit.
const LEVELS: usize = 30;
/// Values in one query.
const ROUND: usize = 500;
const ROUNDS: usize = 8;
/// Text that looks like types, and like the punctuation of JSON.
const NAMES: [&str; 20] = [
    "S",
    "N",
    "B",
    "BOOL",
    "NULL",
    "SS",
    "NS",
    "BS",
    "L",
    "M",
    "{\"S\":\"x\"}",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ":",
    ",",
    "{\"M\":{",
];

/// Creates them, as `sql setup` does.
pub fn create() {
    sql::functions().iter().for_each(|statement| drop(sql(statement)));
}

/// Nested maps and lists, down to the last level.
fn deep(rng: &mut fastrand::Rng) -> AttributeValue {
    (0..LEVELS).fold(items::value(rng, usize::MAX), |inner, _| {
        let more = items::value(rng, usize::MAX);
        if rng.bool() {
            let name = |rng: &mut fastrand::Rng| (*rng.choice(&NAMES).expect("a name")).to_owned();
            AttributeValue::M([(name(rng), more), (name(rng), inner)].into())
        } else {
            AttributeValue::L(if rng.bool() { vec![more, inner] } else { vec![inner] })
        }
    })
}

fn any_value_becomes_plain_json_with_all_digits() {
    create();
    let mut rng = fastrand::Rng::with_seed(seed("functions"));
    for _ in 0..ROUNDS {
        let values: Vec<AttributeValue> =
            (0..ROUND).map(|n| if n % 10 == 0 { deep(&mut rng) } else { items::value(&mut rng, 0) }).collect();
        let pairs =
            values.iter().map(|value| format!("({}, {})", literal(&marshalled_value(value)), literal(&plain(value))));
        let pairs = pairs.collect::<Vec<_>>().join(",");
        let wrong = sql(&format!(
            "SELECT marshalled, plain, dynamodbToJSON(marshalled) FROM VALUES('marshalled String, plain String', {pairs}) \
             WHERE dynamodbToJSON(marshalled) != plain LIMIT 1 FORMAT Vertical"
        ));
        assert_eq!(wrong, "");
        let items = (0..ROUND as u64 / 4).map(|n| {
            let item = items::item(&mut rng, &[("id", Key::S)], n);
            let plain = plain(&AttributeValue::M(item.clone().into_iter().collect()));
            format!("({}, {})", literal(&marshalled(&item)), literal(&plain))
        });
        let items = items.collect::<Vec<_>>().join(",");
        let wrong = sql(&format!(
            "SELECT marshalled, plain, dynamodbItemToJSON(marshalled) FROM VALUES('marshalled String, plain String', {items}) \
             WHERE dynamodbItemToJSON(marshalled) != plain LIMIT 1 FORMAT Vertical"
        ));
        assert_eq!(wrong, "");
    }
}

fn white_space_and_bare_numbers_are_no_matter() {
    create();
    for (marshalled, plain) in [
        (r#"{ "S": " x y " }"#, r#"" x y ""#),
        ("{\n  \"N\" : \"1.50\"\n}", "1.50"),
        (r#"{"N": 5}"#, "5"),
        (r#"{"NULL": true}"#, "null"),
        (
            r#" {"M" : { "a b" : {"N": "1"} , "c":{"L":[ {"SS":["x , y", "z"]}, {"NS": ["1", "2"]}, { "BOOL" : false } ]}}}"#,
            r#"{"a b":1,"c":[["x , y","z"],[1,2],false]}"#,
        ),
        (r#"{"L":[]}"#, "[]"),
        (r#"{"M":{}}"#, "{}"),
    ] {
        assert_eq!(sql(&format!("SELECT dynamodbToJSON({}) FORMAT TSVRaw", literal(marshalled))), format!("{plain}\n"));
    }
}
