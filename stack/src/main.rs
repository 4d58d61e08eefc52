//! `stack`: starts the local stack, and hosts those of its parts that are libraries.

mod bench;
mod commands;
mod mutants;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stack::{Engine, KinesisOptions};

/// The local stack of clickhouse-kinesis-bridge: ClickHouse, ZooKeeper and Kinesis on this machine.
#[derive(Parser)]
#[command(name = "stack", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on free ports, print the addresses, and run until Ctrl-C or SIGTERM.
    Up {
        /// Also start this clickhouse-kinesis-bridge program.
        #[arg(long)]
        bridge: Option<PathBuf>,
        /// ClickHouse release: 25.8 (a full server) or 26.7.
        #[arg(long, value_name = "RELEASE", default_value = "26.7")]
        clickhouse: Engine,
    },
    /// Load records from a Kinesis stream into a ClickHouse table, and check that none is lost or
    /// duplicated.
    Demo(commands::demo::DemoArgs),
    /// Measure a bridge, each figure beside its ceiling.
    Bench(bench::BenchArgs),
    /// Serve records prepared in advance, for `bench`.
    #[command(hide = true)]
    BenchReplay(bench::replay::ReplayArgs),
    /// Read a stream and drop the records, for `bench`.
    #[command(hide = true)]
    BenchFloor(bench::floor::FloorArgs),
    /// Plant known bugs in a copy of the bridge's sources, one at a time, and check that the
    /// simulation finds each.
    Mutants(mutants::MutantsArgs),
    /// Write orders to a stream.
    Load(commands::load::LoadArgs),
    /// Serve a local Kinesis.
    Kinesis {
        /// The TCP port; 0 picks a free one, which is printed.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// The address to listen on; a container needs 0.0.0.0.
        #[arg(long, default_value = "127.0.0.1")]
        address: IpAddr,
        #[command(flatten)]
        options: KinesisOptions,
    },
    /// Run the ClickHouse engine from its shared library, with the arguments of `clickhouse local`.
    ClickhouseHost {
        /// The engine library.
        #[arg(long)]
        library: PathBuf,
        /// Its arguments.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run a command and kill it when standard input ends.
    Supervise {
        /// A folder to remove if standard input ends without a message.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up { bridge, clickhouse } => commands::up::run(clickhouse, bridge.as_deref()),
        Command::Demo(args) => commands::demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchReplay(args) => {
            commands::runtime().and_then(|runtime| runtime.block_on(bench::replay::run(args)))
        }
        Command::BenchFloor(args) => commands::runtime().and_then(|runtime| runtime.block_on(bench::floor::run(args))),
        Command::Kinesis { port, address, options } => commands::runtime().and_then(|runtime| {
            runtime.block_on(commands::kinesis_server::run(SocketAddr::new(address, port), options))
        }),
        Command::Load(args) => commands::runtime().and_then(|runtime| runtime.block_on(commands::load::run(args))),
        Command::Mutants(args) => mutants::run(&args),
        Command::ClickhouseHost { library, args } => commands::clickhouse_host::run(&library, args),
        Command::Supervise { folder, command } => commands::supervise::run(folder.as_deref(), &command),
    };
    match outcome {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("stack: {error}");
            ExitCode::FAILURE
        }
    }
}
