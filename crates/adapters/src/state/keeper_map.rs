//! KeeperMap tables in ClickHouse, shared by all bridges of a cluster.
//!
//! A write is one statement, and one statement is one Keeper transaction over all rows it touches.
//! The server's own retries are switched off, so "Node exists" and "Bad version" always mean that
//! someone else was first. Any other error leaves the outcome open, and the rows themselves are
//! read back: an error does not mean that the write failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::columns::{LeaseRow, WORKER_COLUMNS, lease_columns};
use super::statement;
use super::verdict::{Verdict, verdict};
use crate::clickhouse::{ClickHouse, ClickHouseError, Kind};
use domain::lease::Lease;
use domain::limits::LEASE_STATEMENTS;
use domain::names::PipeName;
use domain::ports::{StateError, StateStore, Versioned, Worker};
use domain::rows;
use sql::quote::{literal, qualified};

/// The tables `leases` and `workers` of one database.
#[derive(Clone, Debug)]
pub struct KeeperMapStore {
    clickhouse: ClickHouse,
    database: String,
    leases: String,
    workers: String,
    tables: Arc<Mutex<Tables>>,
    /// What pipes ask at the same time. Heartbeats do not queue here.
    turns: Arc<Semaphore>,
}

/// What this process has done about the tables. Explains errors that only say that they are
/// missing.
#[derive(Debug)]
enum Tables {
    /// Not checked yet, or just being created.
    Awaited,
    /// They exist.
    Seen,
    /// They could not be created, and why.
    Refused(StateError),
}

#[derive(Deserialize)]
struct StoredRow {
    _version: i32,
    #[serde(flatten)]
    row: LeaseRow,
}

/// What tells whose write a row is.
#[derive(Deserialize)]
struct Written {
    key: String,
    _version: i32,
    owner: String,
    epoch: u64,
}

#[derive(Deserialize)]
struct ColumnName {
    name: String,
}

/// What is certain about a row that could not be parsed as a lease.
#[derive(Deserialize)]
struct Named {
    key: String,
    pipe: String,
}

#[derive(Deserialize)]
struct WorkerRow {
    worker_id: String,
    incarnation: String,
    address: String,
    version: String,
    heartbeat: u64,
    /// Of its pipes. As JSON, a map is an object or an array, depending on the user's profile.
    names: Vec<String>,
    changes: Vec<u64>,
}

impl KeeperMapStore {
    /// Nothing is sent before the first call.
    pub fn new(clickhouse: ClickHouse, database: &str) -> KeeperMapStore {
        let (leases, workers) = (qualified(database, "leases"), qualified(database, "workers"));
        let tables = Arc::new(Mutex::new(Tables::Awaited));
        let turns = Arc::new(Semaphore::new(LEASE_STATEMENTS));
        KeeperMapStore { clickhouse, database: database.into(), leases, workers, tables, turns }
    }

    /// Waits until this statement about leases may be sent.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The error is that of a closed semaphore, and nobody closes this one.
        self.turns.acquire().await.ok()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates database and tables if they do not exist. If they do, the privilege to create is not
    /// needed.
    pub async fn setup(&self) -> Result<(), StateError> {
        let done = match self.create_tables().await {
            Err(error) if error.kind() == Kind::Schema => {
                Err(self.outdated().await.unwrap_or_else(|| self.said(&error)))
            }
            done => done.map_err(|error| self.said(&error)),
        };
        *self.tables() = match &done {
            Ok(()) => Tables::Seen,
            Err(refused) => Tables::Refused(refused.clone()),
        };
        done
    }

    async fn create_tables(&self) -> Result<(), ClickHouseError> {
        match self.probe().await {
            Ok(()) => return Ok(()),
            // A user without any privilege on the tables gets either error.
            Err(error) if matches!(error.kind(), Kind::Schema | Kind::Forbidden) => {}
            Err(error) => return Err(error),
        }
        let mut refused = None;
        for create in sql::state(&self.database) {
            // The refusal may be for something that already exists: the database.
            refused = refused.or(self.clickhouse.execute(&create).await.err());
        }
        self.probe().await.map_err(|error| refused.unwrap_or(error))
    }

