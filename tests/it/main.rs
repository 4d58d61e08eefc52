//! Tests on real components: ClickHouse, ZooKeeper and a Kinesis server, over the network.

mod cluster;
mod common;
mod demo;
mod drill;
mod errors;
mod fan_out;
mod hostile;
mod landing;
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
mod s3;
mod second;
mod sql;
mod state;
mod state_contract;
mod types;
mod views;
mod world;
