//! The HTTP interface: `request` parses what is asked, `handlers` do it, `body` sends it, `error`
//! reports what went wrong, `server` has the limits.

mod body;
mod error;
pub mod handlers;
pub mod request;
pub mod server;
