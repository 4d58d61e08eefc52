//! Aggregates and plain records under faults: while they are written, the bridge is killed with
//! SIGKILL, also between insert and commit. Batches are so small that most of them end inside an
//! aggregate.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use stack::{Bridge, LocalStack};

use super::{Given, Put, aggregated, expected};
use crate::aggregates::writers::UserRecord;
use crate::common::{bridge_binary, local_stack, number, seed, wait_until};
use crate::drill::{Held, kill_between_insert_and_commit};
use crate::engines::on_each_engine;
use crate::world::{NEXT, block_on, runtime};

on_each_engine!(
    aggregates_are_exactly_once_under_faults,
    aggregates_are_exactly_once_with_fan_out,
    items_are_exactly_once_under_faults,
);

const SHARDS: i32 = 2;
/// Keys of Kinesis records. A user key always goes with the same one; otherwise its order would be
/// undefined.
const GROUPS: usize = 8;
const STEPS: usize = 20;
const STEP_PAUSE: Duration = Duration::from_millis(250);
/// Steps reserved for one kill between insert and commit.
const STEPS_TO_CATCH: u64 = 4;
const DEADLINE: Duration = Duration::from_secs(90);

fn group_key(group: usize) -> String {
    format!("group-{group}")
}

/// Records in the order in which they are written; the payloads of each key count up.
fn records(count: usize, random: &mut fastrand::Rng) -> Vec<Put> {
    let mut next: HashMap<String, u32> = HashMap::new();
    let mut user_record = |key: String| {
        let n = next.entry(key.clone()).or_default();
        *n += 1;
        UserRecord::new(key, n.to_string())
    };
    let shapes: Vec<(usize, Vec<UserRecord>)> = (0..count)
        .map(|_| {
            let group = random.usize(..GROUPS);
            let rows = if random.bool() { 1 } else { random.usize(2..60) };
            let key = |part: u8| if rows == 1 || part == 0 { group_key(group) } else { format!("{group}-{part}") };
            (group, (0..rows).map(|_| user_record(key(random.u8(..5)))).collect())
        })
        .collect();
    let (plain, packed): (Vec<_>, Vec<_>) = shapes.iter().partition(|(_, rows)| rows.len() == 1);
    let mut aggregates = aggregated(&packed.into_iter().map(|(_, rows)| rows.clone()).collect::<Vec<_>>()).into_iter();
    assert!(plain.len() > count / 4, "half of the records are plain");
    let mut put = |(group, rows): &(usize, Vec<UserRecord>)| match &rows[..] {
        [one] => Put::plain(&one.key, one.data.clone()),
        _ => Put { key: group_key(*group), ..aggregates.next().expect("an aggregate") },
    };
    shapes.iter().map(&mut put).collect()
}

/// Records with one or several arrays of numbers, some of them compressed and followed by a line
/// end; each number is a row.
fn items(count: usize, random: &mut fastrand::Rng) -> Vec<Put> {
    let mut last = [0u32; GROUPS];
    let mut put = || {
        let group = random.usize(..GROUPS);
        let rows = if random.bool() { 1 } else { random.usize(2..60) };
        let numbers: Vec<String> = (last[group] + 1..).take(rows).map(|n| n.to_string()).collect();
        last[group] += rows as u32;
        let arrays: Vec<String> =
            numbers.chunks(random.usize(1..=rows)).map(|part| format!("[{}]", part.join(", "))).collect();
        let text = arrays.join(if random.bool() { "\n" } else { "" });
        let payload = if random.bool() { compressed(text.as_bytes()) } else { text.into_bytes() };
        let key = group_key(group);
        let rows = numbers.into_iter().zip(0..).map(|(n, sub)| (key.clone(), sub, n.into_bytes())).collect();
        Put { key, payload, rows }
    };
    (0..count).map(|_| put()).collect()
}

fn compressed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("gzip");
    [encoder.finish().expect("gzip"), b"\n".to_vec()].concat()
}

/// A row of the table: where it was inserted, and where it was in the stream.
struct Row {
    block: u64,
    shard: String,
    sequence: String,
    given: Given,
}

struct Drill {
    stack: LocalStack,
    bridge: Bridge,
}

impl Drill {
    fn run(mode: &str, split: &str, count: usize, kills: usize, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let records = if split == "json" { items(count, &mut random) } else { records(count, &mut random) };
        let stack = local_stack();
        let bridge = stack.start_bridge(bridge_binary(), &[]).expect("the bridge starts");
        let drill = Drill { stack, bridge };
        let client = block_on(stack::kinesis_client(&drill.stack.kinesis.endpoint()));
        block_on(stack::load::create_stream(&client, "packed", SHARDS)).expect("a stream");
        drill.create_view(mode, split);
        let wanted = expected(&records);
        let puts: Vec<(String, Vec<u8>)> = records.into_iter().map(|r| (r.key, r.payload)).collect();
        let mut shares = (kills / 2) as u64;
        let held = Held::new(STEPS_TO_CATCH * shares);
        let fed = held.clone();
        let writer = runtime().spawn(async move {
            for (step, left) in puts.chunks(puts.len().div_ceil(STEPS)).zip((0..STEPS as u64).rev()) {
                fed.may_put(left).await;
                stack::load::put_records(&client, "packed", step.to_vec()).await?;
                tokio::time::sleep(STEP_PAUSE).await;
            }
            Ok::<(), String>(())
        });
        for kill in 0..kills {
            std::thread::sleep(Duration::from_millis(random.u64(..600)));
            match kill % 2 {
                // A batch that ends inside a record.
                0 => {
                    let within = "offered_batch != '' AND offered_through_sub > 0";
                    shares -= 1;
                    let rest = STEPS_TO_CATCH * shares;
                    let feed = || held.feed(rest);
                    kill_between_insert_and_commit(&drill.stack, &drill.bridge, "packed", within, &feed);
                    held.leave(rest);
                }
                _ => drill.bridge.restart().expect("the bridge comes back"),
            }
        }
        block_on(writer).expect("the writer ends").expect("all records are put");
        drill.wait_until_complete(wanted.len());
        drill.check(wanted, count);
        let log = drill.bridge.log();
        let recovered = log.lines().filter(|line| line.contains("an open batch was found")).count();
        println!("{mode}, split={split}: {count} records, {kills} kills, {recovered} open batches found");
        assert!(recovered > 0, "no kill hit an open batch: the drill tested nothing");
    }

