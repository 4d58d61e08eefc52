//! Tests on real components: ClickHouse and ZooKeeper.

mod peer;
mod proxy;
mod real;
mod sql;
mod state;
mod state_contract;
mod views;
