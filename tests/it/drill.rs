//! The main job under faults: nothing lost, and with a deduplication window nothing doubled.
//!
//! While records are being written, the bridge is killed with SIGKILL again and again (also between insert and commit, forced by stopping
//! ZooKeeper), ClickHouse and ZooKeeper are restarted, and inserts fail after their part was written.

use std::time::{Duration, Instant};

use stack::{Bridge, LocalStack};

use crate::common::{bridge_binary, local_stack, number, orders_sql, seed, wait_until};

const SHARDS: i32 = 4;
const STEP: u64 = 2_000;

/// What happens to the stack, and when: a function of the seed alone.
struct Schedule {
    /// After so many steps of writing, this is done.
    faults: Vec<(u64, Fault)>,
    /// Pause before each fault, ms.
    pauses: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillBridge,
    KillBetweenInsertAndCommit,
    KillClickHouse,
    StopClickHouse,
    KillZooKeeper,
}

impl Schedule {
    fn new(seed: u64, records: u64, kills: usize) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut faults = vec![Fault::KillBridge; kills - 5];
        faults.extend([Fault::KillBetweenInsertAndCommit; 5]);
        faults.extend([Fault::KillClickHouse, Fault::StopClickHouse, Fault::KillZooKeeper]);
        random.shuffle(&mut faults);
        let steps = records / STEP;
        let mut at: Vec<u64> = faults.iter().map(|_| random.u64(1..steps)).collect();
        at.sort_unstable();
        let pauses = faults.iter().map(|_| random.u64(0..400)).collect();
        Schedule { faults: at.into_iter().zip(faults).collect(), pauses }
    }
}

struct Drill {
    stack: LocalStack,
    bridge: Bridge,
    forced: usize,
}

