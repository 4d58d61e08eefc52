#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! clickhouse-kinesis-bridge: Amazon Kinesis for ClickHouse, driven by SQL.

pub mod check;
pub mod clickhouse;
pub mod config;
pub mod domain;
pub mod encode;
pub mod http;
pub mod kinesis;
pub mod limits;
pub mod metrics;
pub mod pipe;
pub mod ports;
pub mod read;
pub mod serve;
pub mod sql;
pub mod state;

// The contract suite of the state stores is compiled here and as part of the integration tests, under one name.
#[cfg(test)]
extern crate self as bridge;
