//! `check`: whether everything that `serve` needs works. Reports all findings at once.

use adapters::clickhouse::{ClickHouse, Wanted};
use adapters::kinesis::AwsKinesis;
use adapters::state::{FileStore, KeeperMapStore};
use bridge::metrics::Metrics;
use config::{Config, State};
use domain::error::Error;
use domain::finding::{Finding, Verdict};
use domain::limits::MAX_STREAMS;
use domain::names::StreamName;
use domain::ports::{IteratorStart, KinesisApi, StateStore};

/// Checks AWS, the stream if one is named, ClickHouse, the state tables and the token. Writes
/// nothing except missing state tables.
pub async fn check(config: &Config, stream: Option<&str>) -> Result<Vec<Finding>, Error> {
    let metrics = Metrics::new()?;
    let clickhouse =
        ClickHouse::new(&config.clickhouse.url, &config.clickhouse.user, config.clickhouse.password.expose());
    let mut findings = Vec::new();
    match AwsKinesis::from_environment(metrics.kinesis_errors).await {
        Ok(kinesis) => {
            findings.push(Finding::of(format!("AWS in region {}", kinesis.region()), aws(&kinesis).await));
            if let Some(stream) = stream {
                findings.push(Finding::of(format!("stream '{stream}'"), readable(&kinesis, &stream.into()).await));
            }
        }
        Err(why) => findings.push(Finding::new("AWS", Verdict::Bad, why.to_string())),
    }
    let database = &config.clickhouse.database;
    // Before the user's privileges: those for creating tables are not needed if the tables exist.
    let state = match &config.state {
        State::KeeperMap => {
            Finding::of(format!("state tables in database '{database}'"), keeper_map(&clickhouse, database).await)
        }
        State::File(dir) => Finding::of(format!("state in {}", dir.display()), file(dir).await),
    };
    let wanted = Wanted { user: &config.clickhouse.user, database, keeper_map: config.state == State::KeeperMap };
    match clickhouse.abilities(&wanted).await {
        Ok(found) => findings.extend(found),
        Err(error) => {
            let what = format!("ClickHouse at {}", clickhouse.server());
            findings.push(Finding::new(what, Verdict::Bad, clickhouse.explain_foreign(&error)));
        }
    }
    findings.push(state);
    let token = match config.token {
        Some(_) => "requests need the token in --token-file",
        None => "no token is set: anyone who can reach the port can read the streams",
    };
    findings.push(Finding::new("token", Verdict::Fine, token));
    Ok(findings)
}

async fn aws(kinesis: &AwsKinesis) -> Result<String, Error> {
    let streams = kinesis.streams().await?;
    let more = if streams.len() >= MAX_STREAMS { " or more" } else { "" };
    Ok(format!("{}{more} streams", streams.len()))
}

async fn readable(kinesis: &AwsKinesis, stream: &StreamName) -> Result<String, Error> {
    let found = kinesis.stream(stream).await?;
    let shards = kinesis.shards(stream).await?;
    let none = || Error::NotFound(format!("stream '{stream}' has no shards yet"));
    let first = shards.first().ok_or_else(none)?;
    let iterator = kinesis.iterator(stream, &first.id, &IteratorStart::Latest).await?;
    kinesis.records(stream, &first.id, &iterator, 1).await?;
    Ok(format!(
        "{}, {}, {} open shards, {} h of retention, readable",
        found.status, found.mode, found.open_shards, found.retention_hours
    ))
}

async fn keeper_map(clickhouse: &ClickHouse, database: &str) -> Result<String, Error> {
    let store = KeeperMapStore::new(clickhouse.clone(), database);
    store.setup().await?;
    state(&store).await
}

async fn file(dir: &std::path::Path) -> Result<String, Error> {
    state(&FileStore::open(dir)?).await
}

async fn state(store: &dyn StateStore) -> Result<String, Error> {
    let leases = store.leases(None).await?;
    let workers = store.workers().await?;
    Ok(format!("{} leases, {} workers", leases.len(), workers.len()))
}
