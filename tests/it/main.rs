//! Tests on real components: ClickHouse, ZooKeeper and a Kinesis server, over the network.

mod aggregates;
mod cluster;
mod common;
mod demo;
mod drill;
mod errors;
mod fan_out;
mod hostile;
mod layers;
mod lineage;
mod lossy;
mod peer;
mod protocol;
mod proxy;
mod read;
mod readme;
mod real;
mod records;
mod second;
mod sql;
mod state;
mod state_contract;
mod views;
mod world;
