//! The parts of a record that have no column: which fields are known, and the SQL that collects the
//! others.

use super::column::Column;
use super::fits::{How, Parts, Place, fits, is_object};
use super::types::Type;
use sql::quote::literal;

/// The column for fields that have none of their own.
pub const REST: &str = "rest";
/// Its type.
pub const REST_TYPE: &str = "Map(String, String)";
/// The text of its comment, by which it is recognized.
pub const REST_COMMENT: &str = "fields without a column of their own, as JSON";

/// Objects whose fields have columns, as nested tuples with the columns at the leaves. A column
/// that takes a whole value includes everything in it.
pub fn known(columns: &[Column]) -> Type {
    columns.iter().fold(Type::Tuple(Vec::new()), |known, column| {
        let nested =
            column.path.iter().rev().fold(column.ty.clone(), |inner, name| Type::Tuple(vec![(name.clone(), inner)]));
        both(known, nested)
    })
}

fn both(one: Type, other: Type) -> Type {
    match (one, other) {
        (Type::Nullable(one), other) => both(*one, other),
        (one, Type::Nullable(other)) => both(one, *other),
        (Type::Tuple(mut one), Type::Tuple(other)) => {
            for (name, inner) in other {
                match one.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = both(known.clone(), inner),
                    None => one.push((name, inner)),
                }
            }
            Type::Tuple(one)
        }
        (one @ Type::Tuple(_), other) => {
            if has_names(&other) {
                one
            } else {
                other
            }
        }
        (one, _) => one,
    }
}

/// Whether something in a value of this type may have no place in it.
fn has_names(ty: &Type) -> bool {
    match ty {
        Type::Leaf(_) => false,
        Type::Nullable(inner) | Type::Array(inner) | Type::Map(_, inner) => has_names(inner),
        Type::Tuple(_) => true,
        Type::Parts(name, types) => name == "Tuple" && types.iter().any(has_names),
    }
}

/// SQL for the unknown fields of a record: where each is, as ClickHouse would name it (`a.b`,
/// `lines[2].b`, `by['x'].b`), and its JSON.
pub fn rest(known: &Type, parts: &mut Parts) -> String {
    let all = unknown(known, &Place::record(), None, parts);
    let all = if all.len() == 1 {
        all.concat()
    } else {
        format!("arrayConcat(\n            {})", all.join(",\n            "))
    };
    format!("CAST({all}, '{REST_TYPE}')")
}

/// The arrays of pairs that make up `rest`. `path` is SQL for the location of the value.
fn unknown(ty: &Type, at: &Place, path: Option<&str>, parts: &mut Parts) -> Vec<String> {
    match ty {
        Type::Tuple(elements) => {
            let names: Vec<String> = elements.iter().map(|(name, _)| literal(name)).collect();
            let name = path.map_or_else(|| "p.1".into(), |path| format!("concat({path}, '.', p.1)"));
            let others = match names.is_empty() {
                true => at.pairs.clone(),
                false => format!("arrayFilter(p -> p.1 NOT IN ({}), {})", names.join(", "), at.pairs),
            };
            let mut all = vec![format!("arrayMap(p -> ({name}, written(p.2)), {others})")];
            for (name, inner) in elements.iter().filter(|(_, inner)| has_names(inner)) {
                let below =
                    path.map_or_else(|| literal(name), |path| format!("{path}, {}", literal(&format!(".{name}"))));
                let element = at.field(name, parts);
                all.extend(unknown(inner, &element, Some(&below), parts));
            }
            all
        }
        Type::Nullable(inner) => unknown(inner, at, path, parts),
        Type::Array(inner) if has_names(inner) => {
            let (args, element, arrays) = parts.objects(at);
            let (path, n, elements) = (path.unwrap_or("''"), format!("n{}", element.depth), parts.elements(at));
            let inner = unknown(inner, &element, Some(&format!("{path}, '[', toString({n}), ']'")), parts);
            let inner = joined(&inner);
            vec![format!("arrayFlatten(arrayMap(({args}, {n}) -> {inner}, {arrays}, arrayEnumerate({elements})))")]
        }
        Type::Map(_, inner) if has_names(inner) => {
            let ((x, element), path) = (at.below(), path.unwrap_or("''"));
            let element = element.with(format!("{x}.2"));
            let inner = unknown(inner, &element, Some(&format!("{path}, '[\\'', {x}.1, '\\']'")), parts);
            vec![format!("arrayFlatten(arrayMap({x} -> {}, {}))", joined(&inner), at.pairs)]
        }
        Type::Parts(_, types) if has_names(ty) => {
            let array = parts.elements(at);
            let mut all = Vec::new();
            for (n, inner) in types.iter().enumerate().filter(|(_, inner)| has_names(inner)) {
                let element = at.with(format!("{array}[{}]", n + 1));
                let path = format!("{}, '.{}'", path.unwrap_or("''"), n + 1);
                all.extend(unknown(inner, &element, Some(&path), parts));
            }
            all
        }
        _ => Vec::new(),
    }
}

fn joined(arrays: &[String]) -> String {
    if arrays.len() == 1 { arrays.concat() } else { format!("arrayConcat({})", arrays.join(", ")) }
}

/// A check on a record: the value at a path, and whether it fits.
pub struct Check {
    /// The field, as users write it.
    pub field: String,
    /// SQL for its text.
    pub value: String,
    /// SQL that is true if it fits.
    pub fits: String,
    /// The column it goes to; `None` for an object of which only parts do.
    pub column: Option<usize>,
}

/// The checks of all columns, and of the objects around them.
pub fn checks(columns: &[Column], how: How, parts: &mut Parts) -> Vec<Check> {
    let mut all = Vec::new();
    around(columns, &[], &Place::record(), &mut all, parts);
    for (at, column) in columns.iter().enumerate().filter(|(_, column)| !column.as_text) {
        let mut place = Place::record();
        for name in &column.path {
            place = place.field(name, parts);
        }
        let fits = fits(&column.ty, &place, how, parts);
        all.push(Check { field: column.path.join("."), value: place.raw, fits, column: Some(at) });
    }
    all
}

/// An object whose parts have columns must be an object, unless a column takes it whole.
fn around(columns: &[Column], path: &[String], at: &Place, all: &mut Vec<Check>, parts: &mut Parts) {
    let mut names: Vec<&String> = Vec::new();
    for column in columns.iter().filter(|column| column.path.starts_with(path) && column.path.len() > path.len() + 1) {
        let name = &column.path[path.len()];
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let (path, place) = ([path, std::slice::from_ref(name)].concat(), at.field(name, parts));
        if columns.iter().all(|column| column.path != path) {
            let fits = format!("({} IN ('', 'null') OR {})", place.raw, is_object(&place, parts));
            all.push(Check { field: path.join("."), value: place.raw.clone(), fits, column: None });
        }
        around(columns, &path, &place, all, parts);
    }
}
