//! The HTTP interface: `guard` decides who may ask, `request` parses what is asked, `handlers` do
//! it, `body` sends it, `error` reports what went wrong, `server` and `slots` have the limits.

mod body;
mod error;
pub mod guard;
pub mod handlers;
mod message;
pub mod ready;
mod refusals;
pub mod request;
pub mod server;
mod slots;
