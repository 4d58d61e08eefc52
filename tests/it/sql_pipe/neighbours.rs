//! `JSON` and `Dynamic` try the types of earlier rows first. Whatever is in a batch, each value is
//! in the table exactly, or the record is in the errors table.

use std::collections::BTreeMap;

use super::arrivals::Json;
use super::exact::exact;
use super::misfits::{create, refused, row_of};
use super::put;
use crate::common::seed;
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(no_value_is_read_as_its_neighbours_are,);

/// A column's type, and a record's field with a value of it.
const COLUMNS: [(&str, &str); 8] = [
    ("JSON", "{\"x\":{}}"),
    ("Array(JSON)", "[{\"x\":{}}]"),
    ("Map(String, JSON)", "{\"k\":{\"x\":{}}}"),
    ("Tuple(x JSON)", "{\"x\":{\"y\":{}}}"),
    ("Dynamic", "{}"),
    ("Array(Dynamic)", "[{}]"),
    ("JSON(id UInt64, tags Array(Dynamic))", "{\"id\":9007199254740993,\"tags\":[{}]}"),
    ("Variant(Int64, JSON)", "{\"x\":{}}"),
];
/// Those that refuse more than they must.
const CAUTIOUS: usize = 6;
const EACH: usize = 300;
const SCALARS: [&str; 18] = [
    "1",
    "-5",
    "0",
    "1.5",
    "0.1",
    "2.5e-7",
    "true",
    "false",
    "\"s\"",
    "\"12\"",
    "\"true\"",
    "\"1.5\"",
    "\"\"",
    "\"2026-11-22\"",
    "9007199254740993",
    "-9007199254740993",
    "18446744073709551615",
    "36028797018963968",
];
/// Numbers that a double cannot hold, or that have another shortest text.
const WIDE: [&str; 3] = ["9007199254740993", "18446744073709551615", "36028797018963968"];

fn value(dice: &mut fastrand::Rng, depth: usize) -> String {
    match dice.usize(..20) {
        0..4 if depth < 2 => {
            let elements: Vec<String> = (0..dice.usize(..4)).map(|_| value(dice, depth + 1)).collect();
            format!("[{}]", elements.join(","))
        }
        4..6 if depth < 2 => format!("{{\"y\":{}}}", value(dice, depth + 1)),
        6 if depth > 0 => "null".into(),
        _ => SCALARS[dice.usize(..SCALARS.len())].into(),
    }
}

/// Whether every release must accept it: wide integers are refused in arrays, and on 25.8
/// everywhere; ClickHouse turns true and false into texts or numbers next to others; and an object
/// without values is nothing.
fn must_fit(value: &str) -> bool {
    let nested = value.matches(['[', '{']).count() > 1;
    let bools = value.starts_with('[') && ["true", "false"].iter().any(|word| value.contains(word));
    let empty = value.trim_matches(['[', ']']).split(',').all(|element| element.ends_with("null"));
    !nested && !bools && !empty && value != "{\"y\":null}" && WIDE.iter().all(|wide| !value.contains(wide))
}

fn no_value_is_read_as_its_neighbours_are() {
    let mut dice = fastrand::Rng::with_seed(seed("no_value_is_read_as_its_neighbours_are"));
    let types = COLUMNS.map(|(ty, _)| ty.to_owned());
    create("sqlp_neighbours", "sql-neighbours", &types, 0);
    let mut sent: BTreeMap<String, (usize, String, String)> = BTreeMap::new();
    for n in 0..EACH * COLUMNS.len() {
        let at = n % COLUMNS.len();
        let value = value(&mut dice, 0);
        sent.insert(n.to_string(), (at, COLUMNS[at].1.replace("{}", &value), value));
    }
    let record =
        |(id, (at, field, _)): (&String, &(usize, String, String))| format!("{{\"id\":\"{id}\",\"c{at}\":{field}}}");
    put("sql-neighbours", sent.iter().map(|sent| record(sent).into_bytes()));
    let refused = refused("sqlp_neighbours", sent.len() + 1);
    let rows = sql(
        "SELECT * FROM sqlp_neighbours WHERE id != 'first' FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0",
    );
    assert_eq!(refused.len() + rows.lines().count(), sent.len());
    let mut wrong = Vec::new();
    for line in rows.lines() {
        let (id, row, rest) = row_of(line);
        let (at, field, _) = sent.get(&id).unwrap_or_else(|| panic!("{id} was not sent"));
        let column = Json::get(&row, &format!("c{at}"));
        if refused.contains(&id) || !exact(&Json::parse(field).expect(field), &column, &rest, COLUMNS[*at].0) {
            wrong.push(format!("{}: {field} became {column:?}", COLUMNS[*at].0));
        }
    }
    for id in &refused {
        let (at, field, value) = sent.get(id).unwrap_or_else(|| panic!("{id} was not sent"));
        if *at < CAUTIOUS && must_fit(value) {
            wrong.push(format!("{}: {field} is refused", COLUMNS[*at].0));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), sent.len(), wrong.join("\n"));
    sql("DROP TABLE sqlp_neighbours_pipe");
}
