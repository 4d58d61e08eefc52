//! In-memory Kinesis: shards, splits, merges, trimming, pages of any size, and everything that goes
//! wrong with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use super::dice::{Dice, FakeClock};
use super::fan_out::Consumers;
use super::names::STREAM;
use super::records::{Held, Place, Put, items, number, row};
use domain::error::Error;
use domain::names::{ShardId, StreamName};
use domain::ports::{Clock, IteratorStart, KinesisApi, KinesisError, Page, Stream};
use domain::record::{Chunk, RecordRef};
use domain::shard::Shard;
use testkit::aggregate::aggregate;

/// Where it is.
const REGION: &str = "eu-west-1";
/// Its retention, unless it is changed.
pub const RETENTION_HOURS: i32 = 24;

/// A stream in its current state.
pub struct FakeKinesis {
    region: &'static str,
    pub(super) dice: Arc<Dice>,
    pub(super) clock: Arc<FakeClock>,
    state: Mutex<State>,
    pub(super) fan_out: Mutex<Consumers>,
}

#[derive(Default)]
struct State {
    shards: BTreeMap<ShardId, Held>,
    sequence: u128,
    /// The error that every call returns while set.
    outage: Option<Error>,
    /// Most calls are throttled.
    storm: bool,
    /// Some records contain several JSON documents.
    items: bool,
    /// The end of a parent names a merge's child as if it came from that parent alone.
    names_one_parent: bool,
    /// GetRecords fails.
    unreadable: bool,
    /// The retention, hours.
    retention: i32,
    /// Number of DescribeStreamSummary calls.
    described: u32,
}

impl FakeKinesis {
    /// A stream with this many open shards.
    pub fn new(dice: Arc<Dice>, clock: Arc<FakeClock>, shards: usize) -> Arc<FakeKinesis> {
        // Numbers gain a digit on the way, so that their order as text is not their order.
        let state = State { sequence: 9_900, retention: RETENTION_HOURS, ..State::default() };
        let kinesis = FakeKinesis { region: REGION, dice, clock, state: Mutex::new(state), fan_out: Mutex::default() };
        let (none, width) = (ShardId::default(), u128::MAX / shards as u128);
        for n in 0..shards as u128 {
            let last = if n + 1 == shards as u128 { u128::MAX } else { (n + 1) * width - 1 };
            kinesis.state().add(&none, &none, (n * width, last));
        }
        Arc::new(kinesis)
    }

