//! The product's own binary under test.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::service::{Launch, Service};
use crate::{Result, free_port};

const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running `clickhouse-kinesis-bridge serve`.
#[derive(Debug)]
pub struct Bridge {
    service: Service,
    address: String,
    /// Holds the log; dropped after the service.
    _dir: TempDir,
}

impl Bridge {
    /// Starts `binary serve` with `flags` (such as `("--memory", "64MiB")`; an empty value means a
    /// flag without one) and `environment` on top of the caller's, less its AWS and bridge
    /// settings, and waits until it listens. Without a `--listen` flag it gets a free port.
    pub fn start(binary: &Path, flags: &[(&str, &str)], environment: &[(String, String)]) -> Result<Bridge> {
        if !binary.is_file() {
            return Err(format!("{} is missing: run `cargo build --workspace` first", binary.display()));
        }
        let dir = tempfile::Builder::new()
            .prefix("bridge-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let given = flags.iter().find(|(flag, _)| *flag == "--listen");
        let listen = match given {
            Some((_, address)) => (*address).to_owned(),
            None => format!("127.0.0.1:{}", free_port()?),
        };
        let mut launch =
            Launch::new(binary, arguments(&listen, flags), dir.path().join("bridge.log")).in_folder(dir.path());
        launch.environment = environment.to_vec();
        // Plain text; colours would break parsing the address.
        launch.environment.push(("NO_COLOR".to_owned(), "1".to_owned()));
        launch.without = std::env::vars_os()
            .map(|(key, _)| key)
            .filter(|key| {
                let key = key.to_string_lossy();
                key.starts_with("AWS_") || key.starts_with("KINESIS_BRIDGE_")
            })
            .collect();
        let mut bridge = Bridge { service: Service::start("the bridge", launch)?, address: String::new(), _dir: dir };
        bridge.address = bridge.wait_listening()?;
        // Views contain the address, so a restart must reuse it, even after `--listen 127.0.0.1:0`.
        let args = arguments(&bridge.address, flags);
        bridge.service.change_launch(|launch| launch.args = args.into_iter().map(Into::into).collect());
        Ok(bridge)
    }

    /// Where it listens, such as `127.0.0.1:40123`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same as a URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills the process if it is running, restarts it on the same address and waits until it
    /// listens.
    pub fn restart(&self) -> Result<()> {
        self.service.kill();
        self.start_again()
    }

    /// Starts it again after [`Service::kill`] or [`Service::stop`], on the same address.
    pub fn start_again(&self) -> Result<()> {
        self.service.start_again()?;
        self.wait_listening().map(drop)
    }

    fn wait_listening(&self) -> Result<String> {
        let mut found = None;
        self.service.wait_until("the log line `listening address=…`", START_DEADLINE, || {
            found = listening_address(&self.service.log_since_start());
            found.is_some()
        })?;
        found.ok_or_else(|| "the bridge does not say where it listens".to_owned())
    }
}

impl Deref for Bridge {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

fn arguments(listen: &str, flags: &[(&str, &str)]) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned(), "--listen".to_owned(), listen.to_owned()];
    for (flag, value) in flags.iter().filter(|(flag, _)| *flag != "--listen") {
        arguments.push((*flag).to_owned());
        if !value.is_empty() {
            arguments.push((*value).to_owned());
        }
    }
    arguments
}

/// The address in a log line such as `… listening address=127.0.0.1:40123`.
fn listening_address(log: &str) -> Option<String> {
    // The last line may be incomplete.
    let complete = &log[..log.rfind('\n')? + 1];
    let line = complete.lines().find(|line| line.contains("listening") && line.contains("address="))?;
    let (_, rest) = line.split_once("address=")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::listening_address;

    #[test]
    fn the_address_is_read_from_a_complete_line_only() {
        let log = "INFO starting\nINFO bridge: listening address=127.0.0.1:40123 version=\"0.1\"\n";
        assert_eq!(listening_address(log).as_deref(), Some("127.0.0.1:40123"));
        assert_eq!(listening_address("INFO listening address=127.0.0.1:40"), None);
    }
}
