//! Which field goes into which column, and the notes about it.

use std::collections::HashSet;

use super::column::Column;
use super::fits::How;
use super::infer::infer;
use super::rest::{REST, REST_COMMENT, REST_TYPE};
use super::shape::Shape;
use super::types::Type;
use crate::error::CommandError;
use domain::columns::{self, KEY, RAW_MESSAGE, SEQUENCE_NUMBER, SHARD_ID, STREAM, SUB_SEQUENCE_NUMBER, TIMESTAMP};
use sql::quote::identifier;

/// The columns of a record that a pipe's table can have.
pub const RECORD_COLUMNS: [columns::Column; 7] =
    [TIMESTAMP, SHARD_ID, SEQUENCE_NUMBER, SUB_SEQUENCE_NUMBER, KEY, STREAM, RAW_MESSAGE];
/// Those that a new table gets.
const OF_A_NEW_TABLE: [columns::Column; 4] = [TIMESTAMP, SHARD_ID, SEQUENCE_NUMBER, SUB_SEQUENCE_NUMBER];
/// Names of the pipe and of ClickHouse that no payload column may have.
const RESERVED: [&str; 9] =
    ["_batch", "_error", "_json", "_numbers", "_wide", "_tokens", "_row_exists", "_block_number", "_block_offset"];

/// A column of an existing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its name.
    pub name: String,
    /// Its type as ClickHouse prints it.
    pub ty: String,
    /// Whether it accepts inserted values: it is neither computed nor an alias.
    pub insertable: bool,
    /// Whether it has an expression for rows that bring no value.
    pub has_default: bool,
    /// Its comment.
    pub comment: String,
}

/// The mapping of fields to columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The columns from the payload.
    pub columns: Vec<Column>,
    /// The columns from the record around it.
    pub record: Vec<columns::Column>,
    /// Notes for the top of the SQL.
    pub notes: Vec<String>,
    /// Whether the table has a column for the fields that have none of their own.
    pub rest: bool,
    /// The types were chosen here, so the checks may be strict.
    pub strict: bool,
    /// ClickHouse may round any integer in a column of the type JSON: see [`How::rounds`].
    pub rounds: bool,
}

impl Plan {
    /// The rules for what fits into its columns.
    pub fn how(&self) -> How {
        How { strict: self.strict, closed: false, rounds: self.rounds, after_others: false }
    }
}

/// `--map`: a field and its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    source: String,
    column: String,
}

impl Mapping {
    /// Parses `SRC=DST`.
    pub fn parse(text: &str) -> Result<Mapping, CommandError> {
        match text.split_once('=') {
            Some((source, column)) if !column.is_empty() => {
                Ok(Mapping { source: source.into(), column: column.into() })
            }
            _ => Err(CommandError::Refused(format!(
                "--map is '{text}': write a field, an equals sign and a column, as in --map userId=user_id"
            ))),
        }
    }

    /// The field: of that exact name, or nested, with the name split at dots.
    fn path(&self, shape: &Shape) -> Vec<String> {
        match shape.field(&self.source) {
            Some(_) => vec![self.source.clone()],
            None => self.source.split('.').map(String::from).collect(),
        }
    }
}

/// Fields as columns, each with its type.
fn sources(shape: &Shape, flatten: bool) -> Vec<(Vec<String>, Type)> {
    let mut found = Vec::new();
    for (name, field) in &shape.fields {
        add(vec![name.clone()], infer(field, field.values < shape.objects), flatten, &mut found);
    }
    found
}

fn add(path: Vec<String>, ty: Type, flatten: bool, found: &mut Vec<(Vec<String>, Type)>) {
    match ty {
        Type::Tuple(elements) if flatten => {
            for (name, inner) in elements {
                add(path.iter().cloned().chain([name]).collect(), inner, flatten, found);
            }
        }
        ty => found.push((path, ty)),
    }
}

/// The shape at a path, and whether some records lack it.
fn at<'s>(shape: &'s Shape, path: &[String]) -> Option<(&'s Shape, bool)> {
    path.iter().try_fold((shape, false), |(shape, optional), name| {
        let field = shape.field(name)?;
        Some((field, optional || shape.nulls > 0 || field.values < shape.values))
    })
}

