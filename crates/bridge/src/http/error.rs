//! Errors as responses. ClickHouse shows the body in its exception.

use hyper::StatusCode;

use domain::error::Error;

/// The status of an error. ClickHouse repeats a request after 5xx but not after 4xx, so what only
/// an operator can fix is 4xx.
pub fn status(error: &Error) -> StatusCode {
    match error {
        Error::BadRequest(_) | Error::AccessDenied(_) | Error::Misconfigured(_) | Error::Gap(_) => {
            StatusCode::BAD_REQUEST
        }
        Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Error::Forbidden(_) => StatusCode::FORBIDDEN,
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
