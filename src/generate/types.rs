//! ClickHouse's types as far as JSON can be turned into them: printed, read, and the SQL that tells whether a value fits.

use std::fmt;

use crate::sql::quote::{identifier, literal, unquoted, visible};

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// One without parts, or with parts that do not matter here, as ClickHouse writes it.
    Leaf(String),
    /// `Nullable(…)`.
    Nullable(Box<Type>),
    /// `Array(…)`.
    Array(Box<Type>),
    /// `Map(key, …)`.
    Map(Box<Type>, Box<Type>),
    /// `Tuple(name …, …)`, all elements with names.
    Tuple(Vec<(String, Type)>),
}

impl Type {
    /// A type without parts.
    pub fn leaf(name: &str) -> Type {
        Type::Leaf(name.into())
    }

    /// The type that holds nulls where there is one: arrays, maps and tuples have none.
    pub fn nullable(self) -> Type {
        match self {
            Type::Leaf(name) if name != "JSON" => Type::Nullable(Box::new(Type::Leaf(name))),
            other => other,
        }
    }

    /// Reads what `system.columns` says.
    pub fn parse(text: &str) -> Type {
        let parts = |name: &str| {
            let rest = text.strip_prefix(name)?.strip_prefix('(')?;
            Some(split(rest.strip_suffix(')')?))
        };
        let inner = |name: &str| parts(name).and_then(|p| p.first().map(|first| Box::new(Type::parse(first))));
        if let Some(inner) = inner("Nullable") {
            return Type::Nullable(inner);
        }
        if let Some(inner) = inner("Array") {
            return Type::Array(inner);
        }
        if let Some([key, value]) = parts("Map").as_deref() {
            return Type::Map(Box::new(Type::parse(key)), Box::new(Type::parse(value)));
        }
        let elements: Option<Vec<_>> =
            parts("Tuple").and_then(|parts| parts.iter().map(|part| element(part)).collect());
        elements.map_or_else(|| Type::Leaf(text.into()), Type::Tuple)
    }

    /// Whether rows can be sorted by it.
    pub fn is_sortable(&self) -> bool {
        match self {
            Type::Leaf(name) => !["JSON", "Dynamic", "Variant", "Object"].iter().any(|t| name.starts_with(t)),
            Type::Nullable(inner) | Type::Array(inner) => inner.is_sortable(),
            Type::Map(key, value) => key.is_sortable() && value.is_sortable(),
            Type::Tuple(elements) => elements.iter().all(|(_, inner)| inner.is_sortable()),
        }
    }