    /// Whether the tables exist, with all columns, and Keeper answers.
    async fn probe(&self) -> Result<(), ClickHouseError> {
        let leases = format!("SELECT {}, _version FROM {} WHERE key = ''", lease_columns(), self.leases);
        self.clickhouse.json_lines(&leases).await?;
        let workers = format!("SELECT {WORKER_COLUMNS} FROM {} WHERE worker_id = ''", self.workers);
        self.clickhouse.json_lines(&workers).await.map(drop)
    }

    /// What to do if the lease table was created by an earlier version: the statements that give it
    /// the missing columns. KeeperMap has no ADD COLUMN.
    async fn outdated(&self) -> Option<StateError> {
        let columns = format!(
            "SELECT name FROM system.columns WHERE database = {} AND table = 'leases'",
            literal(&self.database)
        );
        let there: Vec<ColumnName> = self.clickhouse.rows(&columns).await.ok()?;
        let lacks = |column: &&str| there.iter().all(|c| c.name != *column);
        let ours = lease_columns();
        let lacking: Vec<&str> = ours.split(", ").filter(lacks).collect();
        // Without these it is a different table.
        let made_by_us = ["key", "pipe", "shard_id", "sequence_number"].iter().all(|column| !lacks(column));
        if lacking.is_empty() || !made_by_us {
            return None;
        }
        let (leases, kept) = (&self.leases, qualified(&self.database, "leases_before"));
        let lacking = lacking.join(", ");
        Some(StateError::Misconfigured(format!(
            "the table {leases} in ClickHouse at {} was created by an earlier version of the bridge and lacks the column {lacking}, and KeeperMap \
             cannot add one: stop all bridges that use it; run CREATE TABLE {kept} ENGINE = MergeTree ORDER BY key AS SELECT * FROM {leases}; \
             DROP TABLE {leases} SYNC, on every server that has it; `clickhouse-kinesis-bridge sql setup | clickhouse-client`; INSERT INTO {leases} \
             (* EXCEPT ({lacking})) SELECT * FROM {kept}; then start the bridges, which continue where they stopped",
            self.clickhouse.server()
        )))
    }

    async fn select(&self, condition: &str) -> Result<Vec<String>, ClickHouseError> {
        let sql = format!("SELECT {}, _version FROM {} WHERE {condition} ORDER BY key", lease_columns(), self.leases);
        self.clickhouse.json_lines(&sql).await
    }

    /// The current rows of these keys, by key, with their versions.
    async fn read_back(
        &self,
        written: &[(LeaseRow, i32)],
    ) -> Result<HashMap<String, (LeaseRow, i32)>, ClickHouseError> {
        let keys = statement::keys(written.iter().map(|(row, _)| row));
        let lines = self.select(&format!("key IN ({keys})")).await?;
        // A row that cannot be parsed is not one that was just written.
        let rows = lines.iter().filter_map(|line| serde_json::from_str::<StoredRow>(line).ok());
        Ok(rows.map(|stored| (stored.row.key.clone(), (stored.row, stored._version))).collect())
    }

    /// Whether the rows are there as written, after a write that was acknowledged. A few columns
    /// tell; to read all of them takes twice as long, and every batch waits for this twice.
    async fn stands(&self, written: &[(LeaseRow, i32)]) -> bool {
        let keys = statement::keys(written.iter().map(|(row, _)| row));
        let sql = format!("SELECT key, _version, owner, epoch FROM {} WHERE key IN ({keys})", self.leases);
        let Ok(found) = self.clickhouse.rows::<Written>(&sql).await else { return false };
        let found: HashMap<_, _> = found.into_iter().map(|w| (w.key, (w._version, w.owner, w.epoch))).collect();
        written.iter().all(|(row, version)| {
            found
                .get(&row.key)
                .is_some_and(|(at, owner, epoch)| at == version && *owner == row.owner && *epoch == row.epoch)
        })
    }

