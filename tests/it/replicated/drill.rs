//! Drills: servers and bridges are killed and restarted while a stream is written. In the end every
//! server has every record once, and the order of each shard was kept. The SQL is that of
//! docs/deploy.md, in four layouts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stack::load::put_orders;

use super::layout::{Layout, World};
use crate::world::{block_on, runtime};

const SHARDS: i32 = 4;
/// Records are written in steps, so that every fault finds some in flight.
const STEP: u64 = 250;
const STEP_PAUSE: Duration = Duration::from_millis(250);
/// Longer than a commit takes.
const SENT: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(240);

/// What happens. Its victim is drawn from the same seed at that moment.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillServer,
    KillServerAndBridge,
    KillBridge,
    PauseBridge,
    KillZooKeeper,
}

const FAULTS: [Fault; 5] =
    [Fault::KillServer, Fault::KillServerAndBridge, Fault::KillBridge, Fault::PauseBridge, Fault::KillZooKeeper];

/// What is down.
#[derive(Clone, Copy, PartialEq)]
enum Away {
    Server(usize),
    Bridge(usize),
    Paused(usize),
}

struct Drill {
    world: World,
    random: fastrand::Rng,
    away: Vec<(Instant, Away)>,
    /// Bridges that were killed while a batch of theirs was open.
    caught: usize,
    /// Servers that ended by themselves.
    ended: usize,
}

impl Drill {
    /// Each fault happens this many times.
    fn run(layout: Layout, rounds: usize, seed: u64) {
        let world = World::start(layout, SHARDS);
        let client = world.client.clone();
        let random = fastrand::Rng::with_seed(seed);
        let mut drill = Drill { world, random, away: Vec::new(), caught: 0, ended: 0 };
        let began = Instant::now();
        let done = Arc::new(AtomicBool::new(false));
        let enough = done.clone();
        let writer = runtime().spawn(async move {
            let mut records = 0;
            while !enough.load(Ordering::Relaxed) {
                put_orders(&client, "orders", records, STEP).await?;
                records += STEP;
                tokio::time::sleep(STEP_PAUSE).await;
            }
            Ok::<u64, String>(records)
        });
        let mut faults = FAULTS.repeat(rounds);
        drill.random.shuffle(&mut faults);
        for fault in faults {
            let pause = Duration::from_millis(drill.random.u64(200..2_500));
            drill.go_on(Instant::now() + pause);
            println!("{:6.1} s: {fault:?}", began.elapsed().as_secs_f64());
            drill.inflict(fault);
        }
        done.store(true, Ordering::Relaxed);
        let records = block_on(writer).expect("the writer ends").expect("all records are put");
        while let Some(next) = drill.away.iter().map(|(at, _)| *at).min() {
            drill.go_on(next);
        }
        drill.wait_until_complete(records);
        println!(
            "{layout:?}, SEED={seed}: {records} records, {:.1} s; bridges killed with an open batch {}, open batches found {}, \
             blocks dropped since the servers last started {}, servers that ended by themselves {}",
            began.elapsed().as_secs_f64(),
            drill.caught,
            drill.world.open_batches_found(),
            drill.world.dropped(),
            drill.ended,
        );
        assert!(drill.world.open_batches_found() > 0, "no fault hit an open batch: the drill tested nothing");
        drill.world.check(records);
    }

    /// Waits, and brings back whatever is due.
    fn go_on(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            let due: Vec<_> = self.away.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, who) in due {
                match who {
                    Away::Server(server) => {
                        self.world.cluster.servers[server].start_again().expect("a server comes back")
                    }
                    Away::Bridge(bridge) => self.world.bridges[bridge].start_again().expect("a bridge comes back"),
                    Away::Paused(bridge) => self.world.bridges[bridge].sigcont(),
                }
            }
            self.revive();
            if now >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Restarts servers that ended by themselves.
    fn revive(&mut self) {
        for (number, server) in self.world.cluster.servers.iter().enumerate() {
            if !server.is_running() && self.away.iter().all(|(_, who)| *who != Away::Server(number)) {
                server.restart().expect("a server comes back");
                self.ended += 1;
            }
        }
    }

