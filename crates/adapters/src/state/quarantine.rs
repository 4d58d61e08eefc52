//! The table of rows that cannot be inserted: a KeeperMap table next to the leases, as durable as
//! the checkpoints; without Keeper, a ReplacingMergeTree.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::columns::time;
use crate::clickhouse::{ClickHouse, ClickHouseError, Kind};
use domain::columns::RAW_MESSAGE;
use domain::error::Error;
use domain::limits::{QUARANTINE_BYTES, QUARANTINE_PAYLOAD, QUARANTINE_ROWS};
use domain::ports::{Kept, Quarantine, QuarantinedRow};
use sql::quote::{literal, qualified};

/// The columns of the table, in order, each with its type.
const COLUMNS: [(&str, &str); 13] = [
    ("key", "String"),
    ("pipe", "String"),
    ("_stream", "String"),
    ("_shard_id", "String"),
    ("_sequence_number", "String"),
    ("_sub_sequence_number", "UInt32"),
    ("_key", "String"),
    ("_timestamp", "DateTime64(3, 'UTC')"),
    ("_raw_message", "String"),
    ("raw_message_bytes", "UInt64"),
    ("view", "String"),
    ("error", "String"),
    ("quarantined_at", "DateTime64(3, 'UTC')"),
];

/// The table `quarantine` of one database.
#[derive(Clone, Debug)]
pub struct QuarantineTable {
    clickhouse: ClickHouse,
    table: String,
    create: Vec<String>,
}

/// The name of the hex text in a [`Row`].
const HEX: &str = "payload";

/// A row as it is sent: a value for each of [`COLUMNS`]. The payload may contain any bytes and is
/// hex text here, under its own name.
#[derive(Default, Serialize)]
struct Row<'a> {
    key: String,
    pipe: &'a str,
    _stream: &'a str,
    _shard_id: &'a str,
    _sequence_number: &'a str,
    _sub_sequence_number: u32,
    _key: &'a str,
    #[serde(with = "time")]
    _timestamp: i64,
    payload: String,
    raw_message_bytes: usize,
    view: &'a str,
    error: &'a str,
    #[serde(with = "time")]
    quarantined_at: i64,
}

/// What a pipe has there, without the row being written.
#[derive(Deserialize)]
struct Used {
    rows: u64,
    bytes: u64,
}

impl QuarantineTable {
    /// Nothing is sent before the first call. `keeper_map` says where the state is.
    pub fn new(clickhouse: ClickHouse, database: &str, keeper_map: bool) -> QuarantineTable {
        let (table, create) = (qualified(database, "quarantine"), sql::quarantine(database, keeper_map));
        QuarantineTable { clickhouse, table, create }
    }

    /// Creates database and table if they do not exist. If they do, the privilege to create is not
    /// needed.
    pub async fn setup(&self) -> Result<(), Error> {
        self.create().await.map_err(|error| self.said(&error))
    }

    async fn create(&self) -> Result<(), ClickHouseError> {
        match self.probe().await {
            // A user without any privilege on the table gets either error.
            Err(error) if matches!(error.kind(), Kind::Schema | Kind::Forbidden) => {}
            done => return done,
        }
        let mut refused = None;
        for create in &self.create {
            // The refusal may be for something that already exists: the database.
            refused = refused.or(self.clickhouse.execute(create).await.err());
        }
        self.probe().await.map_err(|error| refused.unwrap_or(error))
    }

    async fn probe(&self) -> Result<(), ClickHouseError> {
        let sql = format!("SELECT {} FROM {} WHERE key = '' LIMIT 0", listed(|(name, _)| name.into()), self.table);
        self.clickhouse.json_lines(&sql).await.map(drop)
    }

