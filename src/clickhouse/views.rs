//! Refreshable views: their state, and how a refresh ended.

use async_trait::async_trait;
use serde::Deserialize;

use super::cause::cause;
use super::client::ClickHouse;
use super::error::{ClickHouseError, Kind};
use crate::domain::error::Error;
use crate::limits::REFRESH_DUE_SECONDS;
use crate::ports::{Definition, Failure, RefreshOutcome, ViewState, Views};
use crate::sql::quote::{literal, qualified};
use crate::sql::{pulled_pipes, replaces, target};

#[derive(Deserialize)]
struct Row {
    uuid: String,
    status: String,
    exception: String,
    retry: u64,
    succeeded: u8,
    due_soon: u8,
}

#[derive(Deserialize)]
struct Statement {
    target: String,
    replaces: u8,
    pipes: Vec<String>,
}

#[async_trait]
impl Views for ClickHouse {
    async fn view(&self, database: &str, view: &str) -> Result<Option<ViewState>, Error> {
        // The cast keeps `retry` a JSON number: 64-bit integers are quoted under some profiles.
        let sql = format!(
            "SELECT toString(uuid) AS uuid, status, exception, toUInt32(least(retry, 4294967295)) AS retry, \
             isNotNull(last_success_time) AS succeeded, ifNull(next_refresh_time <= now() + {REFRESH_DUE_SECONDS}, 0) AS due_soon \
             FROM system.view_refreshes WHERE database = {} AND view = {}",
            literal(database),
            literal(view)
        );
        let rows: Vec<Row> = self.rows(&sql).await.map_err(|error| match error.kind() {
            Kind::Schema => Error::Unavailable(format!(
                "ClickHouse at {} has no refreshable views that append ({}): use release 24.11 or later",
                self.server(),
                error.message
            )),
            _ => Error::Unavailable(self.explain(&error)),
        })?;
        Ok(rows.into_iter().next().map(|row| ViewState {
            uuid: row.uuid,
            running: row.status == "Running",
            status: row.status,
            cause: cause(&row.exception),
            exception: ClickHouseError::parse(&row.exception).message,
            retry: row.retry,
            succeeded: row.succeeded != 0,
            due_soon: row.due_soon != 0,
        }))
    }

    async fn definition(&self, database: &str, view: &str) -> Result<Option<Definition>, Error> {
        let sql = format!(
            "SELECT {} AS target, {} AS replaces, {} AS pipes FROM system.tables WHERE database = {} AND name = {} AND engine = 'MaterializedView'",
            target(),
            replaces(),
            pulled_pipes(),
            literal(database),
            literal(view)
        );
        let rows: Vec<Statement> =
            self.rows(&sql).await.map_err(|error| Error::Unavailable(self.explain_foreign(&error)))?;
        match rows.into_iter().next() {
            Some(Statement { target, replaces: 1, .. }) => Err(Error::BadRequest(format!(
                "view {database}.{view} replaces the rows of {target} with each refresh, so the rows of every batch but the last would be lost: \
                 drop it, and create it with APPEND behind REFRESH"
            ))),
            found => Ok(found.map(|view| Definition { target: view.target, pipes: view.pipes })),
        }
    }

    async fn wait(&self, database: &str, view: &str) -> RefreshOutcome {
        let sql = format!("SYSTEM WAIT VIEW {}", qualified(database, view));
        match self.execute_patiently(&sql).await {
            Ok(()) => RefreshOutcome::Succeeded,
            // Credentials and rights say nothing about the refresh, and a server that is shutting down says less.
            Err(error) => match error.kind() {
                Kind::Transport | Kind::Busy | Kind::Credentials | Kind::Forbidden => {
                    RefreshOutcome::Unknown(self.explain(&error))
                }
                // The client gives nothing but the code of an exception that quotes bytes which are no text; the view's state has it.
                _ if error.message.is_empty() => match self.view(database, view).await {
                    Ok(Some(state)) if !state.exception.is_empty() => {
                        RefreshOutcome::Failed(Failure { why: state.exception, cause: state.cause })
                    }
                    _ => RefreshOutcome::Unknown("ClickHouse's exception is no text".into()),
                },
                _ => RefreshOutcome::Failed(Failure { why: error.message, cause: error.cause }),
            },
        }
    }

    async fn refresh(&self, database: &str, view: &str) -> Result<(), Error> {
        let sql = format!("SYSTEM REFRESH VIEW {}", qualified(database, view));
        self.execute(&sql).await.map_err(|error| Error::Unavailable(self.explain_foreign(&error)))
    }
}
