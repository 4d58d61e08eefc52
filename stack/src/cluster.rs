//! Several ClickHouse servers that share one ZooKeeper.

use std::path::Path;

use tempfile::TempDir;

use crate::{
    Bridge, ClickHouse, ClickHouseOptions, Engine, Kinesis, KinesisOptions, Result, ZooKeeper, aws_environment,
    free_port,
};

/// ZooKeeper, Kinesis, and ClickHouse servers that share their KeeperMap tables and know of each
/// other as the shards of the cluster [`CLUSTER`](crate::CLUSTER) and the replicas of
/// [`REPLICAS`](crate::REPLICAS). Fields are dropped in this order.
#[derive(Debug)]
pub struct Cluster {
    /// The servers, each with its own data and ports.
    pub servers: Vec<ClickHouse>,
    /// The Kinesis server.
    pub kinesis: Kinesis,
    /// The coordination service.
    pub zookeeper: ZooKeeper,
    /// Everything the components write.
    pub dir: TempDir,
}

impl Cluster {
    /// Starts everything, with `servers` ClickHouse servers.
    pub fn start(engine: Engine, servers: usize) -> Result<Cluster> {
        let dir = tempfile::Builder::new()
            .prefix("cluster-")
            .tempdir()
            .map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let kinesis = Kinesis::start(&KinesisOptions::default())?;
        let zookeeper = ZooKeeper::start(&dir.path().join("zookeeper"))?;
        let ports = (0..servers).map(|_| free_port()).collect::<Result<Vec<u16>>>()?;
        let start = |(number, port): (usize, &u16)| {
            let options =
                ClickHouseOptions { native_port: Some(*port), cluster: ports.clone(), ..ClickHouseOptions::default() };
            let dir = dir.path().join(format!("clickhouse-{number}"));
            ClickHouse::start(engine, &dir, Some(zookeeper.port()), &options)
        };
        let servers = ports.iter().enumerate().map(start).collect::<Result<_>>()?;
        Ok(Cluster { servers, kinesis, zookeeper, dir })
    }

    /// Starts a bridge next to one of the servers.
    pub fn start_bridge(&self, binary: &Path, server: usize, flags: &[(&str, &str)]) -> Result<Bridge> {
        let Some(clickhouse) = self.servers.get(server) else {
            return Err(format!("there is no server {server} in a cluster of {}", self.servers.len()));
        };
        let mut environment = aws_environment(&self.kinesis.endpoint());
        environment.push(("KINESIS_BRIDGE_CLICKHOUSE_URL".to_owned(), clickhouse.url()));
        Bridge::start(binary, flags, &environment)
    }

    /// Runs a statement on every server, and returns all results in order.
    pub fn query_all(&self, sql: &str) -> Result<Vec<String>> {
        self.servers.iter().map(|server| server.query(sql)).collect()
    }

    /// Restarts servers that ended by themselves, and returns how many: the hosted engine aborts
    /// when the peer of a native connection is killed in the middle of a message ("Terminate called
    /// for uncaught exception" in its log).
    pub fn revive(&self) -> Result<usize> {
        let ended = self.servers.iter().filter(|server| !server.is_running());
        ended.map(ClickHouse::restart).collect::<Result<Vec<()>>>().map(|revived| revived.len())
    }
}
