//! Replicated tables on full servers: one pipe, a bridge and a view next to each server, one table
//! with a replica on each.

mod answers;
mod drill;
mod forced;
mod keeper;
mod layout;
mod window;

use std::time::Duration;

use aws_sdk_kinesis::Client;
use stack::{Bridge, ClickHouse, Cluster, Engine, aws_environment, kinesis_client};

use crate::common::{bridge_binary, number, wait_until};
use crate::world::{NEXT, block_on};
use answers::Answers;

/// The pipe, its stream and the table.
const PIPE: &str = "landed";
const SHARDS: i32 = 4;
/// How long a worker may be silent. Short, so that a test does not have to wait long for a
/// takeover.
const LEASE: &str = "3s";
const CLICKHOUSE_URL: &str = "KINESIS_BRIDGE_CLICKHOUSE_URL";
const DEADLINE: Duration = Duration::from_secs(120);

/// Servers that have the table, and the bridges that were started next to them, in the order of the
/// servers.
struct Fleet {
    cluster: Cluster,
    client: Client,
    bridges: Vec<Bridge>,
}

impl Fleet {
    /// Two servers with the table and its stream, but no bridge.
    fn start(table_settings: &str) -> Fleet {
        let cluster = Cluster::start(Engine::V25_8, 2).expect("two servers");
        let client = block_on(kinesis_client(&cluster.kinesis.endpoint()));
        block_on(stack::load::create_stream(&client, PIPE, SHARDS)).expect("a stream");
        // With the batch among the columns, only the same batch is the same block.
        let table = format!(
            "CREATE TABLE {PIPE} ON CLUSTER '{{cluster}}' (k String, n UInt64, _shard_id String, _sequence_number String, _batch String) \
             ENGINE = ReplicatedMergeTree ORDER BY (k, n) {table_settings}"
        );
        cluster.servers[0].query(&table).expect("the table");
        Fleet { cluster, client, bridges: Vec::new() }
    }

    /// Starts the bridge next to the next server, which it reaches at `clickhouse`.
    fn add_bridge(&mut self, clickhouse: &str) {
        let mut environment = aws_environment(&self.cluster.kinesis.endpoint());
        environment.push((CLICKHOUSE_URL.to_owned(), clickhouse.to_owned()));
        let id = worker(self.bridges.len());
        let flags = [("--lease-duration", LEASE), ("--worker-id", &id)];
        self.bridges.push(Bridge::start(bridge_binary(), &flags, &environment).expect("a bridge"));
    }

    /// Creates a server's view, which pulls from its bridge.
    fn create_view(&self, server: usize) {
        let url = format!(
            "{}/v1/pipes/{PIPE}/next?stream={PIPE}&view=default.{PIPE}_pipe&linger_ms=200&poll_ms=50",
            self.bridges[server].url()
        );
        let view = format!(
            "CREATE MATERIALIZED VIEW {PIPE}_pipe REFRESH AFTER 2 SECOND \
             SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 500 \
             APPEND TO {PIPE} AS SELECT _key AS k, toUInt64(_raw_message) AS n, _shard_id, _sequence_number, _batch \
             FROM url('{url}', 'ArrowStream', '{NEXT}') ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
        );
        self.cluster.servers[server].query(&view).expect("the view");
    }

    /// Writes records with the numbers below `count`, each with its own key.
    fn put(&self, count: u64) {
        let records = (0..count).map(|n| (format!("key-{n}"), n.to_string().into_bytes()));
        block_on(stack::load::put_records(&self.client, PIPE, records)).expect("records");
    }

    fn server(&self, server: usize) -> &ClickHouse {
        &self.cluster.servers[server]
    }

    /// A number from a server; none while it is down.
    fn number(&self, server: usize, sql: &str) -> Option<u64> {
        number(self.server(server), sql)
    }

    /// Rows of the table that a server has.
    fn rows(&self, server: usize, condition: &str) -> Option<u64> {
        self.number(server, &format!("SELECT count() FROM {PIPE} WHERE {condition}"))
    }

    /// Rows of the table, distinct records and distinct positions that a server has.
    fn counts(&self, server: usize) -> [Option<u64>; 3] {
        let count = |what| self.number(server, &format!("SELECT {what} FROM {PIPE}"));
        ["count()", "uniqExact(k, n)", "uniqExact(_shard_id, _sequence_number)"].map(count)
    }

    /// Lease rows that match a condition, as seen by a server.
    fn leases(&self, server: usize, condition: &str) -> Option<u64> {
        self.number(server, &format!("SELECT count() FROM kinesis.leases WHERE pipe = '{PIPE}' AND {condition}"))
    }

    /// Waits until a condition holds; if it does not, prints everything that helps to understand
    /// why.
    fn wait_until(&self, what: &str, ready: impl FnMut() -> bool) {
        wait_until(DEADLINE, ready, || format!("{what} did not come\n{}", self.report()));
    }

