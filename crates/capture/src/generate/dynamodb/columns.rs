//! Which attribute maps to which column, and the SQL from the attribute's JSON to the column.

use super::items::{Attribute, Items, Type};
use crate::dynamodb::names::{OWN_COLUMNS, attribute_of, column_of};
use crate::dynamodb::{KeyAttribute, KeyType};
use crate::error::CommandError;
use crate::generate::plan::shown;
use crate::generate::server::ColumnRow;
use domain::limits::{MAX_ATTRIBUTE_COLUMNS, MAX_COLUMN_NAME};
use sql::quote::{identifier, literal};

/// How the comment of a JSON column starts.
const JSON: &str = "JSON";
/// Names that ClickHouse reserves in tables of the MergeTree family.
const RESERVED: [&str; 3] = ["_row_exists", "_block_number", "_block_offset"];
/// Types whose `to<Type>OrNull` and `toString` are exact inverses for the numbers they can
/// represent.
const NUMBERS: [&str; 14] = [
    "Int8", "Int16", "Int32", "Int64", "Int128", "Int256", "UInt8", "UInt16", "UInt32", "UInt64", "UInt128", "UInt256",
    "Float32", "Float64",
];

/// The contents of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string, or bytes in base64.
    Text,
    /// A number, with ClickHouse's type.
    Number(String),
    /// True or false.
    Bool,
    /// A set of strings.
    Texts,
    /// A set of numbers, with the type of one.
    Numbers(String),
    /// The JSON itself.
    Json,
}

/// The column of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The attribute.
    pub attribute: String,
    /// The column's name.
    pub name: String,
    /// Its contents.
    pub kind: Kind,
}

/// A column of the primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The attribute.
    pub attribute: String,
    /// The column's name.
    pub name: String,
    /// The attribute's type.
    pub ty: KeyType,
    /// A number that is stored as text, since Int64 cannot represent all of them.
    pub as_text: bool,
}

/// The columns of a target, apart from our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Partition key, then sort key.
    pub keys: Vec<Key>,
    /// The others.
    pub others: Vec<Column>,
}

impl Kind {
    /// The kind that fits the values seen; `None` if all were NULL.
    fn of(attribute: &Attribute) -> Option<Kind> {
        let types: Vec<Type> = attribute.types.iter().copied().filter(|ty| *ty != Type::Null).collect();
        let number = attribute.numbers.ty();
        Some(match (&types[..], number) {
            ([], _) => return None,
            ([Type::Text], _) => Kind::Text,
            ([Type::Number], Some(ty)) => Kind::Number(ty.into()),
            ([Type::Bool], _) => Kind::Bool,
            ([Type::Texts], _) => Kind::Texts,
            ([Type::Numbers], Some(ty)) => Kind::Numbers(ty.into()),
            _ => Kind::Json,
        })
    }

    /// Recognizes a column of an existing table; `None` if it is not one of ours.
    fn parse(ty: &str, comment: &str) -> Option<Kind> {
        let within = |name: &str| ty.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        let number = |ty: &&str| NUMBERS.contains(ty);
        match (within("Nullable"), within("Array")) {
            (Some("String"), _) if comment.starts_with(JSON) => Some(Kind::Json),
            (Some("String"), _) => Some(Kind::Text),
            (Some("Bool"), _) => Some(Kind::Bool),
            (Some(ty), _) => Some(ty).filter(number).map(|ty| Kind::Number(ty.into())),
            (_, Some("String")) => Some(Kind::Texts),
            (_, Some(ty)) => Some(ty).filter(number).map(|ty| Kind::Numbers(ty.into())),
            _ => None,
        }
    }

    fn ty(&self) -> String {
        match self {
            Kind::Text | Kind::Json => "Nullable(String)".into(),
            Kind::Number(ty) => format!("Nullable({ty})"),
            Kind::Bool => "Nullable(Bool)".into(),
            Kind::Texts => "Array(String)".into(),
            Kind::Numbers(ty) => format!("Array({ty})"),
        }
    }

