//! `check`: whether everything that `serve` needs works, and whether what is running does. Reports
//! all findings at once, and changes nothing except that it creates missing state tables.

mod clocks;
mod running;
mod streams;

use adapters::clickhouse::{ClickHouse, PullingView, Wanted};
use adapters::kinesis::AwsKinesis;
use adapters::running::RunningBridge;
use adapters::state::{FileStore, KeeperMapStore};
use bridge::metrics::Metrics;
use config::{Config, State};
use domain::error::Error;
use domain::finding::{Finding, Verdict};
use domain::limits::MAX_STREAMS;
use domain::ports::{KinesisApi, StateStore};

use running::{Bridge, of_setup};

/// What to check besides what every pipe needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Only<'a> {
    /// A stream.
    pub stream: Option<&'a str>,
    /// Of all pipes only this one.
    pub pipe: Option<&'a str>,
}

impl Only<'_> {
    /// Whether a pipe is to be looked at.
    fn wants(&self, pipe: &str) -> bool {
        self.pipe.is_none_or(|only| only == pipe)
    }
}

/// Checks AWS and the streams, ClickHouse, the state tables, the views of `sql setup`, the bridge,
/// its pipes and their views, the clocks and the token.
pub async fn check(config: &Config, only: Only<'_>) -> Result<Vec<Finding>, Error> {
    let metrics = Metrics::new()?;
    let clickhouse =
        ClickHouse::new(&config.clickhouse.url, &config.clickhouse.user, config.clickhouse.password.expose());
    let kinesis = AwsKinesis::from_environment(metrics.kinesis_errors).await;
    let views = clickhouse.pulling().await.map_err(|error| clickhouse.explain_foreign(&error));
    let (views, unseen) = match views {
        Ok(views) => (views, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let here = |view: &&PullingView| match only.pipe {
        Some(_) => view.pipes().any(|pipe| only.wants(pipe)),
        None => running::is_at(view.bridge(), config.listen),
    };
    let (own, others): (Vec<_>, Vec<_>) = views.iter().partition(here);
    let mut findings = of_aws(&kinesis, &own, only).await;
    let token = config.token.as_ref().map(|tokens| tokens.current.clone());
    let bridge = Bridge::ask(RunningBridge::new(&running::url(config.listen), token)).await;
    // Before the user's privileges: those for creating tables are not needed if the tables exist.
    let store = open(config, &clickhouse, &bridge).await;
    findings.extend(of_clickhouse(config, &clickhouse).await);
    findings.push(of_state(config, &store).await);
    findings.extend(of_setup(config, &clickhouse, &bridge).await);
    findings.push(bridge.finding(!own.is_empty()));
    findings.extend(bridge.workers(config, store.ok().flatten().as_deref()).await);
    findings.extend(bridge.pipes(only));
    match unseen {
        // One finding says that nobody answers.
        Some(_) if findings.iter().any(|f| f.what.starts_with("ClickHouse at ")) => {}
        Some(why) => {
            findings.push(Finding::new("views of pipes", Verdict::Note, format!("could not be checked: {why}")))
        }
        None => findings.extend(of_views(&clickhouse, &own, only).await),
    }
    if only.pipe.is_none() {
        findings.extend(running::elsewhere(&others));
    }
    findings.extend(clocks::of(kinesis.as_ref().ok(), &clickhouse).await);
    let token = match config.token {
        Some(_) => "requests need the token in --token-file",
        None => "no token is set: anyone who can reach the port can read the streams",
    };
    findings.push(Finding::new("token", Verdict::Fine, token));
    for (flag, file) in config.files.exposed() {
        let says = format!("every user of this machine can read {file}: take that permission away, as with chmod o-r");
        findings.push(Finding::new(flag, Verdict::Note, says));
    }
    Ok(findings)
}

async fn of_aws(kinesis: &Result<AwsKinesis, Error>, views: &[&PullingView], only: Only<'_>) -> Vec<Finding> {
    match kinesis {
        Ok(kinesis) => {
            let mut findings = vec![Finding::of(format!("AWS in region {}", kinesis.region()), aws(kinesis).await)];
            findings.extend(streams::of(kinesis, views, only).await);
            findings
        }
        Err(why) => vec![Finding::new("AWS", Verdict::Bad, why.to_string())],
    }
}

async fn aws(kinesis: &AwsKinesis) -> Result<String, Error> {
    let streams = kinesis.streams().await?;
    let more = if streams.len() >= MAX_STREAMS { " or more" } else { "" };
    Ok(format!("{}{more} streams", streams.len()))
}

async fn of_clickhouse(config: &Config, clickhouse: &ClickHouse) -> Vec<Finding> {
    let wanted = Wanted {
        user: &config.clickhouse.user,
        database: &config.clickhouse.database,
        keeper_map: config.state == State::KeeperMap,
    };
    clickhouse.abilities(&wanted).await.unwrap_or_else(|error| {
        let what = format!("ClickHouse at {}", clickhouse.server());
        vec![Finding::new(what, Verdict::Bad, clickhouse.explain_foreign(&error))]
    })
}

/// The state; `None` if it is a directory that the running bridge has.
async fn open(config: &Config, clickhouse: &ClickHouse, bridge: &Bridge) -> Result<Option<Box<dyn StateStore>>, Error> {
    match &config.state {
        State::KeeperMap => {
            let store = KeeperMapStore::new(clickhouse.clone(), &config.clickhouse.database);
            store.setup().await?;
            Ok(Some(Box::new(store)))
        }
        State::File(_) if bridge.lives() => Ok(None),
        State::File(dir) => Ok(Some(Box::new(FileStore::open(dir)?))),
    }
}

async fn of_state(config: &Config, store: &Result<Option<Box<dyn StateStore>>, Error>) -> Finding {
    let what = match &config.state {
        State::KeeperMap => format!("state tables in database '{}'", config.clickhouse.database),
        State::File(dir) => format!("state in {}", dir.display()),
    };
    let told = match store {
        Ok(Some(store)) => rows(&**store).await,
        Ok(None) => Ok("the running bridge has it".to_owned()),
        Err(why) => Err(why.clone()),
    };
    Finding::of(what, told)
}

async fn rows(store: &dyn StateStore) -> Result<String, Error> {
    let leases = store.leases(None).await?;
    let workers = store.workers().await?;
    Ok(format!("{} leases, {} workers", leases.len(), workers.len()))
}

/// A finding for each view of a pipe.
async fn of_views(clickhouse: &ClickHouse, views: &[&PullingView], only: Only<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for view in views {
        findings.push(match clickhouse.with_tables((*view).clone()).await {
            Ok(view) => view.finding(),
            Err(why) => {
                Finding::new(format!("view {}", view.view()), Verdict::Note, format!("could not be checked: {why}"))
            }
        });
    }
    if let (Some(pipe), true) = (only.pipe, views.is_empty()) {
        let says = "no view of this server that the bridge's user can see pulls it: check the name, or create the view";
        findings.push(Finding::new(format!("view of pipe '{pipe}'"), Verdict::Bad, says));
    }
    findings
}
