//! The table in DynamoDB: a parallel scan, and items by key, within a rate of read capacity units.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::{Blob, base64};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::key::Key;
use super::pace::Pace;
use super::unmarshal;
use super::value::{Item, flat};
use crate::dynamodb::{Attributes, DynamoDb, KeyAttribute, KeyType, Page, Table};
use domain::error::Error;
use domain::limits::{BATCH_GET_ITEMS, SCAN_PAGE_UNITS, VERIFY_PACE_LOOK};

/// A table, read at a limited rate.
#[derive(Clone)]
pub struct Source {
    dynamodb: Arc<DynamoDb>,
    /// Its description.
    pub table: Arc<Table>,
    began: Instant,
    pace: Arc<Mutex<Pace>>,
    /// Its keys are random, so nobody can craft two items with the same fingerprint; and items are
    /// compared only if they have the same key, so 64 bits are enough.
    hasher: RandomState,
}

/// Keys and fingerprints of a page.
type Prints = Vec<(Key, u64)>;

impl Source {
    /// A source limited to `rcu` read capacity units per second.
    pub fn new(dynamodb: DynamoDb, table: Table, rcu: u32) -> Source {
        Source {
            dynamodb: Arc::new(dynamodb),
            table: Arc::new(table),
            began: Instant::now(),
            pace: Arc::new(Mutex::new(Pace::new(rcu))),
            hasher: RandomState::new(),
        }
    }

    /// Read capacity units consumed so far.
    pub fn units(&self) -> f64 {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).used()
    }

    /// The fingerprint of an item, with sets as lists.
    pub fn print(&self, item: Item) -> u64 {
        self.hasher.hash_one(flat(item))
    }

    /// Scans the table. Pages arrive as they are read; an error is the last message.
    pub fn scan(&self, segments: u32) -> mpsc::Receiver<Result<Prints, Error>> {
        let (sender, receiver) = mpsc::channel(1);
        for segment in 0..segments {
            let (source, sender) = (self.clone(), sender.clone());
            tokio::spawn(async move {
                if let Err(error) = source.segment(segment, segments, &sender).await {
                    let _ = sender.send(Err(error)).await;
                }
            });
        }
        receiver
    }

    /// One segment, until its end or until the receiver is dropped.
    async fn segment(
        &self,
        segment: u32,
        segments: u32,
        sender: &mpsc::Sender<Result<Prints, Error>>,
    ) -> Result<(), Error> {
        let (mut from, mut estimate) = (None, SCAN_PAGE_UNITS);
        loop {
            self.wait(estimate).await;
            let answer = self.dynamodb.scan(&self.table.name, segment, segments, from).await;
            self.spent(estimate, answer.as_ref().ok().map(|(page, _)| page));
            let (page, next) = answer?;
            estimate = page.units;
            let prints = page.items.iter().map(|attributes| {
                let item = unmarshal::item(attributes);
                let key = Key::of(&item, &self.table.keys).ok_or_else(|| self.no_key())?;
                Ok((key, self.print(item)))
            });
            if sender.send(Ok(prints.collect::<Result<Prints, Error>>()?)).await.is_err() || next.is_none() {
                return Ok(());
            }
            from = next;
        }
    }

    /// Items by key, strongly consistent, and how DynamoDB spells the key. Keys without an item are
    /// left out.
    pub async fn get(&self, keys: &[Key]) -> Result<HashMap<Key, (Item, Vec<String>)>, Error> {
        let mut left: Vec<Attributes> = keys.iter().map(|key| self.attributes(key)).collect::<Result<_, _>>()?;
        let mut found = HashMap::new();
        while !left.is_empty() {
            let asked = left.split_off(left.len().saturating_sub(BATCH_GET_ITEMS));
            let estimate = asked.len() as f64;
            self.wait(estimate).await;
            let answer = self.dynamodb.get(&self.table.name, asked).await;
            self.spent(estimate, answer.as_ref().ok().map(|(page, _)| page));
            let (page, again) = answer?;
            if page.items.is_empty() && !again.is_empty() {
                sleep(VERIFY_PACE_LOOK).await;
            }
            left.extend(again);
            for attributes in &page.items {
                let item = unmarshal::item(attributes);
                let key = Key::of(&item, &self.table.keys).ok_or_else(|| self.no_key())?;
                let number = |(key, value): (&KeyAttribute, &str)| match attributes.get(&key.name) {
                    Some(AttributeValue::N(text)) => text.clone(),
                    _ => value.to_owned(),
                };
                let spelled = self.table.keys.iter().zip(key.values()).map(number).collect();
                found.insert(key, (item, spelled));
            }
        }
        Ok(found)
    }

    fn attributes(&self, key: &Key) -> Result<Attributes, Error> {
        let attribute = |ty: KeyType, text: &str| {
            Some(match ty {
                KeyType::S => AttributeValue::S(text.into()),
                KeyType::N => AttributeValue::N(text.into()),
                KeyType::B => AttributeValue::B(Blob::new(base64::decode(text).ok()?)),
            })
        };
        let values = self.table.keys.iter().zip(key.values());
        let attributes = values.map(|(key, text)| Some((key.name.clone(), attribute(key.ty, text)?)));
        attributes.collect::<Option<Attributes>>().ok_or_else(|| self.no_key())
    }

    async fn wait(&self, estimate: f64) {
        loop {
            let begun = self.pace.lock().unwrap_or_else(PoisonError::into_inner).begin(self.began.elapsed(), estimate);
            let Err(wait) = begun else { return };
            // Another request may turn out to need less than estimated.
            sleep(wait.min(VERIFY_PACE_LOOK)).await;
        }
    }

    fn spent(&self, estimate: f64, page: Option<&Page>) {
        let units = page.map_or(0.0, |page| page.units);
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).end(estimate, units);
    }

    fn no_key(&self) -> Error {
        Error::Unavailable(format!(
            "DynamoDB table '{}' returned an item without its key: its key schema was changed while it was read; run this again",
            self.table.name
        ))
    }
}
