//! SQL that decides whether a JSON value fits a type: it must be taken over completely, not
//! truncated, rounded or replaced. Null, and a missing value, fit everywhere.
//!
//! Each object is parsed once, and its fields are checked as text, as the parser writes it: numbers
//! in one form, and wide ones with their mark.

use super::numbers::MARK;
use super::types::{Type, element, json_parameters};
use domain::limits::{DATE_TIME64_END, DATE_TIME64_FIRST};
use sql::quote::{identifier, literal};

const UUID: &str = "^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$";

/// Regular expression for a JSON string.
const TEXT: &str = r#""(?:[^"\\]|\\.)*""#;

/// The location of a JSON value.
#[derive(Clone, Debug)]
pub struct Place {
    /// SQL for its text; empty if there is no value.
    pub raw: String,
    /// SQL for its fields, as pairs of name and text, if it is an object.
    pub pairs: String,
    /// How many lambdas surround it.
    pub depth: usize,
}

/// The parts of a record that are parsed outside of lambdas, each with its name in the SELECT.
#[derive(Debug, Default)]
pub struct Parts(Vec<(String, String)>);

impl Parts {
    /// SQL for the fields of an object, name → text.
    pub fn fields(&mut self, object: &Place) -> String {
        let sql = format!("CAST({}, 'Map(String, String)')", object.pairs);
        if object.depth > 0 { sql } else { self.named("fields", sql) }
    }

    /// SQL for the elements of an array.
    pub fn elements(&mut self, array: &Place) -> String {
        let sql = format!("JSONExtractArrayRaw({})", array.raw);
        if array.depth > 0 { sql } else { self.named("elements", sql) }
    }

    /// For the elements of an array of objects: the arguments of a lambda over them, the element
    /// inside it, and the arrays.
    pub fn objects(&mut self, array: &Place) -> (String, Place, String) {
        let (elements, (x, mut element)) = (self.elements(array), array.below());
        if array.depth > 0 {
            return (x, element, elements);
        }
        let objects = self.named("objects", format!("arrayMap(x -> JSONExtractKeysAndValuesRaw(x), {elements})"));
        element.pairs = format!("o{}", element.depth);
        (format!("{x}, {}", element.pairs), element, format!("{elements}, {objects}"))
    }

    fn named(&mut self, name: &str, sql: String) -> String {
        if let Some((name, _)) = self.0.iter().find(|(_, known)| *known == sql) {
            return name.clone();
        }
        let name = if self.0.is_empty() { name.into() } else { format!("{name}_{}", self.0.len() + 1) };
        self.0.push((name.clone(), sql));
        name
    }

    /// The definitions of these names in a SELECT.
    pub fn definitions(&self) -> Vec<String> {
        self.0.iter().map(|(name, sql)| format!("{sql} AS {name}")).collect()
    }
}

impl Place {
    /// A value whose text is this SQL.
    pub fn new(raw: String, depth: usize) -> Place {
        let pairs = format!("JSONExtractKeysAndValuesRaw({raw})");
        Place { raw, pairs, depth }
    }

    /// The whole record.
    pub fn record() -> Place {
        Place::new("_json".into(), 0)
    }

    /// A field of the object at this place.
    pub fn field(&self, name: &str, parts: &mut Parts) -> Place {
        Place::new(format!("{}[{}]", parts.fields(self), literal(name)), self.depth)
    }

    /// The name of a lambda's argument, and the element that it stands for.
    pub fn below(&self) -> (String, Place) {
        let name = format!("x{}", self.depth + 1);
        (name.clone(), Place::new(name, self.depth + 1))
    }

    /// The same place with another text.
    pub fn with(&self, raw: String) -> Place {
        Place::new(raw, self.depth)
    }
}

/// SQL that is true if no name occurs twice in an object.
pub fn once(fields: &str) -> String {
    format!("length(arrayDistinct(mapKeys({fields}))) = length({fields})")
}

/// The rules for fitting.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Times must be written like those of a sample; otherwise numbers count as times, too.
    pub strict: bool,
    /// Objects must not have fields that the type does not name.
    pub closed: bool,
    /// ClickHouse may round any integer in a `JSON`, not only those in arrays.
    pub rounds: bool,
    /// The value is read after those of other rows: see [`Type::per_row`].
    pub after_others: bool,
}

