//! A table that many tasks write to, and the change events of every write in a Kinesis stream.
//!
//! Each task owns its items, so it knows what they were before a write and in what order they
//! changed. Events are delivered at least once, as by DynamoDB: some twice, some of them much
//! later, and events of different items in another order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use super::Table;
use super::events::{Change, Precision, plain};
use super::items::{self, Item};
use super::writes;
use crate::engines::of_task;
use crate::world::{block_on, kinesis, runtime};

/// Events that a task collects for one call.
const EVENTS_PER_CALL: usize = 200;
/// The limit of BatchWriteItem; a transaction may have more.
pub const WRITES_PER_CALL: usize = 25;
const MAX_TRIES: u32 = 20;

/// Microseconds since 1970; no two calls get the same.
#[derive(Debug)]
pub struct Clock(AtomicI64);

impl Clock {
    /// A clock that returns the current time.
    pub fn new() -> Clock {
        Clock(AtomicI64::new(0))
    }

    /// A time after all that were returned before.
    pub fn next(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_micros() as i64;
        let later = |last: i64| Some(now.max(last + 1));
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later).expect("always some");
        now.max(last + 1)
    }

    /// The same in whole milliseconds, as in exports: all times returned before are earlier, all
    /// later ones are later.
    pub fn next_millisecond(&self) -> i64 {
        let time = (self.next() / 1_000 + 1) * 1_000;
        self.0.fetch_max(time, Ordering::SeqCst);
        time
    }
}

/// What a workload does.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub tasks: u64,
    /// Items of each task.
    pub items: u64,
}

#[derive(Debug)]
struct Shared {
    table: Table,
    stream: String,
    clock: Clock,
    /// Locked for reading by each write, so that nobody writes while it is locked for writing.
    gate: RwLock<()>,
    stopped: AtomicBool,
    writes: AtomicU64,
    events: AtomicU64,
}

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts the tasks.
    pub fn start(table: &Table, stream: &str, plan: &Plan) -> Workload {
        let shared = Arc::new(Shared {
            table: table.clone(),
            stream: stream.to_owned(),
            clock: Clock::new(),
            gate: RwLock::new(()),
            stopped: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            events: AtomicU64::new(0),
        });
        let task = |n: u64| {
            let items = vec![None; plan.items as usize];
            let rng = Rng::with_seed(plan.seed.wrapping_mul(31).wrapping_add(n));
            let task = Task {
                shared: shared.clone(),
                first: n * plan.items,
                items,
                rng,
                events: vec![],
                late: VecDeque::new(),
            };
            runtime().spawn(of_task(task.run()))
        };
        Workload { tasks: (0..plan.tasks).map(task).collect(), shared }
    }

    /// How many items were written, including deleted ones.
    pub fn writes(&self) -> u64 {
        assert!(!self.tasks.iter().any(JoinHandle::is_finished), "a writer failed");
        self.shared.writes.load(Ordering::SeqCst)
    }

    /// Runs `look` while nobody writes, with the time of that point: writes before it have earlier
    /// versions, those after it later ones.
    pub fn at_rest<T>(&self, look: impl FnOnce(i64) -> T) -> T {
        let _closed = block_on(self.shared.gate.write());
        look(self.shared.clock.next_millisecond())
    }

    /// Stops the writes and delivers all events. Returns how many items were written and how many
    /// events were put.
    pub fn stop(self) -> (u64, u64) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for task in self.tasks {
            block_on(task).expect("a task that ends well");
        }
        (self.shared.writes.load(Ordering::SeqCst), self.shared.events.load(Ordering::SeqCst))
    }
}

/// An undelivered event: the number of its item, the partition key of the record, its data.
type Event = (usize, String, Vec<u8>);

/// One writer.
struct Task {
    shared: Arc<Shared>,
    /// The number of its first item.
    first: u64,
    /// The shape of its items.
    items: Vec<Option<Item>>,
    rng: Rng,
    /// Not yet delivered, in order.
    events: Vec<Event>,
    /// To be delivered once more.
    late: VecDeque<Event>,
}

impl Task {
    async fn run(mut self) {
        while !self.shared.stopped.load(Ordering::SeqCst) {
            {
                let shared = self.shared.clone();
                let _open = shared.gate.read().await;
                self.write().await;
            }
            if self.events.len() >= EVENTS_PER_CALL {
                self.deliver().await;
            }
        }
        let late = std::mem::take(&mut self.late);
        self.events.extend(late);
        self.deliver().await;
    }

