//! Items from a seed: all ten types, nested, with odd names and texts.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use fastrand::Rng;

/// An item, with its attributes in a fixed order.
pub type Item = BTreeMap<String, AttributeValue>;

/// The types of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    S,
    N,
    B,
}

/// The partition key, then the sort key if there is one.
pub type KeySchema = &'static [(&'static str, Key)];

/// How many items of a table with a sort key share a partition key.
pub const COLLECTION: u64 = 8;
const MAX_DEPTH: usize = 4;

/// Names that we use ourselves, names of types, names without letters, and names that are hard to
/// quote.
const ODD_NAMES: [&str; 22] = [
    "version",
    "rest",
    "is_deleted",
    "version_attribute",
    "rest_attribute",
    "_key",
    "_version",
    "attributes",
    "S",
    "M",
    "L",
    "NULL",
    "Item",
    "Größe",
    "with space",
    "with.dot",
    "`tick`",
    "qu\"ote'",
    "back\\slash",
    "{brace}[0]",
    "😀",
    "new\nline",
];
const ODD_TEXTS: [&str; 14] = [
    "",
    " ",
    "null",
    "true",
    "0",
    "{\"S\":\"x\"}",
    "[1,2]",
    "Zürich 東京 😀",
    "\"quoted\" 'single' `back`",
    "back\\slash \\u0041 \\n",
    "tab\tnew\nline\r\n",
    "\u{0}\u{1}\u{7f}\u{2028}\u{feff}",
    "}]},{[{\"",
    "a/b?c=d&e#f%20",
];
const NUMBERS: [&str; 18] = [
    "0",
    "1",
    "-1",
    "26",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551616",
    "12345678901234567890123456789012345678",
    "-99999999999999999999999999999999999999",
    "0.1",
    "-3.25",
    "0.12345678901234567890123456789012345678",
    "1.5E-10",
    "9.9E+125",
    "1E-130",
    "19.99",
    "1000000",
];

/// The key attributes of item `number`; different numbers give different keys. With a sort key,
/// [`COLLECTION`] neighbours share a partition key.
pub fn key(keys: KeySchema, number: u64) -> Item {
    let parts: Vec<u64> = match keys.len() {
        1 => vec![number],
        _ => vec![number / COLLECTION, number % COLLECTION],
    };
    keys.iter().zip(parts).map(|((name, ty), part)| ((*name).to_owned(), key_value(*ty, part))).collect()
}

/// The key attributes of an item.
pub fn key_of(keys: KeySchema, item: &Item) -> Item {
    keys.iter().map(|(name, _)| ((*name).to_owned(), item[*name].clone())).collect()
}

fn key_value(ty: Key, number: u64) -> AttributeValue {
    match ty {
        Key::S => {
            let odd = ["", " ", "\"", "'", "\\", "ü", "😀", "{}", "\n", "%/?"];
            AttributeValue::S(format!("key-{number}{}", odd[number as usize % odd.len()]))
        }
        // Also negative ones, and all within an Int64.
        Key::N => {
            AttributeValue::N(if number.is_multiple_of(3) { format!("-{}", number + 1) } else { number.to_string() })
        }
        Key::B => AttributeValue::B(Blob::new([&number.to_be_bytes()[..], &[0xff, 0, b'"', b'\\']].concat())),
    }
}

/// Item `number` with random attributes. Two items with the same number differ in everything but
/// their keys.
pub fn item(rng: &mut Rng, keys: KeySchema, number: u64) -> Item {
    let mut item = key(keys, number);
    for (name, value) in attributes(rng) {
        item.entry(name).or_insert(value);
    }
    item
}

/// Random attributes without keys: some of one type, as in most tables, some that change their
/// type, some with odd names.
pub fn attributes(rng: &mut Rng) -> Item {
    let mut item = Item::new();
    let mut some = |rng: &mut Rng, name: &str, value: fn(&mut Rng) -> AttributeValue| {
        if rng.u8(..10) < 7 {
            item.insert(name.to_owned(), value(rng));
        }
    };
    some(rng, "name", |rng| AttributeValue::S(text(rng)));
    some(rng, "age", |rng| AttributeValue::N(rng.u8(..120).to_string()));
    some(rng, "balance", |rng| AttributeValue::N(rng.i64(..).to_string()));
    some(rng, "price", |rng| AttributeValue::N(format!("{}.{:02}", rng.u16(..), rng.u8(1..100))));
    some(rng, "huge", |rng| AttributeValue::N(number(rng)));
    some(rng, "active", |rng| AttributeValue::Bool(rng.bool()));
    some(rng, "tags", |rng| AttributeValue::Ss(set(rng, text)));
    some(rng, "scores", |rng| AttributeValue::Ns(set(rng, |rng| rng.i32(..).to_string())));
    some(rng, "measures", |rng| AttributeValue::Ns(set_by(rng, number, canonical)));
    some(rng, "blobs", |rng| AttributeValue::Bs(set(rng, bytes).into_iter().map(Blob::new).collect()));
    some(rng, "photo", |rng| AttributeValue::B(Blob::new(bytes(rng))));
    some(rng, "address", |rng| AttributeValue::M(members(rng, 1)));
    some(rng, "history", |rng| AttributeValue::L(elements(rng, 1)));
    some(rng, "nothing", |_| AttributeValue::Null(true));
    some(rng, "mixed", |rng| value(rng, MAX_DEPTH - 1));
    for _ in 0..rng.usize(..4) {
        let name = *rng.choice(&ODD_NAMES).expect("a name");
        // ministack mistakes such an item for a value when it updates it.
        if !["L", "M"].contains(&name) {
            item.insert(name.to_owned(), value(rng, MAX_DEPTH - 2));
        }
    }
    item
}