    /// What the pipe has there, apart from the row `key`.
    async fn used(&self, pipe: &str, key: &str) -> Result<Used, ClickHouseError> {
        // Rows that a ReplacingMergeTree has not merged yet count once.
        let sql = format!(
            "SELECT uniqExactIf(key, key != {key}) AS rows, sumIf(length(_raw_message), key != {key}) AS bytes FROM {} \
             WHERE startsWith(key, {})",
            self.table,
            literal(&format!("{pipe}/")),
            key = literal(key),
        );
        let used = self.clickhouse.rows(&sql).await?.into_iter().next();
        Ok(used.unwrap_or(Used { rows: 0, bytes: 0 }))
    }

    async fn insert(&self, row: &QuarantinedRow) -> Result<Kept, ClickHouseError> {
        let key = format!("{}/{}/{}/{}", row.pipe, row.shard_id, row.sequence_number, row.sub_sequence_number);
        let used = self.used(&row.pipe, &key).await?;
        if used.rows >= QUARANTINE_ROWS {
            return Ok(Kept::Full);
        }
        let size = row.raw_message.len();
        let kept = size <= QUARANTINE_PAYLOAD && used.bytes.saturating_add(size as u64) <= QUARANTINE_BYTES;
        let payload = if kept { hex(&row.raw_message) } else { String::new() };
        let line = Row {
            key,
            pipe: &row.pipe,
            _stream: &row.stream,
            _shard_id: &row.shard_id,
            _sequence_number: &row.sequence_number,
            _sub_sequence_number: row.sub_sequence_number,
            _key: &row.key,
            _timestamp: time::in_range(row.timestamp_ms),
            payload,
            raw_message_bytes: size,
            view: &row.view,
            error: &row.error,
            quarantined_at: time::in_range(row.quarantined_ms),
        };
        let line = serde_json::to_string(&line)
            .map_err(|e| ClickHouseError::parse(&format!("the row cannot be written as JSON: {e}")))?;
        // Not strict: an existing row is replaced, so that a retry is as good as the first attempt.
        let sql = format!(
            "INSERT INTO {} ({}) SETTINGS keeper_map_strict_mode = 0, date_time_input_format = 'basic' \
             SELECT {} FROM input({}) FORMAT JSONEachRow\n{line}\n",
            self.table,
            listed(|(name, _)| name.into()),
            listed(|(name, _)| if name == RAW_MESSAGE.name { format!("unhex({HEX})") } else { name.into() }),
            literal(&listed(|(name, ty)| format!("{} {ty}", if name == RAW_MESSAGE.name { HEX } else { name })))
        );
        self.clickhouse.execute(&sql).await.map(|()| Kept::Yes)
    }

    fn said(&self, error: &ClickHouseError) -> Error {
        error.kind().error(format!("{} cannot be used: {}", self.table, self.clickhouse.explain(error)))
    }
}

#[async_trait]
impl Quarantine for QuarantineTable {
    async fn put(&self, row: &QuarantinedRow) -> Result<Kept, Error> {
        let mut kept = self.insert(row).await;
        if kept.as_ref().is_err_and(|error| error.kind() == Kind::Schema) {
            self.setup().await?;
            kept = self.insert(row).await;
        }
        kept.map_err(|error| self.said(&error))
    }
}

/// Something of each column, as a list.
fn listed(part: impl Fn((&'static str, &'static str)) -> String) -> String {
    COLUMNS.map(part).join(", ")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::columns::created;
    use super::*;

    #[test]
    fn a_row_has_the_columns_of_the_table_in_their_order() {
        let ours = COLUMNS.map(|(name, ty)| (name.to_owned(), ty.to_owned()));
        assert_eq!(created(&sql::quarantine("kinesis", true), "quarantine"), ours);
        let row = serde_json::to_string(&Row::default()).expect("JSON");
        let places = COLUMNS.map(|(name, _)| {
            let name = if name == RAW_MESSAGE.name { HEX } else { name };
            row.find(&format!("\"{name}\":")).expect(name)
        });
        assert!(places.is_sorted(), "{row}");
    }
}