    /// A stream of the same name in another region, with shards of the same names.
    pub fn elsewhere(&self) -> Arc<FakeKinesis> {
        let state = State { sequence: 9_900, ..State::default() };
        let (dice, clock) = (self.dice.clone(), self.clock.clone());
        let kinesis =
            FakeKinesis { region: "us-east-1", dice, clock, state: Mutex::new(state), fan_out: Mutex::default() };
        let (none, middle) = (ShardId::default(), u128::MAX / 2);
        for range in [(0, middle), (middle + 1, u128::MAX)] {
            kinesis.state().add(&none, &none, range);
        }
        kinesis.open_shards().iter().for_each(|shard| kinesis.put(shard, 3));
        Arc::new(kinesis)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ids of the open shards.
    pub fn open_shards(&self) -> Vec<ShardId> {
        self.state().shards.iter().filter(|(_, s)| s.open()).map(|(id, _)| id.clone()).collect()
    }

    /// Ids of all shards, including closed ones.
    pub fn shards_ever(&self) -> Vec<ShardId> {
        self.state().shards.keys().cloned().collect()
    }

    /// Number of shards, including closed ones.
    pub fn count(&self) -> usize {
        self.state().shards.len()
    }

    /// From now on some records contain several JSON documents, which only become rows for views
    /// that split them.
    pub fn put_items(&self) {
        self.state().items = true;
    }

    /// Appends `count` records to a shard, with a key that belongs there.
    pub fn put(&self, shard_id: &ShardId, count: u64) {
        let key = self.state().shards[shard_id].range.0;
        self.put_key(key, count);
    }

    /// Appends `count` records of one partition key to the shard that currently owns it, some of
    /// them aggregates. The key is its own hash.
    pub fn put_key(&self, key: u128, count: u64) {
        let at_ms = self.clock.now_ms();
        let state = &mut *self.state();
        let owner = |s: &&mut Held| s.open() && s.range.0 <= key && key <= s.range.1;
        let held = state.shards.values_mut().find(owner).expect("one open shard for each key");
        for _ in 0..count {
            state.sequence += 1 + u128::from(self.dice.below(3));
            let (sequence, filler) = (state.sequence, "x".repeat(self.dice.below(40) as usize));
            let (key, text) = (key.to_string(), format!("{}/{sequence}/{filler}", held.shard.id));
            let rows = if self.dice.trouble(25) { 1 + self.dice.below(6) as u32 } else { 0 };
            let payload = match rows {
                0 => text.into_bytes(),
                n if state.items && n % 2 == 0 => items(&text, n),
                n => aggregate(
                    &(0..n).map(|sub| (key.clone(), format!("{text}/{sub}").into_bytes())).collect::<Vec<_>>(),
                ),
            };
            held.records.push(Put { key, sequence, digits: sequence.to_string(), at_ms, payload, rows: rows.max(1) });
        }
    }

    /// Appends a record that becomes `rows` rows when it is read.
    pub fn put_payload(&self, shard_id: &ShardId, payload: &[u8], rows: u32) {
        let at_ms = self.clock.now_ms();
        let state = &mut *self.state();
        state.sequence += 1;
        let held = state.shards.get_mut(shard_id).unwrap();
        let (key, sequence, payload) = (held.range.0.to_string(), state.sequence, payload.to_vec());
        held.records.push(Put { key, sequence, digits: sequence.to_string(), at_ms, payload, rows });
    }

    /// Closes a shard and opens two in its place, each with half of its hash keys.
    pub fn split(&self, shard_id: &ShardId) -> [ShardId; 2] {
        let mut state = self.state();
        let (first, last) = state.close(shard_id);
        let (none, middle) = (ShardId::default(), first + (last - first) / 2);
        [state.add(shard_id, &none, (first, middle)), state.add(shard_id, &none, (middle + 1, last))]
    }

    /// Closes two neighbours and opens one in their place.
    pub fn merge(&self, one: &ShardId, other: &ShardId) -> ShardId {
        let mut state = self.state();
        let (a, b) = (state.close(one), state.close(other));
        assert!(a.1.checked_add(1) == Some(b.0) || b.1.checked_add(1) == Some(a.0), "only neighbours merge");
        state.add(one, other, (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Pairs of open shards with adjacent hash keys, in this order, no shard twice.
    pub fn neighbours(&self) -> Vec<(ShardId, ShardId)> {
        let state = self.state();
        let mut open: Vec<&Held> = state.shards.values().filter(|s| s.open()).collect();
        open.sort_by_key(|s| s.range.0);
        open.chunks_exact(2).map(|pair| (pair[0].shard.id.clone(), pair[1].shard.id.clone())).collect()
    }

    /// The date in a response header: whole seconds.
    pub fn date_ms(&self) -> i64 {
        let now_ms = self.clock.now_ms();
        now_ms - now_ms.rem_euclid(1_000)
    }

    /// Changes the retention, hours. Anything older expires immediately.
    pub fn keep(&self, hours: i32) {
        self.state().retention = hours;
        self.trim();
    }

    /// The retention, hours.
    pub fn retention(&self) -> i32 {
        self.state().retention
    }

    /// Number of DescribeStreamSummary calls.
    pub fn described(&self) -> u32 {
        self.state().described
    }

    /// Drops what has expired.
    pub fn trim(&self) {
        self.trim_before(self.clock.now_ms() - i64::from(self.retention()) * 3_600_000);
    }

    /// Drops what arrived before `ms`.
    pub fn trim_before(&self, ms: i64) {
        for held in self.state().shards.values_mut() {
            held.trimmed = held.records.partition_point(|r| r.at_ms < ms).max(held.trimmed);
        }
    }

    /// A closed shard expires as a whole.
    pub fn expire(&self, shard_id: &ShardId) {
        self.state().shards.remove(shard_id);
    }

    /// Drops the records of a shard before `sequence`.
    pub fn trim_shard(&self, shard_id: &ShardId, sequence: u128) {
        if let Some(held) = self.state().shards.get_mut(shard_id) {
            held.trimmed = held.at(sequence);
        }
    }

    /// The error that every call returns from now on; `None`: they work.
    pub fn outage(&self, error: Option<Error>) {
        self.state().outage = error;
    }

    /// From now on, the ends of shards name one parent of each child.
    pub fn name_one_parent(&self) {
        self.state().names_one_parent = true;
    }

    /// Makes GetRecords fail, or work again.
    pub fn outage_of_records(&self, outage: bool) {
        self.state().unreadable = outage;
    }

    /// Makes most calls be throttled, or none.
    pub fn storm(&self, storm: bool) {
        self.state().storm = storm;
    }

    /// The rows of a shard that have expired.
    pub fn trimmed(&self, shard_id: &ShardId) -> Vec<Place> {
        self.state().shards.get(shard_id).map(|s| s.places(0..s.trimmed)).unwrap_or_default()
    }

    /// The rows of a shard that arrived before `ms`.
    pub fn before(&self, shard_id: &ShardId, ms: i64) -> Vec<Place> {
        let before = |s: &Held| s.places(0..s.records.partition_point(|r| r.at_ms < ms));
        self.state().shards.get(shard_id).map(before).unwrap_or_default()
    }

    /// Every row ever put.
    pub fn all(&self) -> Vec<Place> {
        self.state().shards.values().flat_map(|s| s.places(0..s.records.len())).collect()
    }

    /// The rows of a shard after the row `from`, up to and including the row `to`.
    pub fn between(&self, shard_id: &ShardId, from: u128, to: u128) -> Vec<Place> {
        let state = self.state();
        let Some(held) = state.shards.get(shard_id) else { return Vec::new() };
        let first = held.records.partition_point(|r| row(r.sequence, r.rows.saturating_sub(1)) <= from);
        let last = first + held.records[first..].partition_point(|r| row(r.sequence, 0) <= to);
        let mut places = held.places(first..last);
        places.retain(|(row, _)| *row > from && *row <= to);
        places
    }

    /// The parents of a shard.
    pub fn parents(&self, shard_id: &ShardId) -> Vec<ShardId> {
        self.state().shards.get(shard_id).map(|s| s.shard.parents()).unwrap_or_default()
    }

    /// Whether a shard is closed.
    pub fn closed(&self, shard_id: &ShardId) -> bool {
        self.state().shards.get(shard_id).is_some_and(|s| !s.open())
    }

    pub(super) fn outage_now(&self) -> Result<(), Error> {
        self.state().outage.clone().map_or(Ok(()), Err)
    }

    /// The index of the record that `start` refers to.
    pub(super) fn index(&self, shard_id: &ShardId, start: &IteratorStart) -> Result<usize, KinesisError> {
        let state = self.state();
        let held = state.shards.get(shard_id).ok_or_else(|| no_shard(shard_id))?;
        Ok(match start {
            IteratorStart::TrimHorizon => held.trimmed,
            IteratorStart::Latest => held.records.len(),
            IteratorStart::AtTimestamp(ms) => held.records.partition_point(|r| r.at_ms < *ms).max(held.trimmed),
            IteratorStart::At(sequence) => held.at(number(sequence)),
            IteratorStart::After(sequence) => held.at(number(sequence) + 1),
        })
    }

    /// A page from `index` on, of at most `limit` records.
    pub(super) fn page(&self, shard_id: &ShardId, index: usize, limit: usize) -> Result<Page, KinesisError> {
        let state = self.state();
        let Some(held) = state.shards.get(shard_id) else { return Err(no_shard(shard_id)) };
        // Trimmed records are skipped silently, as in Kinesis.
        let index = index.max(held.trimmed);
        let mut count = (held.records.len() - index).min(limit).min(1 + self.dice.below(30) as usize);
        if self.dice.trouble(10) {
            // Kinesis may return nothing although there is more ahead.
            count = 0;
        }
        let mut records = Chunk::default();
        for put in &held.records[index..index + count] {
            let pushed = records.push(RecordRef {
                key: &put.key,
                timestamp_ms: put.at_ms,
                sequence_number: &put.digits,
                sub_sequence: 0,
                payload: &put.payload,
            });
            assert!(pushed);
        }
        let (next, behind) = (index + count, held.records.get(index + count).map(|r| r.at_ms));
        let now = self.clock.now_ms();
        // The end may come with the last records or after them.
        let ended = behind.is_none() && !held.open() && (count == 0 || self.dice.percent(50));
        let all = state.shards.values().take(if ended { usize::MAX } else { 0 });
        let children = all.filter(|s| s.shard.parents().iter().any(|p| p == shard_id));
        let one_parent = state.names_one_parent || self.dice.trouble(50);
        let named = |shard: &Shard| match one_parent {
            true => Shard { parent: shard_id.clone(), adjacent_parent: ShardId::default(), ..shard.clone() },
            false => shard.clone(),
        };
        Ok(Page {
            records,
            next: (!ended).then(|| format!("{next}@{now}")),
            millis_behind_latest: behind.map_or(0, |at_ms| 1 + now - at_ms),
            children: children.map(|s| named(&s.shard)).collect(),
        })
    }
}

impl State {
    fn add(&mut self, parent: &ShardId, adjacent_parent: &ShardId, range: (u128, u128)) -> ShardId {
        let id = ShardId::from(format!("shardId-{:012}", self.shards.len()));
        let shard = Shard {
            id: id.clone(),
            parent: parent.clone(),
            adjacent_parent: adjacent_parent.clone(),
            starting_hash_key: range.0.to_string(),
            ending_hash_key: range.1.to_string(),
            starting_sequence_number: self.sequence.to_string(),
            ending_sequence_number: String::new(),
        };
        self.shards.insert(id.clone(), Held { shard, range, records: Vec::new(), trimmed: 0 });
        id
    }

    fn close(&mut self, shard_id: &ShardId) -> (u128, u128) {
        let held = self.shards.get_mut(shard_id).unwrap();
        held.shard.ending_sequence_number = self.sequence.to_string();
        held.range
    }
}

fn no_shard(shard_id: &ShardId) -> KinesisError {
    KinesisError::Other(Error::NotFound(format!("there is no shard {shard_id}")))
}

#[async_trait]
impl KinesisApi for FakeKinesis {
    fn region(&self) -> &str {
        self.region
    }

    fn now_ms(&self) -> Option<i64> {
        Some(self.date_ms())
    }

    async fn streams(&self) -> Result<Vec<Stream>, Error> {
        Ok(vec![self.stream(&STREAM).await?])
    }

    async fn stream(&self, stream: &StreamName) -> Result<Stream, Error> {
        self.dice.travel(20).await;
        self.outage_now()?;
        self.state().described += 1;
        if *stream != *STREAM {
            return Err(Error::NotFound(format!("there is no stream '{stream}'")));
        }
        if self.dice.trouble(2) {
            return Err(Error::Unavailable("DescribeStreamSummary failed".into()));
        }
        Ok(Stream {
            name: STREAM.clone(),
            arn: format!("arn:aws:kinesis:{}:1:stream/{}", self.region, *STREAM),
            created_ms: 1,
            status: "ACTIVE".into(),
            mode: "PROVISIONED".into(),
            open_shards: self.open_shards().len() as i32,
            retention_hours: self.retention(),
        })
    }

    async fn shards(&self, _: &StreamName) -> Result<Vec<Shard>, Error> {
        self.dice.travel(20).await;
        self.outage_now()?;
        if self.dice.trouble(2) {
            return Err(Error::Unavailable("ListShards failed".into()));
        }
        Ok(self.state().shards.values().map(|s| s.shard.clone()).collect())
    }

    async fn iterator(
        &self,
        _: &StreamName,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<String, KinesisError> {
        self.dice.travel(10).await;
        self.outage_now().map_err(KinesisError::Other)?;
        if self.dice.trouble(2) {
            return Err(KinesisError::Throttled("GetShardIterator is throttled".into()));
        }
        Ok(format!("{}@{}", self.index(shard_id, start)?, self.clock.now_ms()))
    }

    async fn records(
        &self,
        _: &StreamName,
        shard_id: &ShardId,
        iterator: &str,
        limit: usize,
    ) -> Result<Page, KinesisError> {
        self.dice.travel(40).await;
        self.outage_now().map_err(KinesisError::Other)?;
        if self.dice.trouble(if self.state().storm { 80 } else { 4 }) {
            return Err(KinesisError::Throttled("GetRecords is throttled".into()));
        }
        if self.dice.trouble(3) || self.state().unreadable {
            return Err(KinesisError::Other(Error::Unavailable("GetRecords failed".into())));
        }
        let (index, issued_ms) = iterator.split_once('@').unwrap();
        if self.clock.now_ms() - issued_ms.parse::<i64>().unwrap() > 300_000 || self.dice.trouble(3) {
            return Err(KinesisError::IteratorExpired);
        }
        self.page(shard_id, index.parse().unwrap(), limit)
    }
}