    /// SQL for the column's value, from SQL for the attribute's JSON, which is empty if there is no
    /// such attribute.
    pub fn value(&self, json: &str) -> String {
        match self {
            Kind::Text => format!("JSONExtract({json}, 'Nullable(String)')"),
            Kind::Number(ty) => format!("to{ty}OrNull({json})"),
            Kind::Bool => format!("if({json} IN ('true', 'false'), {json} = 'true', NULL)"),
            Kind::Texts => format!("JSONExtract({json}, 'Array(String)')"),
            Kind::Numbers(ty) => {
                let held = self.held(json).unwrap_or_default();
                format!("arrayMap(x -> to{ty}OrZero(x), if({held}, {}, []))", elements(json))
            }
            Kind::Json => format!("nullIf({json}, '')"),
        }
    }

    /// SQL that is true if the column represents the attribute's JSON exactly; `None` if it always
    /// does.
    pub fn held(&self, json: &str) -> Option<String> {
        Some(match self {
            Kind::Text => format!("startsWith({json}, '\"')"),
            Kind::Number(ty) => format!("ifNull(toString(to{ty}OrNull({json})) = {json}, false)"),
            Kind::Bool => format!("{json} IN ('true', 'false')"),
            // The parser returns nothing for an array with a number beyond 64 bits.
            Kind::Texts => format!(
                "startsWith({json}, '[\"') AND notEmpty(JSONExtractArrayRaw({json})) AND arrayAll(x -> startsWith(x, '\"'), JSONExtractArrayRaw({json}))"
            ),
            Kind::Numbers(ty) => format!(
                "startsWith({json}, '[') AND arrayAll(x -> ifNull(toString(to{ty}OrNull(x)) = x, false), {})",
                elements(json)
            ),
            Kind::Json => return None,
        })
    }

    /// SQL for the value in the column, falling back to `rest` for an attribute that had no column
    /// when it arrived.
    pub fn with_rest(&self, column: &str, rest: &str) -> String {
        match self {
            Kind::Texts | Kind::Numbers(_) => format!("if(empty({column}), {}, {column})", self.value(rest)),
            _ => format!("ifNull({column}, {})", self.value(rest)),
        }
    }
}

/// The texts of numbers in an array.
fn elements(json: &str) -> String {
    format!("splitByChar(',', substring({json}, 2, length({json}) - 2))")
}

impl Column {
    /// As in CREATE TABLE.
    pub fn definition(&self) -> String {
        let comment = if self.kind == Kind::Json { format!(" COMMENT '{JSON}'") } else { String::new() };
        format!("{} {}{comment}", identifier(&self.name), self.kind.ty())
    }
}

impl Key {
    fn new(key: &KeyAttribute, as_text: bool) -> Result<Key, CommandError> {
        let name = column_of(&key.name).filter(|name| !RESERVED.contains(&&**name) && !name.contains(char::is_control));
        let name = name.ok_or_else(|| {
            CommandError::Refused(format!(
                "the key attribute {} cannot be a column: its name is reserved, or not a valid column name",
                shown(&key.name)
            ))
        })?;
        Ok(Key { attribute: key.name.clone(), name, ty: key.ty, as_text })
    }

    fn ty(&self) -> &'static str {
        if self.ty == KeyType::N && !self.as_text { "Int64" } else { "String" }
    }

    /// As in CREATE TABLE.
    pub fn definition(&self) -> String {
        format!("{} {}", identifier(&self.name), self.ty())
    }

    /// SQL for the column's value, from SQL for the attribute's JSON.
    pub fn value(&self, json: &str) -> String {
        match (self.ty, self.as_text) {
            (KeyType::N, false) => format!("toInt64OrZero({json})"),
            (KeyType::N, true) => json.to_owned(),
            (KeyType::S | KeyType::B, _) => format!("JSONExtractString({json})"),
        }
    }

    /// SQL that is true if the column can hold the JSON of the attribute, and the message if not.
    pub fn fits(&self, json: &str) -> (String, String) {
        let name = shown(&self.attribute);
        match (self.ty, self.as_text) {
            (KeyType::N, false) => (
                format!("ifNull(toString(toInt64OrNull({json})) = {json}, false)"),
                format!("concat({}, {json})", literal(&format!("the key {name} does not fit Int64: "))),
            ),
            (KeyType::N, true) => (
                format!("match({json}, '^-?[0-9]')"),
                format!("concat({}, {json})", literal(&format!("the key {name} is not a number: "))),
            ),
            (KeyType::S | KeyType::B, _) => (
                format!("startsWith({json}, '\"')"),
                format!("concat({}, {json})", literal(&format!("the key {name} is not a string: "))),
            ),
        }
    }
}