    /// Whether `holds` is true of a type without parts in it.
    pub fn has_leaf(&self, holds: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Type::Leaf(name) => holds(name),
            Type::Nullable(inner) | Type::Array(inner) => inner.has_leaf(holds),
            Type::Map(key, value) => key.has_leaf(holds) || value.has_leaf(holds),
            Type::Tuple(elements) => elements.iter().any(|(_, inner)| inner.has_leaf(holds)),
        }
    }

    /// Whether `JSONExtract` can make it.
    pub fn is_extractable(&self) -> bool {
        match self {
            Type::Nullable(inner) | Type::Array(inner) => inner.is_extractable(),
            Type::Map(key, value) => {
                ["String", "LowCardinality(String)"].contains(&&*key.to_string()) && value.is_extractable()
            }
            Type::Tuple(elements) => elements.iter().all(|(_, inner)| inner.is_extractable()),
            Type::Leaf(name) => {
                let word: String = name.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
                let sized = ["Int", "UInt", "Float", "BFloat", "Decimal", "Date", "DateTime", "IPv", "Enum"];
                let is_size = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit());
                let others =
                    ["Bool", "String", "FixedString", "LowCardinality", "UUID", "JSON", "Variant", "Dynamic", "Tuple"];
                sized.iter().any(|name| word.strip_prefix(name).is_some_and(is_size)) || others.contains(&&*word)
            }
        }
    }

    /// SQL that is true when a JSON value fits: it is taken over whole, not cut, rounded or replaced. Null, and nothing at all, fit everywhere.
    /// `strict`: days and times must look as those of the sample did. None when everything fits.
    pub fn fits(&self, value: &Place, strict: bool) -> Option<String> {
        let holds = match self {
            Type::Nullable(inner) => return inner.fits(value, strict),
            Type::Leaf(name) => return leaf_fits(name, value, strict),
            Type::Array(inner) => {
                let (x, element) = value.below("");
                let inner = inner.fits(&element, strict);
                and(
                    format!("startsWith({}, '[')", value.raw()),
                    inner.map(|inner| format!("arrayAll({x} -> {inner}, {})", value.call("JSONExtractArrayRaw", None))),
                )
            }
            Type::Map(_, inner) => {
                let (x, element) = value.below(".2");
                let inner = inner.fits(&element, strict);
                let elements = value.call("JSONExtractKeysAndValuesRaw", None);
                and(
                    format!("startsWith({}, '{{')", value.raw()),
                    inner.map(|inner| format!("arrayAll({x} -> {inner}, {elements})")),
                )
            }
            Type::Tuple(elements) => {
                let inner = elements.iter().filter_map(|(name, inner)| inner.fits(&value.field(name), strict));
                and(format!("startsWith({}, '{{')", value.raw()), inner)
            }
        };
        Some(format!("({} IN ('', 'null') OR {holds})", value.raw()))
    }
}

/// Where a JSON value is: SQL that gives the text of a document, and a path within.
#[derive(Clone, Debug)]
pub struct Place {
    document: String,
    path: Vec<String>,
    depth: usize,
}

impl Place {
    /// The document itself.
    pub fn whole(document: String) -> Place {
        Place { document, path: Vec::new(), depth: 0 }
    }

    /// A field of an object there.
    pub fn field(&self, name: &str) -> Place {
        Place { path: self.path.iter().cloned().chain([name.to_string()]).collect(), ..self.clone() }
    }

    /// The text of the value; empty where there is none.
    pub fn raw(&self) -> String {
        if self.path.is_empty() { self.document.clone() } else { self.call("JSONExtractRaw", None) }
    }

    /// The name of a lambda's argument, and the place of an element that it stands for.
    fn below(&self, part: &str) -> (String, Place) {
        let x = format!("x{}", self.depth + 1);
        let place = Place { document: format!("{x}{part}"), path: Vec::new(), depth: self.depth + 1 };
        (x, place)
    }

    /// A function of the `JSONExtract` family, with a type.
    fn call(&self, function: &str, ty: Option<&str>) -> String {
        let path = self.path.iter().map(String::as_str).chain(ty).map(|text| format!(", {}", literal(text)));
        format!("{function}({}{})", self.document, path.collect::<String>())
    }
}

fn and(first: String, others: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = std::iter::once(first).chain(others).collect();
    if all.len() == 1 { all.concat() } else { format!("({})", all.join(" AND ")) }
}

