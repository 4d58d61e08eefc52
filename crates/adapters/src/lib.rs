//! Implementations of the ports of `domain`: ClickHouse, Kinesis, the state stores, the clock, and a
//! bridge that is running.

pub mod aws;
pub mod clickhouse;
pub mod clock;
pub mod kinesis;
pub mod running;
pub mod state;
