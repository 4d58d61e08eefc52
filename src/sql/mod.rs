//! The shipped SQL: the files under `sql/setup`, with names and values quoted into their placeholders.

pub mod quote;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use quote::{identifier, literal};

const STATE: &str = include_str!("../../sql/setup/01_state.sql");

/// Kept as they are in a Keeper path; everything else but letters and digits is percent-encoded.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// The statements that create database and state tables.
pub fn state(database: &str) -> Vec<String> {
    // The database is part of the path, so two bridges on one Keeper do not share rows unless they share the name.
    let path = |table: &str| literal(&format!("/{}/{table}", utf8_percent_encode(database, PATH)));
    let values =
        [("{database}", identifier(database)), ("{leases_path}", path("leases")), ("{workers_path}", path("workers"))];
    statements(STATE).map(|statement| render(statement, &values)).collect()
}

/// The statements of a file, each with the comments before it. Split before rendering: a value may hold anything.
fn statements(file: &str) -> impl Iterator<Item = &str> {
    file.split_inclusive(";\n").map(|statement| statement.trim().trim_end_matches(';')).filter(|s| !s.is_empty())
}

/// Puts the values in, in one pass, so that a value that looks like a placeholder stays a value.
fn render(template: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (placeholder, value) = values
            .iter()
            .find(|(placeholder, _)| rest.starts_with(placeholder))
            .map_or(("{", "{"), |(placeholder, value)| (*placeholder, value.as_str()));
        out.push_str(value);
        rest = &rest[placeholder.len()..];
    }
    out.push_str(rest);
    out
}
