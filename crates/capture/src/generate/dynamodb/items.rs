//! What a table's items look like: the types that each attribute had, in change events and in lines
//! of exports.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use domain::arn::Arn;

/// An item in DynamoDB's JSON: each value is an object of type and value.
pub type Image<'a> = HashMap<String, &'a RawValue>;

/// A change event, as far as needed here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    table_name: Option<String>,
    /// Records in the form of DynamoDB Streams have only this.
    #[serde(rename = "eventSourceARN")]
    arn: Option<String>,
    #[serde(borrow)]
    dynamodb: Change<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change<'a> {
    #[serde(borrow, default)]
    keys: Option<&'a RawValue>,
    #[serde(borrow, default)]
    new_image: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_image: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Parses a payload; `None` if it is not a change event.
    pub fn parse(payload: &'a [u8]) -> Option<Event<'a>> {
        serde_json::from_slice(payload.strip_prefix("\u{feff}".as_bytes()).unwrap_or(payload)).ok()
    }

    /// The table that was changed.
    pub fn table(&self) -> Option<&str> {
        let of_arn = || Arn::parse(self.arn.as_deref()?)?.table();
        self.table_name.as_deref().or_else(of_arn)
    }

    /// Whether it belongs to this table.
    pub fn is_of(&self, table: &str) -> bool {
        self.table() == Some(table)
    }

    /// The item after the change, or what is known of it.
    pub fn image(&self) -> Option<&'a str> {
        let change = &self.dynamodb;
        change.new_image.or(change.old_image).or(change.keys).map(RawValue::get)
    }
}

/// DynamoDB's types, as far as columns distinguish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// S and B: both are text.
    Text,
    /// N.
    Number,
    /// BOOL.
    Bool,
    /// NULL.
    Null,
    /// SS and BS.
    Texts,
    /// NS.
    Numbers,
    /// M and L.
    Nested,
}

/// What was seen of an attribute.
#[derive(Clone, Debug, Default)]
pub struct Attribute {
    /// How many items had it.
    pub count: usize,
    /// Its types.
    pub types: BTreeSet<Type>,
    /// All its numbers, including those in sets.
    pub numbers: Numbers,
}

/// Which of ClickHouse's types can represent all of a set of numbers exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    int64: bool,
    int128: bool,
    float64: bool,
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers { int64: true, int128: true, float64: true }
    }
}

impl Numbers {
    fn add(&mut self, text: &str) {
        self.int64 &= text.parse::<i64>().is_ok_and(|n| n.to_string() == text);
        self.int128 &= text.parse::<i128>().is_ok_and(|n| n.to_string() == text);
        self.float64 &= is_exact_float(text);
    }

    /// The narrowest type that can represent them all.
    pub fn ty(&self) -> Option<&'static str> {
        match self {
            Numbers { int64: true, .. } => Some("Int64"),
            Numbers { int128: true, .. } => Some("Int128"),
            Numbers { float64: true, .. } => Some("Float64"),
            _ => None,
        }
    }
}

/// Whether ClickHouse prints the number unchanged after a round trip through Float64. Outside these
/// bounds it prints an exponent, which DynamoDB does not.
fn is_exact_float(text: &str) -> bool {
    let Ok(number) = text.parse::<f64>() else { return false };
    let plain = number == 0.0 || (1e-6..1e21).contains(&number.abs());
    plain && number.to_string() == text
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// How many items.
    pub count: usize,
    /// By name.
    pub attributes: BTreeMap<String, Attribute>,
}

impl Items {
    /// Adds an item; does nothing if the text is not one.
    pub fn add(&mut self, image: &str) {
        let Ok(image) = serde_json::from_str::<Image<'_>>(image) else { return };
        self.count += 1;
        for (name, value) in image {
            let Some((ty, value)) = typed(value) else { continue };
            let attribute = self.attributes.entry(name).or_default();
            attribute.count += 1;
            attribute.types.insert(ty);
            match ty {
                Type::Number => attribute.numbers.add(&number(value)),
                Type::Numbers => {
                    let elements = serde_json::from_str::<Vec<&RawValue>>(value.get()).unwrap_or_default();
                    elements.iter().for_each(|element| attribute.numbers.add(&number(element)));
                }
                _ => {}
            }
        }
    }
}

/// The type of a value, and the value.
fn typed(value: &RawValue) -> Option<(Type, &RawValue)> {
    let value: HashMap<&str, &RawValue> = serde_json::from_str(value.get()).ok()?;
    let (name, value) = value.into_iter().next()?;
    let ty = match name {
        "S" | "B" => Type::Text,
        "N" => Type::Number,
        "BOOL" => Type::Bool,
        "NULL" => Type::Null,
        "SS" | "BS" => Type::Texts,
        "NS" => Type::Numbers,
        "M" | "L" => Type::Nested,
        _ => return None,
    };
    Some((ty, value))
}

/// The digits: DynamoDB writes a string, some producers a number.
fn number(value: &RawValue) -> String {
    value.get().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_the_narrowest_type_that_holds_them() {
        let ty = |texts: &[&str]| {
            let mut numbers = Numbers::default();
            texts.iter().for_each(|text| numbers.add(text));
            numbers.ty()
        };
        assert_eq!(ty(&["1", "-9223372036854775808"]), Some("Int64"));
        assert_eq!(ty(&["1", "9223372036854775808"]), Some("Int128"));
        assert_eq!(ty(&["1", "2.5", "0.000001", "-19.99", "-0"]), Some("Float64"));
        for inexact in ["0.12345678901234567890", "1.50", "1E+2", "1e-7", "0.0000001", "100000000000000000000.5"] {
            assert_eq!(ty(&[inexact]), None, "{inexact}");
        }
        assert_eq!(ty(&["0.5", "12345678901234567890"]), None);
    }

    #[test]
    fn events_and_lines_are_looked_at() {
        let payload = br#"{"tableName":"t","dynamodb":{"Keys":{"id":{"S":"k"}},"NewImage":{"id":{"S":"k"},"n":{"N":"5"},"s":{"NS":["1","x"]}},
            "OldImage":{"id":{"S":"k"},"old":{"S":"x"}}}}"#;
        let event = Event::parse(payload).unwrap();
        assert!(event.is_of("t") && !event.is_of("u"));
        let mut items = Items::default();
        items.add(event.image().unwrap());
        items.add(r#"{"id":{"B":"aw=="},"n":{"NULL":true},"odd":{"X":1},"m":{"M":{"x":{"S":"y"}}}}"#);
        items.add("[]");
        assert_eq!(items.count, 2);
        assert_eq!(items.attributes.keys().collect::<Vec<_>>(), ["id", "m", "n", "s"]);
        assert_eq!(items.attributes["n"].types.iter().collect::<Vec<_>>(), [&Type::Number, &Type::Null]);
        assert_eq!((items.attributes["n"].numbers.ty(), items.attributes["s"].numbers.ty()), (Some("Int64"), None));
        let streams =
            br#"{"eventSourceARN":"arn:aws:dynamodb:us-east-1:1:table/t/stream/2026","dynamodb":{"Keys":{}}}"#;
        assert!(Event::parse(streams).unwrap().is_of("t"));
        assert!(Event::parse(b"{\"tableName\":\"t\"}").is_none());
    }
}
