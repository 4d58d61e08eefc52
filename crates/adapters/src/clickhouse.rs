//! ClickHouse as the bridge sees it: statements over HTTP, what their errors mean, and the state of
//! refreshable views; and what a server and a user must have for all that.

mod ability;
mod cause;
mod client;
mod error;
mod look;
mod settings;
mod views;

pub use ability::Wanted;
pub use client::ClickHouse;
pub use error::{ClickHouseError, Kind};
