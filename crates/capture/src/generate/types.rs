//! ClickHouse's types, as far as JSON can be converted into them: printed and parsed.

use std::fmt;

use sql::quote::{identifier, unquoted, visible};

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// One without parts, or whose parts do not matter here, as ClickHouse writes it.
    Leaf(String),
    /// `Nullable(…)`.
    Nullable(Box<Type>),
    /// `Array(…)`.
    Array(Box<Type>),
    /// `Map(key, …)`.
    Map(Box<Type>, Box<Type>),
    /// `Tuple(name …, …)`, all elements named.
    Tuple(Vec<(String, Type)>),
    /// A Tuple with unnamed elements, or a Variant; its name in ClickHouse and its parts.
    Parts(String, Vec<Type>),
}

impl Type {
    /// A type without parts.
    pub fn leaf(name: &str) -> Type {
        Type::Leaf(name.into())
    }

    /// The type that also accepts nulls if there is one: arrays, maps and tuples have none.
    pub fn nullable(self) -> Type {
        match self {
            Type::Leaf(name) if name != "JSON" => Type::Nullable(Box::new(Type::Leaf(name))),
            other => other,
        }
    }

    /// Parses a type from `system.columns`.
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
        if let Some(elements) = elements {
            return Type::Tuple(elements);
        }
        match ["Tuple", "Variant"].into_iter().find_map(|name| Some((name, parts(name)?))) {
            Some((name, types)) => Type::Parts(name.into(), types.into_iter().map(Type::parse).collect()),
            None => Type::Leaf(text.into()),
        }
    }

    /// Whether rows can be sorted by it.
    pub fn is_sortable(&self) -> bool {
        match self {
            Type::Leaf(name) => !["JSON", "Dynamic", "Object"].iter().any(|t| name.starts_with(t)),
            Type::Nullable(inner) | Type::Array(inner) => inner.is_sortable(),
            Type::Map(key, value) => key.is_sortable() && value.is_sortable(),
            Type::Tuple(elements) => elements.iter().all(|(_, inner)| inner.is_sortable()),
            Type::Parts(name, types) => name == "Tuple" && types.iter().all(Type::is_sortable),
        }
    }

    /// Whether `holds` is true of any type without parts in it.
    pub fn has_leaf(&self, holds: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Type::Leaf(name) => holds(name),
            Type::Nullable(inner) | Type::Array(inner) => inner.has_leaf(holds),
            Type::Map(key, value) => key.has_leaf(holds) || value.has_leaf(holds),
            Type::Tuple(elements) => elements.iter().any(|(_, inner)| inner.has_leaf(holds)),
            Type::Parts(_, types) => types.iter().any(|inner| inner.has_leaf(holds)),
        }
    }

    /// The type to read with `JSONExtract`, to be cast to this one. `JSON` and `Dynamic` first try
    /// the types of the rows before: `[1, null]` becomes `[null, null]` after an array of texts,
    /// and 9007199254740993 becomes 9007199254740992 after a fraction. Without types of their own
    /// they look only at the row itself. The contents of a Variant cannot be cast.
    pub fn per_row(&self) -> Type {
        let inner = |ty: &Type| Box::new(ty.per_row());
        match self {
            Type::Leaf(name) if name.starts_with("Dynamic") => Type::leaf("Dynamic(max_types=0)"),
            Type::Leaf(name) => match json_parameters(name) {
                None => self.clone(),
                Some(parameters) => {
                    let others = parameters.into_iter().filter(|one| !one.starts_with("max_dynamic_types"));
                    let all: Vec<_> = std::iter::once("max_dynamic_types=0").chain(others).collect();
                    Type::Leaf(format!("JSON({})", all.join(", ")))
                }
            },
            Type::Nullable(ty) => Type::Nullable(inner(ty)),
            Type::Array(ty) => Type::Array(inner(ty)),
            Type::Map(key, value) => Type::Map(key.clone(), inner(value)),
            Type::Tuple(all) => Type::Tuple(all.iter().map(|(name, ty)| (name.clone(), ty.per_row())).collect()),
            Type::Parts(name, all) if name == "Tuple" => {
                Type::Parts(name.clone(), all.iter().map(Type::per_row).collect())
            }
            Type::Parts(..) => self.clone(),
        }
    }

    /// Whether `JSONExtract` can produce it.
    pub fn is_extractable(&self) -> bool {
        match self {
            Type::Nullable(inner) | Type::Array(inner) => inner.is_extractable(),
            Type::Map(key, value) => {
                ["String", "LowCardinality(String)"].contains(&&*key.to_string()) && value.is_extractable()
            }
            Type::Tuple(elements) => elements.iter().all(|(_, inner)| inner.is_extractable()),
            // ClickHouse tries one after the other, and Decimal throws instead of failing over.
            Type::Parts(name, types) => {
                let throws = name == "Variant" && self.has_leaf(&|name| name.starts_with("Decimal"));
                !throws && types.iter().all(Type::is_extractable)
            }
            Type::Leaf(name) => {
                let word: String = name.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
                let sized = ["Int", "UInt", "Float", "Decimal", "Date", "DateTime", "IPv", "Enum"];
                let is_size = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit());
                let others = ["Bool", "String", "FixedString", "LowCardinality", "UUID", "JSON", "Dynamic"];
                sized.iter().any(|name| word.strip_prefix(name).is_some_and(is_size)) || others.contains(&&*word)
            }
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // ClickHouse prints some characters of a name or string verbatim, within quotes.
            Type::Leaf(name) => f.write_str(&visible(name)),
            Type::Nullable(inner) => write!(f, "Nullable({inner})"),
            Type::Array(inner) => write!(f, "Array({inner})"),
            Type::Map(key, value) => write!(f, "Map({key}, {value})"),
            Type::Tuple(elements) => {
                let elements: Vec<_> =
                    elements.iter().map(|(name, inner)| format!("{} {inner}", identifier(name))).collect();
                write!(f, "Tuple({})", elements.join(", "))
            }
            Type::Parts(name, types) => {
                let types: Vec<_> = types.iter().map(Type::to_string).collect();
                write!(f, "{name}({})", types.join(", "))
            }
        }
    }
}

