//! The subcommands of `stack`, each with its exit code.

pub mod clickhouse_host;
pub mod demo;
pub mod kinesis_server;
pub mod load;
pub mod supervise;
pub mod up;

use tokio::signal::unix::{SignalKind, signal};

/// A runtime for the subcommands that talk to Kinesis.
pub fn runtime() -> stack::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

/// Returns when this process gets SIGTERM or, as from Ctrl-C, SIGINT. From the first poll on, these
/// no longer terminate it.
pub async fn termination() -> stack::Result<()> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
