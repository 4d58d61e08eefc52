//! The views that pull pipes, as `check` looks at them: what each does now, and whether its
//! definition keeps what the README promises. The decisions are pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::ClickHouse;
use super::error::ClickHouseError;
use super::views::{confirms, place};
use domain::error::Error;
use domain::finding::{Finding, Verdict};
use domain::interface::Parameter;
use domain::ports::{Below, Views};
use percent_encoding::percent_decode_str;
use sql::definition::{engines, pulling_views, setup_done};
use sql::quote::identifier;

/// The status of a view after SYSTEM STOP VIEW.
const STOPPED: &str = "Disabled";

/// A view whose SELECT has the URL of a pull.
#[derive(Clone, Debug, Deserialize)]
pub struct PullingView {
    database: String,
    name: String,
    target: String,
    replaces: u8,
    /// Pipe and query of each URL.
    pulls: Vec<[String; 2]>,
    /// The address in the first URL; empty if it is computed.
    bridge: String,
    tries: String,
    threads: String,
    retries: String,
    status: String,
    exception: String,
    failed: u32,
    /// The tables that its rows end up in, by name.
    #[serde(skip)]
    tables: BTreeMap<String, Table>,
}

/// A table that the rows of a pipe end up in.
#[derive(Clone, Debug, Deserialize)]
struct Table {
    database: String,
    name: String,
    engine: String,
    engine_full: String,
}

#[derive(Deserialize)]
struct Setup {
    comment: String,
    address: String,
}

impl ClickHouse {
    /// The server's views that pull pipes.
    pub async fn pulling(&self) -> Result<Vec<PullingView>, ClickHouseError> {
        self.rows(&pulling_views()).await
    }

    /// A view with the tables that its rows end up in, also by way of views below its own table.
    pub async fn with_tables(&self, view: PullingView) -> Result<PullingView, Error> {
        let below = self.below(&view.target, &Below::default()).await?;
        let tables: Vec<Table> = self.rows(&engines(&below.tables)).await.map_err(|error| self.foreign(&error))?;
        let named = tables.into_iter().map(|table| (format!("{}.{}", table.database, table.name), table));
        Ok(PullingView { tables: named.collect(), ..view })
    }

    /// Which `sql setup` created the views in a database, and the address of the bridge in them;
    /// `None` if there are none.
    pub async fn setup(&self, database: &str) -> Result<Option<(String, String)>, ClickHouseError> {
        let found: Vec<Setup> = self.rows(&setup_done(database)).await?;
        Ok(found.into_iter().next().map(|setup| (setup.comment, setup.address)))
    }

    /// Asks the bridge for its pipes by way of ClickHouse, as a reader of `kinesis.pipes` does.
    pub async fn shards_by_view(&self, database: &str) -> Result<u64, ClickHouseError> {
        #[derive(Deserialize)]
        struct Count {
            shards: u64,
        }
        let sql = format!("SELECT count() AS shards FROM {}.pipes", identifier(database));
        Ok(self.rows::<Count>(&sql).await?.first().map_or(0, |count| count.shards))
    }

    /// ClickHouse's clock, Unix ms.
    pub async fn now_ms(&self) -> Result<i64, ClickHouseError> {
        #[derive(Deserialize)]
        struct Now {
            now: i64,
        }
        let now = self.rows::<Now>("SELECT toUnixTimestamp64Milli(now64(3)) AS now").await?;
        now.first().map(|now| now.now).ok_or_else(|| ClickHouseError::transport("an empty response"))
    }
}

impl PullingView {
    /// Its database and name.
    pub fn view(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }

    /// The address of the bridge that it pulls from; empty if it is computed.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The pipes that it pulls.
    pub fn pipes(&self) -> impl Iterator<Item = &str> {
        self.pulls.iter().map(|[pipe, _]| pipe.as_str())
    }

    /// Pipe and stream of each of its URLs, and whether it is read by enhanced fan-out.
    pub fn streams(&self) -> impl Iterator<Item = (&str, String, bool)> {
        self.pulls.iter().filter_map(|[pipe, query]| {
            let stream = parameter(query, Parameter::Stream)?;
            Some((pipe.as_str(), stream, parameter(query, Parameter::Mode).as_deref() == Some("efo")))
        })
    }

    /// What is wrong with it, worst first.
    pub fn finding(&self) -> Finding {
        let mut bad = self.broken();
        let mut notes = self.risks();
        let what = format!("view {}", self.view());
        let pipes: Vec<&str> = self.pipes().collect();
        match (bad.is_empty(), notes.is_empty()) {
            (true, true) => {
                let says = format!("{}, pulls pipe '{}' into {}", self.status, pipes.join("', '"), self.target);
                Finding::new(what, Verdict::Fine, says)
            }
            (true, false) => Finding::new(what, Verdict::Note, notes.join("; ")),
            (false, _) => {
                bad.append(&mut notes);
                Finding::new(what, Verdict::Bad, bad.join("; "))
            }
        }
    }

