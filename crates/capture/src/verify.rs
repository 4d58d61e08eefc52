//! `dynamodb verify`: whether a table in ClickHouse has exactly the items of a table in DynamoDB,
//! while changes keep flowing.
//!
//! The first pass scans DynamoDB into memory, as one fingerprint per key, and compares it with all
//! rows in ClickHouse. Items that are not equal are rechecked in rounds, key by key, with
//! DynamoDB's own types: first DynamoDB, strongly consistent, then ClickHouse, which can only be
//! newer.

mod key;
mod pace;
mod report;
mod rounds;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod unmarshal;
mod value;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use crate::dynamodb::DynamoDb;
use crate::error::CommandError;
use crate::flags::{self, VerifyFlags};
use adapters::clickhouse::ClickHouse;
use config::Config;
use domain::limits::{BATCH_GET_ITEMS, VERIFY_CANDIDATE_BYTES, VERIFY_ITEM_BYTES, VERIFY_PAUSE_FIRST, VERIFY_PROGRESS};
use key::Key;
use report::{Found, Report};
use rounds::{History, Version, brought, pause, round_until};
use source::Source;
use target::{Row, Target};
use value::Item;

/// Runs the comparison. Returns the text for standard output, and whether everything is equal.
pub async fn verify(config: &Config, flags: &VerifyFlags) -> Result<(String, bool), CommandError> {
    let (database, name) = match &flags.target {
        Some(target) => flags::table("target", target)?,
        None => ("default".to_owned(), flags.table.clone()),
    };
    let dynamodb = DynamoDb::from_environment().await?;
    let table = dynamodb.table(&flags.table).await?;
    let clickhouse =
        ClickHouse::new(&config.clickhouse.url, &config.clickhouse.user, config.clickhouse.password.expose());
    let target = Target::open(clickhouse, &database, &name, &table.name, &table.keys).await?;
    let created = table.created_ms.saturating_mul(1_000);
    let verifier = Verifier { source: Source::new(dynamodb, table, flags.rcu), target, flags, memory: config.memory };
    let mut report = Report {
        table: flags.table.clone(),
        keys: verifier.source.table.keys.clone(),
        created,
        target: verifier.target.name.clone(),
        mark_deleted: verifier.target.mark_deleted(created),
        limit: flags.limit,
        ..Report::default()
    };
    verifier.run(&mut report).await?;
    Ok((report.text(), report.is_equal()))
}

struct Verifier<'a> {
    source: Source,
    target: Target,
    flags: &'a VerifyFlags,
    /// Bytes.
    memory: usize,
}

/// An item that was not equal.
struct Candidate {
    key: Key,
    /// The key as its row spells it, if there was a row.
    spelled: Option<Vec<String>>,
    history: History,
    found: Found,
}

