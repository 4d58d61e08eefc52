//! The local stack: the real components that the integration tests, the demo and the benchmarks run
//! on.
//!
//! | component | implementation |
//! |---|---|
//! | [`ClickHouse`] | a ClickHouse server: the user's own, or one of those in [`Engine`] |
//! | [`ZooKeeper`] | Apache ZooKeeper, which stores the KeeperMap tables |
//! | [`Kinesis`] | the Kinesis server of the `ferrokinesis` crate, in its own process |
//! | [`KinesisLocal`] | a second, independent Kinesis server: the npm package `kinesis-local` |
//! | [`MiniStack`] | S3 and DynamoDB: the PyPI package `ministack` |
//! | [`Bridge`] | the product's own binary |
//!
//! Each is a child process on 127.0.0.1 with a free port. It ends when its value is dropped, and
//! also when the process that started it is killed (see [`Service`]). All calls block; they may be
//! made from a tokio test, since nothing they wait for runs on the caller's runtime.
//!
//! Errors are sentences for whoever runs the tests; those about a component end with the last lines
//! of its log.

mod bridge;
mod clickhouse;
mod cluster;
mod kinesis;
mod kinesis_local;
pub mod load;
mod local;
mod ministack;
mod ports;
pub mod service;
mod zookeeper;

pub use bridge::Bridge;
pub use clickhouse::{
    CLUSTER, ClickHouse, ClickHouseOptions, Engine, PASSWORD_USER, REPLICAS, TEST_PASSWORD, User, WEAK_USER,
    run_locally,
};
pub use cluster::Cluster;
pub use kinesis::{Kinesis, KinesisOptions, REGION, aws_environment, kinesis_client};
pub use kinesis_local::KinesisLocal;
pub use local::LocalStack;
pub use ministack::MiniStack;
pub use ports::free_port;
pub use service::{Launch, Service};
pub use zookeeper::ZooKeeper;

/// The result of every fallible call of this crate; the error is a human-readable sentence.
pub type Result<T> = std::result::Result<T, String>;

/// The checkout this crate was built in.
pub fn checkout() -> std::path::PathBuf {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
