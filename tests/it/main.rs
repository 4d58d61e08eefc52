//! Tests on real components: ClickHouse, ZooKeeper and a Kinesis server, over the network.

mod common;
mod drill;
mod state;
mod state_contract;
