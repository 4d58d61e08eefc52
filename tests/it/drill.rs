//! The main job under faults: nothing is lost, and with a deduplication window nothing is
//! duplicated. `landing` drills other tables with the same faults.
//!
//! While records are being written, the bridge is killed with SIGKILL again and again (also between
//! insert and commit, forced by stopping ZooKeeper), ClickHouse and ZooKeeper are restarted, and
//! inserts fail after their part was written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stack::{Bridge, LocalStack};

use crate::common::{bridge_binary, is_committed, local_stack, number, orders_sql, seed, wait_until};
use crate::engines::on_each_engine;

on_each_engine!(
    exactly_once_under_faults,
    exactly_once_under_faults_with_fan_out,
    exactly_once_under_faults_with_four_views,
    at_least_once_without_a_window,
);

const SHARDS: i32 = 4;
/// Records are written in steps, over about a minute, so that every fault finds data in flight.
const STEP: u64 = 1_000;
const STEP_PAUSE: Duration = Duration::from_millis(280);
/// Steps that are held back for a kill between insert and commit: servers may take so long to come
/// back that everything else is loaded by then.
const STEPS_TO_CATCH: u64 = 8;
/// The message of a failing insert.
const BOMB: &str = "the bomb went off";

/// What is drilled, and for how long.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Orders, written in steps of [`STEP`].
    pub records: u64,
    /// Records in each step that are not orders.
    pub broken: u64,
    pub kills: usize,
    pub forced_kills: usize,
    pub pipe: &'static str,
    /// Where each order finally has a row, with the columns `id`, `_shard_id` and
    /// `_sequence_number`.
    pub table: &'static str,
    /// What the pipe inserts into.
    pub landing: &'static str,
    /// Tables and views, for the bridge at this URL.
    pub sql: fn(&str) -> String,
}

const POLLING: Plan = Plan {
    records: 200_000,
    broken: 0,
    kills: 16,
    forced_kills: 6,
    pipe: "drill",
    table: "drill",
    landing: "drill",
    sql: |bridge| orders_sql(bridge, "drill", PARAMETERS, WINDOW),
};
/// Shorter: only the reader is different.
const FAN_OUT: Plan = Plan {
    records: 80_000,
    kills: 7,
    forced_kills: 3,
    sql: |bridge| orders_sql(bridge, "drill", &format!("{PARAMETERS}&mode=efo"), WINDOW),
    ..POLLING
};
/// As many views as shards.
const FOUR_VIEWS: Plan = Plan { sql: |bridge| four_views(&POLLING, bridge), ..FAN_OUT };
/// Many small batches.
pub const PARAMETERS: &str = "&linger_ms=100&poll_ms=50";
const WINDOW: &str = "SETTINGS non_replicated_deduplication_window = 1000";

impl Plan {
    /// Records that are not orders, in total.
    pub fn broken_records(self) -> u64 {
        self.records / STEP * self.broken
    }
}

/// The SQL of a plan, with its view under four names.
fn four_views(plan: &Plan, bridge: &str) -> String {
    let (mut script, view) = ((plan.sql)(bridge), format!("{}_pipe", plan.pipe));
    let create = script.find("CREATE MATERIALIZED VIEW").expect("a view");
    for number in 2..=4 {
        let another = script[create..].split_inclusive(";\n").next().expect("a statement");
        let another = another.replace(&view, &format!("{view}_{number}"));
        script.push_str(&another);
    }
    script
}

/// Not JSON, or JSON that is not an order.
fn broken_record(step: u64, n: u64) -> Vec<u8> {
    if n.is_multiple_of(2) { format!("no json {step} {n}").into_bytes() } else { format!("[{step}, {n}]").into_bytes() }
}

/// What happens to the stack, and after which pause: a function of the seed alone.
struct Schedule(Vec<(Duration, Fault)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillBridge,
    KillBetweenInsertAndCommit,
    FailInsert,
    KillClickHouse,
    StopClickHouse,
    KillZooKeeper,
}

