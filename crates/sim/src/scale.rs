//! Many shards and many workers of one pipe: the requests to the store, and how long it takes until
//! the leases are distributed again.
//!
//! `make scale` prints this at full size, alone in its process, with the memory that a shard takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::clickhouse::FakeServer;
use super::fan_out::SharedKinesis;
use super::names::{PIPE, STREAM};
use super::world::{LEASE, WIDE, World, options};
use bridge::metrics::Metrics;
use bridge::pipe::heartbeat::Heartbeat;
use bridge::pipe::members::Members;
use bridge::pipe::{Deps, Pipes, PullOptions};
use bridge::read::budget::Budget;
use domain::lease::Lease;
use domain::limits::{BEATS_PER_LEASE, SHARD_REFRESH};
use domain::names::{PipeName, WorkerId};
use domain::ports::{StateError, StateStore, Versioned, Worker};
use testkit::MemoryStore;

/// Rows, with counters of the requests for them.
#[derive(Default)]
struct Counted {
    rows: MemoryStore,
    counts: [AtomicU64; 6],
}

/// What [`Counted`] counts, in order.
const COUNTED: [&str; 6] =
    ["lease reads", "lease rows read", "lease writes", "lease rows written", "heartbeats", "worker rows read"];
const READS: usize = 0;
const ROWS_READ: usize = 1;
const WRITES: usize = 2;
const ROWS_WRITTEN: usize = 3;
const BEATS: usize = 4;
const WORKERS_READ: usize = 5;

impl Counted {
    fn count(&self, what: usize, by: usize) {
        self.counts[what].fetch_add(by as u64, Ordering::Relaxed);
    }

    fn so_far(&self) -> [u64; 6] {
        std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed))
    }
}

#[async_trait]
impl StateStore for Counted {
    async fn leases(&self, pipe: Option<&PipeName>) -> Result<Vec<Versioned<Lease>>, StateError> {
        sleep(Duration::from_millis(5)).await;
        let rows = self.rows.leases(pipe).await?;
        self.count(READS, 1);
        self.count(ROWS_READ, rows.len());
        Ok(rows)
    }

    async fn create(&self, leases: &[Lease]) -> Result<(), StateError> {
        self.count(WRITES, 1);
        self.count(ROWS_WRITTEN, leases.len());
        sleep(Duration::from_millis(5)).await;
        self.rows.create(leases).await
    }

    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.count(WRITES, 1);
        self.count(ROWS_WRITTEN, leases.len());
        sleep(Duration::from_millis(5)).await;
        self.rows.update(leases).await
    }

    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.count(WRITES, 1);
        self.count(ROWS_WRITTEN, leases.len());
        self.rows.delete(leases).await
    }

    async fn workers(&self) -> Result<Vec<Worker>, StateError> {
        sleep(Duration::from_millis(5)).await;
        let rows = self.rows.workers().await?;
        self.count(WORKERS_READ, rows.len());
        Ok(rows)
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError> {
        self.count(BEATS, 1);
        sleep(Duration::from_millis(5)).await;
        self.rows.heartbeat(worker).await
    }
}

/// One bridge and the view that keeps pulling from it.
struct Bridge(Vec<AbortHandle>);

