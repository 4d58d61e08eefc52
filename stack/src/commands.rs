//! The subcommands of `stack`, each with its exit code.

pub mod clickhouse_host;
pub mod demo;
pub mod kinesis_server;
pub mod load;
pub mod supervise;
pub mod up;

/// A runtime for the subcommands that talk to Kinesis.
pub fn runtime() -> stack::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}
