//! The movers: the bridge with its view, and the programs in `stack/peers`.

use std::fs::read;
use std::ops::Deref;
use std::path::PathBuf;

use stack::{Bridge, Launch, LocalStack, MiniStack, REGION, Service, aws_environment, checkout};
use tempfile::TempDir;

use super::super::BenchArgs;
use super::super::sql::Job;
use super::super::throughput::{Replayed, STREAM};

/// Where `scripts/install.sh peers` puts the KCL, and what it makes it from.
const KCL: Installed = Installed {
    folder: ".stack/peer-kcl-3.4.2",
    sources: &["stack/peers/kcl/pom.xml", "stack/peers/kcl/jars.txt", "stack/peers/kcl/src/main/java/Mover.java"],
};
/// The same for the loop with boto3.
const LOOP: Installed =
    Installed { folder: ".stack/peer-loop-1.12.0", sources: &["stack/peers/loop/requirements.txt"] };
const LOOP_PROGRAM: &str = "stack/peers/loop/loop.py";

/// A folder of `scripts/install.sh`.
struct Installed {
    folder: &'static str,
    sources: &'static [&'static str],
}

impl Installed {
    /// The folder. Its last file repeats the sources, so that a stale one is noticed.
    fn find(&self) -> Result<PathBuf, String> {
        let folder = checkout().join(self.folder);
        let mut sources = Vec::new();
        for source in self.sources {
            let path = checkout().join(source);
            sources.extend(read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?);
        }
        match read(folder.join("complete")) {
            Ok(complete) if complete == sources => Ok(folder),
            _ => Err(format!("{} is missing or out of date: run scripts/install.sh peers first", folder.display())),
        }
    }
}

/// Who moves records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The bridge, with README's SQL.
    Bridge,
    /// boto3 and clickhouse-connect.
    Loop,
    /// Amazon's Kinesis Client Library and ClickHouse's client for Java.
    Kcl,
}

impl Kind {
    /// The bridge first; the one that takes longest last.
    pub const ALL: [Kind; 3] = [Kind::Bridge, Kind::Loop, Kind::Kcl];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bridge => "bridge",
            Kind::Loop => "boto3 loop",
            Kind::Kcl => "KCL",
        }
    }

    /// Its table, and the statements for it.
    pub fn job(self) -> Job {
        Job::into(match self {
            Kind::Bridge => "peers_bridge",
            Kind::Loop => "peers_loop",
            Kind::Kcl => "peers_kcl",
        })
    }

    /// The program and its arguments.
    fn program(self) -> Result<(PathBuf, Vec<String>), String> {
        if self == Kind::Loop {
            let program = checkout().join(LOOP_PROGRAM).display().to_string();
            return Ok((LOOP.find()?.join("bin/python"), vec![program]));
        }
        let folder = KCL.find()?.display().to_string();
        let arguments = [
            "-cp".to_owned(),
            format!("{folder}/classes:{folder}/jars/*"),
            // By default it logs every step of its housekeeping.
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
            "Mover".to_owned(),
        ];
        Ok(("java".into(), arguments.into()))
    }
}

/// Fails if a peer is not installed.
pub fn installed() -> Result<(), String> {
    KCL.find().and_then(|_| LOOP.find()).map(drop)
}

/// A running mover from the stream of `source` into the table of its kind.
pub enum Mover {
    /// The bridge.
    Bridge(Bridge),
    /// Another program.
    Peer {
        /// Its process.
        service: Service,
        /// Holds its log; dropped after the process.
        _log: TempDir,
    },
}

impl Mover {
    /// Starts it; its table exists.
    pub fn start(
        kind: Kind,
        args: &BenchArgs,
        stack: &LocalStack,
        source: &Replayed,
        dynamodb: &MiniStack,
    ) -> Result<Mover, String> {
        let job = kind.job();
        if kind == Kind::Bridge {
            let bridge = source.start_bridge(args, stack, &[])?;
            stack.clickhouse.query(&job.create_view(&bridge.url(), STREAM, "")?)?;
            return Ok(Mover::Bridge(bridge));
        }
        let log = tempfile::Builder::new()
            .prefix("peer-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let (program, arguments) = kind.program()?;
        let mut launch = Launch::new(program, arguments, log.path().join("peer.log")).in_folder(log.path());
        let settings = [
            // boto3's name for AWS_REGION.
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.endpoint()),
            ("CLICKHOUSE_URL", stack.clickhouse.url()),
            ("STREAM", STREAM.to_owned()),
            ("TABLE", job.table),
        ];
        launch.environment = aws_environment(&source.endpoint());
        launch.environment.extend(settings.map(|(key, value)| (key.to_owned(), value)));
        // Everything is on this machine, whatever account or proxy the caller's environment names.
        let other = |key: &str| key.starts_with("AWS_") || key.to_ascii_lowercase().ends_with("_proxy");
        launch.without = std::env::vars_os().map(|(key, _)| key).filter(|key| other(&key.to_string_lossy())).collect();
        Ok(Mover::Peer { service: Service::start(kind.name(), launch)?, _log: log })
    }

    /// Starts it again after [`Service::kill`].
    pub fn start_again(&self) -> Result<(), String> {
        match self {
            Mover::Bridge(bridge) => bridge.start_again(),
            Mover::Peer { service, .. } => service.start_again(),
        }
    }
}

impl Deref for Mover {
    type Target = Service;

    fn deref(&self) -> &Service {
        match self {
            Mover::Bridge(bridge) => bridge,
            Mover::Peer { service, .. } => service,
        }
    }
}
