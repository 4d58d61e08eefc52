//! The one error type that users see. `http::error` maps it to a status; ClickHouse shows the
//! message verbatim.

use thiserror::Error;

use super::interface::Route;

/// What went wrong, worded for whoever reads it in a ClickHouse exception, a log line or a status
/// row.
///
/// Every variant carries one sentence that names the object (stream, shard, view, parameter), what
/// is wrong and what to do. None may contain a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The request is wrong and will stay wrong: ClickHouse must not retry it.
    #[error("{0}")]
    BadRequest(String),
    /// The stream, shard, view or path does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The bearer token is missing or wrong.
    #[error("{0}")]
    Unauthorized(String),
    /// The request comes from a web page of another origin, or is meant for another host.
    #[error("{0}")]
    Forbidden(String),
    /// A `Range` that no frozen batch can answer.
    #[error("{0}")]
    RangeNotSatisfiable(String),
    /// A position is past the stream's retention: records are lost, and only `seek` can continue.
    #[error("{0}")]
    Gap(String),
    /// Another worker holds the lease now. This one stops and serves nothing.
    #[error("{0}")]
    Fenced(String),
    /// AWS refused the credentials, the region or the permission.
    #[error("{0}")]
    AccessDenied(String),
    /// ClickHouse, the state store or AWS cannot be used as they are configured: a user, a
    /// privilege, a table, a row edited by hand, a region, certificates. Only an operator can mend it.
    #[error("{0}")]
    Misconfigured(String),
    /// A dependency is down and may come back: Kinesis, ClickHouse, Keeper.
    #[error("{0}")]
    Unavailable(String),
    /// An invariant of this program was violated. Never expected; the message says where.
    #[error("{0}")]
    Internal(String),
}

/// What to do about a gap in `pipe`, as the end of a sentence.
pub fn go_on(pipe: &str) -> String {
    format!(
        "insert a position into the table `seek` of `sql setup`, or POST it to {}, to continue from there",
        Route::Seek.with(pipe)
    )
}

impl Error {
    /// The stable machine-readable code, as used in the JSON body and in metric labels.
    pub fn code(&self) -> &'static str {
        match self {
            Error::BadRequest(_) => "bad_request",
            Error::NotFound(_) => "not_found",
            Error::Unauthorized(_) => "unauthorized",
            Error::Forbidden(_) => "forbidden",
            Error::RangeNotSatisfiable(_) => "range_not_satisfiable",
            Error::Gap(_) => "gap",
            Error::Fenced(_) => "fenced",
            Error::AccessDenied(_) => "access_denied",
            Error::Misconfigured(_) => "misconfigured",
            Error::Unavailable(_) => "unavailable",
            Error::Internal(_) => "internal",
        }
    }
}
