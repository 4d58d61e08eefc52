//! What several servers need for exactly-once: a batch that comes again through another server is
//! split into the same blocks, and each server drops those that it has. The SQL is that of
//! `sql/examples/cluster.sql`.

use stack::Cluster;

use crate::common::{bridge_binary, number};
use crate::engines::{engine, on_each_engine};
use crate::world::{block_on, wait_until};

on_each_engine!(
    a_batch_is_the_same_blocks_through_every_server,
    the_example_brings_every_record_once,
    the_largest_batch_is_the_same_block_each_time,
    a_batch_that_comes_again_through_another_server_is_doubled_in_tables_that_share_nothing,
);

const EXAMPLE: &str = include_str!("../../../sql/examples/cluster.sql");

/// A batch as the example's view would insert it: `rows` orders starting with `first`, read by
/// several threads.
fn batch(first: u64, rows: u64) -> String {
    format!(
        "SELECT toString(number) AS id, number % 1000 AS user_id, number / 100 AS price, toDateTime64(number, 3) AS _timestamp, \
         'shardId-000000000000' AS _shard_id, toString(number) AS _sequence_number, 0::UInt32 AS _sub_sequence_number FROM numbers_mt({first}, {rows})"
    )
}

/// The settings of the view's SELECT in an example.
fn settings(example: &str) -> &str {
    let (_, settings) = example.split_once("ORDER BY ALL\nSETTINGS ").expect("the view ends with its settings");
    settings.trim().trim_end_matches(';')
}

/// The local table of the example, emptied.
fn create_local(cluster: &Cluster, server: usize) {
    let (tables, _) = EXAMPLE.split_once("-- All servers'").expect("the local table comes first");
    cluster.servers[server].query("DROP TABLE IF EXISTS orders_local SYNC").expect("a drop");
    cluster.servers[server].run_script(tables).expect("the local table");
}

fn kept(cluster: &Cluster, table: &str) -> Vec<u64> {
    let count = |server| number(server, &format!("SELECT count() FROM {table}")).expect("a count");
    cluster.servers.iter().map(count).collect()
}

fn a_batch_is_the_same_blocks_through_every_server() {
    let cluster = Cluster::start(engine(), 2).expect("the cluster");
    let (tables, _) = EXAMPLE.split_once("-- With distributed_foreground_insert").expect("the view comes last");
    cluster.servers.iter().for_each(|server| server.run_script(tables).expect("the tables"));
    let insert = |through: usize, select: &str| {
        let sql = format!("INSERT INTO orders {select} ORDER BY ALL SETTINGS {}", settings(EXAMPLE));
        cluster.servers[through].query(&sql).expect("an insert");
    };
    // One row, so a block for only one of the servers; a normal batch; the largest one.
    for rows in [1, 20_000, 500_000] {
        for (through, again, lost) in [(0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (0, 0, 1), (1, 1, 0)] {
            (0..2).for_each(|server| create_local(&cluster, server));
            insert(through, &batch(1_000, rows));
            let whole = kept(&cluster, "orders_local");
            assert_eq!(whole.iter().sum::<u64>(), rows);
            insert(again, &batch(1_000, rows));
            assert_eq!(kept(&cluster, "orders_local"), whole, "{rows} rows through {through}, again through {again}");
            // As if a server died in the middle: one has its part, the other has nothing.
            create_local(&cluster, lost);
            insert(again, &batch(1_000, rows));
            assert_eq!(
                kept(&cluster, "orders_local"),
                whole,
                "{rows} rows through {through}, lost by {lost}, again through {again}"
            );
        }
    }
}

fn the_example_brings_every_record_once() {
    const RECORDS: u64 = 5_000;
    let cluster = Cluster::start(engine(), 2).expect("the cluster");
    block_on(async {
        let client = stack::kinesis_client(&cluster.kinesis.endpoint()).await;
        stack::load::create_stream(&client, "orders", 4).await.expect("a stream");
        stack::load::put_orders(&client, "orders", 0, RECORDS).await.expect("records");
    });
    let start = |server| cluster.start_bridge(bridge_binary(), server, &[]).expect("a bridge");
    let bridges: Vec<_> = (0..2).map(start).collect();
    for (server, bridge) in cluster.servers.iter().zip(&bridges) {
        server.run_script(&EXAMPLE.replace("http://localhost:9020", &bridge.url())).expect("the example");
    }
    let count = |server, what: &str| number(&cluster.servers[server], &format!("SELECT {what} FROM orders"));
    wait_until("all records", || count(0, "count()").is_some_and(|rows| rows >= RECORDS));
    assert_eq!((count(0, "count()"), count(1, "uniqExact(id)")), (Some(RECORDS), Some(RECORDS)));
    assert!(kept(&cluster, "orders_local").iter().all(|rows| *rows > 0));
}

/// ClickHouse computes the checksum of a block over its chunks. Several threads cut the sorted rows
/// into different chunks each time, so a large batch (here in 3 of 4 runs) was not recognised.
fn the_largest_batch_is_the_same_block_each_time() {
    let cluster = Cluster::start(engine(), 1).expect("a server");
    for example in [EXAMPLE, include_str!("../../../sql/examples/orders.sql")] {
        create_local(&cluster, 0);
        let insert = format!(
            "INSERT INTO orders_local SELECT r.id AS id, r.user_id AS user_id, r.price AS price, _timestamp, _shard_id, _sequence_number, _sub_sequence_number FROM \
             (SELECT JSONExtract(concat('{{\"id\":\"', id, '\",\"user_id\":', toString(user_id), '}}'), 'Tuple(id String, user_id UInt64, price Float64)') AS r, \
             _timestamp, _shard_id, _sequence_number, _sub_sequence_number FROM ({})) ORDER BY ALL SETTINGS {}",
            batch(1_000, 500_000),
            settings(example)
        );
        for time in 0..20 {
            cluster.servers[0].query(&insert).expect("an insert");
            assert_eq!(kept(&cluster, "orders_local"), [500_000], "doubled by time {time}");
        }
    }
}

fn a_batch_that_comes_again_through_another_server_is_doubled_in_tables_that_share_nothing() {
    let cluster = Cluster::start(engine(), 2).expect("the cluster");
    (0..2).for_each(|server| create_local(&cluster, server));
    for through in [0, 0, 1, 1] {
        let insert = format!("INSERT INTO orders_local {} ORDER BY ALL", batch(1_000, 20_000));
        cluster.servers[through].query(&insert).expect("an insert");
    }
    assert_eq!(kept(&cluster, "orders_local"), [20_000, 20_000]);
}