impl Drill {
    /// Writes `records` orders and does the schedule's faults meanwhile; then waits until all are in and committed.
    fn run(table_settings: &str, records: u64, kills: usize, seed: u64) -> Drill {
        let stack = local_stack();
        let bridge = stack.start_bridge(bridge_binary(), &[]).expect("the bridge starts");
        let mut drill = Drill { stack, bridge, forced: 0 };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let client = runtime.block_on(stack::kinesis_client(&drill.stack.kinesis.endpoint()));
        runtime.block_on(stack::load::create_stream(&client, "orders", SHARDS)).expect("a stream");
        let clickhouse = &drill.stack.clickhouse;
        let sql = orders_sql(&drill.bridge.url(), "drill", "&linger_ms=100&poll_ms=50", table_settings);
        clickhouse.run_script(&sql).expect("the contract's SQL");
        // One insert in four throws after its part was written: a materialized view on the target sees the block later than the target.
        let bomb = "CREATE TABLE bomb_sink (n UInt64) ENGINE = Null;\n\
                    CREATE MATERIALIZED VIEW bomb TO bomb_sink AS \
                    SELECT throwIf(randConstant() % 4 = 0, 'the bomb went off') + 0 AS n FROM drill;\n";
        clickhouse.run_script(bomb).expect("the failing view");

        let schedule = Schedule::new(seed, records, kills);
        let mut faults = schedule.faults.iter().zip(&schedule.pauses).peekable();
        for step in 0..records / STEP {
            runtime.block_on(stack::load::put_orders(&client, "orders", step * STEP, STEP)).expect("records are put");
            while let Some(((_, fault), pause)) = faults.next_if(|((at, _), _)| *at <= step) {
                std::thread::sleep(Duration::from_millis(*pause));
                drill.inflict(*fault);
            }
        }
        drill.wait_for(records);
        drill
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::KillBridge => self.bridge.restart().expect("the bridge comes back"),
            Fault::KillBetweenInsertAndCommit => self.kill_between_insert_and_commit(),
            Fault::KillClickHouse => self.stack.clickhouse.restart().expect("ClickHouse comes back"),
            Fault::StopClickHouse => {
                // It may take its time; a hosted engine that does not stop is killed.
                let _ = self.stack.clickhouse.stop();
                self.stack.clickhouse.restart().expect("ClickHouse comes back");
            }
            Fault::KillZooKeeper => self.stack.zookeeper.restart().expect("ZooKeeper comes back"),
        }
    }

    /// Stops ZooKeeper while a batch is offered, waits until its rows are in the target, and kills the bridge before it can commit.
    fn kill_between_insert_and_commit(&mut self) {
        let clickhouse = &self.stack.clickhouse;
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let before = number(clickhouse, "SELECT count() FROM drill");
            if number(clickhouse, "SELECT count() FROM kinesis.leases WHERE offered_batch != ''").is_none_or(|n| n == 0)
            {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            self.stack.zookeeper.sigstop();
            let inserted = Instant::now() + Duration::from_millis(400);
            let mut grown = false;
            while Instant::now() < inserted && !grown {
                let now = number(clickhouse, "SELECT count() FROM drill");
                grown = now.is_some() && now > before;
            }
            if grown {
                self.forced += 1;
                self.bridge.kill();
                self.stack.zookeeper.sigcont();
                self.bridge.start_again().expect("the bridge comes back");
                return;
            }
            self.stack.zookeeper.sigcont();
        }
    }

    fn wait_for(&self, records: u64) {
        let clickhouse = &self.stack.clickhouse;
        let committed = "SELECT sum(committed_rows) FROM kinesis.leases WHERE pipe = 'drill' AND offered_batch = ''";
        let distinct = "SELECT uniqExact(_shard_id, _sequence_number) FROM drill";
        wait_until(
            Duration::from_secs(120),
            || number(clickhouse, distinct) == Some(records) && number(clickhouse, committed) == Some(records),
            || {
                format!(
                    "{records} records did not come through: distinct {:?}, committed {:?}\n{}\n{}\n{}",
                    number(clickhouse, distinct),
                    number(clickhouse, committed),
                    clickhouse.query("SELECT * FROM system.view_refreshes FORMAT Vertical").unwrap_or_else(|e| e),
                    clickhouse.query("SELECT * FROM kinesis.leases FORMAT Vertical").unwrap_or_else(|e| e),
                    self.bridge.log_tail()
                )
            },
        );
    }

    fn rows(&self) -> u64 {
        number(&self.stack.clickhouse, "SELECT count() FROM drill").expect("a count")
    }

    fn distinct_ids(&self) -> u64 {
        number(&self.stack.clickhouse, "SELECT uniqExact(id) FROM drill").expect("a count")
    }

    fn log_lines(&self, text: &str) -> usize {
        self.bridge.log().lines().filter(|line| line.contains(text)).count()
    }

    fn report(&self, records: u64) {
        println!(
            "{} rows for {records} records; batches recovered {}, failed refreshes {}, kills forced between insert and commit {}",
            self.rows(),
            self.log_lines("an open batch was found"),
            self.log_lines("the bomb went off"),
            self.forced
        );
        assert!(self.log_lines("an open batch was found") > 0, "no kill hit an open batch: the drill tested nothing");
        assert!(self.log_lines("the bomb went off") > 0, "no insert failed: the drill tested nothing");
        assert!(self.forced > 0, "no kill came between insert and commit: the drill tested nothing");
    }
}

#[test]
fn exactly_once_under_faults() {
    let records = 200_000;
    let drill = Drill::run("SETTINGS non_replicated_deduplication_window = 1000", records, 20, seed("exactly_once"));
    drill.report(records);
    assert_eq!((drill.rows(), drill.distinct_ids()), (records, records));
}

#[test]
fn at_least_once_without_a_window() {
    let records = 200_000;
    let drill = Drill::run("", records, 20, seed("at_least_once"));
    drill.report(records);
    assert_eq!(drill.distinct_ids(), records);
    println!("{} rows came more than once, as they may without a window", drill.rows() - records);
}