    fn inflict(&mut self, fault: Fault) {
        let shorter = Duration::from_millis(self.random.u64(0..8_000));
        match fault {
            Fault::KillZooKeeper => self.world.cluster.zookeeper.restart().expect("ZooKeeper comes back"),
            Fault::PauseBridge => {
                let (bridge, _) = self.freeze_bridge();
                // For longer than its lease.
                self.away.push((Instant::now() + Duration::from_secs(3) + shorter / 2, Away::Paused(bridge)));
            }
            Fault::KillBridge | Fault::KillServerAndBridge => {
                let (bridge, open) = self.freeze_bridge();
                self.world.bridges[bridge].kill();
                self.caught += usize::from(open);
                self.away.push((Instant::now() + shorter, Away::Bridge(bridge)));
                if matches!(fault, Fault::KillServerAndBridge) {
                    self.kill_server(bridge, shorter);
                }
            }
            Fault::KillServer => {
                let server = self.present_bridge();
                self.kill_server(server, shorter);
            }
        }
    }

    fn kill_server(&mut self, server: usize, pause: Duration) {
        if self.away.iter().all(|(_, who)| *who != Away::Server(server)) {
            self.world.cluster.servers[server].kill();
            self.away.push((Instant::now() + pause, Away::Server(server)));
        }
    }

    /// A bridge that is not down, next to the server with its number. Waits while all are.
    fn present_bridge(&mut self) -> usize {
        loop {
            let present = self.present();
            if let Some(bridge) = self.random.choice(present) {
                return bridge;
            }
            self.go_on(Instant::now() + Duration::from_millis(50));
        }
    }

    fn present(&self) -> Vec<usize> {
        let gone = |bridge| [Away::Bridge(bridge), Away::Paused(bridge)];
        let here = |bridge: &usize| self.away.iter().all(|(_, who)| !gone(*bridge).contains(who));
        (0..self.world.bridges.len()).filter(here).collect()
    }

    /// Stops a bridge in the middle of a batch, so that it can no longer report its outcome. If
    /// none is caught like this for a while, one that may have no batch (false); but only after one
    /// was killed like this.
    fn freeze_bridge(&mut self) -> (usize, bool) {
        let patience = Instant::now() + if self.caught == 0 { DEADLINE } else { Duration::from_secs(3) };
        while Instant::now() < patience {
            let (busy, present) = (self.world.busy(), self.present());
            if let Some(bridge) = busy.into_iter().find(|bridge| present.contains(bridge)) {
                self.world.bridges[bridge].sigstop();
                // Meanwhile whatever it has already sent to ClickHouse completes.
                std::thread::sleep(SENT);
                if self.world.busy().contains(&bridge) {
                    return (bridge, true);
                }
                self.world.bridges[bridge].sigcont();
            }
            self.go_on(Instant::now());
        }
        let bridge = self.present_bridge();
        self.world.bridges[bridge].sigstop();
        (bridge, false)
    }

    fn wait_until_complete(&mut self, records: u64) {
        let until = Instant::now() + DEADLINE;
        while !self.world.is_complete(records) {
            assert!(Instant::now() < until, "{records} records did not come through\n{}", self.world.report());
            self.go_on(Instant::now() + Duration::from_millis(100));
        }
    }
}

/// The schedules to run: SEED=n runs that one, SEEDS=n runs this many new ones, the default is one.
/// ROUNDS=n repeats each fault.
fn run(test: &str, layout: Layout) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("ROUNDS").unwrap_or(1);
    let seeds = match number("SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SEEDS").unwrap_or(1)).map(|_| fastrand::u64(..)).collect(),
    };
    for seed in seeds {
        println!("{test}: SEED={seed} ROUNDS={rounds} repeats this schedule");
        Drill::run(layout, rounds as usize, seed);
    }
}

#[test]
fn a_view_and_a_bridge_on_each_of_three_servers() {
    run("a_view_and_a_bridge_on_each_of_three_servers", Layout::EachServer);
}

#[test]
fn a_view_on_one_of_two_servers() {
    run("a_view_on_one_of_two_servers", Layout::OneServer);
}

#[test]
fn a_view_for_all_replicas_of_a_replicated_database() {
    run("a_view_for_all_replicas_of_a_replicated_database", Layout::Database);
}

#[test]
fn the_printed_sql_on_a_cluster() {
    run("the_printed_sql_on_a_cluster", Layout::OnCluster);
}
