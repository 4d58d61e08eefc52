//! Errors as answers. The body is what ClickHouse shows in its exception.

use hyper::StatusCode;

use domain::error::Error;

/// The status of an error. ClickHouse repeats a request after 5xx and not after 4xx: what only a
/// person can mend is 4xx.
pub fn status(error: &Error) -> StatusCode {
    match error {
        Error::BadRequest(_) | Error::AccessDenied(_) | Error::Gap(_) => StatusCode::BAD_REQUEST,
        Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::RangeNotSatisfiable(_) => StatusCode::RANGE_NOT_SATISFIABLE,
        Error::Fenced(_) | Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `{"error": "<code>", "message": "<one sentence>"}`
pub fn body(error: &Error) -> String {
    let mut line = serde_json::json!({"error": error.code(), "message": error.to_string()}).to_string();
    line.push('\n');
    line
}
