//! From the shape of the sample to types, wide rather than narrow: every value of the sample must
//! arrive.

use super::shape::{Shape, Strings, Width};
use super::types::Type;
use domain::limits::MAX_TUPLE_FIELDS;

/// The type for the values at a place. `optional`: some records have none.
pub fn infer(shape: &Shape, optional: bool) -> Type {
    let optional = optional || shape.nulls > 0;
    let scalar = if shape.kinds() > 1 {
        // Everything is text, too.
        "String".to_string()
    } else if shape.objects > 0 {
        return object(shape, optional);
    } else if shape.arrays > 0 {
        let elements = shape.elements.as_deref().filter(|e| e.values > 0);
        return Type::Array(Box::new(elements.map_or_else(|| Type::leaf("String"), |e| infer(e, false))));
    } else if shape.bools > 0 {
        "Bool".into()
    } else if shape.numbers.count > 0 {
        number(shape)
    } else if shape.strings.count > 0 {
        string(&shape.strings)
    } else {
        return Type::leaf("String").nullable();
    };
    if optional { Type::Leaf(scalar).nullable() } else { Type::Leaf(scalar) }
}

fn number(shape: &Shape) -> String {
    let numbers = &shape.numbers;
    let name = match (numbers.floats > 0, numbers.width, numbers.negative) {
        (true, _, _) if numbers.inexact => "String",
        (true, _, _) => "Float64",
        (false, Width::Int64, _) => "Int64",
        (false, Width::UInt64, false) => "UInt64",
        (false, Width::UInt64, true) => "Int128",
        (false, Width::Bits256, false) => "UInt256",
        (false, Width::Bits256, true) => "Int256",
        (false, Width::Unbounded, _) => "String",
    };
    name.into()
}

fn string(strings: &Strings) -> String {
    // ClickHouse supports at most nine digits.
    let time = (strings.times || strings.local_times) && strings.fraction <= 9;
    match strings {
        s if s.uuids => "UUID".into(),
        s if s.ipv4 => "IPv4".into(),
        s if s.ipv6 => "IPv6".into(),
        s if s.days => "Date32".into(),
        s if time => {
            let scale = [3, 6, 9].into_iter().find(|scale| s.fraction <= *scale).unwrap_or(9);
            format!("DateTime64({scale}, 'UTC')")
        }
        _ => "String".into(),
    }
}

/// A Tuple if the objects share their fields; a Map if the names of the fields are data; otherwise
/// JSON, or its text if a type would lose something.
fn object(shape: &Shape, optional: bool) -> Type {
    if shape.twice > 0 {
        return Type::leaf("String").nullable();
    }
    let mut merged = Shape::default();
    shape.fields.iter().for_each(|(_, field)| merged.merge(field));
    let fields = shape.fields.len();
    let map = |value: Type| Type::Map(Box::new(Type::leaf("String")), Box::new(value));
    if fields == 0 {
        return map(Type::leaf("String"));
    }
    // On average, a field is in less than half of the objects.
    let is_loose = 2 * merged.values < shape.objects * fields || fields > MAX_TUPLE_FIELDS;
    let unnamed = shape.fields.iter().any(|(name, _)| !is_element_name(name));
    if merged.kinds() == 1 && (unnamed || is_loose && fields > 2) {
        return map(infer(&merged, false));
    }
    if !is_loose && !unnamed {
        let element =
            |(name, field): &(String, Shape)| (name.clone(), infer(field, optional || field.values < shape.objects));
        return Type::Tuple(shape.fields.iter().map(element).collect());
    }
    // The type JSON makes a path of a dot, and drops objects without fields.
    let lost = |s: &Shape| {
        let bad_name = s.fields.iter().any(|(name, _)| name.is_empty() || name.contains('.'));
        s.numbers.wide || s.twice > 0 || bad_name || (s.objects > 0 && s.fields.is_empty())
    };
    match shape.any(&lost) {
        true => Type::leaf("String").nullable(),
        false => Type::leaf("JSON"),
    }
}

