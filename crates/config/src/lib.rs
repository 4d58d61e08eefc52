//! Flags and environment to a validated [`Config`], in two steps: clap reads text,
//! [`Flags::resolve`] interprets it and reports every problem at once, so that one round is enough
//! to fix them all.

mod secrets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::Uri;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use domain::limits::{MAX_LEASE_DURATION, MAX_NAME, MIN_LEASE_DURATION, MIN_MEMORY};
use domain::names::WorkerId;
use domain::secret::{Secret, Tokens};

pub use secrets::SecretFiles;

/// Flags and environment variables as text. Where there is no default, an empty text counts as not
/// given.
#[derive(Clone, Debug, Args)]
#[command(after_help = "AWS region, credentials and endpoints come from the usual AWS_* variables and files.")]
pub struct Flags {
    /// IP address and port to listen on; port 0 picks a free one.
    #[arg(long, env = "KINESIS_BRIDGE_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:9020")]
    pub listen: String,
    /// URL of ClickHouse's HTTP interface.
    #[arg(long, env = "KINESIS_BRIDGE_CLICKHOUSE_URL", value_name = "URL", default_value = "http://127.0.0.1:8123")]
    pub clickhouse_url: String,
    /// ClickHouse user.
    #[arg(long, env = "KINESIS_BRIDGE_CLICKHOUSE_USER", value_name = "NAME", default_value = "default")]
    pub clickhouse_user: String,
    /// ClickHouse password. Other users can see it in the process list: prefer the file or the
    /// environment variable.
    #[arg(
        long,
        env = "KINESIS_BRIDGE_CLICKHOUSE_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub clickhouse_password: Secret,
    /// File with the ClickHouse password.
    #[arg(
        long,
        env = "KINESIS_BRIDGE_CLICKHOUSE_PASSWORD_FILE",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub clickhouse_password_file: String,
    /// ClickHouse database of the state tables.
    #[arg(long, env = "KINESIS_BRIDGE_CLICKHOUSE_DATABASE", value_name = "NAME", default_value = "kinesis")]
    pub clickhouse_database: String,
    /// Where to keep leases and checkpoints: `keeper-map`, or `file:DIR` for a single bridge
    /// without Keeper.
    #[arg(long, env = "KINESIS_BRIDGE_STATE", value_name = "STORE", default_value = "keeper-map")]
    pub state: String,
    /// Name of this bridge: unique among those that share the state, and the same after a restart.
    /// By default, host name and port.
    #[arg(long, env = "KINESIS_BRIDGE_WORKER_ID", value_name = "ID", default_value = "", hide_default_value = true)]
    pub worker_id: String,
    /// A bridge that sends no heartbeat for this long loses its shards to the others.
    #[arg(long, env = "KINESIS_BRIDGE_LEASE_DURATION", value_name = "DURATION", default_value = "10s")]
    pub lease_duration: String,
    /// Memory limit for all buffers together.
    #[arg(long, env = "KINESIS_BRIDGE_MEMORY", value_name = "SIZE", default_value = "256MiB")]
    pub memory: String,
    /// File with a bearer token, which every request except HEAD, /healthz and /readyz must then
    /// send. A second line may have the token before it, which is accepted too.
    #[arg(long, env = "KINESIS_BRIDGE_TOKEN_FILE", value_name = "FILE", default_value = "", hide_default_value = true)]
    pub token_file: String,
    /// Log level: off, error, warn, info, debug or trace; or a filter such as
    /// `info,bridge::pipe=debug`.
    #[arg(long, env = "KINESIS_BRIDGE_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
    /// Log format: text or json.
    #[arg(long, env = "KINESIS_BRIDGE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: String,
}

/// The validated configuration of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How to reach ClickHouse.
    pub clickhouse: ClickHouse,
    /// Where leases and checkpoints are kept.
    pub state: State,
    /// Name of this bridge.
    pub worker_id: WorkerId,
    /// Time without a heartbeat after which a worker is dead.
    pub lease_duration: Duration,
    /// Bytes of all buffers together.
    pub memory: usize,
    /// The bearer tokens of which requests must carry one.
    pub token: Option<Tokens>,
    /// The files with secrets.
    pub files: SecretFiles,
    /// What to log, as a filter of `tracing_subscriber`.
    pub log_filter: String,
    /// How to log.
    pub log_format: LogFormat,
}

/// How to reach ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouse {
    /// `http` or `https`, without user, password, query and trailing slash.
    pub url: String,
    /// User.
    pub user: String,
    /// Password; may be empty.
    pub password: Secret,
    /// Database of the state tables.
    pub database: String,
}

/// Where leases and checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// KeeperMap tables in ClickHouse.
    KeeperMap,
    /// Files in this directory.
    File(PathBuf),
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable.
    Text,
    /// One JSON object per line.
    Json,
}

/// All that is wrong with the flags: one sentence and one line for each problem, which names the
/// flag and its variable. Holds no secret.
#[derive(Debug, Default, Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, flag: &str, what: impl fmt::Display) {
        let variable = flag.to_ascii_uppercase().replace('-', "_");
        self.0.push(format!("--{flag} (KINESIS_BRIDGE_{variable}) {what}"));
    }

    /// The value; an error is recorded as a problem.
    fn take<T>(&mut self, flag: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|what| self.add(flag, what)).ok()
    }
}

