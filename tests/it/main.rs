//! Tests on real components: ClickHouse and ZooKeeper.

mod state;
mod state_contract;
