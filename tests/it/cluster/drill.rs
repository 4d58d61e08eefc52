//! The drill of a cluster: a stream is written, split and merged while its bridges are killed,
//! paused and stopped, and ClickHouse and ZooKeeper are restarted. In the end every record is there
//! once, in the order of its key.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::types::Shard;
use stack::load::{put_records, wait_active};

use super::{Fleet, LEASE};
use crate::common::{seed, wait_until};
use crate::engines::on_each_engine;
use crate::world::{block_on, runtime};

on_each_engine!(
    a_cluster_under_faults_keeps_every_record_once_and_in_order,
    a_cluster_under_faults_loses_nothing_with_enhanced_fan_out,
);

const SERVERS: usize = 2;
const SHARDS: i32 = 4;
const KEYS: u64 = 500;
/// Records are written in steps of whole rounds, each with a record for each key.
const STEP: u64 = 3 * KEYS;
const STEP_PAUSE: Duration = Duration::from_millis(270);
const DEADLINE: Duration = Duration::from_secs(150);

/// What happens. Its victim is drawn from the same seed at that moment. UpdateShardCount is not
/// among them: after it the emulator's new shards have no parents, so there would be no order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Split,
    Merge,
    KillBridge,
    /// For longer than the lease duration.
    PauseBridge,
    /// With SIGTERM.
    StopBridge,
    KillClickHouse,
    StopClickHouse,
    KillZooKeeper,
}

const FAULTS: [(Fault, usize); 8] = [
    (Fault::Split, 5),
    (Fault::Merge, 4),
    (Fault::KillBridge, 5),
    (Fault::PauseBridge, 4),
    (Fault::StopBridge, 2),
    (Fault::KillClickHouse, 2),
    (Fault::StopClickHouse, 1),
    (Fault::KillZooKeeper, 1),
];

/// What brings a bridge back.
#[derive(Clone, Copy)]
enum Back {
    Start,
    Continue,
}

struct Drill {
    fleet: Fleet,
    random: fastrand::Rng,
    /// Bridges that are down, and when they come back.
    away: Vec<(Instant, usize, Back)>,
    revived: usize,
}

impl Drill {
    fn run(pipe: &'static str, mode: &str, records: u64, seed: u64) {
        let mut fleet = Fleet::start(pipe, SERVERS, SHARDS);
        // Two next to the first server, one next to the second, each pulled by a view of its own.
        for server in [0, 1, 0] {
            let worker = fleet.add_bridge(server);
            fleet.create_view(worker, &format!("&mode={mode}&linger_ms=100&poll_ms=50"));
        }
        let mut drill = Drill { fleet, random: fastrand::Rng::with_seed(seed), away: Vec::new(), revived: 0 };
        let began = Instant::now();
        let client = drill.fleet.client.clone();
        let writer = runtime().spawn(async move {
            for from in (0..records).step_by(STEP as usize) {
                let step = (from..records.min(from + STEP)).map(|n| (key(n), (n / KEYS).to_string().into_bytes()));
                put_records(&client, pipe, step).await?;
                tokio::time::sleep(STEP_PAUSE).await;
            }
            Ok::<(), String>(())
        });
        let mut faults: Vec<Fault> = FAULTS.iter().flat_map(|(fault, count)| vec![*fault; *count]).collect();
        drill.random.shuffle(&mut faults);
        for fault in faults {
            let pause = Duration::from_millis(drill.random.u64(200..3_200));
            drill.go_on(Instant::now() + pause);
            println!("{:6.1} s: {fault:?}", began.elapsed().as_secs_f64());
            drill.inflict(fault);
        }
        block_on(writer).expect("the writer ends").expect("all records are put");
        while let Some(next) = drill.away.iter().map(|(at, ..)| *at).min() {
            drill.go_on(next);
        }
        println!("{:6.1} s: all is written and everybody is back", began.elapsed().as_secs_f64());
        drill.wait_until_complete(records);
        println!(
            "{:6.1} s: complete; engines that ended by themselves {}, open batches found {}, batches refused to a worker that was replaced {}",
            began.elapsed().as_secs_f64(),
            drill.revived,
            drill.log_lines("an open batch was found"),
            drill.log_lines("code=\"fenced\""),
        );
        assert!(drill.log_lines("an open batch was found") > 0, "no fault hit an open batch: the drill tested nothing");
        drill.check(records);
    }