    /// A statement that may be long.
    async fn alter(&self, sql: &str) -> Result<(), ClickHouseError> {
        let size = sql.len().to_string();
        // Longer statements need a higher limit than the default, before they are parsed.
        let settings: &[_] =
            if sql.len() > statement::PARSED_BY_DEFAULT { &[("max_query_size", size.as_str())] } else { &[] };
        self.clickhouse.execute_with(sql, settings).await
    }

    /// Determines the outcome of a write from the rows themselves. `written` should be there now,
    /// each at its version.
    async fn settle(
        &self,
        result: Result<(), ClickHouseError>,
        written: Vec<(LeaseRow, i32)>,
    ) -> Result<(), StateError> {
        let verdict = match (self.read_back(&written).await, &result) {
            (Ok(now), _) => verdict(result.is_ok(), &written, &now),
            (Err(error), Ok(())) => Verdict::Unclear(self.clickhouse.explain(&error)),
            (Err(_), Err(error)) => return Err(self.error(error)),
        };
        match (verdict, result) {
            (Verdict::Written, _) => Ok(()),
            (Verdict::Lost(why), _) => Err(StateError::Conflict(why)),
            (Verdict::Unclear(why), _) => Err(StateError::Unavailable(why)),
            (Verdict::Untouched, Err(error)) => Err(self.error(&error)),
            (Verdict::Untouched, Ok(())) => {
                Err(StateError::Unavailable(format!("a write to {} is not visible there yet", self.leases)))
            }
        }
    }

    /// The error for the caller. That a table is missing says little if this process knows why.
    fn error(&self, error: &ClickHouseError) -> StateError {
        match (error.kind(), &*self.tables()) {
            (Kind::Schema, Tables::Refused(why)) => why.clone(),
            (Kind::Schema, Tables::Awaited) => StateError::Unavailable(format!(
                "the state tables in database '{}' are still being checked or created: try again in a moment",
                self.database
            )),
            _ => self.said(error),
        }
    }

    fn said(&self, error: &ClickHouseError) -> StateError {
        let sentence = self.clickhouse.explain(error);
        match error.kind() {
            Kind::Conflict => StateError::Conflict(sentence),
            kind if kind.lasts() => StateError::Misconfigured(sentence),
            _ => StateError::Unavailable(sentence),
        }
    }

    /// One line of the response as a lease, or what an operator has to correct.
    fn lease(&self, line: &str) -> Result<Versioned<Lease>, (Option<Named>, String)> {
        let named = || serde_json::from_str::<Named>(line).ok();
        let stored: StoredRow = serde_json::from_str(line)
            .map_err(|e| (named(), format!("a row of {} cannot be parsed: {e}", self.leases)))?;
        let key = stored.row.key.clone();
        let lease = stored.row.into_lease().map_err(|bad| {
            let problem = format!(
                "column {} of the row with key = {} in {}: {}; correct it with ALTER TABLE … UPDATE, or delete the row",
                bad.column,
                literal(&key),
                self.leases,
                bad.problem
            );
            (named(), problem)
        })?;
        Ok(Versioned { version: stored._version, value: lease })
    }
}

#[async_trait]
impl StateStore for KeeperMapStore {
    async fn leases(&self, pipe: Option<&PipeName>) -> Result<Vec<Versioned<Lease>>, StateError> {
        // By key, which nobody can edit: a shard whose column `pipe` was edited must not just
        // vanish.
        let condition = pipe.map_or("1".into(), |pipe| format!("startsWith(key, {})", literal(&format!("{pipe}/"))));
        let _turn = self.turn().await;
        let lines = self.select(&condition).await.map_err(|error| self.error(&error))?;
        let mut leases = Vec::with_capacity(lines.len());
        for line in &lines {
            match self.lease(line) {
                Ok(lease) => leases.push(lease),
                Err((_, problem)) if pipe.is_some() => return Err(StateError::Misconfigured(problem)),
                // One bad row stops its own pipe, not all of them.
                Err((named, problem)) => {
                    let (key, pipe) = named.map(|n| (n.key, n.pipe)).unwrap_or_default();
                    tracing::warn!(key, pipe, "ignoring a lease: {problem}");
                }
            }
        }
        Ok(leases)
    }

