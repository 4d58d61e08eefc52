//! Several ClickHouse servers, one or two bridges next to each, one pipe.

mod blocks;
mod drill;
mod takeover;

use std::time::Duration;

use aws_sdk_kinesis::Client;
use stack::{Bridge, CLUSTER, Cluster, kinesis_client};

use crate::common::{bridge_binary, number};
use crate::engines::engine;
use crate::world::{NEXT, block_on};

/// How long a worker may be silent. Short, so that a test does not have to wait long for a
/// takeover.
const LEASE: Duration = Duration::from_secs(3);
const LEASE_FLAG: (&str, &str) = ("--lease-duration", "3s");

/// A cluster with bridges, all of one pipe, whose name is also that of its stream and its table.
struct Fleet {
    cluster: Cluster,
    bridges: Vec<Worker>,
    client: Client,
    pipe: &'static str,
}

/// A bridge, its server, and its worker id, which is also the name of its view.
struct Worker {
    bridge: Bridge,
    server: usize,
    id: String,
}

impl Fleet {
    /// Servers with the pipe's tables and a stream, but no bridge.
    fn start(pipe: &'static str, servers: usize, shards: i32) -> Fleet {
        let cluster = Cluster::start(engine(), servers).expect("the cluster starts");
        let client = block_on(kinesis_client(&cluster.kinesis.endpoint()));
        block_on(stack::load::create_stream(&client, pipe, shards)).expect("a stream");
        // Block numbers survive merges: they show the order of the inserts.
        let local = format!(
            "CREATE TABLE {pipe}_local (k String, n UInt64, _shard_id String, _sequence_number String) ENGINE = MergeTree ORDER BY (k, n) \
             SETTINGS non_replicated_deduplication_window = 10000, enable_block_number_column = 1, enable_block_offset_column = 1"
        );
        let all = format!(
            "CREATE TABLE {pipe} AS {pipe}_local ENGINE = Distributed({CLUSTER}, currentDatabase(), {pipe}_local, cityHash64(k))"
        );
        cluster.query_all(&local).and_then(|_| cluster.query_all(&all)).expect("the tables");
        Fleet { cluster, bridges: Vec::new(), client, pipe }
    }

    /// Starts a bridge next to a server; nothing pulls it yet.
    fn add_bridge(&mut self, server: usize) -> usize {
        self.add_bridge_with(server, LEASE_FLAG)
    }

    fn add_bridge_with(&mut self, server: usize, lease: (&str, &str)) -> usize {
        let id = format!("worker_{}", self.bridges.len());
        let flags = [lease, ("--worker-id", &id)];
        let bridge = self.cluster.start_bridge(bridge_binary(), server, &flags).expect("a bridge");
        self.bridges.push(Worker { bridge, server, id });
        self.bridges.len() - 1
    }

    /// Creates the view that pulls a bridge, on that bridge's server. `query` is added to the URL.
    fn create_view(&self, worker: usize, query: &str) {
        let Worker { bridge, server, id } = &self.bridges[worker];
        let pipe = self.pipe;
        let url = format!("{}/v1/pipes/{pipe}/next?stream={pipe}&view=default.{id}{query}", bridge.url());
        let sql = format!(
            "CREATE MATERIALIZED VIEW {id} REFRESH AFTER 2 SECOND \
             SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 500 \
             APPEND TO {pipe} AS SELECT _key AS k, toUInt64(_raw_message) AS n, _shard_id, _sequence_number FROM url('{url}', 'ArrowStream', '{NEXT}') \
             ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1, distributed_foreground_insert = 1"
        );
        self.cluster.servers[*server].query(&sql).expect("the view");
    }

    /// Writes a numbered record for each key, in order.
    fn put(&self, records: impl IntoIterator<Item = (String, u64)>) {
        let records = records.into_iter().map(|(key, n)| (key, n.to_string().into_bytes()));
        block_on(stack::load::put_records(&self.client, self.pipe, records)).expect("records");
    }

    /// Adds up a number over the servers; none while one of them is down.
    fn sum(&self, sql: &str) -> Option<u64> {
        self.cluster.servers.iter().map(|server| number(server, sql)).sum()
    }

    /// Rows stored on all servers together.
    fn rows(&self) -> Option<u64> {
        self.sum(&format!("SELECT count() FROM {}_local", self.pipe))
    }

    /// One column of the pipe's lease rows, read through one of the servers.
    fn leases(&self, columns: &str) -> Vec<Vec<String>> {
        let sql = format!("SELECT {columns} FROM kinesis.leases WHERE pipe = '{}' ORDER BY shard_id", self.pipe);
        let answer = self.cluster.servers.iter().find_map(|server| server.query(&sql).ok()).unwrap_or_default();
        answer.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// The open shards that a worker owns.
    fn owned(&self, worker: usize) -> Vec<String> {
        let rows = self.leases("shard_id, owner, sequence_number");
        let mine = rows.into_iter().filter(|row| row[1] == self.bridges[worker].id && row[2] != "SHARD_END");
        mine.map(|mut row| row.swap_remove(0)).collect()
    }

    /// Everything that helps to understand what went wrong.
    fn report(&self) -> String {
        let show = |sql: &str| match self.cluster.query_all(sql) {
            Ok(answers) => answers.join("\n"),
            Err(error) => error,
        };
        let mut report = format!(
            "rows {:?}\n{}\n{}",
            self.rows(),
            show("SELECT view, status, retry, left(exception, 600) FROM system.view_refreshes FORMAT Vertical"),
            self.leases(
                "shard_id, parents, owner, epoch, sequence_number, offered_batch, offered_shards, committed_rows"
            )
            .iter()
            .map(|row| row.join(" ") + "\n")
            .collect::<String>()
        );
        for worker in &self.bridges {
            report.push_str(&format!("\n{}: {}", worker.id, worker.bridge.log_tail()));
        }
        report
    }
}
