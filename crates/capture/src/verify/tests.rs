//! The canonical form: equal values are equal in any spelling, and different ones never are.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::{Blob, base64};
use proptest::prelude::*;
use proptest::sample::Index;

use super::key::Key;
use super::unmarshal;
use super::value::{Item, Value, flat, number, says};
use crate::dynamodb::{KeyAttribute, KeyType};

/// A decimal: digits, exponent of the last one, sign.
type Decimal = (String, i32, bool);

/// One of its many spellings.
fn spelled((digits, exponent, negative): &Decimal, zeros: usize, shift: i32, signs: u8) -> String {
    let sign = if *negative { "-" } else { "" };
    let (point, e) = (if signs & 1 == 0 { "." } else { "" }, if signs & 2 == 0 { "e" } else { "E" });
    // Zeros after the point, and the point moved by them.
    let tail = if point.is_empty() { String::new() } else { format!(".{}", "0".repeat(zeros)) };
    let moved = if point.is_empty() { "0".repeat(usize::try_from(shift.max(0)).unwrap()) } else { String::new() };
    let exponent = if point.is_empty() { exponent - shift.max(0) } else { *exponent };
    let plus = if exponent >= 0 && signs & 4 == 0 { "+" } else { "" };
    format!("{sign}{}{digits}{moved}{tail}{e}{plus}{exponent}", "0".repeat(zeros))
}

fn decimal() -> impl Strategy<Value = Decimal> {
    ("[1-9][0-9]{0,37}", -130..90i32, any::<bool>())
}

/// Attribute values of all types, three levels deep.
fn attribute() -> impl Strategy<Value = AttributeValue> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..6).prop_map(Blob::new);
    let leaf = prop_oneof![
        ".{0,6}".prop_map(AttributeValue::S),
        decimal().prop_map(|d| AttributeValue::N(spelled(&d, 0, 0, 0))),
        bytes().prop_map(AttributeValue::B),
        any::<bool>().prop_map(AttributeValue::Bool),
        Just(AttributeValue::Null(true)),
        proptest::collection::btree_set("[a-z]{1,4}", 1..5).prop_map(|s| AttributeValue::Ss(s.into_iter().collect())),
        proptest::collection::btree_set(-99..99i32, 1..5)
            .prop_map(|s| AttributeValue::Ns(s.iter().map(i32::to_string).collect())),
        proptest::collection::btree_set(any::<[u8; 2]>(), 1..4)
            .prop_map(|s| AttributeValue::Bs(s.into_iter().map(|b| Blob::new(b.to_vec())).collect())),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(AttributeValue::L),
            proptest::collection::hash_map("[a-zA-Z\"{}]{0,3}", inner, 0..5).prop_map(AttributeValue::M),
        ]
    })
}

fn attributes() -> impl Strategy<Value = HashMap<String, AttributeValue>> {
    proptest::collection::hash_map("[a-z.]{0,3}", attribute(), 1..6)
}

/// Plain JSON in another spelling: attributes in reverse, numbers with an extra zero, sets reversed
/// if wanted.
fn json(value: &AttributeValue, turn_sets: bool) -> String {
    let list = |values: Vec<String>| format!("[{}]", values.join(", "));
    let set = |mut values: Vec<String>| {
        if turn_sets {
            values.reverse();
        }
        list(values)
    };
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let more = |number: &String| match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => format!(
            "{}0E{exponent}",
            mantissa.trim_end_matches('.').to_owned() + if mantissa.contains('.') { "" } else { ".0" }
        ),
        None => format!("{number}.0e0"),
    };
    match value {
        AttributeValue::S(value) => text(value),
        AttributeValue::N(value) => {
            // A fraction must have a digit in JSON.
            let (mantissa, exponent) = value.split_once(['e', 'E']).expect("an exponent");
            more(&format!("{}e{exponent}", mantissa.trim_end_matches('.')))
        }
        AttributeValue::B(value) => text(&base64::encode(value)),
        AttributeValue::Bool(value) => value.to_string(),
        AttributeValue::Null(_) => "null".into(),
        AttributeValue::L(values) => list(values.iter().map(|value| json(value, turn_sets)).collect()),
        AttributeValue::M(map) => {
            let mut names: Vec<_> = map.iter().collect();
            names.sort_by(|a, b| b.0.cmp(a.0));
            let map: Vec<_> =
                names.iter().map(|(name, value)| format!("{} : {}", text(name), json(value, turn_sets))).collect();
            format!("{{{}}}", map.join(" , "))
        }
        AttributeValue::Ss(values) => set(values.iter().map(|value| text(value)).collect()),
        AttributeValue::Ns(values) => set(values.iter().map(more).collect()),
        AttributeValue::Bs(values) => set(values.iter().map(|value| text(&base64::encode(value))).collect()),
        other => panic!("{other:?}"),
    }
}

