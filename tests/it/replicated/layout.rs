//! Where the views of a Replicated table are: the SQL of docs/deploy.md, run as printed or on each
//! server separately.

use std::process::Command;

use aws_sdk_kinesis::Client;
use stack::{Bridge, Cluster, Engine, kinesis_client};

use crate::common::{bridge_binary, number};
use crate::readme::markdown::{documents, statements};
use crate::world::{block_on, wait_until};

/// The address printed in the documentation.
const DOCUMENTED: &str = "'http://localhost:9020";
const ON_CLUSTER: &str = " ON CLUSTER '{cluster}'";

/// Which servers have a view, and how it got there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// Three servers, each with its own view.
    EachServer,
    /// Two servers, one of which has a view and a bridge.
    OneServer,
    /// Two servers with a Replicated database: created once, the view is on both.
    Database,
    /// Two servers, everything `ON CLUSTER` as printed.
    OnCluster,
}

/// Servers with the table `orders`, filled by a pipe with that name.
pub struct World {
    pub cluster: Cluster,
    pub client: Client,
    pub bridges: Vec<Bridge>,
    table: &'static str,
}

impl World {
    /// Starts everything, up to a stream that is being pulled.
    pub fn start(layout: Layout, shards: i32) -> World {
        let (servers, bridges) = match layout {
            Layout::EachServer => (3, 3),
            Layout::OneServer => (2, 1),
            Layout::Database | Layout::OnCluster => (2, 2),
        };
        let cluster = Cluster::start(Engine::V25_8, servers).expect("the servers");
        let client = block_on(kinesis_client(&cluster.kinesis.endpoint()));
        block_on(stack::load::create_stream(&client, "orders", shards)).expect("a stream");
        let bridges = (0..bridges).map(|server| add_bridge(&cluster, server)).collect();
        let table = if layout == Layout::Database { "shared.orders" } else { "orders" };
        let world = World { cluster, client, bridges, table };
        world.create(layout);
        world
    }

