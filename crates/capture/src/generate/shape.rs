//! The shape of the sampled payloads: which kinds of JSON values occur at which place. Numbers are
//! examined as text, because neither a 64-bit integer nor a double represents all that producers
//! send.

use std::collections::{HashMap, HashSet};
use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::numbers::{is_exact, is_wide};

/// All values at one place.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Number of values, nulls included.
    pub values: usize,
    /// Number of nulls.
    pub nulls: usize,
    /// Number of booleans.
    pub bools: usize,
    /// The numbers.
    pub numbers: Numbers,
    /// The strings.
    pub strings: Strings,
    /// Number of objects.
    pub objects: usize,
    /// Number of objects with two fields of the same name.
    pub twice: usize,
    /// The fields of these objects, in order of first appearance.
    pub fields: Vec<(String, Shape)>,
    index: HashMap<String, usize>,
    /// Number of arrays.
    pub arrays: usize,
    /// The elements of these arrays.
    pub elements: Option<Box<Shape>>,
}

/// Width of integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// All fit into Int64.
    #[default]
    Int64,
    /// All fit into UInt64.
    UInt64,
    /// All fit into 256 bits.
    Bits256,
    /// None of ClickHouse's integer types can hold them.
    Unbounded,
}

/// Numbers at one place.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// How many.
    pub count: usize,
    /// How many have a fraction or an exponent.
    pub floats: usize,
    /// Some are below 0.
    pub negative: bool,
    /// How wide the integers are.
    pub width: Width,
    /// A double does not represent all of them digit for digit.
    pub inexact: bool,
    /// Some are wide: ClickHouse's JSON parser refuses or changes them.
    pub wide: bool,
}

/// Strings at one place: what all of them are.
#[derive(Clone, Debug)]
pub struct Strings {
    /// How many.
    pub count: usize,
    /// All are UUIDs.
    pub uuids: bool,
    /// All are IPv4 addresses.
    pub ipv4: bool,
    /// All are IPv6 addresses.
    pub ipv6: bool,
    /// All are days, as 2026-11-21.
    pub days: bool,
    /// All are points in time with their zone, as 2026-11-21T10:00:00+01:00.
    pub times: bool,
    /// All are times without a zone, as 2026-11-21 10:00:00.
    pub local_times: bool,
    /// The most digits of a fractional second.
    pub fraction: usize,
}

impl Default for Strings {
    fn default() -> Strings {
        Strings {
            count: 0,
            uuids: true,
            ipv4: true,
            ipv6: true,
            days: true,
            times: true,
            local_times: true,
            fraction: 0,
        }
    }
}

impl Shape {
    /// Adds a JSON document, with or without a byte order mark. Returns false, and adds nothing, if
    /// it is not JSON or not an object.
    pub fn add_object(&mut self, text: &str) -> bool {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match serde_json::from_str::<&RawValue>(text) {
            Ok(value) if value.get().starts_with('{') => {
                self.add(value.get());
                true
            }
            _ => false,
        }
    }

    /// The shape at a field.
    pub fn field(&self, name: &str) -> Option<&Shape> {
        self.index.get(name).map(|at| &self.fields[*at].1)
    }

    /// The number of different kinds of values, apart from null.
    pub fn kinds(&self) -> usize {
        let counts = [self.bools, self.numbers.count, self.strings.count, self.objects, self.arrays];
        counts.iter().filter(|count| **count > 0).count()
    }

    /// Whether a place here or below meets a condition.
    pub fn any(&self, holds: &dyn Fn(&Shape) -> bool) -> bool {
        let below = self.fields.iter().map(|(_, shape)| shape).chain(self.elements.as_deref());
        holds(self) || below.into_iter().any(|shape| shape.any(holds))
    }

    /// Merges another shape into this one.
    pub fn merge(&mut self, other: &Shape) {
        self.values += other.values;
        self.nulls += other.nulls;
        self.bools += other.bools;
        self.numbers.merge(&other.numbers);
        self.strings.merge(&other.strings);
        self.objects += other.objects;
        self.twice += other.twice;
        for (name, shape) in &other.fields {
            self.field_mut(name).merge(shape);
        }
        self.arrays += other.arrays;
        if let Some(elements) = &other.elements {
            self.elements.get_or_insert_default().merge(elements);
        }
    }

    fn field_mut(&mut self, name: &str) -> &mut Shape {
        let at = *self.index.entry(name.to_string()).or_insert(self.fields.len());
        if at == self.fields.len() {
            self.fields.push((name.to_string(), Shape::default()));
        }
        &mut self.fields[at].1
    }

    /// Adds a value, given as the text of valid JSON.
    fn add(&mut self, text: &str) {
        self.values += 1;
        match text.as_bytes().first() {
            Some(b'{') => {
                self.objects += 1;
                let mut names = HashSet::new();
                let mut twice = false;
                for (name, value) in fields_of(text) {
                    match names.insert(name.clone()) {
                        true => self.field_mut(&name).add(value.get()),
                        false => twice = true,
                    }
                }
                self.twice += usize::from(twice);
            }
            Some(b'[') => {
                self.arrays += 1;
                let elements = self.elements.get_or_insert_default();
                for value in serde_json::from_str::<Vec<&RawValue>>(text).unwrap_or_default() {
                    elements.add(value.get());
                }
            }
            Some(b'"') => self.strings.add(&serde_json::from_str::<String>(text).unwrap_or_default()),
            Some(b't' | b'f') => self.bools += 1,
            Some(b'n') => self.nulls += 1,
            _ => self.numbers.add(text),
        }
    }
}