    fn create_view(&self, mode: &str, split: &str) {
        let url = format!(
            "{}/v1/pipes/packed/next?stream=packed&view=default.packed_view&mode={mode}&split={split}&max_rows=257&linger_ms=50&poll_ms=50",
            self.bridge.url()
        );
        let script = format!(
            "CREATE TABLE packed (_shard_id String, _sequence_number String, _sub_sequence_number UInt32, _key String, _raw_message String) \
             ENGINE = MergeTree ORDER BY (_shard_id, _key) \
             SETTINGS non_replicated_deduplication_window = 1000, enable_block_number_column = 1, enable_block_offset_column = 1;\n\
             CREATE MATERIALIZED VIEW packed_view REFRESH AFTER 2 SECOND \
             SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 500 \
             APPEND TO packed AS SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _raw_message \
             FROM url('{url}', 'ArrowStream', '{NEXT}') ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1;\n"
        );
        self.stack.clickhouse.run_script(&script).expect("the pipe");
    }

    fn wait_until_complete(&self, rows: usize) {
        let clickhouse = &self.stack.clickhouse;
        let committed = "SELECT sum(committed_rows) FROM kinesis.leases WHERE offered_batch = ''";
        wait_until(
            DEADLINE,
            || number(clickhouse, committed) == Some(rows as u64),
            || {
                let show = |sql: &str| clickhouse.query(sql).unwrap_or_else(|error| error);
                format!(
                    "{rows} rows are not committed\n{}\n{}\n{}",
                    show("SELECT * FROM system.view_refreshes FORMAT Vertical"),
                    show("SELECT * FROM kinesis.leases FORMAT Vertical"),
                    self.bridge.log_tail()
                )
            },
        );
    }

    fn rows(&self) -> Vec<Row> {
        let select = "SELECT _block_number, _shard_id, _sequence_number, _sub_sequence_number, _key, _raw_message FROM packed \
                      ORDER BY _shard_id, toUInt256(_sequence_number), _sub_sequence_number";
        let answer = self.stack.clickhouse.query(select).expect("the rows");
        let row = |line: &str| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [block, shard, sequence, sub, key, payload] = columns[..] else { panic!("{line}") };
            let given = (key.to_owned(), sub.parse().expect("a number"), payload.as_bytes().to_vec());
            Row { block: block.parse().expect("a block"), shard: shard.into(), sequence: sequence.into(), given }
        };
        answer.lines().map(row).collect()
    }

    /// Each row once, numbered from 0 within each record, and inserted in the order of its shard,
    /// which is the order of its key.
    fn check(&self, mut wanted: Vec<Given>, records: usize) {
        let rows = self.rows();
        let same_record = |a: &Row, b: &Row| (&a.shard, &a.sequence) == (&b.shard, &b.sequence);
        let found: Vec<&[Row]> = rows.chunk_by(same_record).collect();
        assert_eq!((rows.len(), found.len()), (wanted.len(), records), "rows and records");
        for record in &found {
            assert!(record.iter().zip(0..).all(|(row, sub)| row.given.1 == sub), "record {}", record[0].sequence);
        }
        let mut last: HashMap<&str, u32> = HashMap::new();
        for row in &rows {
            let n: u32 = std::str::from_utf8(&row.given.2).ok().and_then(|n| n.parse().ok()).expect("a number");
            let before = last.insert(&row.given.0, n).unwrap_or(0);
            assert_eq!(n, before + 1, "the payload of {} in record {}", row.given.0, row.sequence);
        }
        for shard in rows.chunk_by(|a, b| a.shard == b.shard) {
            assert!(shard.is_sorted_by_key(|row| row.block), "{} was inserted in another order", shard[0].shard);
        }
        let ends =
            found.iter().filter(|record| record.first().map(|r| r.block) != record.last().map(|r| r.block)).count();
        println!("{} rows of {records} records, {ends} of which lie in several batches", rows.len());
        assert!(ends > 0, "no batch ended within an aggregate: the drill tested nothing");
        let mut given: Vec<Given> = rows.into_iter().map(|row| row.given).collect();
        given.sort();
        wanted.sort();
        assert!(given == wanted, "other rows than were put");
    }
}

fn aggregates_are_exactly_once_under_faults() {
    Drill::run("polling", "none", 1_200, 8, seed("aggregates_are_exactly_once_under_faults"));
}

fn aggregates_are_exactly_once_with_fan_out() {
    Drill::run("efo", "none", 600, 4, seed("aggregates_are_exactly_once_with_fan_out"));
}

fn items_are_exactly_once_under_faults() {
    Drill::run("polling", "json", 1_200, 8, seed("items_are_exactly_once_under_faults"));
}
