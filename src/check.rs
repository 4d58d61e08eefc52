//! `check`: whether everything that `serve` needs works. All findings at once.

use crate::clickhouse::ClickHouse;
use crate::config::{Config, State};
use crate::domain::error::Error;
use crate::kinesis::AwsKinesis;
use crate::limits::MAX_STREAMS;
use crate::metrics::Metrics;
use crate::ports::{IteratorStart, KinesisApi, StateStore, Views};
use crate::state::{FileStore, KeeperMapStore};

/// One thing that was looked at.
pub struct Finding {
    /// What.
    pub what: String,
    /// That it works and how it is, or what is wrong and what to do.
    pub result: Result<String, String>,
}

/// Looks at AWS, the stream if one is named, ClickHouse, the state tables and the token. Writes nothing but missing state tables.
pub async fn check(config: &Config, stream: Option<&str>) -> Result<Vec<Finding>, String> {
    let metrics = Metrics::new().map_err(|e| format!("the metrics cannot be set up: {e}"))?;
    let kinesis = AwsKinesis::from_environment(metrics.kinesis_errors).await;
    let clickhouse =
        ClickHouse::new(&config.clickhouse.url, &config.clickhouse.user, config.clickhouse.password.expose());
    let mut findings =
        vec![Finding { what: format!("AWS in region {}", kinesis.region()), result: aws(&kinesis).await }];
    if let Some(stream) = stream {
        findings.push(Finding { what: format!("stream '{stream}'"), result: readable(&kinesis, stream).await });
    }
    findings.push(Finding { what: format!("ClickHouse at {}", clickhouse.server()), result: views(&clickhouse).await });
    findings.push(match &config.state {
        State::KeeperMap => Finding {
            what: format!("state tables in database '{}'", config.clickhouse.database),
            result: keeper_map(&clickhouse, &config.clickhouse.database).await,
        },
        State::File(dir) => Finding { what: format!("state in {}", dir.display()), result: file(dir).await },
    });
    let token = match config.token {
        Some(_) => "requests need the token of the file",
        None => "no token is set: whoever reaches the port may read the streams",
    };
    findings.push(Finding { what: "token".into(), result: Ok(token.into()) });
    Ok(findings)
}

async fn aws(kinesis: &AwsKinesis) -> Result<String, String> {
    let streams = kinesis.streams().await.map_err(|e| e.to_string())?;
    let more = if streams.len() >= MAX_STREAMS { " or more" } else { "" };
    Ok(format!("{}{more} streams", streams.len()))
}

async fn readable(kinesis: &AwsKinesis, stream: &str) -> Result<String, String> {
    let found = kinesis.stream(stream).await.map_err(|e| e.to_string())?;
    let shards = kinesis.shards(stream).await.map_err(|e| e.to_string())?;
    let Some(first) = shards.first() else { return Err(format!("stream '{stream}' has no shards yet")) };
    let said = |e| Error::from(e).to_string();
    let iterator = kinesis.iterator(stream, &first.id, &IteratorStart::Latest).await.map_err(said)?;
    kinesis.records(stream, &first.id, &iterator, 1).await.map_err(said)?;
    Ok(format!(
        "{}, {}, {} open shards, {} h of retention, readable",
        found.status, found.mode, found.open_shards, found.retention_hours
    ))
}

async fn views(clickhouse: &ClickHouse) -> Result<String, String> {
    // Any name will do: the question is whether it may be asked.
    let _ = clickhouse.view("default", "clickhouse_kinesis_bridge_check").await.map_err(|e| e.to_string())?;
    Ok("reachable, system.view_refreshes is readable".into())
}

async fn keeper_map(clickhouse: &ClickHouse, database: &str) -> Result<String, String> {
    let store = KeeperMapStore::new(clickhouse.clone(), database);
    store.setup().await.map_err(|e| Error::from(e).to_string())?;
    state(&store).await
}

async fn file(dir: &std::path::Path) -> Result<String, String> {
    let store = FileStore::open(dir).map_err(|e| Error::from(e).to_string())?;
    state(&store).await
}

async fn state(store: &dyn StateStore) -> Result<String, String> {
    let leases = store.leases(None).await.map_err(|e| Error::from(e).to_string())?;
    let workers = store.workers().await.map_err(|e| Error::from(e).to_string())?;
    Ok(format!("{} leases, {} workers", leases.len(), workers.len()))
}