impl Verifier<'_> {
    async fn run(&self, report: &mut Report) -> Result<(), CommandError> {
        let began = Instant::now();
        let mut progress = Progress::new();
        let prints = self.scan(&mut progress).await?;
        report.in_dynamodb = prints.len() as u64;
        let mut candidates = self.compare(prints, report, &mut progress).await?;
        report.looked_again = candidates.len() as u64;
        let looking = Instant::now();
        let (deadline, mut next) = (self.flags.timeout, VERIFY_PAUSE_FIRST);
        while !candidates.is_empty() {
            self.round(&mut candidates, looking, &mut progress).await?;
            report.rounds += 1;
            let Some((wait, after)) = pause(looking.elapsed(), deadline, next) else { break };
            if !candidates.is_empty() {
                sleep(wait).await;
            }
            next = after;
        }
        if !candidates.is_empty() {
            report.newest = self.target.newest().await?;
        }
        report.unequal = candidates.into_iter().map(|c| (c.key, c.found, c.history.verdict(deadline))).collect();
        report.took = began.elapsed();
        report.units = self.source.units();
        Ok(())
    }

    /// First pass, DynamoDB.
    async fn scan(&self, progress: &mut Progress) -> Result<HashMap<Key, u64>, CommandError> {
        let (mut prints, mut bytes) = (HashMap::new(), 0);
        let mut pages = self.source.scan(self.flags.segments);
        while let Some(page) = pages.recv().await {
            for (key, print) in page? {
                bytes += key.len() + VERIFY_ITEM_BYTES;
                prints.insert(key, print);
            }
            if bytes > self.memory {
                return Err(CommandError::Refused(format!(
                    "the keys of DynamoDB table '{}' need more than --memory {} MiB: that was enough for {} items, about {} bytes each; raise it",
                    self.flags.table,
                    self.memory >> 20,
                    prints.len(),
                    bytes / prints.len().max(1)
                )));
            }
            progress.say(|| {
                format!("{} items scanned in DynamoDB, {:.0} read capacity units", prints.len(), self.source.units())
            });
        }
        Ok(prints)
    }

    /// First pass, ClickHouse.
    async fn compare(
        &self,
        mut prints: HashMap<Key, u64>,
        report: &mut Report,
        progress: &mut Progress,
    ) -> Result<Vec<Candidate>, CommandError> {
        let mut candidates = Vec::new();
        let candidate = |key, spelled, found| Candidate { key, spelled, history: History::default(), found };
        let most = self.memory / VERIFY_CANDIDATE_BYTES;
        let (mut rows, mut older, mut too_many) = (0, 0, 0);
        let created = report.created;
        let take = |key: Key, row: Row| {
            let Row { item: Some(item), version, spelled } = row else { return };
            rows += 1;
            let ours = prints.remove(&key);
            if ours == Some(self.source.print(item)) {
                older += u64::from(version < created);
            } else if candidates.len() < most {
                let found = if ours.is_some() { Found::Different(Vec::new(), 0) } else { Found::Extra(version) };
                candidates.push(candidate(key, Some(spelled), found));
            } else {
                too_many += 1;
            }
            progress.say(|| format!("{rows} items compared with ClickHouse, {} not equal yet", candidates.len()));
        };
        self.target.each(take).await?;
        (report.in_clickhouse, report.older_and_equal) = (rows, older);
        let only_here = prints.len();
        report.compared = rows + only_here as u64;
        if too_many > 0 || candidates.len() + only_here > most {
            return Err(CommandError::Refused(format!(
                "{} of {} items are not equal, more than can be rechecked with --memory {} MiB: is {} the target of this table, and was it loaded?",
                candidates.len() + too_many + only_here,
                report.compared,
                self.memory >> 20,
                self.target.name
            )));
        }
        candidates.extend(prints.into_keys().map(|key| candidate(key, None, Found::Missing)));
        candidates.sort_by(|a, b| a.key.values().cmp(&b.key.values()));
        candidates.dedup_by(|a, b| a.key == b.key);
        Ok(candidates)
    }

    /// Rechecks the items in order, as many as time allows, and removes those that are equal.
    async fn round(
        &self,
        candidates: &mut Vec<Candidate>,
        looking: Instant,
        progress: &mut Progress,
    ) -> Result<(), CommandError> {
        let until = round_until(looking.elapsed(), self.flags.timeout);
        let mut all = std::mem::take(candidates).into_iter();
        loop {
            let mut some: Vec<Candidate> = all.by_ref().take(BATCH_GET_ITEMS).collect();
            if some.is_empty() {
                break;
            }
            let equal = self.look(&mut some, looking).await?;
            candidates.extend(some.into_iter().zip(equal).filter(|(_, equal)| !equal).map(|(candidate, _)| candidate));
            progress.say(|| format!("{} items are not equal yet", candidates.len() + all.len()));
            if looking.elapsed() >= until {
                break;
            }
        }
        candidates.extend(all);
        Ok(())
    }

    /// Whether each of at most [`BATCH_GET_ITEMS`] items is equal now.
    async fn look(&self, candidates: &mut [Candidate], looking: Instant) -> Result<Vec<bool>, CommandError> {
        let keys: Vec<Key> = candidates.iter().map(|candidate| candidate.key.clone()).collect();
        let items = self.source.get(&keys).await?;
        let (read, now) = (now_micros(), looking.elapsed());
        let spellings = |candidate: &Candidate| -> Vec<Vec<String>> {
            let plain = candidate.key.values().into_iter().map(String::from).collect();
            let stored = items.get(&candidate.key).map(|(_, spelled)| spelled.clone());
            let mut all: Vec<_> = [Some(plain), stored, candidate.spelled.clone()].into_iter().flatten().collect();
            all.sort();
            all.dedup();
            all
        };
        let rows = self.target.of_keys(&candidates.iter().flat_map(spellings).collect::<Vec<_>>(), true).await?;
        let none = Vec::new();
        let counting = |key: &Key| -> Vec<(i64, &Item)> {
            let rows = rows.get(key).unwrap_or(&none).iter();
            rows.filter_map(|row| Some((row.version, row.item.as_ref()?))).collect()
        };
        let mut equal = Vec::new();
        for candidate in candidates.iter() {
            let ours = items.get(&candidate.key).map(|(item, _)| item);
            let rows = counting(&candidate.key);
            equal.push(rows.len() <= 1 && brought(ours, rows.first().map(|(_, item)| *item), &[], read));
        }
        // Anything that changed after it was read is found among the versions not merged away yet.
        let others = candidates.iter().zip(&equal).filter(|(_, equal)| !**equal).flat_map(|(c, _)| spellings(c));
        let others: Vec<_> = others.collect();
        let versions = if others.is_empty() { HashMap::new() } else { self.target.of_keys(&others, false).await? };
        for (candidate, equal) in candidates.iter_mut().zip(&mut equal).filter(|(_, equal)| !**equal) {
            let ours = items.get(&candidate.key).map(|(item, _)| item);
            let rows = counting(&candidate.key);
            let versions = versions.get(&candidate.key).unwrap_or(&none).iter();
            let versions: Vec<Version<'_>> = versions.map(|row| (row.version, row.item.as_ref())).collect();
            *equal = rows.len() <= 1
                && (brought(ours, rows.first().map(|(_, item)| *item), &versions, read)
                    || candidate.history.was_brought(&self.prints(&versions)));
            candidate.history.unequal(now, self.print(ours), read);
            candidate.found = Found::new(ours, &rows);
        }
        Ok(equal)
    }

    fn prints(&self, versions: &[Version<'_>]) -> Vec<(i64, u64)> {
        versions.iter().map(|(version, item)| (*version, self.print(*item))).collect()
    }

    /// The fingerprint of an item, or of a missing one.
    fn print(&self, item: Option<&Item>) -> u64 {
        item.map_or(0, |item| self.source.print(item.clone()))
    }
}

/// Progress messages on standard error.
struct Progress {
    began: Instant,
    said: Instant,
}

impl Progress {
    fn new() -> Progress {
        Progress { began: Instant::now(), said: Instant::now() }
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if self.said.elapsed() >= VERIFY_PROGRESS {
            self.said = Instant::now();
            eprintln!("{} s: {}", self.began.elapsed().as_secs(), text());
        }
    }
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
