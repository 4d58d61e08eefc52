//! What the generators query from ClickHouse, and how they run statements there.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::CommandError;
use adapters::clickhouse::{ClickHouse, ClickHouseError};
use config::Config;
use domain::interface::Route;
use domain::lease::Destination;
use domain::limits::{CLICKHOUSE_SQL_TIMEOUT, PIPE_QUERY_BYTES};
use sql::quote::{literal, qualified};

/// The ClickHouse server for the tables and views.
pub struct Server {
    clickhouse: ClickHouse,
}

/// A row of `system.tables`.
#[derive(Deserialize)]
pub struct TableRow {
    /// Its engine.
    pub engine: String,
    /// With parameters, key and settings.
    pub engine_full: String,
    /// Its comment.
    pub comment: String,
}

/// A view that pulls a pipe.
#[derive(Deserialize)]
struct PullerRow {
    view: String,
    target: String,
}

/// A row of `system.columns`.
#[derive(Clone, Debug, Deserialize)]
pub struct ColumnRow {
    /// Its name.
    pub name: String,
    /// Its type as ClickHouse prints it.
    #[serde(rename = "type")]
    pub ty: String,
    default_kind: String,
    /// Its comment.
    pub comment: String,
    /// 1 if the table is sorted by it.
    pub is_in_sorting_key: u8,
}

impl ColumnRow {
    /// Whether it has an expression for rows that bring no value.
    pub fn has_default(&self) -> bool {
        !self.default_kind.is_empty()
    }

    /// Whether it accepts inserted values: it is neither computed nor an alias.
    pub fn is_insertable(&self) -> bool {
        matches!(&*self.default_kind, "" | "DEFAULT")
    }
}

impl Server {
    /// Connects lazily.
    pub fn new(config: &Config) -> Server {
        let given = &config.clickhouse;
        let clickhouse = ClickHouse::new(&given.url, &given.user, given.password.expose());
        Server { clickhouse: clickhouse.with_patience(CLICKHOUSE_SQL_TIMEOUT) }
    }

    /// Refuses a server on which no pipe can run.
    pub async fn runs_pipes(&self) -> Result<(), CommandError> {
        let lacking = self.clickhouse.lacking(false).await.map_err(CommandError::of(&self.clickhouse))?;
        lacking.map_or(Ok(()), |lacking| Err(CommandError::Refused(lacking)))
    }

    /// A table or view; `None` if there is none of that name.
    pub async fn table(&self, database: &str, name: &str) -> Result<Option<TableRow>, CommandError> {
        // Fails if the user may not see the table; system.tables only hides it.
        self.ask(&format!("EXISTS TABLE {}", qualified(database, name)), "TSV").await?;
        let sql = format!(
            "SELECT engine, engine_full, comment FROM system.tables WHERE database = {} AND name = {}",
            literal(database),
            literal(name)
        );
        Ok(self.rows(&sql).await?.into_iter().next())
    }

    /// Refuses if a view other than `view` pulls the pipe of this URL into a table that is not in
    /// `tables`.
    pub async fn only_puller(&self, url: &str, view: (&str, &str), tables: &[String]) -> Result<(), CommandError> {
        let (before, after) = Route::Next.around();
        let path = url.split_once(before).and_then(|(_, rest)| rest.split_once(after)).map(|(pipe, _)| pipe);
        let Some(pipe) = path else { return Ok(()) };
        let views: Vec<PullerRow> = self.rows(&sql::definition::pullers(pipe)).await?;
        let name = |database: &str, table: &str| format!("{database}.{table}");
        let (own, wanted) = (name(view.0, view.1), tables.first().cloned().unwrap_or_default());
        let other = views.into_iter().find(|v| v.view != own && !tables.contains(&v.target));
        match other {
            None => Ok(()),
            Some(PullerRow { view, target }) => {
                let has = Destination { view, target };
                Err(Destination { view: own, target: wanted }.conflict(&pipe.into(), &has, "").into())
            }
        }
    }

    /// The columns of a table, in order.
    pub async fn columns(&self, database: &str, table: &str) -> Result<Vec<ColumnRow>, CommandError> {
        let sql = format!(
            "SELECT name, type, default_kind, comment, is_in_sorting_key FROM system.columns WHERE database = {} AND table = {} ORDER BY position",
            literal(database),
            literal(table)
        );
        self.rows(&sql).await
    }

    /// Whether the server has a setting of this name.
    pub async fn knows_setting(&self, name: &str) -> Result<bool, CommandError> {
        let count = format!("SELECT count() FROM system.settings WHERE name = {}", literal(name));
        Ok(self.ask(&count, "TSV").await?.trim() != "0")
    }

    /// Whether the type JSON reads an integer after a fraction as a fraction, and rounds it: 25.8
    /// does.
    pub async fn rounds_in_json(&self) -> Result<bool, CommandError> {
        let sql = r#"SELECT groupArray(toString(JSONExtract(json, 'JSON')))[2] != '{"n":9007199254740993}'
            FROM (SELECT arrayJoin(['{"n":0.5}', '{"n":9007199254740993}']) AS json)
            SETTINGS max_threads = 1"#;
        Ok(self.ask(sql, "TSV").await?.trim() != "0")
    }

    /// The result of a SELECT (without FORMAT).
    pub async fn ask(&self, sql: &str, format: &str) -> Result<String, CommandError> {
        self.try_ask(sql, format).await.map_err(CommandError::of(&self.clickhouse))
    }

    async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, CommandError> {
        self.clickhouse.rows(sql).await.map_err(CommandError::of(&self.clickhouse))
    }

    /// The same for a caller that inspects the error.
    pub async fn try_ask(&self, sql: &str, format: &str) -> Result<String, ClickHouseError> {
        let size = PIPE_QUERY_BYTES.to_string();
        self.clickhouse.text(sql, format, &[("max_query_size", &size)]).await
    }

    /// Runs a statement of a script; `done` of `all` have been run before it.
    pub async fn run(&self, statement: &str, done: usize, all: usize) -> Result<(), CommandError> {
        let size = PIPE_QUERY_BYTES.to_string();
        let ran = self.clickhouse.execute_with(statement, &[("max_query_size", &size)]).await;
        ran.map_err(|error| self.failed(&error, statement, done, all))
    }

    /// The same for a statement that may take hours.
    pub async fn run_patiently(&self, statement: &str, done: usize, all: usize) -> Result<(), CommandError> {
        let ran = self.clickhouse.execute_patiently(statement).await;
        ran.map_err(|error| self.failed(&error, statement, done, all))
    }

    fn failed(&self, error: &ClickHouseError, statement: &str, done: usize, all: usize) -> CommandError {
        let first = statement.lines().find(|line| !line.starts_with("--")).unwrap_or_default();
        CommandError::Statement { why: self.clickhouse.explain_foreign(error), statement: first.to_owned(), done, all }
    }
}