impl Flags {
    /// Interprets every text and reads the files that contain secrets.
    pub fn resolve(self) -> Result<Config, Problems> {
        let mut problems = Problems::default();
        let listen = problems.take("listen", listen(&self.listen));
        let url = problems.take("clickhouse-url", url(&self.clickhouse_url));
        let user = problems.take("clickhouse-user", user(self.clickhouse_user));
        let files = SecretFiles { token: self.token_file, password: self.clickhouse_password_file };
        let password = problems.take("clickhouse-password-file", password(self.clickhouse_password, &files));
        let database = problems.take("clickhouse-database", name(self.clickhouse_database, "_.-"));
        let state = problems.take("state", state(&self.state));
        let worker_id = match self.worker_id {
            // A bad address has already been reported.
            id if id.is_empty() => listen.and_then(|at| problems.take("worker-id", default_worker_id(at.port()))),
            id => problems.take("worker-id", name(id, "_.-:")),
        };
        let lease_duration = problems.take("lease-duration", lease_duration(&self.lease_duration));
        let memory = problems.take("memory", memory(&self.memory));
        let token = problems.take("token-file", files.token().transpose());
        let log_filter = problems.take("log-level", log_filter(self.log_level));
        let log_format = problems.take("log-format", log_format(&self.log_format));
        let config = || {
            Some(Config {
                listen: listen?,
                clickhouse: ClickHouse { url: url?, user: user?, password: password?, database: database? },
                state: state?,
                worker_id: worker_id?.into(),
                lease_duration: lease_duration?,
                memory: memory?,
                token: token?,
                files,
                log_filter: log_filter?,
                log_format: log_format?,
            })
        };
        config().ok_or(problems)
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("is '{text}': it must be an IP address and a port, such as 127.0.0.1:9020 or [::]:9020"))
}

/// Messages never repeat the URL: a malformed one may contain a password.
fn url(text: &str) -> Result<String, String> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL: it must look like http://127.0.0.1:8123".to_string())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with http:// or https://".into());
    }
    if uri.authority().is_none_or(|a| a.as_str().contains('@')) {
        return Err(
            "must not contain a user or a password: use --clickhouse-user and --clickhouse-password-file".into()
        );
    }
    if uri.query().is_some() {
        return Err("must not have a query: ClickHouse settings belong in the user's profile".into());
    }
    Ok(text.trim_end_matches('/').into())
}

fn user(text: String) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME || text.contains(char::is_control) {
        return Err(format!("must be a name of 1 to {MAX_NAME} bytes"));
    }
    Ok(text)
}

fn password(given: Secret, files: &SecretFiles) -> Result<Secret, String> {
    match (given.expose().is_empty(), files.password()) {
        (_, None) => Ok(given),
        (false, Some(_)) => Err(
            "is given together with --clickhouse-password (KINESIS_BRIDGE_CLICKHOUSE_PASSWORD): use only one of them"
                .into(),
        ),
        (true, Some(password)) => password,
    }
}

fn name(text: String, signs: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    if (1..=MAX_NAME).contains(&text.len()) && text.chars().all(allowed) {
        return Ok(text);
    }
    Err(format!("is '{text}': it must have 1 to {MAX_NAME} characters, letters, digits or any of {signs}"))
}

fn state(text: &str) -> Result<State, String> {
    match (text, text.strip_prefix("file:")) {
        ("keeper-map", _) => Ok(State::KeeperMap),
        (_, Some(dir)) if !dir.is_empty() => Ok(State::File(dir.into())),
        _ => Err(format!(
            "is '{text}': it must be keeper-map, or file: and a directory such as file:/var/lib/kinesis-bridge"
        )),
    }
}

/// The name of this machine, if it has one.
pub fn machine() -> Option<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    host.as_deref().map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned)
}

fn default_worker_id(port: u16) -> Result<String, String> {
    let host = machine().ok_or("is not set and the host has no name to derive it from: set it")?;
    name(format!("{host}:{port}"), "_.-:")
        .map_err(|_| format!("is not set and '{host}:{port}', derived from the host name, is not a valid ID: set it"))
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let allowed = MIN_LEASE_DURATION..=MAX_LEASE_DURATION;
    humantime::parse_duration(text).ok().filter(|d| allowed.contains(d)).ok_or_else(|| {
        let format = humantime::format_duration;
        let (least, most) = (format(MIN_LEASE_DURATION), format(MAX_LEASE_DURATION));
        format!("is '{text}': it must be a duration from {least} to {most}, such as 10s or 1m 30s")
    })
}

fn memory(text: &str) -> Result<usize, String> {
    size(text).filter(|n| *n >= MIN_MEMORY).ok_or_else(|| {
        let least = MIN_MEMORY >> 20;
        format!("is '{text}': it must be a whole number of B, KB, MB, GB, KiB, MiB or GiB and at least {least}MiB, such as 256MiB")
    })
}

/// Reads a size in bytes.
fn size(text: &str) -> Option<usize> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// A single word must be a level: the filter's own parser would take a misspelt one for a module
/// name and log nothing.
fn log_filter(text: String) -> Result<String, String> {
    let level = matches!(&*text.to_ascii_lowercase(), "off" | "error" | "warn" | "info" | "debug" | "trace");
    let filter = text.contains('=') && EnvFilter::builder().parse(&text).is_ok();
    if level || filter {
        return Ok(text);
    }
    Err(format!(
        "is '{text}': it must be off, error, warn, info, debug, trace, or a filter such as info,bridge::pipe=debug"
    ))
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("is '{text}': it must be text or json")),
    }
}
