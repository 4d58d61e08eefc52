//! A second Kinesis, written by other authors than the first: behaviour that both share is more
//! likely to be right.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use tempfile::TempDir;

use crate::service::{Launch, Service};
use crate::{REGION, Result, checkout, free_port};

/// The release that `scripts/install.sh` installs.
const FOLDER: &str = ".stack/kinesis-local-0.6.2";
const START_DEADLINE: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The npm package `kinesis-local` in its own process. It gets slower with the size of a stream:
/// use it for small streams, and a new one for each test.
#[derive(Debug)]
pub struct KinesisLocal {
    service: Service,
    port: u16,
    /// Holds the log; dropped after the service.
    _dir: TempDir,
}

impl KinesisLocal {
    /// Starts a server and waits until it accepts connections. It is ended with SIGKILL: it takes
    /// 30 s to react to SIGTERM.
    pub fn start() -> Result<KinesisLocal> {
        let program = checkout().join(FOLDER).join("main.js");
        if !program.is_file() {
            return Err(format!("{} is missing: run scripts/install.sh first", program.display()));
        }
        let dir = tempfile::Builder::new()
            .prefix("kinesis-local-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let mut launch =
            Launch::new("node", [program.as_os_str()], dir.path().join("kinesis-local.log")).in_folder(dir.path());
        let certificate = checkout().join(FOLDER).join("server.json").display().to_string();
        let settings = [
            ("KINESIS_MOCK_PLAIN_PORT", port.to_string()),
            ("KINESIS_MOCK_TLS_PORT", tls_port.to_string()),
            ("KINESIS_MOCK_CERT_PATH", certificate),
            ("AWS_REGION", REGION.to_owned()),
            ("SHARD_LIMIT", "1000".to_owned()),
            ("CREATE_STREAM_DURATION", "10ms".to_owned()),
            ("SPLIT_SHARD_DURATION", "10ms".to_owned()),
            ("MERGE_SHARDS_DURATION", "10ms".to_owned()),
            ("LOG_LEVEL", "WARN".to_owned()),
        ];
        launch.environment = settings.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let kinesis = KinesisLocal { service: Service::start("the second Kinesis", launch)?, port, _dir: dir };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        kinesis.service.wait_until("a connection", START_DEADLINE, || {
            TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok()
        })?;
        Ok(kinesis)
    }

    /// The endpoint's URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Deref for KinesisLocal {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