    fn report(&self) -> String {
        let mut report = String::new();
        for (server, bridge) in self.cluster.servers.iter().zip(&self.bridges) {
            for sql in [
                "SELECT view, status, retry, left(exception, 600) FROM system.view_refreshes FORMAT Vertical"
                    .to_owned(),
                "SELECT * FROM kinesis.leases FORMAT Vertical".to_owned(),
                format!("SELECT _batch, _shard_id, count() FROM {PIPE} GROUP BY ALL ORDER BY ALL"),
            ] {
                report += &format!("{}\n", server.query(&sql).unwrap_or_else(|error| error));
            }
            report += &format!("{}\n", bridge.log_tail());
        }
        report
    }
}

fn worker(server: usize) -> String {
    format!("worker_{server}")
}

/// The end of the refresh that inserts the first server's batch. Its bridge gets no response about
/// any of them.
enum Cut {
    /// A view below the table throws: the refresh fails after the table has its part.
    RefreshFails,
    /// It succeeds.
    AnswerIsLost,
}

/// A batch that is in the table but not committed, and whose server and bridge are dead.
struct Orphan {
    batch: String,
    rows: u64,
    /// Blocks that the second server had dropped before.
    dropped: u64,
}

impl Fleet {
    /// Lets the first server write a batch, and kills it and its bridge before the commit. `both`:
    /// the second server already has a view, and so its share of the shards. `fetched`: the second
    /// server has the part, too.
    fn orphan(&mut self, cut: &Cut, both: bool, fetched: bool, records: u64) -> Orphan {
        let answers = Answers::start(&self.server(0).url());
        self.add_bridge(&answers.url());
        self.add_bridge(&self.server(1).url());
        self.create_view(0);
        if both {
            self.create_view(1);
        }
        let share = if both { SHARDS as u64 / 2 } else { SHARDS as u64 };
        self.wait_until("the first worker's share", || self.leases(0, "owner = 'worker_0'") == Some(share));
        if matches!(cut, Cut::RefreshFails) {
            let bomb = format!(
                "CREATE TABLE sink (n UInt64) ENGINE = Null;\n\
                 CREATE MATERIALIZED VIEW bomb TO sink AS SELECT throwIf(n >= 0, 'the bomb went off') + 0 AS n FROM {PIPE};\n"
            );
            self.server(0).run_script(&bomb).expect("the view that throws");
        }
        // Also after a failure: 25.8 drops a repeated block before the view below sees it, so the
        // second refresh succeeds.
        answers.hold();
        if !fetched {
            self.server(1).query(&format!("SYSTEM STOP FETCHES {PIPE}")).expect("no more fetches");
        }
        self.put(records);

        let open = "SELECT any(offered_batch) FROM kinesis.leases WHERE owner = 'worker_0' AND offered_batch != '' HAVING count() = any(offered_shards)";
        let mut batch = String::new();
        self.wait_until("an open batch", || {
            batch = self.server(0).query(open).unwrap_or_default().trim().to_owned();
            !batch.is_empty()
        });
        let (in_table, in_leases) = (format!("_batch = '{batch}'"), format!("offered_batch = '{batch}'"));
        let sum = format!("SELECT sum(offered_rows) FROM kinesis.leases WHERE {in_leases}");
        let rows = self.number(0, &sum).expect("rows of the batch");
        let having: &[usize] = if fetched { &[0, 1] } else { &[0] };
        self.wait_until("the batch in the table", || having.iter().all(|s| self.rows(*s, &in_table) == Some(rows)));
        if matches!(cut, Cut::RefreshFails) {
            self.wait_until("a refresh that failed", || self.bridges[0].log().contains("the bomb went off"));
        }

        let dropped = self.dropped(1);
        self.bridges[0].kill();
        self.server(0).kill();
        let server = self.server(0).url();
        self.bridges[0].change_launch(|launch| launch.environment.push((CLICKHOUSE_URL.to_owned(), server)));
        let open = self.leases(1, &in_leases).expect("leases");
        assert!(open > 0 && rows > 0, "batch {batch} was committed before the server died\n{}", self.report());
        assert_eq!(self.rows(1, &in_table), Some(if fetched { rows } else { 0 }), "{}", self.report());
        Orphan { batch, rows, dropped }
    }

    /// Waits until the second server's bridge has committed everything, after it took over the
    /// first one's open batch.
    fn wait_for_takeover(&self, records: u64) {
        let committed = format!("SELECT sum(committed_rows) FROM kinesis.leases WHERE pipe = '{PIPE}'");
        self.wait_until("all records, committed", || {
            self.number(1, &committed).is_some_and(|rows| rows >= records)
                && self.leases(1, "offered_batch != ''") == Some(0)
        });
        let log = self.bridges[1].log();
        assert!(log.contains("an open batch was found"), "nothing was taken over\n{}", self.report());
    }

    /// Blocks that a server has dropped since it started, because the table had them already.
    fn dropped(&self, server: usize) -> u64 {
        self.number(server, "SELECT sum(value) FROM system.events WHERE event = 'DuplicatedInsertedBlocks'")
            .expect("the events")
    }
}
