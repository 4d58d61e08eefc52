//! Items and their values, from DynamoDB's typed JSON to plain JSON.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{clear, quoted, shortened};
use domain::limits::UNMARSHAL_KEPT_BYTES;

/// An item, or its key: a JSON object, and the positions of its attributes.
#[derive(Debug, Default)]
pub(super) struct Item {
    json: String,
    names: Names,
    /// For each attribute read to its end: the range of its name in [`Names::text`] and of its
    /// value in `json`.
    attributes: Vec<(Range<usize>, Range<usize>)>,
}

impl Item {
    pub(super) fn clear(&mut self) {
        clear(&mut self.json);
        clear(&mut self.names.text);
        self.names.places.clear();
        self.names.places.shrink_to(UNMARSHAL_KEPT_BYTES / size_of::<Range<usize>>());
        self.attributes.clear();
        self.attributes.shrink_to(UNMARSHAL_KEPT_BYTES / size_of::<Range<usize>>());
    }

    /// Every item has at least its key, so no attributes means no item.
    pub(super) fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    pub(super) fn json(&self) -> &str {
        if self.is_empty() { "" } else { &self.json }
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let name = |at: &Range<usize>| self.names.text.get(at.clone()).unwrap_or_default();
        let value = |at: &Range<usize>| self.json.get(at.clone()).unwrap_or_default();
        self.attributes.iter().map(move |(at, of)| (name(at), value(of)))
    }

    /// The attribute whose value is being read.
    pub(super) fn unfinished(&self) -> Option<&str> {
        self.names.text.get(self.names.places.get(self.attributes.len())?.clone())
    }
}

/// The names of the maps being visited, decoded, outermost first.
#[derive(Debug, Default)]
struct Names {
    text: String,
    places: Vec<Range<usize>>,
}

impl Names {
    /// A duplicate name among those from `first` on.
    fn double(&mut self, first: usize) -> Option<&str> {
        let (text, places) = (&self.text, self.places.get_mut(first..)?);
        let name = |at: &Range<usize>| text.get(at.clone()).unwrap_or_default();
        places.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        places.windows(2).map(|pair| (name(&pair[0]), name(&pair[1]))).find(|(a, b)| a == b).map(|(a, _)| a)
    }
}

/// An image of an item; null means none.
impl<'de> DeserializeSeed<'de> for &mut Item {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Item {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of attributes")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Item { json, names, attributes } = self;
        object(map, json, names, |name, value| attributes.push((name, value)))
    }
}

/// Writes a map with its names, each unique; `each` receives the positions of its names and values.
/// The names stay in `names`.
fn object<'de, A: MapAccess<'de>>(
    mut map: A,
    json: &mut String,
    names: &mut Names,
    mut each: impl FnMut(Range<usize>, Range<usize>),
) -> Result<(), A::Error> {
    let first = names.places.len();
    json.push('{');
    while map.next_key_seed(Quoted { json, name: Some(names) })?.is_some() {
        json.push(':');
        let (value, inside) = (json.len(), names.places.len());
        map.next_value_seed(Value { json, names })?;
        each(names.places.get(inside - 1).cloned().unwrap_or_default(), value..json.len());
        json.push(',');
    }
    close(json, '}');
    match names.double(first) {
        Some(name) => Err(A::Error::custom(format_args!("the name {} appears twice", quoted(name)))),
        None => Ok(()),
    }
}

/// Ends a list whose elements are each followed by a comma.
fn close(json: &mut String, bracket: char) {
    if json.ends_with(',') {
        json.pop();
    }
    json.push(bracket);
}

/// A value with its type.
struct Value<'a> {
    json: &'a mut String,
    names: &'a mut Names,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its type, such as {\"S\":\"text\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Value { json, names } = self;
        let Some(kind) = map.next_key_seed(Kind)? else {
            return Err(A::Error::custom("a value has no type"));
        };
        match kind {
            "S" | "B" => drop(map.next_value_seed(Quoted { json, name: None })?),
            "N" => map.next_value_seed(Number(json))?,
            "BOOL" => json.push_str(if map.next_value()? { "true" } else { "false" }),
            "NULL" if map.next_value()? => json.push_str("null"),
            "NULL" => return Err(A::Error::custom("a NULL is not true")),
            "M" => map.next_value_seed(Map { json, names })?,
            _ => map.next_value_seed(List { json, names, kind })?,
        }
        match map.next_key_seed(Kind)? {
            Some(second) => Err(A::Error::custom(format_args!("a value has two types, {kind} and {second}"))),
            None => Ok(()),
        }
    }
}

