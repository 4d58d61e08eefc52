//! Refreshable views: their state, and the outcome of a refresh.

use std::collections::BTreeSet;

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::cause::cause;
use super::client::ClickHouse;
use super::error::{ClickHouseError, Kind};
use domain::error::Error;
use domain::limits::{REFRESH_DUE_SECONDS, VIEWS_BELOW};
use domain::ports::{Below, Copied, Definition, Failure, RefreshOutcome, ViewState, Views};
use sql::definition::{fed, fed_by, with_copies};
use sql::name::parts;
use sql::quote::{literal, qualified};

#[derive(Deserialize)]
struct Row {
    uuid: String,
    status: String,
    exception: String,
    retry: u64,
    succeeded: u8,
    due_soon: u8,
    others: u32,
}

#[derive(Deserialize)]
struct Statement {
    database: String,
    name: String,
    target: String,
    replaces: u8,
    /// Pipe and query of each URL.
    pulls: Vec<[String; 2]>,
    running: u8,
}

impl Statement {
    /// This view as a copy of the given one, if any of its URLs names that one.
    fn copied_from(&self, database: &str, view: &str) -> Option<Copied> {
        let names = |query: &str| confirms(query).is_some_and(|parts| parts == [database, view]);
        let pipes: Vec<_> =
            self.pulls.iter().filter(|[_, query]| names(query)).map(|[pipe, _]| pipe.as_str().into()).collect();
        let view = format!("{}.{}", self.database, self.name);
        (!pipes.is_empty()).then_some(Copied { view, pipes, running: self.running != 0 })
    }
}

/// A view below a table: its database and name.
#[derive(Deserialize)]
struct View {
    view: [String; 2],
}

/// The table of a view.
#[derive(Deserialize)]
struct Target {
    target: String,
}

/// Database and name of a table, as a statement writes it.
pub(super) fn place(table: &str) -> Option<[String; 2]> {
    parts(table)?.try_into().ok()
}

/// The parts of the name in `view=`.
pub(super) fn confirms(query: &str) -> Option<Vec<String>> {
    let name = query.split('&').find_map(|parameter| parameter.strip_prefix("view="))?;
    parts(&percent_decode_str(name).decode_utf8_lossy())
}

#[async_trait]
impl Views for ClickHouse {
    async fn view(&self, database: &str, view: &str) -> Result<Option<ViewState>, Error> {
        // One scan for the row and for what tells whether there are other views now: each batch
        // waits for this statement.
        let sql = format!(
            "SELECT toString(row.1) AS uuid, row.2 AS status, row.3 AS exception, toUInt32(least(row.4, 4294967295)) AS retry, \
             row.5 AS succeeded, row.6 AS due_soon, toUInt32(bitAnd(all, 4294967295)) AS others \
             FROM (SELECT anyIf((uuid, status, exception, retry, isNotNull(last_success_time), \
             ifNull(next_refresh_time <= now() + {REFRESH_DUE_SECONDS}, 0)), database = {} AND view = {}) AS row, \
             groupBitXor(cityHash64(uuid)) AS all, countIf(database = {0} AND view = {1}) AS found FROM system.view_refreshes) WHERE found > 0",
            literal(database),
            literal(view)
        );
        let rows: Vec<Row> = match self.rows(&sql).await {
            Ok(rows) => rows,
            Err(error) => {
                let lacking =
                    if error.kind() == Kind::Schema { self.lacking(false).await.ok().flatten() } else { None };
                return Err(error.kind().error(lacking.unwrap_or_else(|| self.explain_foreign(&error))));
            }
        };
        Ok(rows.into_iter().next().map(|row| ViewState {
            uuid: row.uuid,
            running: row.status == "Running",
            status: row.status,
            cause: cause(&row.exception),
            exception: ClickHouseError::parse(&row.exception).message,
            retry: row.retry,
            succeeded: row.succeeded != 0,
            due_soon: row.due_soon != 0,
            others: row.others,
        }))
    }

    async fn definition(&self, database: &str, view: &str) -> Result<Option<Definition>, Error> {
        let rows: Vec<Statement> =
            self.rows(&with_copies(database, view)).await.map_err(|error| self.foreign(&error))?;
        let (own, others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.database == database && row.name == view);
        Ok(own.into_iter().next().map(|own| Definition {
            target: own.target,
            appends: own.replaces == 0,
            pipes: own.pulls.into_iter().map(|[pipe, _]| pipe.into()).collect(),
            copies: others.iter().filter_map(|other| other.copied_from(database, view)).collect(),
        }))
    }

    async fn below(&self, table: &str, known: &Below) -> Result<Below, Error> {
        let failed = |error| self.foreign(&error);
        let mut below = known.clone();
        below.tables.extend(place(table));
        loop {
            if below.tables.is_empty() {
                return Ok(below);
            }
            let fed_now: Vec<View> = self.rows(&fed_by(&below.tables)).await.map_err(failed)?;
            let views: BTreeSet<_> = fed_now.into_iter().map(|row| row.view).collect();
            if views.len() > VIEWS_BELOW {
                return Err(Error::Unavailable(format!("more than {VIEWS_BELOW} views are below {table}")));
            }
            if !below.views.is_subset(&views) {
                // What was below a removed view may not be below the table any more.
                below = Below { tables: place(table).into_iter().collect(), ..Below::default() };
                continue;
            }
            let new: BTreeSet<_> = views.difference(&below.views).cloned().collect();
            below.views = views;
            if new.is_empty() {
                return Ok(below);
            }
            let targets: Vec<Target> = self.rows(&fed(&new)).await.map_err(failed)?;
            below.tables.extend(targets.iter().filter_map(|row| place(&row.target)));
        }
    }

    async fn wait(&self, database: &str, view: &str) -> RefreshOutcome {
        let sql = format!("SYSTEM WAIT VIEW {}", qualified(database, view));
        match self.execute_patiently(&sql).await {
            Ok(()) => RefreshOutcome::Succeeded,
            // Credentials, privileges and limits say nothing about the refresh, and a server that
            // is shutting down says even less.
            Err(error) => match error.kind() {
                Kind::Transport | Kind::Busy | Kind::Credentials | Kind::Forbidden | Kind::Profile => {
                    RefreshOutcome::Unknown(self.explain(&error))
                }
                // The client returns only the code of an exception that quotes bytes which are not
                // UTF-8; the view's state has the text.
                _ if error.message.is_empty() => match self.view(database, view).await {
                    Ok(Some(state)) if !state.exception.is_empty() => {
                        RefreshOutcome::Failed(Failure { why: state.exception, cause: state.cause })
                    }
                    _ => RefreshOutcome::Unknown("ClickHouse's exception is not valid UTF-8".into()),
                },
                _ => RefreshOutcome::Failed(Failure { why: error.message, cause: error.cause }),
            },
        }
    }

    async fn refresh(&self, database: &str, view: &str) -> Result<(), Error> {
        let sql = format!("SYSTEM REFRESH VIEW {}", qualified(database, view));
        self.execute(&sql).await.map_err(|error| self.foreign(&error))
    }
}