    /// Waits, and brings back whatever is due.
    fn go_on(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            let due: Vec<_> = self.away.extract_if(.., |(at, ..)| *at <= now).collect();
            for (_, worker, back) in due {
                let bridge = &self.fleet.bridges[worker].bridge;
                match back {
                    Back::Start => bridge.start_again().expect("the bridge comes back"),
                    Back::Continue => bridge.sigcont(),
                }
            }
            self.revived += self.fleet.cluster.revive().expect("the servers come back");
            if now >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Split => self.split(),
            Fault::Merge => self.merge(),
            Fault::KillBridge => {
                // In the middle of a batch, so that another worker has to settle it.
                let worker = self.busy_bridge();
                self.fleet.bridges[worker].bridge.kill();
                // Often shorter than the lease duration, often longer.
                let pause = Duration::from_millis(self.random.u64(0..6_000));
                self.comes_back(worker, pause, Back::Start);
            }
            Fault::PauseBridge => {
                let worker = if self.random.bool() { self.busy_bridge() } else { self.present_bridge() };
                self.fleet.bridges[worker].bridge.sigstop();
                let more = Duration::from_millis(self.random.u64(500..4_000));
                self.comes_back(worker, LEASE + more, Back::Continue);
            }
            Fault::StopBridge => {
                let worker = self.present_bridge();
                assert_eq!(self.fleet.bridges[worker].bridge.stop(), Ok(0), "{}", self.fleet.report());
                let pause = Duration::from_millis(self.random.u64(0..3_000));
                self.comes_back(worker, pause, Back::Start);
            }
            Fault::KillClickHouse => {
                let server = self.random.usize(..SERVERS);
                self.fleet.cluster.servers[server].restart().expect("ClickHouse comes back");
            }
            Fault::StopClickHouse => {
                let server = self.random.usize(..SERVERS);
                // It may take a while; a hosted engine that does not stop is killed.
                let _ = self.fleet.cluster.servers[server].stop();
                self.fleet.cluster.servers[server].restart().expect("ClickHouse comes back");
            }
            Fault::KillZooKeeper => self.fleet.cluster.zookeeper.restart().expect("ZooKeeper comes back"),
        }
    }

    fn comes_back(&mut self, worker: usize, after: Duration, back: Back) {
        self.away.push((Instant::now() + after, worker, back));
    }

    /// One that is not down; waits for the first to come back if all are.
    fn present_bridge(&mut self) -> usize {
        loop {
            let away: Vec<usize> = self.away.iter().map(|(_, worker, _)| *worker).collect();
            let present: Vec<usize> = (0..self.fleet.bridges.len()).filter(|w| !away.contains(w)).collect();
            if let Some(worker) = self.random.choice(present) {
                return worker;
            }
            self.go_on(Instant::now() + Duration::from_millis(50));
        }
    }

    /// One that is not down and has an open batch right now; if none has for a while, any that is
    /// not down.
    fn busy_bridge(&mut self) -> usize {
        let patience = Instant::now() + Duration::from_secs(3);
        while Instant::now() < patience {
            let offers = self.fleet.leases("owner, offered_batch");
            let owner = offers.iter().find(|row| !row[1].is_empty()).map(|row| &row[0]);
            let worker = self.fleet.bridges.iter().position(|worker| Some(&worker.id) == owner);
            if let Some(worker) = worker.filter(|worker| self.away.iter().all(|(_, away, _)| away != worker)) {
                return worker;
            }
        }
        self.present_bridge()
    }

    /// The open shards, ordered by their range of hash keys.
    fn open_shards(&self) -> Vec<(u128, u128, String)> {
        let call = self.fleet.client.list_shards().stream_name(self.fleet.pipe).send();
        let shards = block_on(call).expect("shards").shards.unwrap_or_default();
        let open = |s: &&Shard| s.sequence_number_range.as_ref().is_some_and(|r| r.ending_sequence_number.is_none());
        let mut open: Vec<_> = shards
            .iter()
            .filter(open)
            .map(|shard| {
                let range = shard.hash_key_range.as_ref().expect("a range of hash keys");
                let key = |text: &str| text.parse::<u128>().expect("a hash key");
                (key(&range.starting_hash_key), key(&range.ending_hash_key), shard.shard_id.clone())
            })
            .collect();
        open.sort();
        open
    }

    fn split(&mut self) {
        let open = self.open_shards();
        let (low, high, shard) = self.random.choice(&open).expect("an open shard");
        let middle = (low + (high - low) / 2 + 1).to_string();
        let call = self.fleet.client.split_shard().stream_name(self.fleet.pipe);
        block_on(call.shard_to_split(shard).new_starting_hash_key(middle).send()).expect("a split");
        self.resharded();
    }

    fn merge(&mut self) {
        let open = self.open_shards();
        let Some(pair) = self.random.choice(open.windows(2)) else { return };
        let call = self.fleet.client.merge_shards().stream_name(self.fleet.pipe);
        block_on(call.shard_to_merge(&pair[0].2).adjacent_shard_to_merge(&pair[1].2).send()).expect("a merge");
        self.resharded();
    }

    fn resharded(&self) {
        block_on(wait_active(&self.fleet.client, self.fleet.pipe)).expect("an active stream");
    }

    fn wait_until_complete(&mut self, records: u64) {
        let committed = format!(
            "SELECT sum(committed_rows) FROM kinesis.leases WHERE pipe = '{}' AND offered_batch = ''",
            self.fleet.pipe
        );
        let mut revived = 0;
        let fleet = &self.fleet;
        wait_until(
            DEADLINE,
            || {
                revived += fleet.cluster.revive().expect("the servers come back");
                let everywhere = fleet.sum(&committed).map(|sum| sum / SERVERS as u64);
                fleet.rows().is_some_and(|rows| rows >= records) && everywhere.is_some_and(|rows| rows >= records)
            },
            || format!("{records} records did not come through: {}", fleet.report()),
        );
        self.revived += revived;
    }

    fn log_lines(&self, text: &str) -> usize {
        let lines = |log: String| log.lines().filter(|line| line.contains(text)).count();
        self.fleet.bridges.iter().map(|worker| lines(worker.bridge.log())).sum()
    }

    fn check(&self, records: u64) {
        let (fleet, pipe) = (&self.fleet, self.fleet.pipe);
        // Every record once, and each key on only one server.
        let count = |what: &str| fleet.sum(&format!("SELECT {what} FROM {pipe}_local")).expect("a count");
        let found = (count("count()"), count("uniqExact(k, n)"), count("uniqExact(_shard_id, _sequence_number)"));
        assert_eq!(
            found,
            (records, records, records),
            "rows, distinct records, distinct positions\n{}",
            fleet.report()
        );
        assert_eq!(count("uniqExact(k)"), KEYS);
        // Inserts happened in the order of each key: sorted by time, its numbers are 0, 1, 2 and so
        // on.
        let late = fleet.cluster.query_all(&format!(
            "SELECT k, arraySlice(arrayFilter((row, at) -> row.2 + 1 != at, rows, arrayEnumerate(rows)), 1, 5) AS late FROM \
             (SELECT k, arraySort(groupArray((_block_number, n, _shard_id))) AS rows FROM {pipe}_local GROUP BY k) WHERE notEmpty(late)"
        ));
        let late: String = late.expect("an answer").concat().lines().take(5).map(|line| format!("{line}\n")).collect();
        assert!(late.is_empty(), "keys out of order (block, number, shard):\n{late}{}", fleet.report());
        self.check_checkpoints();
        // Rates differ, so shares by count may; but every pulled bridge has some.
        wait_until(
            DEADLINE,
            || (0..fleet.bridges.len()).all(|worker| !fleet.owned(worker).is_empty()),
            || format!("a bridge that is pulled holds nothing: {}", fleet.report()),
        );
    }

    /// Every shard is committed to its end, or to its last record.
    fn check_checkpoints(&self) {
        let (fleet, pipe) = (&self.fleet, self.fleet.pipe);
        let open: Vec<String> = self.open_shards().into_iter().map(|(.., id)| id).collect();
        let last = |shard: &str| {
            let sql = format!("SELECT max(toUInt256(_sequence_number)) FROM {pipe} WHERE _shard_id = '{shard}'");
            fleet.cluster.servers[0].query(&sql).expect("a position").trim().to_owned()
        };
        let wanted = |shard: &str| if open.iter().any(|o| o == shard) { last(shard) } else { "SHARD_END".to_owned() };
        let wrong = || {
            let rows = fleet.leases("shard_id, sequence_number");
            // An open shard that never had a record stays where it began.
            let wrong = |row: &&Vec<String>| {
                let wanted = wanted(&row[0]);
                row[1] != wanted && !(wanted == "0" && row[1] == "TRIM_HORIZON")
            };
            rows.iter().filter(wrong).cloned().collect::<Vec<_>>()
        };
        wait_until(
            DEADLINE,
            || !fleet.leases("shard_id").is_empty() && wrong().is_empty(),
            || format!("not committed to the end: {:?}\n{}", wrong(), fleet.report()),
        );
    }
}

fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

fn a_cluster_under_faults_keeps_every_record_once_and_in_order() {
    Drill::run(
        "cluster_polling",
        "polling",
        300_000,
        seed("a_cluster_under_faults_keeps_every_record_once_and_in_order"),
    );
}

fn a_cluster_under_faults_loses_nothing_with_enhanced_fan_out() {
    Drill::run("cluster_efo", "efo", 150_000, seed("a_cluster_under_faults_loses_nothing_with_enhanced_fan_out"));
}