/// A value of any type.
pub fn value(rng: &mut Rng, depth: usize) -> AttributeValue {
    match rng.u8(..if depth < MAX_DEPTH { 10 } else { 8 }) {
        0 => AttributeValue::S(text(rng)),
        1 => AttributeValue::N(number(rng)),
        2 => AttributeValue::B(Blob::new(bytes(rng))),
        3 => AttributeValue::Bool(rng.bool()),
        4 => AttributeValue::Null(true),
        5 => AttributeValue::Ss(set(rng, text)),
        6 => AttributeValue::Ns(set_by(rng, number, canonical)),
        7 => AttributeValue::Bs(set(rng, bytes).into_iter().map(Blob::new).collect()),
        8 => AttributeValue::L(elements(rng, depth + 1)),
        _ => AttributeValue::M(members(rng, depth + 1)),
    }
}

fn elements(rng: &mut Rng, depth: usize) -> Vec<AttributeValue> {
    (0..rng.usize(..4)).map(|_| value(rng, depth)).collect()
}

fn members(rng: &mut Rng, depth: usize) -> std::collections::HashMap<String, AttributeValue> {
    (0..rng.usize(..4))
        .map(|_| {
            let name = if rng.bool() { (*rng.choice(&ODD_NAMES).expect("a name")).to_owned() } else { word(rng) };
            (name, value(rng, depth))
        })
        .collect()
}

fn word(rng: &mut Rng) -> String {
    (0..rng.usize(1..12)).map(|_| rng.lowercase()).collect()
}

/// Any text, including an empty one.
pub fn text(rng: &mut Rng) -> String {
    match rng.u8(..3) {
        0 => (*rng.choice(&ODD_TEXTS).expect("a text")).to_owned(),
        1 => word(rng),
        _ => format!("{} {}", word(rng), rng.char(..)),
    }
}

/// A number within DynamoDB's 38 digits, as AWS writes it: without leading zeros.
pub fn number(rng: &mut Rng) -> String {
    match rng.u8(..4) {
        0 => (*rng.choice(&NUMBERS).expect("a number")).to_owned(),
        1 => rng.i64(..).to_string(),
        2 => format!("{}.{}", rng.i32(..), rng.u16(1..)),
        _ => (0..rng.usize(1..=38)).map(|n| char::from(b'0' + rng.u8(u8::from(n == 0)..10))).collect(),
    }
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(..20)).map(|_| rng.u8(..)).collect()
}

/// Distinct elements, at least one.
fn set<T: PartialEq>(rng: &mut Rng, element: fn(&mut Rng) -> T) -> Vec<T> {
    let mut set: Vec<T> = Vec::new();
    for _ in 0..rng.usize(1..5) {
        let next = element(rng);
        if !set.contains(&next) {
            set.push(next);
        }
    }
    set
}

fn set_by(rng: &mut Rng, element: fn(&mut Rng) -> String, same: fn(&str) -> String) -> Vec<String> {
    let mut set: Vec<String> = Vec::new();
    for next in self::set(rng, element) {
        if set.iter().all(|s| same(s) != same(&next)) {
            set.push(next);
        }
    }
    set
}

/// The same text for all ways to write a number: its digits without zeros at either end, and its
/// exponent.
pub fn canonical(number: &str) -> String {
    let (digits, exponent) = number.split_once(['E', 'e']).unwrap_or((number, "0"));
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let kept = all.trim_end_matches('0');
    let exponent =
        exponent.parse::<i64>().expect("an exponent") - fraction.len() as i64 + (all.len() - kept.len()) as i64;
    match kept.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => format!("{sign}{digits}E{exponent}"),
    }
}

/// The value with all numbers in their [`canonical`] form and all sets sorted, since DynamoDB may
/// write both in any way.
pub fn normal(value: &AttributeValue) -> AttributeValue {
    match value {
        AttributeValue::N(number) => AttributeValue::N(canonical(number)),
        AttributeValue::Ns(numbers) => {
            let mut numbers: Vec<String> = numbers.iter().map(|number| canonical(number)).collect();
            numbers.sort();
            AttributeValue::Ns(numbers)
        }
        AttributeValue::Ss(texts) => {
            let mut texts = texts.clone();
            texts.sort();
            AttributeValue::Ss(texts)
        }
        AttributeValue::Bs(blobs) => {
            let mut blobs = blobs.clone();
            blobs.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            AttributeValue::Bs(blobs)
        }
        AttributeValue::L(values) => AttributeValue::L(values.iter().map(normal).collect()),
        AttributeValue::M(members) => {
            AttributeValue::M(members.iter().map(|(name, value)| (name.clone(), normal(value))).collect())
        }
        other => other.clone(),
    }
}
