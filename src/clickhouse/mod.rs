//! ClickHouse as the bridge sees it: statements over HTTP, what their errors mean, and the state of refreshable views.

mod cause;
mod client;
mod error;
mod views;

pub use client::ClickHouse;
pub use error::{ClickHouseError, Kind};