/// DynamoDB's types.
const KINDS: [&str; 10] = ["S", "N", "M", "L", "BOOL", "NULL", "B", "SS", "NS", "BS"];

/// The name of a type.
struct Kind;

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Kind {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a type")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'static str, E> {
        let known = KINDS.into_iter().find(|kind| *kind == name);
        known.ok_or_else(|| E::custom(format_args!("{} is not a DynamoDB type", quoted(name))))
    }
}

/// The contents of `M`.
struct Map<'a> {
    json: &'a mut String,
    names: &'a mut Names,
}

impl<'de> DeserializeSeed<'de> for Map<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Map<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object for M")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Map { json, names } = self;
        let (places, text) = (names.places.len(), names.text.len());
        object(map, json, names, |_, _| ())?;
        names.places.truncate(places);
        names.text.truncate(text);
        Ok(())
    }
}

/// The contents of `L` or of a set.
struct List<'a> {
    json: &'a mut String,
    names: &'a mut Names,
    kind: &'static str,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array for {}", self.kind)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let List { json, names, kind } = self;
        json.push('[');
        loop {
            let element = match kind {
                "L" => elements.next_element_seed(Value { json, names })?,
                "NS" => elements.next_element_seed(Number(json))?,
                _ => elements.next_element_seed(Quoted { json, name: None })?,
            };
            if element.is_none() {
                break;
            }
            json.push(',');
        }
        close(json, ']');
        Ok(())
    }
}

/// A string, written as a JSON string; if it is a name, it is remembered.
struct Quoted<'a> {
    json: &'a mut String,
    name: Option<&'a mut Names>,
}

impl<'de> DeserializeSeed<'de> for Quoted<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Quoted<'_> {
    fn remember(name: Option<&mut Names>, text: &str) {
        if let Some(names) = name {
            let from = names.text.len();
            names.text.push_str(text);
            names.places.push(from..names.text.len());
        }
    }
}

impl<'de> Visitor<'de> for Quoted<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    /// A string borrowed from JSON has no escapes, and needs none.
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.json.push('"');
        self.json.push_str(text);
        self.json.push('"');
        Self::remember(self.name, text);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        quote(text, self.json);
        Self::remember(self.name, text);
        Ok(())
    }
}

/// Writes a JSON string with the fewest escapes, so that it is never longer than the original.
fn quote(text: &str, json: &mut String) {
    json.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0c => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        json.push_str(text.get(from..at).unwrap_or_default());
        from = at + 1;
        match short {
            "" => {
                json.push_str(if byte < 0x10 { "\\u000" } else { "\\u001" });
                json.extend(char::from_digit(u32::from(byte % 16), 16));
            }
            short => json.push_str(short),
        }
    }
    json.push_str(text.get(from..).unwrap_or_default());
    json.push('"');
}

/// A number as written, with or without quotes.
struct Number<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Number<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let raw = serde::Deserialize::deserialize(deserializer).map(RawValue::get)?;
        // Some writers escape the plus sign.
        let text = match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            None => Cow::Borrowed(raw),
            Some(inside) if !inside.contains('\\') => Cow::Borrowed(inside),
            Some(_) => Cow::Owned(serde_json::from_str(raw).map_err(D::Error::custom)?),
        };
        if !is_number(&text) {
            return Err(D::Error::custom(format_args!("{} is not a JSON number", shortened(raw))));
        }
        self.0.push_str(&text);
        Ok(())
    }
}

/// Whether a text is exactly a JSON number, without white space. It is not evaluated: it may have
/// any size.
fn is_number(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    begins && serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get().len() == text.len())
}