    /// Why it does not load anything.
    fn broken(&self) -> Vec<String> {
        let (own, mut all) = (self.view(), Vec::new());
        // A view that is stopped keeps the exception of the refresh that this cancelled.
        if !self.exception.is_empty() && self.status != STOPPED {
            let said = ClickHouseError::parse(&self.exception).message;
            // The network's own exceptions name no address.
            let whom = if self.exception.contains("Poco::Exception") {
                format!("cannot reach {}: ", self.bridge)
            } else {
                String::new()
            };
            all.push(format!("its refreshes fail ({} in a row): {whom}{said}", self.failed.max(1)));
        }
        if place(&self.target).is_some_and(|[database, name]| !self.tables.contains_key(&format!("{database}.{name}")))
        {
            all.push(format!("its table {} does not exist, or the bridge's user may not see it", self.target));
        }
        if self.replaces != 0 {
            all.push(
                "it has no APPEND, so each refresh would replace the rows of the one before: create it with APPEND TO"
                    .into(),
            );
        }
        for [_, query] in &self.pulls {
            if let Some(named) = confirms(query).filter(|parts| *parts != [self.database.as_str(), self.name.as_str()])
            {
                all.push(format!("its URL has view={}, which is another view: write view={own}", named.join(".")));
            }
        }
        all
    }

    /// What works, but not as the README promises.
    fn risks(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.status == STOPPED {
            all.push(format!(
                "it is stopped: SYSTEM START VIEW {}.{} resumes it",
                identifier(&self.database),
                identifier(&self.name)
            ));
        }
        if self.retries != "-1" {
            all.push(
                "without refresh_retries = -1 failed refreshes are not repeated with growing pauses until they succeed"
                    .into(),
            );
        }
        if self.tries != "1" {
            all.push("without http_max_tries = 1 ClickHouse repeats failed requests for up to two minutes before the view fails".into());
        }
        if self.threads != "1" {
            all.push("without max_threads = 1 a batch that is served again may be inserted twice".into());
        }
        all.extend(self.tables.iter().filter(|(_, table)| table.keeps_no_window()).map(|(name, _)| {
            format!(
                "table {name} keeps no deduplication window, so a batch that is served again is inserted twice: ALTER TABLE {name} MODIFY SETTING \
                 non_replicated_deduplication_window = 1000"
            )
        }));
        all
    }
}

impl Table {
    /// Whether a repeated block gets into it twice. Rows of a ReplacingMergeTree replace each other,
    /// and Replicated tables have a window unless it is set to 0.
    fn keeps_no_window(&self) -> bool {
        let set = |name: &str| {
            let (_, value) = self.engine_full.split_once(&format!("{name} = "))?;
            value.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        match &*self.engine {
            engine if engine.starts_with("Replicated") => set(" replicated_deduplication_window") == Some(0),
            engine if engine.contains("Replacing") => false,
            engine if engine.ends_with("MergeTree") => set("non_replicated_deduplication_window").unwrap_or(0) == 0,
            _ => false,
        }
    }
}

/// The decoded value of a parameter.
fn parameter(query: &str, parameter: Parameter) -> Option<String> {
    let name = parameter.name();
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name))?.1;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_what_keeps_a_repeated_block_out() {
        let keeps_none = |engine: &str, settings: &str| {
            let engine_full =
                format!("{engine}('/t', '{{replica}}') ORDER BY a SETTINGS index_granularity = 8192{settings}");
            Table { database: "d".into(), name: "t".into(), engine: engine.into(), engine_full }.keeps_no_window()
        };
        for (engine, settings, none) in [
            ("MergeTree", "", true),
            ("MergeTree", ", non_replicated_deduplication_window = 0", true),
            ("MergeTree", ", non_replicated_deduplication_window = 1000", false),
            ("SummingMergeTree", "", true),
            ("ReplacingMergeTree", "", false),
            ("ReplicatedMergeTree", "", false),
            ("ReplicatedMergeTree", ", replicated_deduplication_window = 0", true),
            ("ReplicatedMergeTree", ", replicated_deduplication_window = 10000", false),
            ("ReplicatedSummingMergeTree", ", non_replicated_deduplication_window = 0", false),
            ("Null", "", false),
            ("Distributed", "", false),
        ] {
            assert_eq!(keeps_none(engine, settings), none, "{engine}{settings}");
        }
    }
}