impl Schedule {
    fn new(plan: Plan, seed: u64) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut faults = vec![Fault::KillBridge; plan.kills];
        faults.extend(vec![Fault::KillBetweenInsertAndCommit; plan.forced_kills]);
        faults.extend([Fault::FailInsert, Fault::KillClickHouse, Fault::StopClickHouse, Fault::KillZooKeeper]);
        random.shuffle(&mut faults);
        Schedule(faults.into_iter().map(|fault| (Duration::from_millis(random.u64(0..2_500)), fault)).collect())
    }
}

/// A finished drill.
pub struct Drill {
    pub stack: LocalStack,
    bridge: Bridge,
    plan: Plan,
    kills: usize,
    held: Held,
    /// Forced faults still to come.
    shares: u64,
}

/// Steps of the writer that are held back, so that each forced fault has records of its own.
#[derive(Clone)]
pub struct Held(Arc<AtomicU64>);

impl Held {
    /// This many of the last steps.
    pub fn new(steps: u64) -> Held {
        Held(Arc::new(AtomicU64::new(steps)))
    }

    /// Returns when a step may be written after which `left` remain.
    pub async fn may_put(&self, left: u64) {
        while left < self.0.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Releases one more step, but keeps at least `rest` held back.
    pub fn feed(&self, rest: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held > rest).then(|| held - 1));
    }

    /// Holds back this many from now on.
    pub fn leave(&self, rest: u64) {
        self.0.store(rest, Ordering::Relaxed);
    }
}