impl Columns {
    /// The columns of a new table, and notes about them.
    pub fn new(keys: &[KeyAttribute], items: &Items) -> Result<(Columns, Vec<String>), CommandError> {
        let as_text = |key: &KeyAttribute| {
            key.ty == KeyType::N
                && items.attributes.get(&key.name).is_some_and(|seen| seen.numbers.ty() != Some("Int64"))
        };
        let keys = keys.iter().map(|key| Key::new(key, as_text(key))).collect::<Result<Vec<_>, _>>()?;
        let mut columns = Columns { keys, others: Vec::new() };
        let notes = columns.add(items);
        Ok((columns, notes))
    }

    /// The columns of an existing table. The error says why it cannot be a target for these keys.
    pub fn parse(keys: &[KeyAttribute], table: &[ColumnRow]) -> Result<Columns, CommandError> {
        let named = |names: &[&str]| names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        let parse = |key: &KeyAttribute| {
            let wanted = Key::new(key, false)?;
            let row = table.iter().find(|row| row.name == wanted.name);
            match (row.map(|row| &*row.ty), key.ty) {
                (Some("Int64"), KeyType::N) => Ok(wanted),
                (Some("String"), _) => Ok(Key { as_text: key.ty == KeyType::N, ..wanted }),
                (ty, _) => Err(CommandError::Refused(format!(
                    "its column {} is {}",
                    shown(&wanted.name),
                    ty.unwrap_or("not there")
                ))),
            }
        };
        let keys = keys.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let sorted: Vec<&str> = table.iter().filter(|row| row.is_in_sorting_key == 1).map(|row| &*row.name).collect();
        let wanted: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
        if sorted.len() != wanted.len() || !wanted.iter().all(|name| sorted.contains(name)) {
            return Err(CommandError::Refused(format!(
                "it is sorted by {}, and the keys are {}",
                named(&sorted),
                named(&wanted)
            )));
        }
        for (name, ty) in OWN_COLUMNS.iter().zip(["Int64", "UInt8", "Map(String, String)"]) {
            if !table.iter().any(|row| row.name == *name && row.ty == ty) {
                return Err(CommandError::Refused(format!("it has no column {name} {ty}")));
            }
        }
        let ours = table.iter().filter(|row| row.is_insertable() && !wanted.contains(&&*row.name));
        let column = |row: &ColumnRow| {
            Some(Column {
                attribute: attribute_of(&row.name)?.to_owned(),
                name: row.name.clone(),
                kind: Kind::parse(&row.ty, &row.comment)?,
            })
        };
        Ok(Columns { others: ours.filter_map(column).collect(), keys })
    }

    /// Adds columns for the attributes that have none. Returns notes about those that cannot have
    /// one.
    pub fn add(&mut self, items: &Items) -> Vec<String> {
        let known = |name: &String| {
            self.keys.iter().any(|key| key.attribute == *name)
                || self.others.iter().any(|column| column.attribute == *name)
        };
        let mut found: Vec<_> = items.attributes.iter().filter(|(name, _)| !known(name)).collect();
        // The most frequent first; among equals, in the order of their names.
        found.sort_by_key(|(_, attribute)| usize::MAX - attribute.count);
        let (mut added, mut nameless, mut too_many) = (Vec::new(), Vec::new(), 0);
        for (name, attribute) in found {
            let Some(kind) = Kind::of(attribute) else { continue };
            match column_of(name).filter(|name| is_column_name(name)) {
                None => nameless.push(shown(name)),
                Some(_) if self.others.len() + added.len() >= MAX_ATTRIBUTE_COLUMNS => too_many += 1,
                Some(column) => added.push(Column { attribute: name.clone(), name: column, kind }),
            }
        }
        added.sort_by(|a, b| a.name.cmp(&b.name));
        self.others.extend(added);
        let mut notes = Vec::new();
        if !nameless.is_empty() {
            nameless.sort();
            notes.push(format!("Only in rest, since no column may have such a name: {}.", nameless.join(", ")));
        }
        if too_many > 0 {
            notes.push(format!(
                "Only in rest, since the table has at most {MAX_ATTRIBUTE_COLUMNS} columns: {too_many} attributes that few items have."
            ));
        }
        notes
    }
}

