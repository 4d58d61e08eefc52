//! Implementations of the ports of `domain`: ClickHouse, Kinesis, the state stores, the clock.

pub mod aws;
pub mod clickhouse;
pub mod clock;
pub mod kinesis;
pub mod state;