impl Drill {
    /// Writes the records while the schedule's faults happen; then waits until everything is loaded
    /// and committed.
    pub fn run(plan: Plan, seed: u64) -> Drill {
        let stack = local_stack();
        let bridge = stack.start_bridge(bridge_binary(), &[]).expect("the bridge starts");
        let shares = plan.forced_kills as u64 + 1;
        let held = Held::new(STEPS_TO_CATCH * shares);
        let mut drill = Drill { stack, bridge, plan, kills: 0, held: held.clone(), shares };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let client = runtime.block_on(stack::kinesis_client(&drill.stack.kinesis.endpoint()));
        runtime.block_on(stack::load::create_stream(&client, "orders", SHARDS)).expect("a stream");
        let clickhouse = &drill.stack.clickhouse;
        clickhouse.run_script(&(plan.sql)(&drill.bridge.url())).expect("the contract's SQL");
        // Every fourth insert throws after its part was written: a materialized view on the target
        // sees the block after the target does.
        let bomb = format!(
            "CREATE TABLE bomb_sink (n UInt64) ENGINE = Null;\n\
             CREATE MATERIALIZED VIEW bomb TO bomb_sink AS SELECT throwIf(randConstant() % 4 = 0, '{BOMB}') + 0 AS n FROM "
        );
        clickhouse.run_script(&(bomb + plan.landing + ";\n")).expect("the failing view");

        let writer = runtime.spawn(async move {
            let steps = plan.records / STEP;
            for step in 0..steps {
                held.may_put(steps - step - 1).await;
                stack::load::put_orders(&client, "orders", step * STEP, STEP).await?;
                let broken = (0..plan.broken).map(|n| (format!("broken-{step}-{n}"), broken_record(step, n)));
                stack::load::put_records(&client, "orders", broken).await?;
                tokio::time::sleep(STEP_PAUSE).await;
            }
            Ok::<(), String>(())
        });
        for (pause, fault) in Schedule::new(plan, seed).0 {
            std::thread::sleep(pause);
            drill.inflict(fault);
        }
        runtime.block_on(writer).expect("the writer ends").expect("all records are put");
        drill.wait_until_complete();
        drill
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::KillBridge => {
                self.bridge.restart().expect("the bridge comes back");
                self.kills += 1;
            }
            Fault::KillBetweenInsertAndCommit => self.forced(Drill::kill_between_insert_and_commit),
            Fault::FailInsert => self.forced(Drill::fail_insert),
            Fault::KillClickHouse => self.stack.clickhouse.restart().expect("ClickHouse comes back"),
            Fault::StopClickHouse => {
                // It may take a while; a hosted engine that does not stop is killed.
                let _ = self.stack.clickhouse.stop();
                self.stack.clickhouse.restart().expect("ClickHouse comes back");
            }
            Fault::KillZooKeeper => self.stack.zookeeper.restart().expect("ZooKeeper comes back"),
        }
    }

    /// Runs a fault that needs records in flight, with its share of those that are held back.
    fn forced(&mut self, fault: impl FnOnce(&mut Drill, &dyn Fn())) {
        self.shares -= 1;
        let (held, rest) = (self.held.clone(), STEPS_TO_CATCH * self.shares);
        fault(self, &|| held.feed(rest));
        self.held.leave(rest);
    }

    fn kill_between_insert_and_commit(&mut self, feed: &dyn Fn()) {
        kill_between_insert_and_commit(&self.stack, &self.bridge, self.plan.table, "offered_batch != ''", feed);
        self.kills += 1;
    }

    /// Makes inserts fail after their part was written, until the bridge has seen one fail.
    fn fail_insert(&mut self, feed: &dyn Fn()) {
        let (clickhouse, before) = (&self.stack.clickhouse, self.log_lines(BOMB));
        let failing = format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS bomb_at_once TO bomb_sink AS SELECT throwIf(1, '{BOMB}') + 0 AS n FROM {};\n",
            self.plan.landing
        );
        let patience = Duration::from_secs(60);
        wait_until(patience, || clickhouse.run_script(&failing).is_ok(), || "no failing view can be made".into());
        let failed = || {
            feed();
            self.log_lines(BOMB) > before
        };
        wait_until(patience, failed, || format!("no insert failed\n{}", self.bridge.log_tail()));
        let gone = || clickhouse.run_script("DROP VIEW IF EXISTS bomb_at_once;\n").is_ok();
        wait_until(patience, gone, || "the failing view cannot be dropped".into());
    }

    fn wait_until_complete(&self) {
        let (clickhouse, Plan { records, pipe, table, .. }) = (&self.stack.clickhouse, self.plan);
        let all = records + self.plan.broken_records();
        let distinct = &format!("SELECT uniqExact(_shard_id, _sequence_number) FROM {table}");
        wait_until(
            Duration::from_secs(120),
            || number(clickhouse, distinct) == Some(records) && is_committed(&self.bridge, pipe, all),
            || {
                let show = |sql: &str| clickhouse.query(sql).unwrap_or_else(|error| error);
                format!(
                    "{all} records did not come through: distinct {:?}\n{}\n{}\n{}",
                    number(clickhouse, distinct),
                    show("SELECT * FROM system.view_refreshes FORMAT Vertical"),
                    crate::world::get(&self.bridge, "/v1/pipes").text(),
                    self.bridge.log_tail()
                )
            },
        );
    }

    /// Rows of the place where each order has one.
    pub fn rows(&self) -> u64 {
        self.number(&format!("SELECT count() FROM {}", self.plan.table))
    }

    /// Orders that have a row there.
    pub fn distinct_ids(&self) -> u64 {
        self.number(&format!("SELECT uniqExact(id) FROM {}", self.plan.table))
    }

    /// One number from ClickHouse.
    pub fn number(&self, sql: &str) -> u64 {
        number(&self.stack.clickhouse, sql).unwrap_or_else(|| panic!("no number from {sql}"))
    }

    fn log_lines(&self, text: &str) -> usize {
        self.bridge.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Prints what happened, and checks that it did.
    pub fn report(&self) {
        println!(
            "{} rows for {} records; {} kills, {} of them between insert and commit; open batches found after a start {}, \
             refreshes seen to fail {}",
            self.rows(),
            self.plan.records,
            self.kills,
            self.plan.forced_kills,
            self.log_lines("an open batch was found"),
            self.log_lines(BOMB),
        );
        assert_eq!(self.kills, self.plan.kills + self.plan.forced_kills);
        assert!(self.log_lines("an open batch was found") > 0, "no kill hit an open batch: the drill tested nothing");
        assert!(self.log_lines(BOMB) > 0, "no insert failed: the drill tested nothing");
    }
}

fn exactly_once_under_faults() {
    let drill = Drill::run(POLLING, seed("exactly_once_under_faults"));
    drill.report();
    assert_eq!((drill.rows(), drill.distinct_ids()), (POLLING.records, POLLING.records));
}