/// The parameters of the type JSON; `None` for another type.
pub fn json_parameters(name: &str) -> Option<Vec<&str>> {
    match name.strip_prefix("JSON")? {
        "" => Some(Vec::new()),
        rest => Some(split(rest.strip_prefix('(')?.strip_suffix(')')?)),
    }
}

/// Splits at commas outside of brackets and quotes.
pub fn split(text: &str) -> Vec<&str> {
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

/// The name and the type of a tuple's element; `None` if it has no name.
pub fn element(text: &str) -> Option<(String, Type)> {
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
            "Variant(Int64, Tuple(String, Array(UUID)))",
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

    #[test]
    fn no_row_is_read_after_another() {
        for (ty, per_row) in [
            ("JSON", "JSON(max_dynamic_types=0)"),
            (
                "JSON(max_dynamic_types=8, max_dynamic_paths=4, `a.b` Decimal(18, 2), SKIP c)",
                "JSON(max_dynamic_types=0, max_dynamic_paths=4, `a.b` Decimal(18, 2), SKIP c)",
            ),
            ("Array(Tuple(`a` Nullable(JSON)))", "Array(Tuple(`a` Nullable(JSON(max_dynamic_types=0))))"),
            ("Map(String, Dynamic(max_types=4))", "Map(String, Dynamic(max_types=0))"),
            ("Tuple(JSON, Int64)", "Tuple(JSON(max_dynamic_types=0), Int64)"),
            ("Variant(Int64, JSON)", "Variant(Int64, JSON)"),
            ("Array(Int64)", "Array(Int64)"),
        ] {
            assert_eq!(Type::parse(ty).per_row().to_string(), per_row);
        }
    }
}
