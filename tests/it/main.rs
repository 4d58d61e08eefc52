//! Tests on real components: ClickHouse and ZooKeeper.

mod errors;
mod hostile;
mod proxy;
mod read;
mod records;
mod state;
mod state_contract;
mod world;
