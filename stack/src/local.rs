//! All components together.

use std::path::Path;

use tempfile::TempDir;

use crate::{
    Bridge, ClickHouse, ClickHouseOptions, Engine, Kinesis, KinesisOptions, Result, ZooKeeper, aws_environment,
};

/// ZooKeeper, ClickHouse and Kinesis in a temporary folder, which is removed with them. Fields are
/// dropped in this order.
#[derive(Debug)]
pub struct LocalStack {
    /// The engine, whose KeeperMap tables are in `zookeeper`.
    pub clickhouse: ClickHouse,
    /// Which engine it is.
    pub engine: Engine,
    /// The Kinesis server.
    pub kinesis: Kinesis,
    /// The coordination service.
    pub zookeeper: ZooKeeper,
    /// Everything the components write.
    pub dir: TempDir,
}

impl LocalStack {
    /// Starts everything with the usual options.
    pub fn start(engine: Engine) -> Result<LocalStack> {
        LocalStack::start_with(engine, &KinesisOptions::default(), &ClickHouseOptions::default())
    }

    /// Starts everything.
    pub fn start_with(engine: Engine, kinesis: &KinesisOptions, clickhouse: &ClickHouseOptions) -> Result<LocalStack> {
        let dir = tempfile::Builder::new()
            .prefix("stack-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let kinesis = Kinesis::start(kinesis)?;
        let zookeeper = ZooKeeper::start(&dir.path().join("zookeeper"))?;
        let clickhouse = ClickHouse::start(engine, &dir.path().join("clickhouse"), Some(zookeeper.port()), clickhouse)?;
        Ok(LocalStack { clickhouse, engine, kinesis, zookeeper, dir })
    }

    /// The environment of a bridge: where AWS and ClickHouse are.
    pub fn bridge_environment(&self) -> Vec<(String, String)> {
        let mut environment = aws_environment(&self.kinesis.endpoint());
        environment.push(("KINESIS_BRIDGE_CLICKHOUSE_URL".to_owned(), self.clickhouse.url()));
        environment
    }

    /// Starts a bridge on this stack.
    pub fn start_bridge(&self, binary: &Path, flags: &[(&str, &str)]) -> Result<Bridge> {
        let state = format!("file:{}", self.dir.path().join("state").display());
        let mut flags = flags.to_vec();
        if !self.engine.has_keeper() {
            flags.push(("--state", &state));
        }
        Bridge::start(binary, &flags, &self.bridge_environment())
    }
}
