//! The bundled SQL: the files under `sql/setup`, with names and values quoted into their
//! placeholders.

pub mod definition;
pub mod name;
pub mod quote;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use quote::{identifier, literal};

const STATE: &str = include_str!("../../../sql/setup/01_state.sql");
const COLLECTION: &str = include_str!("../../../sql/setup/02_collection.sql");
const VIEWS: &str = include_str!("../../../sql/setup/03_views.sql");
const QUARANTINE: &str = include_str!("../../../sql/setup/04_quarantine.sql");
const FUNCTIONS: &str = include_str!("../../../sql/setup/05_functions.sql");
const VERSION: &str = include_str!("../../../sql/setup/06_version.sql");

/// What views say after the address of a bridge that does not answer.
const UNREACHABLE: &str = " does not answer ClickHouse: start it, or look into its log if it is running; `clickhouse-kinesis-bridge check` says what is \
                           wrong";
/// The same for one that answers, but not with its pipes.
const REFUSING: &str = " is running, but did not tell ClickHouse about its pipes: it may have another token than the named collection (run `sql setup` \
                        with its --token-file again), or its state may be unavailable; `clickhouse-kinesis-bridge check` says which";

/// How the files refer to the state tables.
const STATE_TABLES: [&str; 2] = ["{database}.leases", "{database}.workers"];

/// Kept verbatim in a Keeper path; everything else except letters and digits is percent-encoded.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// The parameters of `sql setup`.
#[derive(Clone, Copy)]
pub struct SetupParams<'a> {
    /// The database of state tables and views.
    pub database: &'a str,
    /// Where ClickHouse reaches the bridge, such as `http://localhost:9020`.
    pub bridge_url: &'a str,
    /// The HTTP interface of ClickHouse, such as `http://127.0.0.1:8123`, which it must reach itself.
    pub clickhouse_url: &'a str,
    /// The bearer token, if the bridge requires one. It becomes part of the text.
    pub token: Option<&'a str>,
    /// Whether the state is in KeeperMap tables. If not, neither they nor the view on them are
    /// created, and the quarantine is in a MergeTree.
    pub state_tables: bool,
}

/// Everything that `sql setup` prints: database, state tables, named collection, views and
/// functions, for `clickhouse-client`.
pub fn setup(params: &SetupParams<'_>) -> String {
    let files = [STATE, COLLECTION, VIEWS, QUARANTINE, FUNCTIONS, VERSION];
    let values = values(params);
    let wanted = |statement: &&str| params.state_tables || !STATE_TABLES.iter().any(|table| statement.contains(table));
    files
        .into_iter()
        .flat_map(statements)
        .filter(wanted)
        .map(|statement| render(statement, &values) + ";\n\n")
        .collect()
}

/// The comment that `sql setup` leaves on the view `bridge` when it is done: the program's version,
/// and a checksum over everything that it ran.
pub fn version() -> String {
    let mut sum = crc32fast::Hasher::new();
    for text in [STATE, COLLECTION, VIEWS, QUARANTINE, FUNCTIONS, VERSION, UNREACHABLE, REFUSING] {
        sum.update(text.as_bytes());
    }
    format!("sql setup of clickhouse-kinesis-bridge {} ({:08x})", env!("CARGO_PKG_VERSION"), sum.finalize())
}

/// Parameters of which only the database matters.
fn of_tables(database: &str, state_tables: bool) -> SetupParams<'_> {
    SetupParams { database, bridge_url: "", clickhouse_url: "", token: None, state_tables }
}

/// The statements that create database and state tables.
pub fn state(database: &str) -> Vec<String> {
    let values = values(&of_tables(database, true));
    statements(STATE).map(|statement| render(statement, &values)).collect()
}

/// The statements that create database and quarantine.
pub fn quarantine(database: &str, keeper_map: bool) -> Vec<String> {
    let values = values(&of_tables(database, keeper_map));
    let create_database = statements(STATE).take(1);
    create_database.chain(statements(QUARANTINE)).map(|statement| render(statement, &values)).collect()
}

/// The statements that create the functions.
pub fn functions() -> Vec<String> {
    statements(FUNCTIONS).map(String::from).collect()
}

/// SQL for the plain JSON of a value in DynamoDB's JSON, for where the functions may be missing.
pub fn dynamodb_value(value: &str) -> String {
    let body = statements(FUNCTIONS).next().and_then(|first| first.split_once(" AS value -> "));
    let body = body.map_or("value", |(_, body)| body);
    format!("arrayMap(value -> {body}, [{value}])[1]")
}

/// The named collection that belongs to a state database, as an identifier: `kinesis_bridge` for
/// `kinesis`.
pub fn collection(database: &str) -> String {
    let name = format!("{database}_bridge");
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.as_bytes()[0].is_ascii_digit();
    if plain { name } else { identifier(&name) }
}

