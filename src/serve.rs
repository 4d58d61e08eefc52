//! `serve`: wires the parts together and shuts them down in order.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::error::{ProgramError, cannot};
use crate::secrets::guard;
use adapters::clickhouse::{ClickHouse, Wanted};
use adapters::clock::SystemClock;
use adapters::kinesis::AwsKinesis;
use adapters::state::{FileStore, KeeperMapStore, QuarantineTable};
use bridge::http::handlers::App;
use bridge::http::ready::Readiness;
use bridge::http::server::Server;
use bridge::metrics::Metrics;
use bridge::pipe::heartbeat::Heartbeat;
use bridge::pipe::members::Members;
use bridge::pipe::{Deps, Pipes};
use bridge::read::budget::Budget;
use bridge::read::records::Reading;
use config::{Config, State};
use domain::error::Error;
use domain::finding::{Finding, Verdict};
use domain::limits::{RECORDS_SHARE, RETRY_FIRST, RETRY_LONGEST, SHUTDOWN, SHUTDOWN_MARGIN};
use domain::names::WorkerId;
use domain::ports::{KinesisApi, StateStore};

/// The network namespace this process listens in, identified by the machine's boot id and the
/// namespace's number. Empty if the system does not report it.
fn place() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let network = std::fs::read_link("/proc/self/ns/net").ok();
    let both = boot.zip(network).map(|(boot, network)| format!("{}/{}", boot.trim(), network.display()));
    both.unwrap_or_default()
}

/// Runs the bridge until SIGTERM or SIGINT. The error says why it could not start.
pub async fn serve(config: Config) -> Result<(), ProgramError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot("handle SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot("handle SIGINT"))?;
    let not_free = |why| ProgramError::Listen { address: config.listen, why };
    let listener = TcpListener::bind(config.listen).await.map_err(not_free)?;
    let address = listener.local_addr().map_err(cannot("determine the bound address"))?;
    let worker_id = worker_id(&config, address.port());
    let metrics = Metrics::new()?;
    let kinesis = Arc::new(AwsKinesis::from_environment(metrics.kinesis_errors.clone()).await?);
    let clickhouse =
        ClickHouse::new(&config.clickhouse.url, &config.clickhouse.user, config.clickhouse.password.expose());
    let clock = Arc::new(SystemClock);
    let (store, tables) = state(&config, &clickhouse)?;
    let quarantine = QuarantineTable::new(clickhouse.clone(), &config.clickhouse.database, tables.is_some());
    let members = Members::new(clock.clone(), config.lease_duration);
    let heartbeat = Heartbeat::new(clock.clone(), config.lease_duration, &worker_id);
    let beats = heartbeat.clone().run(store.clone(), members.clone(), address.to_string(), place());
    let beats = tokio::spawn(beat(tables, quarantine.clone(), beats));
    let looking = tokio::spawn(tell_abilities(clickhouse.clone(), config.clone()));
    let for_reads = config.memory / RECORDS_SHARE;
    let budget = Budget::new(config.memory - for_reads);
    let reading = Reading { kinesis: kinesis.clone(), clock: clock.clone(), budget: Budget::new(for_reads) };
    let guard = guard(&config, &clickhouse, address)?;
    let deps = Deps {
        kinesis: kinesis.clone(),
        fan_out: kinesis.clone(),
        store: store.clone(),
        views: Arc::new(clickhouse),
        quarantine: Arc::new(quarantine),
        clock,
        budget,
        metrics: metrics.clone(),
        members,
        heartbeat: heartbeat.clone(),
        worker_id: worker_id.clone(),
    };
    let app = Arc::new(App { pipes: Pipes::new(deps), reading, metrics, readiness: Readiness::default() });
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(Server::new(app.clone(), guard).run(listener, stopped));
    info!(
        address = %address,
        worker = worker_id.as_str(),
        region = kinesis.region(),
        clickhouse = config.clickhouse.url,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Nothing is released: what this process holds belongs to the other one, or has its own
        // epoch and expires.
        why = heartbeat.refused() => return Err(ProgramError::Replaced(why)),
    }
    info!("stopping: settling or keeping open batches, releasing leases");
    let ended = timeout(SHUTDOWN - SHUTDOWN_MARGIN, async {
        // Responses being sent continue while the pipes wait for their refreshes.
        app.pipes.stop().await;
        beats.abort();
        looking.abort();
        heartbeat.end(&*store).await;
        let _ = stop.send(true);
        let _ = serving.await;
    });
    if ended.await.is_err() {
        warn!("some responses were still being sent; their batches stay offered and will be served again");
    }
    info!("stopped");
    Ok(())
}

/// The worker's id. Port 0 was replaced by a real one; two bridges on one host must not share a
/// name.
fn worker_id(config: &Config, port: u16) -> WorkerId {
    match config.worker_id.strip_suffix(":0") {
        Some(host) => format!("{host}:{port}").into(),
        None => config.worker_id.clone(),
    }
}

/// Where leases and workers are stored, and the same store if it has tables to create.
fn state(
    config: &Config,
    clickhouse: &ClickHouse,
) -> Result<(Arc<dyn StateStore>, Option<KeeperMapStore>), ProgramError> {
    match &config.state {
        State::File(dir) => Ok((Arc::new(FileStore::open(dir).map_err(Error::from)?), None)),
        State::KeeperMap => {
            let store = KeeperMapStore::new(clickhouse.clone(), &config.clickhouse.database);
            Ok((Arc::new(store.clone()), Some(store)))
        }
    }
}

/// Creates the tables, then sends heartbeats. A heartbeat needs the tables: sent earlier, the first
/// one would be lost, and the next comes much later.
async fn beat(tables: Option<KeeperMapStore>, quarantine: QuarantineTable, beats: impl Future<Output = ()>) {
    if let Some(tables) = tables {
        set_up(tables).await;
    }
    // Only pipes with on_failure=isolate need it, and they retry.
    tokio::spawn(async move {
        if let Err(error) = quarantine.setup().await {
            warn!("rows cannot be put into the quarantine yet: {error}");
        }
    });
    beats.await;
}

/// Creates the state tables as soon as ClickHouse and Keeper are up and allow it.
async fn set_up(store: KeeperMapStore) {
    let (mut pause, mut said) = (RETRY_FIRST, String::new());
    while let Err(failed) = store.setup().await {
        let message = Error::from(failed).to_string();
        if message != said {
            error!("the state tables are not usable yet: {message}");
            said = message;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
    info!("the state tables are ready");
}

/// Logs what the server and the user lack, once ClickHouse answers. Nothing waits for it.
async fn tell_abilities(clickhouse: ClickHouse, config: Config) {
    let wanted = Wanted {
        user: &config.clickhouse.user,
        database: &config.clickhouse.database,
        keeper_map: config.state == State::KeeperMap,
    };
    let (mut pause, mut said) = (RETRY_FIRST, String::new());
    let findings = loop {
        match clickhouse.abilities(&wanted).await {
            Ok(findings) => break findings,
            Err(error) => {
                let message = clickhouse.explain_foreign(&error);
                if message != said {
                    warn!("cannot tell yet what ClickHouse supports: {message}");
                    said = message;
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    };
    for Finding { what, says, verdict } in findings {
        match verdict {
            Verdict::Fine | Verdict::Note => info!("{what}: {says}"),
            Verdict::Bad => warn!("{what}: {says}"),
        }
    }
}