/// The same for a type without parts.
fn leaf_fits(name: &str, place: &Place, strict: bool) -> Option<String> {
    let name = name.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(name);
    let name = name.strip_prefix("Nullable(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(name);
    let is = |prefix: &str| name.starts_with(prefix);
    let value = place.call("JSONExtract", Some(&format!("Nullable({name})")));
    let text = place.call("JSONExtract", Some("Nullable(String)"));
    if name == "String" || is("Variant") || is("Dynamic") || is("Tuple") {
        return None;
    }
    if is("JSON") || is("Object") {
        let raw = place.raw();
        return Some(format!("({raw} IN ('', 'null') OR startsWith({raw}, '{{'))"));
    }
    if is("Decimal") {
        // Digits beyond the scale would be cut. The text is compared as a number: 1.10 is 1.1.
        return Some(format!("ifNull({value} = toDecimal256OrNull({text}, 30), isNull({text}))"));
    }
    let number = is("Int") || is("UInt") || is("Float") || is("BFloat") || name == "Bool";
    let day = name == "Date" || name == "Date32";
    if number || day && strict {
        // Fractions would be cut off, true would become 1, large integers would be rounded, and days out of range would become others.
        return Some(format!("ifNull(toString({value}) = {text}, isNull({text}))"));
    }
    if day {
        return Some(format!("ifNull(startsWith({text}, toString({value})), isNull({text}))"));
    }
    match name.strip_prefix("DateTime64(").and_then(|rest| rest.chars().next()?.to_digit(10)) {
        Some(scale) if strict => {
            // Longer fractions would be cut, the 25th hour would become the next day, and years have their range.
            let years = if scale > 6 { "(19|20|21)[0-9]{2}|22[0-5][0-9]" } else { "(19|20|21|22)[0-9]{2}" };
            let time = "[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]";
            let pattern = literal(&format!("^({years})-{time}([.][0-9]{{1,{scale}}})?(Z|[+-][0-9]{{2}}:[0-9]{{2}})?$"));
            Some(format!("(isNull({text}) OR match({text}, {pattern}) AND isNotNull({value}))"))
        }
        _ => Some(format!("(isNull({text}) OR isNotNull({value}))")),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // ClickHouse prints a name or a string within quotes, some of its characters as they are.
            Type::Leaf(name) => f.write_str(&visible(name)),
            Type::Nullable(inner) => write!(f, "Nullable({inner})"),
            Type::Array(inner) => write!(f, "Array({inner})"),
            Type::Map(key, value) => write!(f, "Map({key}, {value})"),
            Type::Tuple(elements) => {
                let elements: Vec<_> =
                    elements.iter().map(|(name, inner)| format!("{} {inner}", identifier(name))).collect();
                write!(f, "Tuple({})", elements.join(", "))
            }
        }
    }
}

/// Splits at the commas that stand in no brackets and no quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '`' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts
}

/// The name and the type of a tuple's element; none where it has no name.
fn element(text: &str) -> Option<(String, Type)> {
    if text.starts_with('`') {
        return unquoted(text, '`').map(|(name, ty)| (name, Type::parse(ty.trim())));
    }
    let (name, rest) = text.split_once(' ')?;
    name.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| (name.into(), Type::parse(rest.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_printed() {
        for text in [
            "Nullable(Decimal(18, 2))",
            "Map(String, Array(Nullable(Int64)))",
            r"Tuple(`a` Int64, `it's \`b\`, (c)` Enum8('x' = 1, 'y, )' = 2), `d` Array(Tuple(`e` UUID)))",
            "LowCardinality(String)",
            "AggregateFunction(sum, UInt64)",
            "Tuple(Float64, Float64)",
            r"Tuple(`a\nb\\` Enum8('x\n' = 1), `\xE2\x80\xA8` Array(Int64))",
        ] {
            assert_eq!(Type::parse(text).to_string(), text);
        }
        assert_eq!(Type::parse("Tuple(a Int64, `b c` String)").to_string(), "Tuple(`a` Int64, `b c` String)");
        let raw = Type::parse("Tuple(`a\\nb` Enum8('x\u{1}\u{2028}\n' = 1))");
        let Type::Tuple(elements) = &raw else { panic!("{raw}") };
        assert_eq!(elements[0].0, "a\nb");
        assert_eq!(raw.to_string(), r"Tuple(`a\nb` Enum8('x\x01\xE2\x80\xA8\n' = 1))");
        assert!(!Type::parse("Array(AggregateFunction(sum, UInt64))").is_extractable());
        assert!(!Type::parse("Map(UInt64, String)").is_extractable() && !Type::parse("Point").is_extractable());
        assert!(Type::parse("Map(LowCardinality(String), DateTime64(3, 'UTC'))").is_extractable());
        assert!(
            !Type::parse("Tuple(a Array(JSON(x Int64)))").is_sortable() && Type::parse("Tuple(a UInt8)").is_sortable()
        );
    }
}
