//! The HTTP interface: what ClickHouse and people ask for.

pub mod request;