    fn create(&self, layout: Layout) {
        let [table, view] = &printed()[..] else { panic!("a table and a view are printed") };
        let view = view.replace("view=default.orders_pipe", "view=default.orders_pipe&linger_ms=100&poll_ms=50");
        let by_macro = view.replace(DOCUMENTED, "'http://127.0.0.1:' || getMacro('bridge') || '");
        let run = |server: usize, sql: &str| {
            self.cluster.servers[server].query(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"))
        };
        if layout == Layout::Database {
            run(
                0,
                "CREATE DATABASE shared ON CLUSTER '{cluster}' ENGINE = Replicated('/databases/shared', '{shard}', '{replica}')",
            );
            run(0, &table.replace(ON_CLUSTER, "").replace("TABLE orders", "TABLE shared.orders"));
        } else {
            run(0, table);
        }
        // Block numbers survive merges: they show the order of the inserts.
        let on_cluster = if layout == Layout::Database { "" } else { ON_CLUSTER };
        run(
            0,
            &format!(
                "ALTER TABLE {} {on_cluster} MODIFY SETTING enable_block_number_column = 1, enable_block_offset_column = 1",
                self.table
            ),
        );
        match layout {
            Layout::OnCluster => drop(run(0, &by_macro)),
            Layout::Database => {
                let view = by_macro.replace(ON_CLUSTER, "").replace("default.orders_pipe", "shared.orders_pipe");
                let view = view
                    .replace("VIEW orders_pipe", "VIEW shared.orders_pipe")
                    .replace("TO orders AS", "TO shared.orders AS");
                run(0, &view.replace("SETTINGS refresh_retries", "SETTINGS all_replicas = 1, refresh_retries"));
            }
            Layout::EachServer | Layout::OneServer => {
                for (server, bridge) in self.bridges.iter().enumerate() {
                    run(server, &view.replace(ON_CLUSTER, "").replace(DOCUMENTED, &format!("'{}", bridge.url())));
                }
            }
        }
    }

    /// The result from one of the live servers.
    fn ask(&self, sql: &str) -> Option<String> {
        self.cluster.servers.iter().filter(|server| server.is_running()).find_map(|server| server.query(sql).ok())
    }

    /// The bridges that have an open batch.
    pub fn busy(&self) -> Vec<usize> {
        let owners =
            self.ask("SELECT DISTINCT owner FROM kinesis.leases WHERE offered_batch != ''").unwrap_or_default();
        owners.lines().filter_map(|owner| owner.strip_prefix("worker_")?.parse().ok()).collect()
    }

    /// Whether this many records are in the table and committed.
    pub fn is_complete(&self, records: u64) -> bool {
        let enough = |sql: &str| self.ask(sql).and_then(|n| n.trim().parse::<u64>().ok()).is_some_and(|n| n >= records);
        enough("SELECT sum(committed_rows) FROM kinesis.leases HAVING countIf(offered_batch != '') = 0")
            && enough(&format!("SELECT count() FROM {}", self.table))
    }

    pub fn open_batches_found(&self) -> usize {
        let lines = |log: String| log.lines().filter(|line| line.contains("an open batch was found")).count();
        self.bridges.iter().map(|bridge| lines(bridge.log())).sum()
    }

    /// Blocks that the servers have dropped since each last started, because the table had them
    /// already.
    pub fn dropped(&self) -> u64 {
        let sql = "SELECT sum(value) FROM system.events WHERE event = 'DuplicatedInsertedBlocks'";
        self.cluster.servers.iter().filter_map(|server| number(server, sql)).sum()
    }

    /// Every server has every record once, and each shard was inserted in its order.
    pub fn check(&self, records: u64) {
        let table = self.table;
        for server in &self.cluster.servers {
            // A server that has just started is read-only until it has found its state in Keeper.
            wait_until("a replica that is up to date", || {
                server.query(&format!("SYSTEM SYNC REPLICA {table}")).is_ok()
            });
            let count = |what: &str| number(server, &format!("SELECT {what} FROM {table}"));
            let found = ["count()", "uniqExact(id)", "uniqExact(_shard_id, _sequence_number)"].map(count);
            assert_eq!(found, [Some(records); 3], "rows, distinct records, distinct positions\n{}", self.report());
            let late = format!(
                "SELECT count() FROM (SELECT toUInt256(_sequence_number) AS position, \
                 lagInFrame(position) OVER (PARTITION BY _shard_id ORDER BY _block_number, position) AS before FROM {table}) \
                 WHERE position <= before"
            );
            assert_eq!(number(server, &late), Some(0), "records behind later ones\n{}", self.report());
        }
    }

    pub fn report(&self) -> String {
        let mut report = String::new();
        for server in &self.cluster.servers {
            for sql in [
                "SELECT database, view, status, retry, left(exception, 600) FROM system.view_refreshes FORMAT Vertical",
                "SELECT * FROM kinesis.leases FORMAT Vertical",
                &format!("SELECT count(), uniqExact(id) FROM {}", self.table),
            ] {
                report += &format!("{}\n", server.query(sql).unwrap_or_else(|error| error));
            }
        }
        self.bridges.iter().for_each(|bridge| report += &bridge.log_tail());
        report
    }
}

/// A bridge next to a server that knows it: by the named collection of `sql setup`, and by a macro,
/// since the servers are on one machine and their bridges have different ports.
fn add_bridge(cluster: &Cluster, server: usize) -> Bridge {
    let flags = [("--lease-duration", "3s"), ("--worker-id", &format!("worker_{server}"))];
    let bridge = cluster.start_bridge(bridge_binary(), server, &flags).expect("a bridge");
    let (_, port) = bridge.address().rsplit_once(':').expect("a port");
    let file = cluster.dir.path().join(format!("clickhouse-{server}/config.d/bridge.xml"));
    std::fs::write(&file, format!("<clickhouse><macros><bridge>{port}</bridge></macros></clickhouse>"))
        .expect("a file");
    let clickhouse = &cluster.servers[server];
    clickhouse.query("SYSTEM RELOAD CONFIG").expect("a macro");
    let setup =
        Command::new(bridge_binary()).args(["sql", "setup", "--listen", bridge.address()]).output().expect("the setup");
    clickhouse.run_script(&String::from_utf8_lossy(&setup.stdout)).expect("the printed setup");
    bridge
}

/// The statements for a Replicated table in docs/deploy.md.
fn printed() -> Vec<String> {
    let deploy = documents().into_iter().find(|document| document.path == "docs/deploy.md").expect("the document");
    let block = deploy.blocks.into_iter().find(|block| block.info == "sql cluster").expect("the block");
    statements(&block.text)
}

/// Without `all_replicas` ClickHouse has one replica run each refresh, for which it reads several
/// Keeper nodes at once.
#[test]
fn a_replicated_database_wants_all_replicas_on_zookeeper() {
    let cluster = Cluster::start(Engine::V25_8, 1).expect("a server");
    let run = |sql: &str| cluster.servers[0].query(sql);
    run("CREATE DATABASE shared ENGINE = Replicated('/databases/shared', '{shard}', '{replica}')").expect("a database");
    run("CREATE TABLE shared.numbers (n UInt64) ENGINE = ReplicatedMergeTree ORDER BY n").expect("a table");
    let view = |settings: &str| {
        let name = if settings.is_empty() { "one" } else { "all" };
        run(&format!(
            "CREATE MATERIALIZED VIEW shared.{name} REFRESH AFTER 2 SECOND {settings} APPEND TO shared.numbers AS SELECT 1 AS n"
        ))
    };
    let error = view("").expect_err("no view for one replica");
    assert!(error.contains("multi-reads"), "{error}");
    view("SETTINGS all_replicas = 1").expect("a view for all replicas");
}
