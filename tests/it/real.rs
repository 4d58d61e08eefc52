//! The components that most tests share, one of each per engine. A test that breaks something
//! starts its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use adapters::clickhouse::ClickHouse;
use adapters::state::KeeperMapStore;
use tempfile::TempDir;

use crate::engines::{PerEngine, engine};

/// ZooKeeper and ClickHouse with a temporary folder.
pub struct Real {
    pub clickhouse: stack::ClickHouse,
    pub zookeeper: stack::ZooKeeper,
    _dir: TempDir,
}

impl Real {
    /// Starts both.
    pub fn start() -> Real {
        Real::start_with(stack::ZooKeeper::port)
    }

    /// Starts both; ClickHouse looks for Keeper at the given port instead of the real one.
    pub fn start_with(port: impl FnOnce(&stack::ZooKeeper) -> u16) -> Real {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let zookeeper = stack::ZooKeeper::start(&dir.path().join("zookeeper")).expect("ZooKeeper");
        let options = stack::ClickHouseOptions {
            users: vec![
                // May use state tables that another user created.
                user("worker", &["GRANT SELECT, INSERT, ALTER UPDATE ON *.*"]),
                user("reader", &["GRANT SELECT ON *.*"]),
                user("nobody", &["GRANT SELECT ON system.one"]),
            ],
            ..stack::ClickHouseOptions::default()
        };
        let clickhouse =
            stack::ClickHouse::start(engine(), &dir.path().join("clickhouse"), Some(port(&zookeeper)), &options)
                .expect("ClickHouse");
        Real { clickhouse, zookeeper, _dir: dir }
    }

    /// The port of ClickHouse's HTTP interface.
    pub fn http_port(&self) -> u16 {
        let url = self.clickhouse.url();
        url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The client under test, as `default`.
    pub fn client(&self) -> ClickHouse {
        ClickHouse::new(&self.clickhouse.url(), "default", "")
    }

    /// A statement by an operator.
    pub fn ask(&self, sql: &str) -> String {
        self.clickhouse.query(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }
}

fn user(name: &str, grants: &[&str]) -> stack::User {
    stack::User {
        name: name.into(),
        password: "s3cr3t".into(),
        grants: grants.iter().map(|grant| (*grant).into()).collect(),
    }
}

/// The shared components. They end with the test process.
pub fn real() -> &'static Real {
    static REAL: PerEngine<Real> = PerEngine::new();
    REAL.get_or_init(Real::start)
}

/// A database name that no other test uses.
pub fn database() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A store with its tables in a database of their own.
pub async fn store(clickhouse: ClickHouse, database: &str) -> KeeperMapStore {
    let store = KeeperMapStore::new(clickhouse, database);
    store.setup().await.expect("setup");
    store
}
