//! The command line: the only place where the process ends.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

mod check;
mod cli;
mod error;
mod secrets;
mod serve;

use capture::generate::{dynamodb, pipe};
use capture::verify::verify;
use clap::Parser;
use config::{Config, LogFormat, State};
use domain::finding::{Finding, Verdict};
use serde_json::json;
use sql::quote::visible;
use sql::{SetupParams, setup};
use tracing_subscriber::EnvFilter;

use check::{Only, check};
use cli::{Cli, Command, DynamoDbCommand, SqlCommand};
use error::{ProgramError, cannot};
use serve::serve;

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        for line in error.to_string().lines() {
            // Names and texts from outside must not control the terminal.
            eprintln!("error: {}", visible(line));
        }
        match error {
            // The exit code of clap for flags that do not exist.
            ProgramError::Flags(_) | ProgramError::LogLevel(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    })
}

fn run(command: Command) -> Result<ExitCode, ProgramError> {
    match command {
        Command::Serve(flags) => {
            let config = flags.resolve()?;
            log(&config)?;
            block_on(serve(config))?;
        }
        Command::Check { stream, pipe, json, flags } => {
            let only = Only { stream: stream.as_deref(), pipe: pipe.as_deref() };
            let findings = block_on(check(&flags.resolve()?, only))?;
            for finding in &findings {
                print(&told(finding, json))?;
            }
            let bad = findings.iter().filter(|f| f.verdict == Verdict::Bad).count();
            if bad > 0 {
                return Err(ProgramError::Findings { bad, all: findings.len() });
            }
        }
        Command::Dynamodb { command: DynamoDbCommand::Verify { verify: wanted, flags } } => {
            let (report, equal) = block_on(verify(&flags.resolve()?, &wanted))?;
            print(&report)?;
            // The report says it all.
            return Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Sql { command: SqlCommand::Pipe { pipe: wanted, flags } } => {
            let config = flags.resolve()?;
            print(&block_on(pipe(&config, &wanted, &bridge_url(&config)))?)?;
        }
        Command::Sql { command: SqlCommand::Dynamodb { wanted, flags } } => {
            let config = flags.resolve()?;
            print(&block_on(dynamodb(&config, &wanted, &bridge_url(&config)))?)?;
        }
        Command::Sql { command: SqlCommand::Setup(flags) } => {
            let config = flags.resolve()?;
            let bridge_url = bridge_url(&config);
            let token = config.token.as_ref().map(|tokens| tokens.current.expose());
            let state_tables = config.state == State::KeeperMap;
            let database = &config.clickhouse.database;
            print(&setup(&SetupParams {
                database,
                bridge_url: &bridge_url,
                clickhouse_url: &config.clickhouse.url,
                token,
                state_tables,
            }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A finding as a line. Names and texts from outside must not control the terminal.
fn told(Finding { what, says, verdict }: &Finding, json: bool) -> String {
    let word = match verdict {
        Verdict::Fine => "ok",
        Verdict::Note => "note",
        Verdict::Bad => "FAIL",
    };
    match json {
        true => format!("{}\n", json!({ "verdict": word.to_lowercase(), "what": what, "says": says })),
        false => format!("{word:<5} {}: {}\n", visible(what), visible(says)),
    }
}

fn block_on<T, E: Into<ProgramError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, ProgramError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(cannot("start the runtime"))?.block_on(work).map_err(Into::into)
}

/// Logs go to stderr. Without colours if stderr is not a terminal, or if NO_COLOR is set.
fn log(config: &Config) -> Result<(), ProgramError> {
    let filter = EnvFilter::try_new(&config.log_filter)?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Where ClickHouse on the same host reaches the bridge.
fn bridge_url(config: &Config) -> String {
    match config.listen.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() => format!("http://localhost:{}", config.listen.port()),
        _ => format!("http://{}", config.listen),
    }
}

/// A closed pipe (`| head`) is the user's choice and not a panic.
fn print(text: &str) -> Result<(), ProgramError> {
    std::io::stdout().write_all(text.as_bytes()).map_err(cannot("write the output"))
}