impl Drop for Bridge {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

fn bridge(world: &Arc<World>, store: &Arc<Counted>, worker: &WorkerId) -> Bridge {
    let server = FakeServer::new(world.dice.clone());
    let members = Members::new(world.clock.clone(), LEASE);
    let heartbeat = Heartbeat::new(world.clock.clone(), LEASE, worker);
    let beat = heartbeat.clone().run(store.clone(), members.clone(), worker.to_string(), "here".into());
    let deps = Deps {
        kinesis: world.kinesis.clone(),
        fan_out: Arc::new(SharedKinesis(world.kinesis.clone())),
        store: store.clone(),
        views: server.clone(),
        quarantine: world.quarantine.clone(),
        clock: world.clock.clone(),
        budget: Budget::new(1 << 30),
        metrics: Metrics::new().unwrap(),
        members,
        heartbeat,
        worker_id: worker.clone(),
    };
    let pipes = Pipes::new(deps);
    let options = PullOptions {
        poll: Some(Duration::from_secs(10)),
        linger: Some(Duration::from_secs(1)),
        wait: Duration::from_secs(10),
        ..options(WIDE)
    };
    let pulls = async move {
        loop {
            server.begin();
            match pipes.pull(&PIPE, &STREAM, options.clone()).await {
                Ok(served) => {
                    served.deliver();
                    sleep(Duration::from_millis(100)).await;
                    server.end(Ok(()));
                }
                Err(error) => {
                    server.end(Err(error.to_string()));
                    sleep(Duration::from_secs(1)).await;
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    Bridge(vec![tokio::spawn(beat).abort_handle(), tokio::spawn(pulls).abort_handle()])
}

/// How many leases each worker has; `None` while one is free or the workers' shares differ by much.
async fn shared_out(store: &Counted, workers: &[WorkerId]) -> bool {
    let mut held: BTreeMap<&WorkerId, usize> = workers.iter().map(|w| (w, 0)).collect();
    let rows = store.rows.leases(Some(&PIPE)).await.unwrap();
    for row in &rows {
        match held.get_mut(&row.value.owner) {
            Some(count) => *count += 1,
            None => return false,
        }
    }
    let (most, least) = (held.values().max().unwrap(), held.values().min().unwrap());
    // The plan tolerates a fifth of the average.
    !rows.is_empty() && most - least <= rows.len() / workers.len() / 5 + 1
}

struct Report<'a> {
    world: &'a World,
    store: &'a Counted,
    shards: usize,
}

impl Report<'_> {
    /// Waits until the leases are distributed, and reports how long that took.
    async fn converges(&self, what: &str, workers: &[WorkerId]) {
        let (began, before) = (Instant::now(), self.store.so_far());
        while !shared_out(self.store, workers).await {
            assert!(began.elapsed() < 20 * LEASE, "{what}: not shared out after {:?}", began.elapsed());
            sleep(Duration::from_millis(500)).await;
        }
        let all: Vec<String> = self.since(before).iter().zip(COUNTED).map(|(n, what)| format!("{n} {what}")).collect();
        println!("{what}: shared out after {:.1?}, with {}", began.elapsed(), all.join(", "));
    }

    fn since(&self, before: [u64; 6]) -> [u64; 6] {
        let now = self.store.so_far();
        std::array::from_fn(|n| now[n] - before[n])
    }

    /// The requests of one minute, with a record in every shard at this interval, or none.
    async fn minute(&self, what: &str, every: Option<Duration>) -> [u64; 6] {
        let (began, before, cpu) = (Instant::now(), self.store.so_far(), cpu_seconds());
        while began.elapsed() < Duration::from_secs(60) {
            match every {
                Some(every) => {
                    self.world.kinesis.open_shards().iter().for_each(|shard| self.world.kinesis.put(shard, 2));
                    sleep(every).await;
                }
                None => sleep(Duration::from_secs(60)).await,
            }
        }
        let counted = self.since(before);
        let all: Vec<String> =
            counted.iter().zip(COUNTED).map(|(n, what)| format!("{:.1} {what}", *n as f64 / 60.0)).collect();
        let cpu = cpu_seconds() - cpu;
        println!("{what}, a second: {}; processor time of the minute: {cpu:.2} s", all.join(", "));
        counted
    }

    fn memory(&self, what: &str) {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        println!("memory {what}: {} MiB in this process, {} KiB a shard", pages >> 8, pages * 4 / self.shards);
    }
}

/// What this process has used so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, in brackets: user time and system time in clock ticks of 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// `SCALE` is `<shards>x<workers>`.
#[test]
fn many_shards_and_workers_are_shared_out() {
    let size = std::env::var("SCALE").unwrap_or("500x10".into());
    let (shards, workers) = size.split_once('x').expect("<shards>x<workers>");
    let (shards, workers) = (shards.parse().unwrap(), workers.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(shards, workers));
}

async fn run(shards: usize, count: usize) {
    println!("{shards} shards, {count} workers, lease duration {LEASE:?}");
    let (world, store) = (Arc::new(World::calm(shards)), Arc::<Counted>::default());
    let report = Report { world: &world, store: &store, shards };
    let names: Vec<WorkerId> = (0..count).map(|n| format!("worker-{n:03}").into()).collect();
    report.memory("before");
    let mut bridges: Vec<Bridge> = names.iter().map(|name| bridge(&world, &store, name)).collect();
    report.converges("all start at once", &names).await;
    report.memory("with all readers and rows");
    let busy = report.minute("with two records a shard every 5 s", Some(Duration::from_secs(5))).await;
    // The last records are committed, and the marks of idle shards written.
    sleep(Duration::from_secs(30)).await;
    let idle = report.minute("idle", None).await;
    report.memory("after that");
    if count > 1 {
        drop(bridges.pop());
        report.converges("one dies", &names[..count - 1]).await;
        bridges.push(bridge(&world, &store, &names[count - 1]));
        report.converges("one joins", &names).await;
    }
    // Must not get worse. Everyone reads all rows once per `SHARD_REFRESH`, and the first check may
    // fall into this minute.
    let (workers, shards) = (count as u64, shards as u64);
    let looks = 60 / SHARD_REFRESH.as_secs() + 1;
    assert!(idle[READS] <= workers * looks, "{idle:?}");
    assert!(idle[ROWS_READ] <= workers * looks * shards, "{idle:?}");
    assert!(idle[WRITES] <= workers, "the mark of idle shards at most: {idle:?}");
    let beats = workers * 60 * u64::from(BEATS_PER_LEASE) / LEASE.as_secs();
    assert!(idle[BEATS] <= beats + workers && idle[WORKERS_READ] <= (beats + workers) * workers, "{idle:?}");
    // Each record's shard is offered and committed once for each batch that it is in.
    assert!(busy[ROWS_WRITTEN] <= 2 * shards * 60 / 5 + 2 * shards, "{busy:?}");
    assert!(busy[READS] <= 2 * workers * looks, "{busy:?}");
}
