//! Rows that ClickHouse refuses, and where they are stored.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::dice::Dice;
use super::records::{Place, number, parts, row};
use domain::batch::{Batch, ShardRange};
use domain::error::Error;
use domain::ports::{Kept, Quarantine, QuarantinedRow};
use domain::record::RecordRef;

/// The rows of a batch.
pub fn places(batch: &Batch) -> impl Iterator<Item = Place> {
    let of = |range: &ShardRange| {
        let place =
            |r: RecordRef<'_>| (row(r.sequence_number.parse().unwrap(), r.sub_sequence), range.shard_id.clone());
        range.records().map(place).collect::<Vec<_>>()
    };
    batch.ranges.iter().flat_map(of)
}

/// The table of rows that cannot be inserted. It outlives every process.
pub struct FakeQuarantine {
    dice: Arc<Dice>,
    rows: Mutex<BTreeMap<Place, Vec<u8>>>,
    /// The payloads of rows that were refused on their own, as sent to ClickHouse.
    sent: Mutex<BTreeMap<Place, Vec<u8>>>,
    /// Sequence numbers divisible by this belong to bad rows; 0 for none.
    every: AtomicU64,
    /// It is unreachable.
    pub away: AtomicBool,
    /// It accepts no further row.
    pub full: AtomicBool,
}

impl FakeQuarantine {
    /// Empty, and no row is bad.
    pub fn new(dice: Arc<Dice>) -> Arc<FakeQuarantine> {
        let (rows, sent, every, away, full) = Default::default();
        Arc::new(FakeQuarantine { dice, rows, sent, every, away, full })
    }

    /// From now on, each row whose sequence number is divisible by `every` is bad.
    pub fn poison(&self, every: u64) {
        self.every.store(every, Ordering::Relaxed);
    }

    /// Whether ClickHouse refuses this row.
    pub fn is_bad(&self, place: &Place) -> bool {
        let every = u128::from(self.every.load(Ordering::Relaxed));
        let bad = || {
            let at = parts(place.0);
            (number(&at.sequence) + u128::from(at.sub)).is_multiple_of(every)
        };
        every > 0 && bad()
    }

    /// Whether ClickHouse refuses a batch.
    pub fn refuses(&self, batch: &Batch) -> bool {
        if self.every.load(Ordering::Relaxed) == 0 {
            return false;
        }
        if let (1, Some(place)) = (batch.rows(), places(batch).next()) {
            let payload = batch.ranges[0].records().next().map(|row| row.payload.to_vec());
            self.sent.lock().unwrap().insert(place, payload.unwrap_or_default());
        }
        places(batch).any(|place| self.is_bad(&place))
    }

    /// What was sent to ClickHouse of a row that it refused on its own.
    pub fn sent(&self, place: &Place) -> Option<Vec<u8>> {
        self.sent.lock().unwrap().get(place).cloned()
    }

    /// Whether a row is stored.
    pub fn holds(&self, place: &Place) -> bool {
        self.rows.lock().unwrap().contains_key(place)
    }

    /// The stored payload of a row.
    pub fn payload(&self, place: &Place) -> Option<Vec<u8>> {
        self.rows.lock().unwrap().get(place).cloned()
    }

    /// The places of the stored rows.
    pub fn places(&self) -> Vec<Place> {
        self.rows.lock().unwrap().keys().cloned().collect()
    }
}

#[async_trait]
impl Quarantine for FakeQuarantine {
    async fn put(&self, bad: &QuarantinedRow) -> Result<Kept, Error> {
        self.dice.travel(20).await;
        let lost = || Err(Error::Unavailable("the quarantine does not answer".into()));
        if self.away.load(Ordering::Relaxed) || self.dice.trouble(5) {
            return lost();
        }
        if self.full.load(Ordering::Relaxed) {
            return Ok(Kept::Full);
        }
        let place = (row(bad.sequence_number.parse().unwrap(), bad.sub_sequence_number), bad.shard_id.clone());
        self.rows.lock().unwrap().insert(place, bad.raw_message.clone());
        if self.dice.trouble(5) { lost() } else { Ok(Kept::Yes) }
    }
}