fn row(attributes: &HashMap<String, AttributeValue>, turn_sets: bool) -> Item {
    attributes.iter().map(|(name, value)| (name.clone(), Value::from_json(&json(value, turn_sets)))).collect()
}

/// Changes the value at index `which` among the scalars and empty collections of an item.
fn changed(value: &Value, which: &mut usize) -> Option<Value> {
    let of_list = |values: &[Value], which: &mut usize| {
        let found = values.iter().enumerate().find_map(|(at, value)| changed(value, which).map(|value| (at, value)));
        found.map(|(at, value)| {
            let mut values = values.to_vec();
            values[at] = value;
            values
        })
    };
    match value {
        Value::List(values) if !values.is_empty() => return of_list(values, which).map(Value::List),
        Value::Set(values) if !values.is_empty() => return of_list(values, which).map(Value::Set),
        Value::Map(map) if !map.is_empty() => {
            let found = map.iter().find_map(|(name, value)| Some((name.clone(), changed(value, which)?)));
            return found.map(|(name, value)| {
                let mut map = map.clone();
                map.insert(name, value);
                Value::Map(map)
            });
        }
        _ => {}
    }
    if *which > 0 {
        *which -= 1;
        return None;
    }
    Some(match value {
        // The same text with another type.
        Value::Number(text) => Value::Text(text.clone()),
        Value::Bool(value) => Value::Bool(!value),
        Value::Text(text) => Value::Text(format!("{text} ")),
        Value::Null => Value::Text("null".into()),
        Value::List(_) => Value::Map(Item::new()),
        _ => Value::Null,
    })
}

