//! `stack up`: a stack for experiments.

use std::path::Path;

use stack::{Engine, LocalStack};

/// Starts everything and stays until Ctrl-C or SIGTERM; then everything ends and its folder is
/// removed.
pub fn run(engine: Engine, bridge: Option<&Path>) -> Result<i32, String> {
    let runtime = super::runtime()?;
    // Listens for these while everything starts, so that an early Ctrl-C also ends in an orderly
    // way.
    let ended = runtime.spawn(super::termination());
    println!("Starting ZooKeeper, ClickHouse and Kinesis …");
    let stack = LocalStack::start(engine)?;
    let bridge = bridge.map(|binary| stack.start_bridge(binary, &[])).transpose()?;
    println!("  ClickHouse  {}", stack.clickhouse.url());
    println!("  native      127.0.0.1:{}", stack.clickhouse.native_port());
    println!("  Kinesis     {}", stack.kinesis.endpoint());
    println!("  ZooKeeper   127.0.0.1:{}", stack.zookeeper.port());
    if let Some(bridge) = &bridge {
        println!("  bridge      {}", bridge.url());
    }
    println!("  files       {}", stack.dir.path().display());
    println!("\nFor another terminal:");
    for (key, value) in stack.bridge_environment() {
        println!("export {key}={value}");
    }
    println!("\nCtrl-C ends all of it and removes its files.");
    runtime.block_on(ended).map_err(|error| format!("cannot wait for signals: {error}"))??;
    println!("Ending …");
    if let Some(bridge) = &bridge
        && bridge.is_running()
    {
        bridge.stop()?;
    }
    Ok(0)
}