/// Whether an element of a Tuple may have this name.
pub fn is_element_name(name: &str) -> bool {
    !name.is_empty() && name != "null"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn inferred(records: &[&str], expected: &str) {
        let mut shape = Shape::default();
        records.iter().for_each(|record| assert!(shape.add_object(&format!("{{\"v\": {record}}}"))));
        let v = shape.field("v").unwrap();
        assert_eq!(infer(v, v.values < shape.objects).to_string(), expected, "{records:?}");
    }

    #[test]
    fn scalars() {
        inferred(&["1", "-5"], "Int64");
        inferred(&["1", "18446744073709551615"], "UInt64");
        inferred(&["-1", "18446744073709551615"], "Int128");
        inferred(&["123456789012345678901234567890"], "UInt256");
        inferred(&["-123456789012345678901234567890", "1"], "Int256");
        inferred(&[&"9".repeat(77)], "String");
        inferred(&["1", "1.5"], "Float64");
        inferred(&["9007199254740993", "1.5"], "String");
        inferred(&["0.1234567890123456789"], "String");
        inferred(&["8.232762829599804"], "String");
        inferred(&["1e400", "1"], "String");
        inferred(&["0.1000000000000000", "1e300", "-0"], "Float64");
        inferred(&["true", "null"], "Nullable(Bool)");
        inferred(&["1", "\"x\""], "String");
        inferred(&["1", "null", "{}"], "Nullable(String)");
        inferred(&["null"], "Nullable(String)");
        inferred(&["\"550e8400-e29b-41d4-a716-446655440000\""], "UUID");
        inferred(&["\"10.0.0.1\"", "\"10.0.0.2\""], "IPv4");
        inferred(&["\"::1\""], "IPv6");
        inferred(&["\"10.0.0.1\"", "\"::1\""], "String");
        inferred(&["\"10.0.0.1\"", "\"\""], "String");
        inferred(&["\"2026-11-21\""], "Date32");
        inferred(&["\"2026-11-21T10:00:00Z\"", "\"2026-11-21T10:00:00.123456+02:00\""], "DateTime64(6, 'UTC')");
        inferred(&["\"2026-11-21 10:00:00\""], "DateTime64(3, 'UTC')");
        inferred(&["\"2026-11-21T10:00:00Z\"", "\"2026-11-21T10:00:00\""], "String");
        inferred(&["\"2026-11-21\"", "\"2026-11-21T10:00:00Z\""], "String");
    }

    #[test]
    fn nested() {
        inferred(&["[]"], "Array(String)");
        inferred(&["[1, null]", "null"], "Array(Nullable(Int64))");
        inferred(&["[1, {\"a\": 1}]"], "Array(String)");
        inferred(&["[[1.5], []]"], "Array(Array(Float64))");
        inferred(&["[{\"a\": 1}, {\"a\": 2, \"b\": \"x\"}]"], "Array(Tuple(`a` Int64, `b` Nullable(String)))");
        inferred(&["{\"a\": {\"b\": 1}}", "null"], "Tuple(`a` Tuple(`b` Nullable(Int64)))");
        inferred(&["{}"], "Map(String, String)");
        inferred(&["{\"u1\": 1}", "{\"u2\": 2}", "{\"u3\": null}"], "Map(String, Nullable(Int64))");
        inferred(
            &["{\"u1\": {\"n\": 1}}", "{\"u2\": {\"n\": 2}}", "{\"u3\": {\"n\": 3}}"],
            "Map(String, Tuple(`n` Int64))",
        );
        inferred(&["{\"a\": 1}", "{\"b\": \"x\"}", "{\"c\": [1]}"], "JSON");
        inferred(&["{\"a\": 1}", "{\"b.c\": \"x\"}", "{\"c\": [1]}"], "Nullable(String)");
        inferred(&["{\"a\": 1}", "{\"b\": \"x\"}", "{\"c\": {}}"], "Nullable(String)");
        inferred(&["{\"a\": 1}", "{\"b\": \"x\"}", "{\"c\": [{\"d\": 1, \"d\": 2}]}"], "Nullable(String)");
        inferred(&["{\"a\": 1, \"a\": 2}"], "Nullable(String)");
        inferred(&["[{\"a\": 1, \"a\": 2}]"], "Array(Nullable(String))");
        inferred(&["{\"\": 1, \"b\": 2}"], "Map(String, Int64)");
        inferred(&["{\"null\": 1, \"b\": \"x\"}"], "JSON");
    }
}