fn values(params: &SetupParams<'_>) -> [(&'static str, String); 12] {
    // The database is part of the path, so two bridges on one Keeper do not share rows unless they
    // use the same database name.
    let path = |table: &str| literal(&format!("/{}/{table}", utf8_percent_encode(params.database, PATH)));
    let bearer = params.token.map(|token| literal(&format!("Bearer {token}")));
    let token = bearer.as_ref().map_or_else(String::new, |value| {
        format!(",\n    headers.header.name = 'Authorization',\n    headers.header.value = {value}")
    });
    let headers = bearer.map_or_else(String::new, |value| format!(", headers('Authorization' = {value})"));
    let quarantine = match params.state_tables {
        true => format!("KeeperMap({}) PRIMARY KEY key", path("quarantine")),
        false => "ReplacingMergeTree ORDER BY key".into(),
    };
    [
        ("{database}", identifier(params.database)),
        ("{collection}", collection(params.database)),
        ("{quarantine_engine}", quarantine),
        ("{leases_path}", path("leases")),
        ("{workers_path}", path("workers")),
        ("{bridge}", literal(params.bridge_url.trim_end_matches('/'))),
        ("{clickhouse}", literal(params.clickhouse_url.trim_end_matches('/'))),
        ("{unreachable}", literal(UNREACHABLE)),
        ("{refusing}", literal(REFUSING)),
        ("{version}", literal(&version())),
        ("{token}", token),
        ("{headers}", headers),
    ]
}

/// The statements of a file, each with the comments before it. Split before rendering: a value may
/// contain anything.
fn statements(file: &str) -> impl Iterator<Item = &str> {
    file.split_inclusive(";\n").map(|statement| statement.trim().trim_end_matches(';')).filter(|s| !s.is_empty())
}

/// Substitutes the values in one pass, so that a value that looks like a placeholder stays a value.
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

#[cfg(test)]
mod tests {
    use domain::columns;

    use super::*;

    fn params(database: &str) -> SetupParams<'_> {
        SetupParams {
            database,
            bridge_url: "http://localhost:9020/",
            clickhouse_url: "http://127.0.0.1:8123/",
            token: None,
            state_tables: true,
        }
    }

    #[test]
    fn a_value_that_looks_like_a_placeholder_stays_a_value() {
        let values = [("{database}", "`{token}`".to_owned()), ("{token}", "secret".to_owned())];
        assert_eq!(render("a {database} {b:String} {token", &values), "a `{token}` {b:String} {token");
    }

    #[test]
    fn structures_are_those_of_the_responses() {
        let structure = |file: &str, columns: String| file.matches(&format!("structure = '{columns}'")).count();
        let records = columns::structure(columns::records());
        let next = columns::structure(columns::records().chain([columns::BATCH]));
        assert_eq!((structure(COLLECTION, next), structure(VIEWS, records)), (2, 2));
    }

    #[test]
    fn every_placeholder_is_filled() {
        let params = SetupParams { token: Some("it's"), ..params("kinesis") };
        let sql = setup(&params);
        for (placeholder, _) in values(&params) {
            assert!(!sql.contains(placeholder), "{placeholder}");
        }
        assert!(sql.contains("headers.header.value = 'Bearer it\\'s'"), "{sql}");
        assert!(sql.contains("headers('Authorization' = 'Bearer it\\'s')"), "{sql}");
        assert!(sql.contains("url = 'http://localhost:9020',"), "{sql}");
        assert!(
            sql.contains("KeeperMap('/kinesis/leases')") && sql.contains("KeeperMap('/kinesis/quarantine')"),
            "{sql}"
        );
    }

    #[test]
    fn each_database_has_a_collection_of_its_own() {
        assert_eq!(collection("kinesis"), "kinesis_bridge");
        assert_eq!(collection("my-db"), "`my-db_bridge`");
        assert_eq!(collection("1a"), "`1a_bridge`");
        let statements = setup(&params("second")).lines().filter(|line| !line.starts_with("--")).collect::<String>();
        assert!(statements.contains("second_bridge") && !statements.contains("kinesis_bridge"), "{statements}");
    }

    #[test]
    fn without_a_token_there_is_no_header() {
        let sql = setup(&params("kinesis"));
        assert!(!sql.contains("Authorization"), "{sql}");
    }

    #[test]
    fn no_value_lands_in_a_comment() {
        // A line break in a name would end the comment.
        for line in
            [STATE, COLLECTION, VIEWS, QUARANTINE].into_iter().flat_map(str::lines).filter(|line| line.contains("--"))
        {
            assert!(!line.contains("{database}") && !line.contains("{bridge}"), "{line}");
            assert!(!line.contains("{token}") && !line.contains("{headers}"), "{line}");
        }
    }

    #[test]
    fn a_statement_is_a_statement_whatever_the_name() {
        let odd = state("a;\n`b`/../c");
        assert_eq!(odd.len(), state("kinesis").len());
        assert!(odd[1].contains("'/a%3B%0A%60b%60%2F%2E%2E%2Fc/leases'"), "{}", odd[1]);
    }

    #[test]
    fn without_state_tables_nothing_names_them() {
        let sql = setup(&SetupParams { state_tables: false, ..params("kinesis") });
        assert!(!sql.contains("KeeperMap(") && !sql.contains("leases"), "{sql}");
        assert!(sql.contains("CREATE DATABASE") && sql.contains("kinesis`.pipes"), "{sql}");
        assert!(sql.contains("ENGINE = ReplacingMergeTree ORDER BY key"), "{sql}");
    }
}