    /// One API call, or a few that belong together.
    async fn write(&mut self) {
        let one = self.rng.usize(..self.items.len());
        match self.rng.u8(..20) {
            0..4 => self.put(one).await,
            4..8 => self.update(one).await,
            8..10 => self.delete(one, false).await,
            10 => {
                self.delete(one, false).await;
                self.put(one).await;
            }
            // ministack writes no event for a time-to-live deletion, so the test deletes the item
            // on DynamoDB's behalf.
            11 => self.delete(one, true).await,
            12..17 => self.batch().await,
            _ => self.transaction().await,
        }
    }

    async fn put(&mut self, n: usize) {
        let new = self.some_item(n);
        let old = writes::put(&self.shared.table, &new).await;
        self.changed(n, old, Some(new), false);
    }

    async fn update(&mut self, n: usize) {
        let key = self.key(n);
        let update = writes::Update::random(&mut self.rng, &key);
        let new = writes::update(&self.shared.table, &update).await;
        let old = self.items[n].take();
        self.changed(n, old, Some(new), false);
    }

    async fn delete(&mut self, n: usize, ttl: bool) {
        let old = writes::delete(&self.shared.table, self.key(n)).await;
        self.changed(n, old, None, ttl);
    }

    async fn batch(&mut self) {
        let mut wanted = Vec::new();
        for n in self.some_items() {
            let new = (self.rng.u8(..5) > 0).then(|| self.some_item(n));
            wanted.push((n, self.key(n), new));
        }
        writes::batch(&self.shared.table, wanted.iter().map(|(_, key, new)| (key, new.as_ref()))).await;
        for (n, _, new) in wanted {
            let old = self.items[n].take();
            self.changed(n, old, new, false);
        }
    }

    async fn transaction(&mut self) {
        let mut wanted = Vec::new();
        for n in self.some_items() {
            let key = self.key(n);
            wanted.push((
                n,
                match self.rng.u8(..6) {
                    0 => writes::Write::Delete(key),
                    1..4 => writes::Write::Put(self.some_item(n)),
                    _ => writes::Write::Update(writes::Update::random(&mut self.rng, &key)),
                },
            ));
        }
        // It returns nothing about the items, so they are read afterwards.
        writes::transact(&self.shared.table, wanted.iter().map(|(_, write)| write)).await;
        let keys: Vec<Item> = wanted.iter().map(|(n, _)| self.key(*n)).collect();
        let now = writes::get(&self.shared.table, &keys).await;
        for ((n, _), new) in wanted.into_iter().zip(now) {
            let old = self.items[n].take();
            self.changed(n, old, new, false);
        }
    }

    /// Records a change; from nothing to nothing is not one.
    fn changed(&mut self, n: usize, old: Option<Item>, new: Option<Item>, ttl: bool) {
        let shared = &self.shared;
        shared.writes.fetch_add(1, Ordering::SeqCst);
        if old.is_some() || new.is_some() {
            let (table, keys, micros) = (&*shared.table.name, shared.table.keys, shared.clock.next());
            let change = Change {
                table,
                keys,
                old: old.as_ref(),
                new: new.as_ref(),
                micros,
                precision: Precision::Microsecond,
                ttl,
            };
            let key = &new.as_ref().or(old.as_ref()).expect("an image")[keys[0].0];
            self.events.push((n, plain(key), change.event().into_bytes()));
        }
        self.items[n] = new;
    }

    /// Puts the events into the stream: some twice, some of them later, and neighbours of different
    /// items in another order.
    async fn deliver(&mut self) {
        let mut events = Vec::with_capacity(self.events.len() + 20);
        for event in std::mem::take(&mut self.events) {
            match self.rng.u8(..50) {
                0 => events.push(event.clone()),
                1 => self.late.push_back(event.clone()),
                2 => events.extend(self.late.pop_front()),
                _ => {}
            }
            events.push(event);
        }
        for n in 1..events.len() {
            if events[n - 1].0 != events[n].0 && self.rng.u8(..5) == 0 {
                events.swap(n - 1, n);
            }
        }
        self.shared.events.fetch_add(events.len() as u64, Ordering::SeqCst);
        let records: Vec<(String, Vec<u8>)> = events.into_iter().map(|(_, key, data)| (key, data)).collect();
        for attempt in 1.. {
            // A record that a failed call has accepted arrives twice.
            match stack::load::put_records(kinesis(), &self.shared.stream, records.iter().cloned()).await {
                Ok(_) => return,
                Err(error) => assert!(attempt < MAX_TRIES, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn key(&self, n: usize) -> Item {
        items::key(self.shared.table.keys, self.first + n as u64)
    }

    fn some_item(&mut self, n: usize) -> Item {
        items::item(&mut self.rng, self.shared.table.keys, self.first + n as u64)
    }

    /// Different items, as many as a call accepts.
    fn some_items(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.items.len()).collect();
        self.rng.shuffle(&mut all);
        all.truncate(WRITES_PER_CALL);
        all
    }
}