/// The fields of an object in order, including duplicates.
pub fn fields_of(text: &str) -> Vec<(String, &RawValue)> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields: Vec<(String, &RawValue)> = Vec::new();
            while let Some(field) = map.next_entry()? {
                fields.push(field);
            }
            Ok(fields)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Fields).unwrap_or_default()
}

impl Numbers {
    fn add(&mut self, text: &str) {
        self.count += 1;
        self.negative |= text.starts_with('-');
        self.inexact |= !is_exact(text);
        self.wide |= is_wide(text);
        if text.contains(['.', 'e', 'E']) {
            self.floats += 1;
            return;
        }
        let width = match text.trim_start_matches('-').len() {
            _ if text.parse::<i64>().is_ok() => Width::Int64,
            _ if text.parse::<u64>().is_ok() => Width::UInt64,
            // 10^76 is below 2^255.
            digits if digits <= 76 => Width::Bits256,
            _ => Width::Unbounded,
        };
        self.width = self.width.max(width);
    }

    fn merge(&mut self, other: &Numbers) {
        self.count += other.count;
        self.floats += other.floats;
        self.negative |= other.negative;
        self.width = self.width.max(other.width);
        self.inexact |= other.inexact;
        self.wide |= other.wide;
    }
}

impl Strings {
    fn add(&mut self, text: &str) {
        self.count += 1;
        self.uuids &= is_uuid(text);
        self.ipv4 &= text.parse::<std::net::Ipv4Addr>().is_ok();
        self.ipv6 &= text.parse::<std::net::Ipv6Addr>().is_ok();
        self.days &= is_day(text);
        self.times &= is_time(text);
        self.local_times &= is_local_time(text);
        let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
        self.fraction = self.fraction.max(fraction.bytes().take_while(u8::is_ascii_digit).count());
    }

    fn merge(&mut self, other: &Strings) {
        self.count += other.count;
        self.uuids &= other.uuids;
        self.ipv4 &= other.ipv4;
        self.ipv6 &= other.ipv6;
        self.days &= other.days;
        self.times &= other.times;
        self.local_times &= other.local_times;
        self.fraction = self.fraction.max(other.fraction);
    }
}

fn is_uuid(text: &str) -> bool {
    let hyphens = [8, 13, 18, 23];
    let right = |(at, byte): (usize, u8)| if hyphens.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    text.len() == 36 && text.bytes().enumerate().all(right)
}

/// The years that all of ClickHouse's date types support, DateTime64(9) included.
fn is_in_range(day: NaiveDate) -> bool {
    (1900..=2261).contains(&day.year())
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok_and(is_in_range)
}

/// Digits where a date and a time have them, with a `T` or a space between.
fn looks_like_a_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 19
        && matches!(bytes[10], b'T' | b' ')
        && bytes[..4].iter().chain(&bytes[17..19]).all(u8::is_ascii_digit)
}

fn is_time(text: &str) -> bool {
    let parsed = || DateTime::parse_from_rfc3339(text).is_ok_and(|time| is_in_range(time.to_utc().date_naive()));
    looks_like_a_time(text) && parsed()
}

fn is_local_time(text: &str) -> bool {
    let parsed = |format| NaiveDateTime::parse_from_str(text, format).is_ok_and(|time| is_in_range(time.date()));
    looks_like_a_time(text) && (parsed("%Y-%m-%dT%H:%M:%S%.f") || parsed("%Y-%m-%d %H:%M:%S%.f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_days_are_told_from_other_text() {
        for text in ["2026-11-21T10:00:00Z", "2026-11-21 10:00:00.123+05:30", "1900-01-01T00:00:00.000000001Z"] {
            assert!(is_time(text) && !is_local_time(text) && !is_day(text), "{text}");
        }
        assert!(is_local_time("2026-11-21T10:00:00.5") && is_local_time("2026-11-21 10:00:00"));
        assert!(is_day("2026-02-28"));
        for text in [
            "2026-02-30",
            "2026",
            "20261121",
            "0001-01-01T00:00:00Z",
            "9999-12-31",
            "2026-11-21T25:00:00Z",
            "",
            "2026-11-21T10:00",
        ] {
            assert!(!is_time(text) && !is_local_time(text) && !is_day(text), "{text}");
        }
    }

    #[test]
    fn every_kind_is_counted() {
        let mut shape = Shape::default();
        assert!(
            shape.add_object(r#" {"a": 1, "a": "second", "b": [1, null, {"c": true}], "": -9223372036854775809} "#)
        );
        assert!(shape.add_object("\u{feff}{\"b\": \"x\", \"a\": 18446744073709551615}"));
        for other in ["[1]", "5", "", "{", "{\"a\":1} {\"a\":2}"] {
            assert!(!shape.add_object(other), "{other}");
        }
        assert_eq!(shape.objects, 2);
        let a = shape.field("a").unwrap();
        assert_eq!((a.values, a.strings.count, a.numbers.width, a.numbers.negative), (2, 0, Width::UInt64, false));
        assert_eq!((shape.twice, a.twice), (1, 0));
        let b = shape.field("b").unwrap();
        assert_eq!((b.kinds(), b.elements.as_ref().unwrap().nulls), (2, 1));
        let unnamed = &shape.field("").unwrap().numbers;
        assert_eq!((unnamed.width, unnamed.negative), (Width::Bits256, true));
        let mut twice = shape.clone();
        twice.merge(&shape);
        assert_eq!((twice.objects, twice.field("b").unwrap().values), (4, 4));
    }
}
