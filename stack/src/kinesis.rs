//! A local Kinesis Data Streams and a client for it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use tempfile::TempDir;

use crate::service::{Launch, Service, stack_binary};
use crate::{Result, free_port};

/// The region that the local Kinesis plays.
pub const REGION: &str = "us-east-1";
const START_DEADLINE: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How the local Kinesis behaves. These are also the flags of `stack kinesis`.
#[derive(Clone, Debug, clap::Args)]
pub struct KinesisOptions {
    /// How many open shards all streams may have together.
    #[arg(long, default_value_t = 10_000)]
    pub shard_limit: u32,
    /// How long creating, updating and deleting a stream take, in milliseconds each.
    #[arg(long, default_value_t = 10)]
    pub state_change_ms: u64,
    /// How long a shard iterator lives, in seconds.
    #[arg(long, default_value_t = 300)]
    pub iterator_ttl_seconds: u64,
    /// How often records beyond the retention period are removed, in seconds; 0 means never.
    #[arg(long, default_value_t = 0)]
    pub retention_check_seconds: u64,
    /// How long a SubscribeToShard session lives, in milliseconds.
    #[arg(long, default_value_t = 300_000)]
    pub subscription_ms: u64,
    /// How many records a SubscribeToShard event may carry.
    #[arg(long, default_value_t = 10_000)]
    pub event_records: usize,
    /// Refuse writes beyond a shard's limits, as AWS does.
    #[arg(long)]
    pub enforce_limits: bool,
    /// The region that its streams are in.
    #[arg(long, default_value = REGION)]
    pub region: String,
    /// Keep streams and records over a restart, in this folder. Slow (about 1,000 records/s) and
    /// large (24 kB a record): for small streams only.
    #[arg(long)]
    pub state_dir: Option<std::path::PathBuf>,
}

impl Default for KinesisOptions {
    fn default() -> KinesisOptions {
        KinesisOptions {
            shard_limit: 10_000,
            state_change_ms: 10,
            iterator_ttl_seconds: 300,
            retention_check_seconds: 0,
            subscription_ms: 300_000,
            event_records: 10_000,
            enforce_limits: false,
            region: REGION.to_owned(),
            state_dir: None,
        }
    }
}

impl KinesisOptions {
    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--shard-limit={}", self.shard_limit),
            format!("--state-change-ms={}", self.state_change_ms),
            format!("--iterator-ttl-seconds={}", self.iterator_ttl_seconds),
            format!("--retention-check-seconds={}", self.retention_check_seconds),
            format!("--subscription-ms={}", self.subscription_ms),
            format!("--event-records={}", self.event_records),
            format!("--region={}", self.region),
        ];
        if self.enforce_limits {
            flags.push("--enforce-limits".to_owned());
        }
        if let Some(dir) = &self.state_dir {
            flags.push(format!("--state-dir={}", dir.display()));
        }
        flags
    }
}

/// A Kinesis server in its own process. A restart loses its streams unless it has a state folder.
#[derive(Debug)]
pub struct Kinesis {
    service: Service,
    port: u16,
    /// Holds the log; dropped after the service.
    _dir: TempDir,
}

impl Kinesis {
    /// Starts a server and waits until it accepts connections.
    pub fn start(options: &KinesisOptions) -> Result<Kinesis> {
        let dir = tempfile::Builder::new()
            .prefix("kinesis-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let port = free_port()?;
        let mut args = vec!["kinesis".to_owned(), format!("--port={port}")];
        args.extend(options.flags());
        let launch = Launch::new(stack_binary()?, args, dir.path().join("kinesis.log")).in_folder(dir.path());
        let kinesis = Kinesis { service: Service::start("Kinesis", launch)?, port, _dir: dir };
        kinesis.wait_ready()?;
        Ok(kinesis)
    }

    /// The endpoint's URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server if it is running and restarts it on the same port.
    pub fn restart(&self) -> Result<()> {
        self.service.kill();
        self.service.start_again()?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        self.service
            .wait_until("a connection", START_DEADLINE, || TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok())
    }
}

impl Deref for Kinesis {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// The variables that point any AWS SDK at a local Kinesis.
pub fn aws_environment(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        // Otherwise a mistake in the variables above becomes a long wait for a metadata service.
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

/// A client for a local Kinesis. Async, to allow for credential providers that are.
pub async fn kinesis_client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("test", "test", None, None, "stack"))
        .build();
    Client::from_conf(config)
}