/// The name of a column for a field. A dot would make it part of a nested column.
fn column_name(path: &[String]) -> String {
    let name = path.join("_").replace('.', "_");
    let taken = RECORD_COLUMNS.iter().map(|column| column.name).chain(RESERVED).any(|reserved| reserved == name);
    match (name.is_empty(), taken) {
        (true, _) => "field".into(),
        (_, true) => format!("field{name}"),
        _ => name,
    }
}

/// `base`, with a number appended if needed to avoid the names that are taken.
pub fn unique(base: &str, taken: &HashSet<String>) -> String {
    let numbered = (2..).map(|n| format!("{base}_{n}"));
    std::iter::once(base.to_string()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

/// Whether a column of this type, for the values of this shape, stores objects and arrays as their
/// text.
fn is_text(shape: Option<&Shape>, ty: &Type) -> bool {
    let is_string = matches!(&*ty.clone().nullable().to_string(), "Nullable(String)");
    is_string && shape.is_some_and(|shape| shape.objects > 0 || shape.arrays > 0)
}

/// The columns of a new table; with `rest`, also one for fields that have none.
pub fn new_table(shape: &Shape, flatten: bool, maps: &[Mapping], rest: bool) -> Result<Plan, CommandError> {
    let mut plan = Plan { record: OF_A_NEW_TABLE.to_vec(), rest, strict: true, ..Plan::default() };
    let mut all = sources(shape, flatten);
    let mut mapped: Vec<(Vec<String>, &str)> = Vec::new();
    for map in maps {
        let path = map.path(shape);
        let Some((found, optional)) = at(shape, &path) else {
            let known: Vec<_> = shape.fields.iter().map(|(name, _)| shown(name)).collect();
            let (source, known) = (shown(&map.source), known.join(", "));
            return Err(CommandError::Refused(format!(
                "--map names the field {source}, which no record of the sample has; it has {known}"
            )));
        };
        if all.iter().all(|(other, _)| *other != path) {
            all.push((path.clone(), infer(found, optional)));
        }
        mapped.push((path, &map.column));
    }
    let own = plan.record.iter().map(|column| column.name).chain(rest.then_some(REST));
    let mut taken: HashSet<String> = own.map(String::from).collect();
    for (path, column) in &mapped {
        if !taken.insert(column.to_string()) {
            let (field, column) = (shown(&path.join(".")), shown(column));
            return Err(CommandError::Refused(format!(
                "--map loads {field} into the column {column}, which already has another source"
            )));
        }
    }
    for (path, ty) in all {
        let given = mapped.iter().find(|(source, _)| *source == path).map(|(_, column)| column.to_string());
        let name = given.clone().unwrap_or_else(|| unique(&column_name(&path), &taken));
        if given.is_none() && path.join("_") != name {
            plan.notes.push(format!("The field {} becomes the column {}.", shown(&path.join(".")), shown(&name)));
        }
        taken.insert(name.clone());
        let found = at(shape, &path).map(|(found, _)| found);
        plan.notes.extend(found.and_then(|found| remark(&path, found, &ty)));
        let as_text = is_text(found, &ty);
        plan.columns.push(Column { name, path, ty, as_text });
    }
    Ok(plan)
}

/// The note about the type of a field, if there is one.
fn remark(path: &[String], shape: &Shape, ty: &Type) -> Option<String> {
    let field = shown(&path.join("."));
    let counts = [
        (shape.bools, "booleans"),
        (shape.numbers.count, "numbers"),
        (shape.strings.count, "strings"),
        (shape.objects, "objects"),
        (shape.arrays, "arrays"),
    ];
    let kinds: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{n} {kind}")).collect();
    match ty {
        _ if shape.twice > 0 => {
            Some(format!("{field} has objects with a name twice, which no type can hold: as text."))
        }
        _ if kinds.len() > 1 => Some(format!("{field} has {}: each as text.", kinds.join(", "))),
        Type::Leaf(name) if name == "JSON" => Some(format!(
            "{field} has objects that differ a lot: JSON. A null in it cannot be told from a missing field."
        )),
        _ if kinds.is_empty() => Some(format!("{field} has only nulls in the sample: String.")),
        ty if shape.numbers.count > 0 && ty.has_leaf(&|name| name == "String") => {
            Some(format!("{field} has numbers with more digits than ClickHouse's types can hold: String."))
        }
        _ => None,
    }
}

/// Whether the column is the one for fields that have none of their own, rather than that of a
/// field with its name.
fn is_rest(column: &Existing, shape: &Shape, maps: &[Mapping]) -> bool {
    column.name == REST
        && column.ty == REST_TYPE
        && column.insertable
        && (column.comment == REST_COMMENT || shape.field(REST).is_none())
        && maps.iter().all(|map| map.column != REST)
}

/// The columns of an existing table; with `rest`, the one for fields that have none is filled if it
/// exists.
pub fn existing_table(
    shape: &Shape,
    table: &[Existing],
    flatten: bool,
    maps: &[Mapping],
    rest: bool,
) -> Result<Plan, CommandError> {
    let mut plan = Plan::default();
    for map in maps {
        if !table.iter().any(|column| column.name == map.column && column.insertable) {
            let known: Vec<_> = table.iter().filter(|c| c.insertable).map(|c| shown(&c.name)).collect();
            let (column, known) = (shown(&map.column), known.join(", "));
            return Err(CommandError::Refused(format!(
                "--map names the column {column}, which the table does not have; it has {known}"
            )));
        }
    }
    let all = sources(shape, flatten);
    let named = |name: &str| {
        let top = shape.field(name).map(|_| vec![name.to_string()]);
        top.or_else(|| all.iter().map(|(path, _)| path).find(|path| column_name(path) == name).cloned())
    };
    for column in table.iter().filter(|column| column.insertable) {
        let shown_column = shown(&column.name);
        if rest && is_rest(column, shape, maps) {
            plan.rest = true;
            continue;
        }
        let map = maps.iter().find(|map| map.column == column.name);
        if let (None, Some(of_record)) = (map, RECORD_COLUMNS.into_iter().find(|known| known.name == column.name)) {
            plan.record.push(of_record);
            continue;
        }
        let ty = Type::parse(&column.ty);
        let path = match map.map(|map| map.path(shape)).or_else(|| named(&column.name)) {
            Some(path) => path,
            None if column.has_default => {
                plan.notes.push(format!("The column {shown_column} has no field in the sample: it gets its default."));
                continue;
            }
            None => vec![column.name.clone()],
        };
        if !ty.is_extractable() {
            plan.notes.push(format!("The column {shown_column} is left out: {} cannot be made from JSON.", column.ty));
            continue;
        }
        let found = at(shape, &path).map(|(found, _)| found);
        if found.is_none() {
            let field = shown(&path.join("."));
            plan.notes.push(format!("No record of the sample has the field {field} for the column {shown_column}."));
        }
        let as_text = is_text(found, &ty);
        plan.columns.push(Column { name: column.name.clone(), path, ty, as_text });
    }
    if plan.columns.iter().all(|column| at(shape, &column.path).is_none()) {
        plan.columns.clear();
    }
    let lost = if plan.rest { "is only in rest" } else { "is not loaded" };
    for (path, ty) in all {
        let brought = |column: &Column| column.path.starts_with(&path) || path.starts_with(&column.path);
        if !plan.columns.iter().any(brought) {
            let column = identifier(&column_name(&path));
            let field = shown(&path.join("."));
            plan.notes
                .push(format!("The field {field} has no column and {lost}: ADD COLUMN {column} {ty} would hold it."));
        }
    }
    Ok(plan)
}

/// A name for a comment or a message: nothing in it ends the line.
pub fn shown(name: &str) -> String {
    format!("{name:?}").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(records: &[&str]) -> Shape {
        let mut shape = Shape::default();
        records.iter().for_each(|record| assert!(shape.add_object(record)));
        shape
    }

    fn columns(plan: &Plan) -> Vec<(String, String, String)> {
        plan.columns.iter().map(|c| (c.name.clone(), c.path.join("/"), c.ty.to_string())).collect()
    }

    fn row(name: &str, path: &str, ty: &str) -> (String, String, String) {
        (name.into(), path.into(), ty.into())
    }

    fn existing(name: &str, ty: &str) -> Existing {
        Existing { name: name.into(), ty: ty.into(), insertable: true, has_default: false, comment: String::new() }
    }

    #[test]
    fn names_are_unique_and_not_those_of_records() {
        let shape =
            shape(&[r#"{"_timestamp": 1, "a.b": 1, "a": {"b": 1}, "": 1, "A": 1, "_row_exists": 1, "a_b": 2}"#]);
        let plan = new_table(&shape, true, &[], true).unwrap();
        let names: Vec<_> = plan.columns.iter().map(|c| &*c.name).collect();
        assert_eq!(names, ["field_timestamp", "a_b", "a_b_2", "field", "A", "field_row_exists", "a_b_3"]);
        assert_eq!(plan.record, OF_A_NEW_TABLE);
    }

    #[test]
    fn flattening_and_mapping() {
        let shape = shape(&[r#"{"id": 1, "u": {"n": "x", "p": {"q": 1}}}"#, r#"{"id": 2}"#]);
        let plan = |flatten, maps: &[&str]| {
            let maps: Vec<_> = maps.iter().map(|m| Mapping::parse(m).unwrap()).collect();
            new_table(&shape, flatten, &maps, true)
        };
        let flat =
            [row("id", "id", "Int64"), row("u_n", "u/n", "Nullable(String)"), row("u_p_q", "u/p/q", "Nullable(Int64)")];
        assert_eq!(columns(&plan(true, &[]).unwrap()), flat);
        let mapped = columns(&plan(false, &["id=order", "u.p.q=q"]).unwrap());
        assert_eq!((&mapped[0], &mapped[2]), (&row("order", "id", "Int64"), &row("q", "u/p/q", "Nullable(Int64)")));
        assert!(
            plan(false, &["idd=x"])
                .unwrap_err()
                .to_string()
                .contains("which no record of the sample has; it has \"id\", \"u\"")
        );
        assert!(plan(false, &["id=x", "u=x"]).unwrap_err().to_string().contains("already has another source"));
        assert!(Mapping::parse("id").is_err() && Mapping::parse("id=").is_err());
    }

    #[test]
    fn a_table_that_exists_keeps_its_types_and_says_what_does_not_fit() {
        let shape = shape(&[r#"{"id": 1, "user.name": "x", "new\nfield": 1, "u": {"n": 1}}"#]);
        let table = [
            existing("id", "UInt32"),
            existing("user_name", "LowCardinality(String)"),
            existing("n", "Int8"),
            existing("_timestamp", "DateTime64(3)"),
            Existing { has_default: true, ..existing("other", "String") },
            existing("later", "String"),
            existing("sums", "AggregateFunction(sum, UInt64)"),
            Existing { insertable: false, ..existing("computed", "String") },
        ];
        let maps = [Mapping::parse("u.n=n").unwrap()];
        let plan = existing_table(&shape, &table, false, &maps, true).unwrap();
        let expected = [
            row("id", "id", "UInt32"),
            row("user_name", "user.name", "LowCardinality(String)"),
            row("n", "u/n", "Int8"),
            row("later", "later", "String"),
        ];
        assert_eq!(columns(&plan), expected);
        assert_eq!(plan.record, [TIMESTAMP]);
        let notes = plan.notes.join("|");
        assert!(notes.contains(r#"The column "other" has no field"#), "{notes}");
        assert!(notes.contains(r#"The field "new\nfield" has no column"#) && !notes.contains('\n'), "{notes}");
        assert!(!notes.contains("computed"), "{notes}");
        let wrong = existing_table(&shape, &table, false, &[Mapping::parse("id=computed").unwrap()], true)
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("which the table does not have"), "{wrong}");
    }
}
