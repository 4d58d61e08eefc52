//! An S3 and a DynamoDB on this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::service::{Launch, Service};
use crate::{Result, checkout, free_port};

/// The release that `scripts/install.sh` installs.
const FOLDER: &str = ".stack/ministack-1.5.33";
const START_DEADLINE: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The PyPI package `ministack` in its own process. It keeps everything in memory and accepts any
/// credentials.
#[derive(Debug)]
pub struct MiniStack {
    service: Service,
    port: u16,
    /// Holds the log; dropped after the service.
    _dir: TempDir,
}

impl MiniStack {
    /// Starts a server and waits until it accepts connections.
    pub fn start() -> Result<MiniStack> {
        let python = MiniStack::python()?;
        let dir = tempfile::Builder::new()
            .prefix("ministack-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let port = free_port()?;
        let mut launch =
            Launch::new(python, ["-m", "ministack"], dir.path().join("ministack.log")).in_folder(dir.path());
        let own = dir.path().display().to_string();
        let settings = [
            ("GATEWAY_PORT", port.to_string()),
            ("BIND_HOST", Ipv4Addr::LOCALHOST.to_string()),
            // Where it leaves files behind.
            ("TMPDIR", own.clone()),
            ("HOME", own),
            ("LOG_LEVEL", "WARNING".to_owned()),
        ];
        launch.environment = settings.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let stack = MiniStack { service: Service::start("the S3", launch)?, port, _dir: dir };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        stack.service.wait_until("a connection", START_DEADLINE, || {
            TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok()
        })?;
        Ok(stack)
    }

    /// The Python it runs on, which also has boto3.
    pub fn python() -> Result<PathBuf> {
        let folder = checkout().join(FOLDER);
        let read = |path: PathBuf| std::fs::read(path).ok();
        let installed = read(folder.join("complete")).filter(|list| !list.is_empty());
        if installed.is_none() || installed != read(checkout().join("scripts/ministack.txt")) {
            return Err(format!("{} is missing or out of date: run scripts/install.sh first", folder.display()));
        }
        Ok(folder.join("bin/python"))
    }

    /// The endpoint's URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Creates a bucket in S3 and returns its URL.
    pub fn create_bucket(&self, name: &str) -> Result<String> {
        let url = format!("{}/{name}", self.endpoint());
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        agent.put(&url).send_empty().map_err(|error| format!("cannot create the bucket {name}: {error}"))?;
        Ok(url)
    }
}

impl Deref for MiniStack {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
