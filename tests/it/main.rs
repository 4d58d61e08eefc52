//! Tests on real components: ClickHouse and ZooKeeper.

mod errors;
mod proxy;
mod records;
mod state;
mod state_contract;
mod world;