/// Dots would make it part of a nested structure of columns.
fn is_column_name(name: &str) -> bool {
    let plain =
        !name.is_empty() && name.len() <= MAX_COLUMN_NAME && !name.contains(|c: char| c == '.' || c.is_control());
    plain && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(images: &[String]) -> Items {
        let mut items = Items::default();
        images.iter().for_each(|image| items.add(image));
        items
    }

    fn id(ty: KeyType) -> [KeyAttribute; 1] {
        [KeyAttribute { name: "id".into(), ty }]
    }

    #[test]
    fn an_attribute_has_the_column_that_all_its_values_fit() {
        for (values, expected) in [
            (&[r#"{"S":"x"}"#, r#"{"NULL":true}"#][..], Some(Kind::Text)),
            (&[r#"{"S":"x"}"#, r#"{"B":"eA=="}"#], Some(Kind::Text)),
            (&[r#"{"N":"1"}"#], Some(Kind::Number("Int64".into()))),
            (&[r#"{"N":"1"}"#, r#"{"N":"-9223372036854775809"}"#], Some(Kind::Number("Int128".into()))),
            (&[r#"{"N":"1"}"#, r#"{"N":"0.5"}"#], Some(Kind::Number("Float64".into()))),
            (&[r#"{"N":"0.12345678901234567891"}"#], Some(Kind::Json)),
            (&[r#"{"BOOL":true}"#], Some(Kind::Bool)),
            (&[r#"{"SS":["x"]}"#, r#"{"BS":["eA=="]}"#], Some(Kind::Texts)),
            (&[r#"{"NS":["1"]}"#, r#"{"NS":["0.5"]}"#], Some(Kind::Numbers("Float64".into()))),
            (&[r#"{"NS":["1E+2"]}"#], Some(Kind::Json)),
            (&[r#"{"L":[]}"#], Some(Kind::Json)),
            (&[r#"{"SS":["x"]}"#, r#"{"L":[]}"#], Some(Kind::Json)),
            (&[r#"{"S":"x"}"#, r#"{"N":"1"}"#], Some(Kind::Json)),
            (&[r#"{"NULL":true}"#], None),
        ] {
            let images: Vec<String> = values.iter().map(|value| format!("{{\"a\":{value}}}")).collect();
            let (columns, notes) = Columns::new(&id(KeyType::S), &items(&images)).unwrap();
            assert_eq!(columns.others.first().map(|column| column.kind.clone()), expected, "{values:?}");
            assert_eq!(notes, Vec::<String>::new());
            // And it is parsed back as it is written.
            for column in &columns.others {
                let comment = if column.kind == Kind::Json { JSON } else { "" };
                assert_eq!(Kind::parse(&column.kind.ty(), comment), Some(column.kind.clone()));
            }
        }
        for other in ["String", "Nullable(Date)", "Array(Date)", "Nullable(Decimal(9, 2))", "LowCardinality(String)"] {
            assert_eq!(Kind::parse(other, ""), None, "{other}");
        }
    }

    #[test]
    fn the_attributes_that_most_items_have_become_columns() {
        let attributes =
            |from: usize| (from..MAX_ATTRIBUTE_COLUMNS + 5).map(|n| format!("\"a{n:03}\":{{\"S\":\"x\"}}"));
        let image = |from: usize| format!("{{{}}}", attributes(from).collect::<Vec<_>>().join(","));
        let (mut columns, notes) = Columns::new(&id(KeyType::S), &items(&[image(0), image(7)])).unwrap();
        assert_eq!(columns.others.len(), MAX_ATTRIBUTE_COLUMNS);
        assert!(notes[0].ends_with(": 5 attributes that few items have."), "{notes:?}");
        assert_eq!(columns.others[..3].iter().map(|c| &*c.name).collect::<Vec<_>>(), ["a000", "a001", "a007"]);
        assert_eq!(columns.add(&items(&[image(0)])).len(), 1);
        assert_eq!(columns.others.len(), MAX_ATTRIBUTE_COLUMNS);
    }

    #[test]
    fn keys_of_numbers_are_text_when_one_is_too_long() {
        let column = |number: &str| {
            let images = [format!("{{\"id\":{{\"N\":\"{number}\"}}}}")];
            Columns::new(&id(KeyType::N), &items(&images)).unwrap().0.keys[0].definition()
        };
        assert_eq!(column("-5"), "`id` Int64");
        assert_eq!((column("9223372036854775808"), column("1.5")), ("`id` String".into(), "`id` String".into()));
        assert_eq!(Columns::new(&id(KeyType::N), &Items::default()).unwrap().0.keys[0].definition(), "`id` Int64");
    }
}
