//! The HTTP interface: `request` says what is asked, `handlers` do it, `body` sends it, `error`
//! says what went wrong, `server` holds the limits.

mod body;
mod error;
pub mod handlers;
pub mod request;
pub mod server;
