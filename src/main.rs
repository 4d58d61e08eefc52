//! The command line: the only place where the process ends.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

mod check;
mod cli;
mod serve;

use capture::generate::{dynamodb, pipe};
use capture::verify::verify;
use clap::Parser;
use config::{Config, Flags, LogFormat, State};
use domain::finding::{Finding, Verdict};
use sql::quote::visible;
use sql::{SetupParams, setup};
use tracing_subscriber::EnvFilter;

use check::check;
use cli::{Cli, Command, DynamoDbCommand, SqlCommand};
use serve::serve;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(flags) => resolve(flags).and_then(|config| {
            log(&config)?;
            run(serve(config))?
        }),
        Command::Check { stream, flags } => resolve(flags).and_then(|config| {
            let findings = run(check(&config, stream.as_deref()))??;
            let bad = findings.iter().filter(|f| f.verdict == Verdict::Bad).count();
            for Finding { what, says, verdict } in &findings {
                let verdict = match verdict {
                    Verdict::Fine => "ok   ",
                    Verdict::Note => "note ",
                    Verdict::Bad => "FAIL ",
                };
                print(&format!("{verdict} {what}: {says}\n"))?;
            }
            if bad == 0 { Ok(()) } else { Err(format!("{bad} of {} findings are bad", findings.len())) }
        }),
        Command::Dynamodb { command: DynamoDbCommand::Verify { verify: wanted, flags } } => {
            resolve(flags).and_then(|config| {
                let (report, equal) = run(verify(&config, &wanted))?.map_err(|e| e.to_string())?;
                print(&report)?;
                // The report says it all.
                if equal { Ok(()) } else { Err(String::new()) }
            })
        }
        Command::Sql { command: SqlCommand::Pipe { pipe: wanted, flags } } => resolve(flags)
            .and_then(|config| print(&run(pipe(&config, &wanted, &bridge_url(&config)))?.map_err(|e| e.to_string())?)),
        Command::Sql { command: SqlCommand::Dynamodb { wanted, flags } } => resolve(flags).and_then(|config| {
            print(&run(dynamodb(&config, &wanted, &bridge_url(&config)))?.map_err(|e| e.to_string())?)
        }),
        Command::Sql { command: SqlCommand::Setup(flags) } => resolve(flags).and_then(|config| {
            let bridge_url = bridge_url(&config);
            let token = config.token.as_ref().map(|t| t.expose());
            let state_tables = config.state == State::KeeperMap;
            let database = &config.clickhouse.database;
            print(&setup(&SetupParams { database, bridge_url: &bridge_url, token, state_tables }))
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                // Names and texts from outside must not control the terminal.
                eprintln!("error: {}", visible(line));
            }
            ExitCode::FAILURE
        }
    }
}

fn resolve(flags: Flags) -> Result<Config, String> {
    flags.resolve().map_err(|problems| problems.join("\n"))
}

fn run<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(|e| format!("cannot start the runtime: {e}"))?.block_on(work))
}

/// Logs go to stderr. Without colours if stderr is not a terminal, or if NO_COLOR is set.
fn log(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log_filter).map_err(|e| format!("--log-level: {e}"))?;
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
fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| format!("cannot write the output: {e}"))
}