    async fn create(&self, leases: &[Lease]) -> Result<(), StateError> {
        rows::check(leases.iter())?;
        if leases.is_empty() {
            return Ok(());
        }
        let rows: Vec<LeaseRow> = leases.iter().map(LeaseRow::from).collect();
        let insert = statement::insert(&self.leases, &rows)?;
        let _turn = self.turn().await;
        match self.clickhouse.execute(&insert).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == Kind::Conflict => {
                Err(StateError::Conflict(format!("one of the leases already exists: {}", error.message)))
            }
            error => self.settle(error, rows.into_iter().map(|row| (row, 0)).collect()).await,
        }
    }

    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        rows::check(leases.iter().map(|row| &row.value))?;
        if leases.is_empty() {
            return Ok(());
        }
        let rows: Vec<LeaseRow> = leases.iter().map(|row| LeaseRow::from(&row.value)).collect();
        let expected: Vec<i32> = leases.iter().map(|row| row.version).collect();
        let update = statement::update(&self.leases, &rows, &expected)?;
        let _turn = self.turn().await;
        match self.alter(&update).await {
            Err(error) if error.kind() == Kind::Conflict => Err(StateError::Conflict(format!(
                "a lease of pipe '{}' was changed or deleted by another bridge or by hand: {}",
                rows[0].pipe, error.message
            ))),
            // A statement that matches no row, because someone deleted it, is acknowledged as well.
            result => {
                let versions = expected.into_iter().map(|version| version.saturating_add(1));
                let written: Vec<_> = rows.into_iter().zip(versions).collect();
                if result.is_ok() && self.stands(&written).await {
                    return Ok(());
                }
                self.settle(result, written).await
            }
        }
    }

    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        rows::check(leases.iter().map(|row| &row.value))?;
        if leases.is_empty() {
            return Ok(());
        }
        let rows: Vec<LeaseRow> = leases.iter().map(|row| LeaseRow::from(&row.value)).collect();
        let versions: Vec<i32> = leases.iter().map(|row| row.version).collect();
        let _turn = self.turn().await;
        match self.alter(&statement::delete(&self.leases, &rows, &versions)).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == Kind::Conflict => Err(StateError::Conflict(format!(
                "a lease of pipe '{}' was changed by another bridge or by hand: {}",
                rows[0].pipe, error.message
            ))),
            // An error does not mean failure: if the rows are gone, they are deleted.
            Err(error) => match self.read_back(&rows.into_iter().zip(versions).collect::<Vec<_>>()).await {
                Ok(left) if left.is_empty() => Ok(()),
                _ => Err(self.error(&error)),
            },
        }
    }

    async fn workers(&self) -> Result<Vec<Worker>, StateError> {
        let sql = format!(
            "SELECT worker_id, incarnation, address, version, heartbeat, mapKeys(pipes) AS names, mapValues(pipes) AS changes \
             FROM {} ORDER BY worker_id",
            self.workers
        );
        let rows: Vec<WorkerRow> = self.clickhouse.rows(&sql).await.map_err(|error| self.error(&error))?;
        let workers = rows.into_iter().map(|row| Worker {
            worker_id: row.worker_id.into(),
            incarnation: row.incarnation,
            address: row.address,
            version: row.version,
            heartbeat: row.heartbeat,
            pipes: row.names.into_iter().map(PipeName::from).zip(row.changes).collect(),
        });
        Ok(workers.collect())
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError> {
        let upsert = statement::heartbeat(&self.workers, worker);
        self.clickhouse.execute(&upsert).await.map_err(|error| self.error(&error))
    }
}
