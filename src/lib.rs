#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! clickhouse-kinesis-bridge: Amazon Kinesis for ClickHouse, driven by SQL.

pub mod config;
pub mod domain;
pub mod encode;
pub mod http;
pub mod limits;
pub mod ports;