/// SQL that is true if the value at this place fits.
pub fn fits(ty: &Type, at: &Place, how: How, parts: &mut Parts) -> String {
    let raw = &at.raw;
    let holds = match ty {
        Type::Nullable(inner) => return fits(inner, at, how, parts),
        Type::Leaf(name) if ["String", "LowCardinality(String)"].contains(&&**name) => return as_written(raw),
        Type::Leaf(name) => leaf(name, at, how, parts),
        Type::Array(inner) => {
            let (args, element, arrays) = match **inner {
                Type::Tuple(_) => parts.objects(at),
                _ => {
                    let ((x, element), elements) = (at.below(), parts.elements(at));
                    (x, element, elements)
                }
            };
            let (all, elements) = (fits(inner, &element, how, parts), parts.elements(at));
            let whole = is_whole(ty, raw, &elements);
            format!("startsWith({raw}, '[') AND arrayAll(({args}) -> {all}, {arrays}){whole}")
        }
        Type::Map(_, inner) => {
            let (fields, (x, element)) = (parts.fields(at), at.below());
            let (once, inner) = (once(&fields), fits(inner, &element, how, parts));
            let whole = is_whole(ty, raw, &fields);
            format!("startsWith({raw}, '{{') AND {once} AND arrayAll({x} -> {inner}, mapValues({fields})){whole}")
        }
        Type::Tuple(elements) => {
            let mut all = vec![is_object(at, parts)];
            if how.closed {
                let names: Vec<String> = elements.iter().map(|(name, _)| literal(name)).collect();
                all.push(format!("arrayAll(k -> k IN ({}), mapKeys({}))", names.join(", "), parts.fields(at)));
            }
            for (name, inner) in elements {
                let element = at.field(name, parts);
                all.push(fits(inner, &element, how, parts));
            }
            all.join(" AND ")
        }
        Type::Parts(name, types) if name == "Tuple" => {
            let array = parts.elements(at);
            let mut all = vec![format!("startsWith({raw}, '[') AND length({array}) = {}", types.len())];
            for (n, inner) in types.iter().enumerate() {
                all.push(fits(inner, &at.with(format!("{array}[{}]", n + 1)), how, parts));
            }
            all.join(" AND ")
        }
        Type::Parts(_, types) => {
            // What ClickHouse chooses must match the value completely: nothing checks it for
            // unknown fields.
            let how = How { closed: true, after_others: true, ..how };
            let ty = literal(&ty.to_string());
            let chosen = format!("toString(variantType(JSONExtract(unmarked({raw}), {ty})))");
            let mut cases = Vec::new();
            for inner in types {
                cases.push(format!("{chosen} = {}, {}", literal(&inner.to_string()), fits(inner, at, how, parts)));
            }
            format!("multiIf({}, false)", cases.join(", "))
        }
    };
    format!("({raw} IN ('', 'null') OR {holds})")
}