proptest! {
    #[test]
    fn a_number_has_one_spelling(d in decimal(), a in (0..4usize, 0..4i32, any::<u8>()), b in (0..4usize, 0..4i32, any::<u8>())) {
        let (one, other) = (spelled(&d, a.0, a.1, a.2), spelled(&d, b.0, b.1, b.2));
        let canonical = number(&one).unwrap();
        prop_assert_eq!(number(&other).unwrap(), canonical.clone(), "{} and {}", one, other);
        prop_assert_eq!(number(&canonical).unwrap(), canonical);
    }

    #[test]
    fn other_numbers_have_other_spellings(a in decimal(), b in decimal()) {
        let value = |(digits, exponent, negative): &Decimal| {
            let short = digits.trim_end_matches('0');
            (short.to_owned(), exponent + i32::try_from(digits.len() - short.len()).unwrap(), *negative)
        };
        let same = value(&a) == value(&b);
        prop_assert_eq!(number(&spelled(&a, 0, 0, 0)) == number(&spelled(&b, 0, 0, 0)), same);
    }

    #[test]
    fn equal_items_have_one_fingerprint(attributes in attributes()) {
        let (ours, theirs) = (unmarshal::item(&attributes), row(&attributes, false));
        let hasher = RandomState::new();
        prop_assert_eq!(hasher.hash_one(flat(ours.clone())), hasher.hash_one(flat(theirs.clone())), "{:?} {:?}", ours, theirs);
        prop_assert!(says(&ours, &theirs));
        // With DynamoDB's types the order of sets does not matter.
        prop_assert!(says(&ours, &row(&attributes, true)));
    }

    #[test]
    fn any_change_is_seen(attributes in attributes(), which in any::<Index>()) {
        let ours = unmarshal::item(&attributes);
        let hasher = RandomState::new();
        let print = |item: &Item| hasher.hash_one(flat(item.clone()));
        let whole = Value::Map(ours.clone());
        // As many as there are.
        let mut changes = 0;
        while changed(&whole, &mut changes.clone()).is_some() {
            changes += 1;
        }
        let Some(Value::Map(theirs)) = changed(&whole, &mut which.index(changes)) else { panic!("{whole:?}") };
        prop_assert_ne!(print(&ours), print(&theirs));
        prop_assert!(!says(&ours, &flat(theirs)));
        let mut fewer = ours.clone();
        let name = ours.keys().nth(which.index(ours.len())).unwrap();
        fewer.remove(name);
        prop_assert!(print(&ours) != print(&fewer) && !says(&ours, &fewer) && !says(&fewer, &ours));
    }

    #[test]
    fn the_order_of_a_list_is_seen(values in proptest::collection::vec(0..99u8, 2..6), a in any::<Index>(), b in any::<Index>()) {
        let list = |values: &[u8]| Value::List(values.iter().map(|n| Value::Number(n.to_string())).collect());
        let mut other = values.clone();
        other.swap(a.index(values.len()), b.index(values.len()));
        let hasher = RandomState::new();
        prop_assert_eq!(hasher.hash_one(list(&values)) == hasher.hash_one(list(&other)), values == other);
        prop_assert_eq!(list(&values).says(&list(&other)), values == other);
    }

    #[test]
    fn keys_are_what_they_are_made_of(a in ".{1,8}", b in ".{1,8}") {
        let (one, two) = (Key::new(std::slice::from_ref(&a)), Key::new(&[a.clone(), b.clone()]));
        prop_assert_eq!(one.values(), [&*a]);
        prop_assert_eq!(two.values(), [&*a, &*b]);
        let joined = Key::new(&[format!("{a}{b}")]);
        prop_assert_ne!(&one, &two);
        prop_assert_ne!(joined, two);
    }
}

#[test]
fn numbers_as_people_write_them() {
    for (text, canonical) in [
        ("1.50", "1.5"),
        ("15E-1", "1.5"),
        ("+1.5", "1.5"),
        ("-0", "0"),
        ("0.0e5", "0"),
        ("1e2", "100"),
        ("1E-130", &format!("0.{}1", "0".repeat(129))),
        ("9.9999999999999999999999999999999999999E+125", &format!("{}{}", "9".repeat(38), "0".repeat(88))),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("1e200", "0.1E201"),
        ("10e199", "0.1E201"),
        ("1e-200", "0.1E-199"),
    ] {
        assert_eq!(number(text).as_deref(), Some(canonical), "{text}");
    }
    for text in ["", "-", ".", "1e", "e1", "1.2.3", "0x1", "NaN", "1e99999999999999999999", " 1", "١"] {
        assert_eq!(number(text), None, "{text}");
    }
}

#[test]
fn what_is_broken_is_equal_to_nothing() {
    let broken = Value::from_json("{\"a\":");
    assert_eq!(broken, Value::Broken("{\"a\":".into()));
    assert!(!broken.says(&broken));
    assert_eq!(Value::from_json("\"\\ud800\""), Value::Broken("\"\\ud800\"".into()));
}

#[test]
fn a_key_is_canonical() {
    let keys = [KeyAttribute { name: "p".into(), ty: KeyType::B }, KeyAttribute { name: "s".into(), ty: KeyType::N }];
    let of = |sort: &str| {
        let bytes = AttributeValue::B(Blob::new(vec![0, 255]));
        let attributes = [("p".to_owned(), bytes), ("s".to_owned(), AttributeValue::N(sort.into()))];
        Key::of(&unmarshal::item(&attributes.into()), &keys)
    };
    assert_eq!(of("1.0"), of("10e-1"));
    assert_eq!(of("1.0").unwrap().values(), ["AP8=", "1"]);
    assert_ne!(of("1"), of("2"));
    assert_eq!(Key::of(&Item::new(), &keys), None);
    let shown: BTreeSet<String> = of("1.0").unwrap().item(&keys).into_keys().collect();
    assert_eq!(shown, BTreeSet::from(["p".into(), "s".into()]));
}
