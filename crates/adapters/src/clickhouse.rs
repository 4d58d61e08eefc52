//! ClickHouse as the bridge uses it: statements over HTTP, what their errors mean, the state of
//! refreshable views, and what a server and a user need for all of this.

mod ability;
mod cause;
mod client;
mod error;
mod look;
mod pulling;
mod settings;
mod views;

pub use ability::Wanted;
pub use client::ClickHouse;
pub use error::{ClickHouseError, Kind};
pub use pulling::PullingView;