/// An array or map in which every element is null, or has only unknown fields, becomes an empty
/// one, unless its elements may be null. Only checked if the first element does not settle it.
fn is_whole(ty: &Type, raw: &str, elements: &str) -> String {
    let told = match ty {
        Type::Array(inner) | Type::Map(_, inner) if matches!(&**inner, Type::Nullable(_)) => return String::new(),
        Type::Array(inner) => first_is_value(inner).map(|value| format!(r"^\[{value}")),
        Type::Map(_, inner) => first_is_value(inner).map(|value| format!(r#"^\{{"[^"\\]*":{value}"#)),
        _ => None,
    };
    let ty = literal(&without_decimals(ty).per_row().to_string());
    match told {
        None => format!(" AND length(JSONExtract(unmarked({raw}), {ty})) = length({elements})"),
        Some(told) => {
            let told = format!("match({raw}, {})", literal(&told));
            format!(" AND ({told} OR length(JSONExtract(if({told}, '', unmarked({raw})), {ty})) = length({elements}))")
        }
    }
}

/// The start of a value that is never left out of an array.
fn first_is_value(ty: &Type) -> Option<String> {
    let is_plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match ty {
        Type::Leaf(_) => Some("[^n\\]]".into()),
        Type::Tuple(elements) => {
            let leaf = |ty: &Type| {
                matches!(ty, Type::Leaf(_)) || matches!(ty, Type::Nullable(inner) if matches!(**inner, Type::Leaf(_)))
            };
            let names: Vec<&str> =
                elements.iter().filter(|(name, ty)| leaf(ty) && is_plain(name)).map(|(name, _)| &**name).collect();
            (!names.is_empty()).then(|| format!("[{{]\"({})\":[^n]", names.join("|")))
        }
        _ => None,
    }
}

/// A type that accepts what this one accepts, and does not throw.
fn without_decimals(ty: &Type) -> Type {
    let inner = |ty: &Type| Box::new(without_decimals(ty));
    match ty {
        Type::Leaf(name) if name.contains("Decimal") && !name.starts_with("JSON") => Type::leaf("Float64"),
        Type::Leaf(_) => ty.clone(),
        Type::Nullable(ty) => Type::Nullable(inner(ty)),
        Type::Array(ty) => Type::Array(inner(ty)),
        Type::Map(key, value) => Type::Map(key.clone(), inner(value)),
        Type::Tuple(all) => Type::Tuple(all.iter().map(|(name, ty)| (name.clone(), without_decimals(ty))).collect()),
        Type::Parts(name, all) => Type::Parts(name.clone(), all.iter().map(without_decimals).collect()),
    }
}

/// SQL that is true for an object without duplicate names.
pub fn is_object(at: &Place, parts: &mut Parts) -> String {
    format!("startsWith({}, '{{') AND {}", at.raw, once(&parts.fields(at)))
}

/// The same for a type without parts.
fn leaf(name: &str, at: &Place, how: How, parts: &mut Parts) -> String {
    let name = name.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(name);
    let name = name.strip_prefix("Nullable(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(name);
    let raw = &at.raw;
    let word: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
    // A number may be in quotes.
    let text = format!("bare({raw})");
    let parses = format!("isNotNull(JSONExtract(unmarked({raw}), {}))", literal(&format!("Nullable({name})")));
    match &*word {
        "String" => as_written(raw),
        // Padded with zeros, so a text that ends in one would be indistinguishable.
        "FixedString" => format!("{} AND {parses} AND NOT endsWith({raw}, '\\\\u0000\"')", as_written(raw)),
        "Bool" => format!("{raw} IN ('true', 'false')"),
        "Int128" | "Int256" | "UInt128" | "UInt256" => same(&word, &format!("unmarked({text})")),
        "Float32" | "Float64" => {
            let (plain, marked) = (same(&word, &text), is_marked(raw));
            let exact = match &*word {
                // What JSONExtract makes of it in quotes: 25.8 does not read all digits.
                "Float64" => {
                    format!("digits(unmarked({text})) = digits(toString(JSONExtract(unmarked({raw}), 'Float64')))")
                }
                _ => "false".into(),
            };
            format!("({plain} OR {marked} AND {exact})")
        }
        "Decimal" => decimal(name, raw, &format!("unmarked({text})")),
        // 25.8 accepts any text of the right length.
        "UUID" => format!("match({text}, {}) AND {parses}", literal(UUID)),
        "Date" | "Date32" | "IPv4" => same(&word, &text),
        "DateTime" | "DateTime64" => time(name, raw, &text, how.strict),
        "JSON" => json(name, at, how, parts),
        "Dynamic" if how.after_others => format!("{} AND {}", round_trip(raw, name), is_read_alike(raw)),
        "Dynamic" => round_trip(raw, name),
        _ if word.contains("Int") => same(&word, &text),
        _ => parses,
    }
}

/// Fractions would be truncated, integers beyond the type would wrap, and so would days out of
/// range.
fn same(word: &str, text: &str) -> String {
    format!("toString(to{word}OrZero({text})) = {text}")
}

/// Inside the text of an object or array a wide number would become a string; on its own it is
/// text.
fn as_written(raw: &str) -> String {
    format!("position({raw}, {}) <= 2", literal(MARK))
}

/// Whether the value is a wide number.
fn is_marked(raw: &str) -> String {
    format!("position({raw}, {}) = 2", literal(MARK))
}

/// Digits beyond the scale would be truncated, and numbers beyond the precision stop the query. A
/// JSON number goes through a double first.
fn decimal(name: &str, raw: &str, number: &str) -> String {
    let sizes: Vec<u32> = name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    let (precision, scale) = (sizes.first().copied().unwrap_or(76), sizes.get(1).copied().unwrap_or(0));
    let bits = match precision {
        0..=9 => 32,
        10..=18 => 64,
        19..=38 => 128,
        _ => 256,
    };
    let exact = format!("toDecimal{bits}OrNull({number}, {scale})");
    let whole = format!(
        "match({number}, '^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$') AND ifNull({} = {}, false)",
        format_args!("digits(toString({exact}))"),
        format_args!("digits({number})")
    );
    let taken = format!("JSONExtract(if({whole}, unmarked({raw}), '0'), {})", literal(name));
    format!("({whole} AND ifNull({taken} = {exact}, false))")
}

/// Longer fractions would be truncated, the 25th hour would become the next day, and years are
/// limited to a range, which an offset may leave.
fn time(name: &str, raw: &str, text: &str, strict: bool) -> String {
    let scale = name.strip_prefix("DateTime64(").and_then(|rest| rest.chars().next()?.to_digit(10));
    let (whole, inner) = match scale {
        None => ("19[7-9][0-9]|20[0-9]{2}|210[0-5]", "197[1-9]|19[89][0-9]|20[0-9]{2}|210[0-4]"),
        Some(7..) => ("(19|20|21)[0-9]{2}|22[0-5][0-9]", "190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-5][0-9]"),
        Some(_) => ("(19|20|21|22)[0-9]{2}", "190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-8][0-9]|229[0-8]"),
    };
    let fraction = match scale {
        None | Some(0) => "([.]0+)?".into(),
        Some(scale) => format!("([.][0-9]{{1,{scale}}}0*)?"),
    };
    let clock = format!("[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]{fraction}");
    // Without a zone, the column's applies.
    let utc = if name.ends_with("'UTC')") { "Z?" } else { "Z" };
    let pattern = literal(&format!("^({whole})-{clock}{utc}$|^({inner})-{clock}([+-][0-9]{{2}}:[0-9]{{2}})?$"));
    let value = format!("JSONExtract({raw}, {})", literal(&format!("Nullable({name})")));
    let written = format!("match({text}, {pattern}) AND isNotNull({value})");
    let ticks = match scale {
        _ if strict => return written,
        None => format!("ifNull(toString(toUnixTimestamp({value})) = {text}, false)"),
        Some(scale) => {
            let (ticks, unit) = (format!("toInt64OrZero({raw})"), 10_i64.pow(scale.min(9)));
            let (first, last) = (DATE_TIME64_FIRST.saturating_mul(unit), DATE_TIME64_END.saturating_mul(unit));
            let value = format!("reinterpretAsInt64(JSONExtract({raw}, {}))", literal(name));
            format!("{ticks} >= {first} AND {ticks} < {last} AND toString({value}) = {raw}")
        }
    };
    format!("({written} OR {ticks})")
}

/// The type JSON turns objects into paths, and drops the whole value if two are equal. Values must
/// fit the types of their paths, and whatever it skips may be lost.
fn json(name: &str, at: &Place, how: How, parts: &mut Parts) -> String {
    let mut all = vec![format!("startsWith({}, '{{')", at.raw), round_trip(&at.raw, "JSON")];
    let (mut typed, mut skipped) = (Vec::new(), Vec::new());
    for parameter in json_parameters(name).unwrap_or_default() {
        let path = if parameter.starts_with('`') {
            element(parameter)
        } else {
            parameter.split_once(' ').map(|(path, ty)| (path.replace('`', ""), Type::parse(ty)))
        };
        match path {
            Some((path, _)) if path == "SKIP" => skipped.push(parameter.to_owned()),
            Some((path, ty)) => {
                skipped.push(format!("SKIP {}", identifier(&path)));
                typed.push((path, ty));
            }
            None => {}
        }
    }
    let untyped = match skipped.is_empty() {
        true => at.raw.clone(),
        false => {
            let ty = Type::Leaf(format!("JSON({})", skipped.join(", "))).per_row();
            format!("toJSONString(JSONExtract({}, {}))", at.raw, literal(&ty.to_string()))
        }
    };
    all.push(if how.after_others { is_read_alike(&untyped) } else { is_not_rounded(&untyped, how.rounds) });
    let how = How { closed: true, after_others: true, ..how };
    for (path, ty) in typed {
        let path: String = path.split('.').map(|name| format!(", {}", literal(name))).collect();
        all.push(fits(&ty, &at.with(format!("JSONExtractRaw({}{path})", at.raw)), how, parts));
    }
    all.join(" AND ")
}

/// ClickHouse reads an integer in an array of a `JSON` as a double after an array of doubles, and,
/// if it `rounds`, every integer after a double in its place.
fn is_not_rounded(raw: &str, rounds: bool) -> String {
    let before = if rounds { "(?:^|[\\[,:])" } else { "[\\[,]" };
    let numbers = literal(&format!("{TEXT}|{before}(-?[0-9.eE+-]+)"));
    let rounded = "match(n, '^-?[0-9]{16,}$') AND toString(toFloat64OrZero(n)) != n";
    format!("NOT arrayExists(n -> {rounded}, extractAll({raw}, {numbers}))")
}

/// Whether the values read before make no difference.
fn is_read_alike(raw: &str) -> String {
    format!("position({raw}, '[') = 0 AND {}", is_not_rounded(raw, true))
}

/// Whether a value survives a round trip through a type. The order of fields does not matter, nor
/// do null fields.
fn round_trip(raw: &str, ty: &str) -> String {
    let tokens = |text: &str| {
        let pattern = literal(&format!(r"{TEXT}(?::null)?|[0-9.eE+-]+|true|false|null|[{{}}\[\]]"));
        format!("arraySort(arrayFilter(t -> NOT endsWith(t, '\":null'), extractAll({text}, {pattern})))")
    };
    // On 25.8 the text of a Dynamic may be NULL, which has no tokens.
    let back = format!(
        "ifNull(JSONExtractRaw(toJSONString(JSONExtract({raw}, {}))), '')",
        literal(&Type::leaf(ty).per_row().to_string())
    );
    format!("position({raw}, {}) = 0 AND {} = {}", literal(MARK), tokens(raw), tokens(&back))
}