fn exactly_once_under_faults_with_fan_out() {
    let drill = Drill::run(FAN_OUT, seed("exactly_once_under_faults_with_fan_out"));
    drill.report();
    assert_eq!((drill.rows(), drill.distinct_ids()), (FAN_OUT.records, FAN_OUT.records));
    let pushed = || {
        let pipes = crate::world::get(&drill.bridge, "/v1/pipes").rows();
        pipes.len() == SHARDS as usize && pipes.iter().all(|row| row["mode"] == "efo")
    };
    wait_until(Duration::from_secs(60), pushed, || drill.bridge.log_tail());
}

fn exactly_once_under_faults_with_four_views() {
    let drill = Drill::run(FOUR_VIEWS, seed("exactly_once_under_faults_with_four_views"));
    drill.report();
    assert_eq!((drill.rows(), drill.distinct_ids()), (FOUR_VIEWS.records, FOUR_VIEWS.records));
    let shared = || drill.number("SELECT uniqExact(owner) FROM kinesis.leases") == SHARDS as u64;
    wait_until(Duration::from_secs(60), shared, || drill.bridge.log_tail());
}

fn at_least_once_without_a_window() {
    let plan = Plan { sql: |bridge| orders_sql(bridge, "drill", PARAMETERS, ""), ..POLLING };
    let drill = Drill::run(plan, seed("at_least_once_without_a_window"));
    drill.report();
    assert_eq!(drill.distinct_ids(), plan.records);
    println!("{} rows came more than once, as they may without a window", drill.rows() - plan.records);
}

/// Stops ZooKeeper while a lease matches `offered`, waits until its batch is in the table, and
/// kills the bridge before it can commit; then the bridge comes back. Retries until the batch was
/// still open after the kill; `feed` writes records for each attempt.
pub fn kill_between_insert_and_commit(
    stack: &LocalStack,
    bridge: &Bridge,
    table: &str,
    offered: &str,
    feed: &dyn Fn(),
) {
    let patience = Instant::now() + Duration::from_secs(90);
    loop {
        feed();
        let attempt = Instant::now() + Duration::from_secs(2);
        while Instant::now() < attempt {
            if catch(stack, bridge, table, offered) {
                return;
            }
        }
        assert!(Instant::now() < patience, "no batch was caught between insert and commit");
    }
}

/// One attempt. True if the bridge was killed after a batch was inserted and before it was
/// committed.
fn catch(stack: &LocalStack, bridge: &Bridge, table: &str, offered: &str) -> bool {
    let clickhouse = &stack.clickhouse;
    let open = format!(
        "SELECT offered_batch, shard_id, offered_first, offered_through, if(offered_first_sub > 0, '>', '>=') \
         FROM kinesis.leases WHERE {offered} LIMIT 1"
    );
    let lease = clickhouse.query(&open).unwrap_or_default();
    let [batch, shard, first, through, after] = lease.trim_end().split('\t').collect::<Vec<_>>()[..] else {
        return false;
    };
    // Not its last row: that may be in another table.
    let rows = format!(
        "SELECT count() > 0 FROM {table} WHERE _shard_id = '{shard}' AND toUInt256(_sequence_number) {after} toUInt256('{first}') \
         AND toUInt256(_sequence_number) <= toUInt256('{through}')"
    );
    stack.zookeeper.sigstop();
    let patience = Instant::now() + Duration::from_millis(500);
    let mut inserted = false;
    while !inserted && Instant::now() < patience {
        inserted = number(clickhouse, &rows) == Some(1);
    }
    if !inserted {
        stack.zookeeper.sigcont();
        return false;
    }
    bridge.kill();
    // A commit that is already in flight dies with ZooKeeper; if ZooKeeper merely continued, it
    // would still carry it out.
    stack.zookeeper.restart().expect("ZooKeeper comes back");
    let same = format!("SELECT count() FROM kinesis.leases WHERE offered_batch = '{batch}'");
    let mut left = None;
    wait_until(
        Duration::from_secs(60),
        || {
            left = number(clickhouse, &same);
            left.is_some()
        },
        || "the leases cannot be read".into(),
    );
    bridge.start_again().expect("the bridge comes back");
    left > Some(0)
}
