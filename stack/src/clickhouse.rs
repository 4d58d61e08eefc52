//! A real ClickHouse: the user's own binary, or one of the engines that `scripts/install.sh`
//! installs as libraries.

mod blocks;
mod config;
mod engine;
mod local;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

pub use config::{CLUSTER, ClickHouseOptions, PASSWORD_USER, REPLICAS, TEST_PASSWORD, User, WEAK_USER};
pub use engine::Engine;
pub use local::run_locally;

use crate::service::Service;
use crate::{Result, free_port};

/// Loading a library of up to 860 MB from a cold disk takes a while.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Longer than any query of a test; shorter than a test runner's timeout.
const QUERY_TIMEOUT: Duration = Duration::from_secs(300);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Looks for a moment between two blocks, and the pause between them. A block is between its two
/// states for about a millisecond.
const LOOKS: usize = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// A function is made in much less time than this many statements take.
const FUNCTION_RETRIES: usize = 100;

/// A ClickHouse server with its own data folder.
#[derive(Debug)]
pub struct ClickHouse {
    service: Service,
    data: PathBuf,
    http_port: u16,
    native_port: u16,
    agent: ureq::Agent,
}

impl ClickHouse {
    /// Starts a server with its configuration, data and log in `dir` and waits until it answers
    /// queries. `zookeeper_port` is the coordination service on 127.0.0.1 for KeeperMap and
    /// Replicated tables; without it there are none.
    pub fn start(
        engine: Engine,
        dir: &Path,
        zookeeper_port: Option<u16>,
        options: &ClickHouseOptions,
    ) -> Result<ClickHouse> {
        let http_port = free_port()?;
        let native_port = options.native_port.map_or_else(free_port, Ok)?;
        let ports = config::Ports {
            http: http_port,
            native: native_port,
            interserver: free_port()?,
            zookeeper: zookeeper_port,
        };
        let config = config::write(dir, &ports, options)?;
        let mut launch = engine.find()?.serve(&config, http_port, dir)?.in_folder(dir);
        launch.environment = config::environment();
        let clickhouse = ClickHouse {
            service: Service::start("ClickHouse", launch)?,
            data: dir.join("data"),
            http_port,
            native_port,
            agent: agent(QUERY_TIMEOUT),
        };
        clickhouse.wait_ready()?;
        Ok(clickhouse)
    }

    /// The folder of files that its function `file` may read and write.
    pub fn user_files(&self) -> PathBuf {
        self.data.join("user_files")
    }

    /// The HTTP interface, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// The port of the native protocol on 127.0.0.1.
    pub fn native_port(&self) -> u16 {
        self.native_port
    }

    /// Runs one statement as `default`. Returns the result as text (TabSeparated unless the
    /// statement says otherwise), or ClickHouse's exception.
    pub fn query(&self, sql: &str) -> Result<String> {
        self.query_as("default", "", sql)
    }

    /// Runs one statement as another user.
    pub fn query_as(&self, user: &str, password: &str, sql: &str) -> Result<String> {
        let ask = || post(&self.agent, &self.url(), user, password, sql);
        let mut answer = ask();
        for _ in 0..FUNCTION_RETRIES {
            // While another client makes a function, 25.8 looks for its temporary file, which may
            // be gone by then; nothing of the statement has been carried out.
            let lost = |error: &String| error.contains("File not found") && error.contains(".sql.tmp");
            if !answer.as_ref().is_err_and(lost) {
                break;
            }
            answer = ask();
        }
        answer
    }

    /// Runs statements separated by `;` at the end of a line, one by one, up to the first that
    /// fails.
    pub fn run_script(&self, script: &str) -> Result<()> {
        for statement in statements(script) {
            self.query(&statement).map_err(|error| format!("{error}\nin the statement:\n{statement}"))?;
        }
        Ok(())
    }

    /// Kills the server if it is running and restarts it on the same ports and data.
    pub fn restart(&self) -> Result<()> {
        self.kill_between_blocks();
        self.start_again()
    }

    /// Kills it at a moment at which no block is noted as inserted without being in its table:
    /// ClickHouse itself would lose that block (see Guarantees in the README).
    fn kill_between_blocks(&self) {
        for _ in 0..LOOKS {
            self.service.sigstop();
            // Its threads stop one by one.
            sleep(LOOK_PAUSE);
            if blocks::are_whole(&self.data) {
                return self.service.kill();
            }
            self.service.sigcont();
            sleep(LOOK_PAUSE);
        }
        println!("{}: killed although the last block that it noted is not in its table", self.service.name());
        self.service.kill();
    }

    /// Starts the server again after [`Service::kill`] or [`Service::stop`], on the same ports and
    /// data.
    pub fn start_again(&self) -> Result<()> {
        self.service.start_again()?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        let agent = agent(PROBE_TIMEOUT);
        self.service.wait_until("an answer to `SELECT 1`", START_DEADLINE, || {
            post(&agent, &self.url(), "default", "", "SELECT 1").is_ok()
        })
    }
}

impl Deref for ClickHouse {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// Splits a script into its statements: each ends with a `;` at the end of a line. Comments stay
/// with what follows them.
fn statements(script: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    for line in script.lines() {
        let line = line.trim_end();
        let (text, ends) = match line.strip_suffix(';') {
            Some(text) if !line.trim_start().starts_with("--") => (text, true),
            _ => (line, false),
        };
        if let Some(current) = statements.last_mut() {
            current.push_str(text);
            current.push('\n');
        }
        if ends {
            statements.push(String::new());
        }
    }
    let says_something = |line: &str| !line.trim().is_empty() && !line.trim().starts_with("--");
    statements.retain(|statement| statement.lines().any(says_something));
    statements
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        // The engine is on this machine, whatever proxy the environment sets.
        .proxy(None)
        .build()
        .into()
}

fn post(agent: &ureq::Agent, url: &str, user: &str, password: &str, sql: &str) -> Result<String> {
    let unreachable = |error: ureq::Error| format!("cannot ask ClickHouse at {url}: {error}");
    let mut response = agent
        .post(url)
        // The whole response is produced first: a late exception then comes as a status, not in the
        // middle of the rows.
        .query("wait_end_of_query", "1")
        .header("X-ClickHouse-User", user)
        .header("X-ClickHouse-Key", password)
        .send(sql)
        .map_err(unreachable)?;
    let status = response.status();
    let text = response.body_mut().with_config().limit(u64::MAX).read_to_string().map_err(unreachable)?;
    if status.is_success() { Ok(text) } else { Err(text.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::statements;

    #[test]
    fn a_script_is_split_at_semicolons_that_end_a_line() {
        let script = "-- first;\nSELECT ';'\n  AS a;\n\nSELECT 2;\n-- the end\n";
        assert_eq!(statements(script), ["-- first;\nSELECT ';'\n  AS a\n", "\nSELECT 2\n"]);
    }
}
