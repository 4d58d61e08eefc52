//! Why a command did not do what it was asked for.

use thiserror::Error;

use adapters::clickhouse::{ClickHouse, ClickHouseError};

/// One sentence for the user.
#[derive(Debug, Error)]
pub enum CommandError {
    /// AWS cannot be asked, or the bridge would not serve it either.
    #[error(transparent)]
    Bridge(#[from] domain::error::Error),
    /// ClickHouse did not give what it was asked for.
    #[error("{0}")]
    ClickHouse(String),
    /// ClickHouse gave something else.
    #[error("ClickHouse's response cannot be parsed: {0}")]
    Answer(#[source] serde_json::Error),
    /// A script was run in part.
    #[error("{why}; this was in {statement}; {done} of {all} statements had run before it")]
    Statement {
        /// ClickHouse's error.
        why: String,
        /// The first line of the statement that failed.
        statement: String,
        /// How many statements had run.
        done: usize,
        /// How many there are.
        all: usize,
    },
    /// It cannot be done as things are; the sentence says what to do.
    #[error("{0}")]
    Refused(String),
}

impl CommandError {
    /// Explains an error of this server.
    pub fn of(server: &ClickHouse) -> impl Fn(ClickHouseError) -> CommandError {
        |error| CommandError::ClickHouse(server.explain_foreign(&error))
    }
}
