//! A lease as the columns of `kinesis.leases`, in both directions. The file store writes the same
//! columns.

use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Serialize};

use domain::lease::{Destination, Identity, Lease, Offer};
use domain::names::ShardId;
use domain::sequence::{Checkpoint, RowPosition, SequenceNumber};
use domain::shape::BatchShape;
use domain::unpacking::Unpacking;

/// A column's value, as a statement writes it.
pub enum Value<'a> {
    /// A String.
    Text(&'a str),
    /// An Array(String).
    Texts(&'a [String]),
    /// An unsigned integer.
    Number(u64),
    /// A time, Unix ms.
    Time(i64),
}

/// A type of column: ClickHouse's name of it, and how a statement writes a value.
pub trait Kind {
    /// The type in the table.
    const CLICKHOUSE: &'static str;

    /// The value for a statement.
    fn value(&self) -> Value<'_>;
}

impl Kind for String {
    const CLICKHOUSE: &'static str = "String";

    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Kind for Vec<String> {
    const CLICKHOUSE: &'static str = "Array(String)";

    fn value(&self) -> Value<'_> {
        Value::Texts(self)
    }
}

impl Kind for u32 {
    const CLICKHOUSE: &'static str = "UInt32";

    fn value(&self) -> Value<'_> {
        Value::Number((*self).into())
    }
}

impl Kind for u64 {
    const CLICKHOUSE: &'static str = "UInt64";

    fn value(&self) -> Value<'_> {
        Value::Number(*self)
    }
}

/// A time, Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(#[serde(with = "time")] pub i64);

impl Time {
    /// The nearest time that the column can represent.
    fn near(ms: i64) -> Time {
        Time(time::in_range(ms))
    }
}

impl Kind for Time {
    const CLICKHOUSE: &'static str = "DateTime64(3, 'UTC')";

    fn value(&self) -> Value<'_> {
        Value::Time(self.0)
    }
}

/// The only list of columns, in table order: a column added here is written, read and counted. The
/// table in sql/setup/01_state.sql describes them; a test compares the two.
macro_rules! lease_row {
    ($($column:ident: $kind:ty = |$lease:ident| $given:expr),+ $(,)?) => {
        /// A row of `kinesis.leases`.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct LeaseRow {
            $(pub $column: $kind,)+
        }

        /// The columns of [`LeaseRow`], in the order of the table, each with its type.
        const COLUMNS: &[(&str, &str)] = &[$((stringify!($column), <$kind as Kind>::CLICKHOUSE)),+];

        impl LeaseRow {
            /// All columns, by name.
            pub fn values(&self) -> Vec<(&'static str, Value<'_>)> {
                vec![$((stringify!($column), self.$column.value())),+]
            }
        }

        impl From<&Lease> for LeaseRow {
            fn from(lease: &Lease) -> LeaseRow {
                LeaseRow { $($column: { let $lease = lease; $given },)+ }
            }
        }
    };
}

lease_row! {
    key: String = |lease| lease.key(),
    pipe: String = |lease| lease.pipe.to_string(),
    stream: String = |lease| lease.stream.to_string(),
    stream_arn: String = |lease| lease.identity.arn.clone(),
    stream_created_at: Time = |lease| Time::near(lease.identity.created_ms),
    shard_id: String = |lease| lease.shard_id.to_string(),
    parents: Vec<String> = |lease| lease.parents.iter().map(ShardId::to_string).collect(),
    view: String = |lease| lease.destination.view.clone(),
    target: String = |lease| lease.destination.target.clone(),
    owner: String = |lease| lease.owner.to_string(),
    epoch: u64 = |lease| lease.epoch,
    sequence_number: String = |lease| lease.checkpoint.sequence_text(),
    sub_sequence_number: u32 = |lease| lease.checkpoint.sub_sequence(),
    unpacking: String = |lease| lease.unpacking.map_or_else(String::new, Unpacking::in_full),
    began_sequence_number: String =
        |lease| lease.began.as_ref().map_or_else(String::new, |row| row.sequence.as_str().into()),
    began_sub_sequence_number: u32 = |lease| lease.began.as_ref().map_or(0, |row| row.sub),
    offered_batch: String = |lease| offered(lease, |offer| offer.batch.to_string()),
    offered_shape: String = |lease| offered(lease, |offer| offer.shape.to_string()),
    offered_shards: u32 = |lease| offered(lease, |offer| offer.shards),
    offered_first: String = |lease| offered(lease, |offer| offer.first.sequence.as_str().into()),
    offered_first_sub: u32 = |lease| offered(lease, |offer| offer.first.sub),
    offered_through: String = |lease| offered(lease, |offer| offer.through.sequence.as_str().into()),
    offered_through_sub: u32 = |lease| offered(lease, |offer| offer.through.sub),
    offered_rows: u64 = |lease| offered(lease, |offer| offer.rows),
    committed_rows: u64 = |lease| lease.committed_rows,
    bytes_per_second: u64 = |lease| lease.bytes_per_second,
    last_commit_time: Time = |lease| Time::near(lease.last_commit_ms),
    since: Time = |lease| Time::near(lease.since_ms),
    caught_up_at: Time = |lease| Time::near(lease.caught_up_ms),
    arrived_at: Time = |lease| Time::near(lease.arrived_ms),
    updated_at: Time = |lease| Time::near(lease.updated_ms),
}

/// A value of the open offer; the default if there is none.
fn offered<T: Default>(lease: &Lease, value: impl Fn(&Offer) -> T) -> T {
    lease.offer.as_ref().map(value).unwrap_or_default()
}

/// The columns that make up the key, and the key: they never change.
pub const IDENTIFYING: [&str; 3] = ["key", "pipe", "shard_id"];

/// The columns of `kinesis.workers`, in the order of the table.
pub const WORKER_COLUMNS: &str = "worker_id, incarnation, address, version, heartbeat, pipes, updated_at";

/// The names of the columns of `kinesis.leases`, in the order of the table.
pub fn lease_columns() -> String {
    COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The column of a row that an operator has to correct, and what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadColumn {
    /// Name of the column.
    pub column: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl LeaseRow {
    /// Parses the row. Operators edit these rows, so nothing is trusted.
    pub fn into_lease(self) -> Result<Lease, BadColumn> {
        let checkpoint = Checkpoint::from_columns(&self.sequence_number, self.sub_sequence_number)
            .map_err(|e| BadColumn { column: "sequence_number", problem: e.to_string() })?;
        for (column, value) in [("pipe", &self.pipe), ("stream", &self.stream), ("shard_id", &self.shard_id)] {
            if value.is_empty() {
                return Err(BadColumn { column, problem: "it is empty: write the name".into() });
            }
        }
        let offer = self.offer()?;
        let began = match self.began_sequence_number.as_str() {
            "" => None,
            text => match SequenceNumber::parse(text) {
                Some(first) => Some(RowPosition::new(first, self.began_sub_sequence_number)),
                None => {
                    let problem = format!("'{text}' is not a sequence number: write one, or leave it empty");
                    return Err(BadColumn { column: "began_sequence_number", problem });
                }
            },
        };
        let lease = Lease {
            pipe: self.pipe.into(),
            stream: self.stream.into(),
            identity: Identity { arn: self.stream_arn, created_ms: self.stream_created_at.0 },
            shard_id: self.shard_id.into(),
            parents: self.parents.into_iter().map(ShardId::from).collect(),
            destination: Destination { view: self.view, target: self.target },
            owner: self.owner.into(),
            epoch: self.epoch,
            checkpoint,
            unpacking: (!self.unpacking.is_empty()).then(|| Unpacking::within(&self.unpacking)),
            began,
            offer,
            committed_rows: self.committed_rows,
            bytes_per_second: self.bytes_per_second,
            last_commit_ms: self.last_commit_time.0,
            since_ms: self.since.0,
            caught_up_ms: self.caught_up_at.0,
            arrived_ms: self.arrived_at.0,
            updated_ms: self.updated_at.0,
        };
        if lease.key() != self.key {
            let problem = format!("it must be <pipe>/<shard_id>, here '{}'", lease.key());
            return Err(BadColumn { column: "key", problem });
        }
        Ok(lease)
    }

    fn offer(&self) -> Result<Option<Offer>, BadColumn> {
        if self.offered_batch.is_empty() {
            return Ok(None);
        }
        let number = |column, text: &str| {
            SequenceNumber::parse(text).ok_or_else(|| BadColumn {
                column,
                problem: format!(
                    "'{text}' is not a sequence number: write one, or set offered_batch = '' to drop the batch"
                ),
            })
        };
        Ok(Some(Offer {
            batch: self.offered_batch.as_str().into(),
            shape: BatchShape::of_column(&self.offered_shape),
            shards: self.offered_shards,
            first: RowPosition::new(number("offered_first", &self.offered_first)?, self.offered_first_sub),
            through: RowPosition::new(number("offered_through", &self.offered_through)?, self.offered_through_sub),
            rows: self.offered_rows,
        }))
    }
}

/// Times as ClickHouse writes and reads them: `2026-11-21 10:00:00.000`, UTC.
pub mod time {
    use super::{DateTime, NaiveDateTime};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    const FORMAT: &str = "%Y-%m-%d %H:%M:%S%.3f";
    /// 2299-12-31 23:59:59.999, the last time that DateTime64 can represent.
    const LAST: i64 = 10_413_791_999_999;

    /// The nearest time that the column can represent.
    pub fn in_range(ms: i64) -> i64 {
        ms.clamp(0, LAST)
    }

    /// The time as text.
    pub fn text(ms: i64) -> String {
        DateTime::from_timestamp_millis(in_range(ms)).unwrap_or_default().format(FORMAT).to_string()
    }

    pub fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*ms))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = NaiveDateTime::parse_from_str(&text, FORMAT).map_err(D::Error::custom)?;
        Ok(time.and_utc().timestamp_millis())
    }
}

/// The columns in the CREATE TABLE among these statements, each with its type.
#[cfg(test)]
pub fn created(statements: &[String], table: &str) -> Vec<(String, String)> {
    let create = statements.iter().filter(|sql| sql.contains(&format!("`kinesis`.{table}\n")));
    let lines =
        create.flat_map(|sql| sql.lines().skip_while(|line| *line != "(").skip(1).take_while(|line| *line != ")"));
    let columns = lines.filter_map(|line| line.trim().split(" COMMENT ").next()?.trim_end_matches(',').split_once(' '));
    columns.map(|(name, ty)| (name.into(), ty.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::unpacking::{Decompress, Edition, Split};
    use proptest::prelude::*;

    fn sequence() -> impl Strategy<Value = SequenceNumber> {
        "[0-9]{1,56}".prop_map(|s| SequenceNumber::parse(&s).expect("digits"))
    }

    fn checkpoint() -> impl Strategy<Value = Checkpoint> {
        prop_oneof![
            Just(Checkpoint::TrimHorizon),
            Just(Checkpoint::ShardEnd),
            any::<i64>().prop_map(Checkpoint::AtTimestamp),
            (sequence(), any::<u32>()).prop_map(|(s, sub)| Checkpoint::After(RowPosition::new(s, sub))),
        ]
    }

    fn unpacking() -> impl Strategy<Value = Unpacking> {
        let editions = prop::sample::select(vec![Edition::First, Edition::Second]);
        (prop::sample::select(&Decompress::ALL[..]), prop::sample::select(&Split::ALL[..]), editions)
            .prop_map(|(decompress, split, edition)| Unpacking { decompress, split, edition })
    }

    fn offer() -> impl Strategy<Value = Offer> {
        let rows = (any::<u32>(), any::<u32>(), any::<u64>());
        (".{1,16}", ".{0,16}", any::<u32>(), sequence(), sequence(), rows).prop_map(
            |(batch, shape, shards, first, through, (first_sub, through_sub, rows))| Offer {
                batch: batch.into(),
                shape: BatchShape::of_column(&shape),
                shards,
                first: RowPosition::new(first, first_sub),
                through: RowPosition::new(through, through_sub),
                rows,
            },
        )
    }

    fn lease() -> impl Strategy<Value = Lease> {
        let times = vec![0..=10_413_791_999_999i64; 6];
        let names = ("[^/]{1,20}", ".{1,20}", ".{1,20}", prop::collection::vec(".{0,20}", 0..3), vec![".{0,20}"; 4]);
        let counts = (any::<u64>(), any::<u64>(), any::<u64>());
        let began = prop::option::of((sequence(), any::<u32>()).prop_map(|(s, sub)| RowPosition::new(s, sub)));
        (names, counts, (checkpoint(), prop::option::of(unpacking()), began), prop::option::of(offer()), times)
            .prop_map(
                |(
                    (pipe, stream, shard_id, parents, more),
                    (epoch, committed_rows, bytes_per_second),
                    (checkpoint, unpacking, began),
                    offer,
                    times,
                )| Lease {
                    pipe: pipe.into(),
                    stream: stream.into(),
                    identity: Identity { arn: more[0].clone(), created_ms: times[3] },
                    shard_id: shard_id.into(),
                    parents: parents.into_iter().map(ShardId::from).collect(),
                    destination: Destination { view: more[1].clone(), target: more[2].clone() },
                    owner: more[3].as_str().into(),
                    epoch,
                    checkpoint,
                    unpacking,
                    began,
                    offer,
                    committed_rows,
                    bytes_per_second,
                    last_commit_ms: times[0],
                    since_ms: times[4],
                    caught_up_ms: times[1],
                    arrived_ms: times[5],
                    updated_ms: times[2],
                },
            )
    }

    proptest! {
        #[test]
        fn a_lease_survives_the_way_through_its_row_and_json(lease in lease()) {
            let json = serde_json::to_string(&LeaseRow::from(&lease)).expect("JSON");
            let row: LeaseRow = serde_json::from_str(&json).expect("JSON");
            prop_assert_eq!(row.into_lease(), Ok(lease));
        }

        #[test]
        fn any_row_gives_a_lease_or_names_a_column(
            key in ".*", pipe in ".*", stream in ".*", shard_id in ".*", sequence in ".*", batch in ".*", first in ".*", through in ".*",
        ) {
            let lease = Lease::new(&"p".into(), &"s".into(), &"shard".into(), vec![], Checkpoint::TrimHorizon, 0);
            let row = LeaseRow {
                key, pipe, stream, shard_id, sequence_number: sequence, offered_batch: batch, offered_first: first, offered_through: through,
                ..LeaseRow::from(&lease)
            };
            if let Err(bad) = row.into_lease() {
                prop_assert!(COLUMNS.iter().any(|(name, _)| *name == bad.column));
                prop_assert!(!bad.problem.is_empty());
            }
        }
    }

    #[test]
    fn the_table_has_the_columns_of_a_row_in_their_order() {
        let ours: Vec<_> = COLUMNS.iter().map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned())).collect();
        assert_eq!(created(&sql::state("kinesis"), "leases"), ours);
        let row =
            LeaseRow::from(&Lease::new(&"p".into(), &"s".into(), &"shard".into(), vec![], Checkpoint::TrimHorizon, 0));
        assert!(IDENTIFYING.iter().all(|column| row.values().iter().any(|(name, _)| name == column)));
        let workers: Vec<String> =
            created(&sql::state("kinesis"), "workers").into_iter().map(|(name, _)| name).collect();
        assert_eq!(workers.join(", "), WORKER_COLUMNS);
    }

    #[test]
    fn nonsense_is_named() {
        let lease = Lease::new(&"orders".into(), &"s".into(), &"shard-0".into(), vec![], Checkpoint::TrimHorizon, 0);
        let good = LeaseRow::from(&lease);
        let bad = |change: fn(&mut LeaseRow)| {
            let mut row = good.clone();
            change(&mut row);
            row.into_lease().expect_err("nonsense is refused")
        };
        let position = bad(|r| r.sequence_number = "newest".into());
        assert_eq!(position.column, "sequence_number");
        assert!(position.problem.contains("TRIM_HORIZON"), "{}", position.problem);
        assert_eq!(bad(|r| r.stream = String::new()).column, "stream");
        assert_eq!(bad(|r| r.pipe = "other".into()).column, "key");
        assert_eq!(bad(|r| r.offered_batch = "b".into()).column, "offered_first");
    }

    #[test]
    fn times_outside_the_column_become_the_nearest_one() {
        let mut lease =
            Lease::new(&"p".into(), &"s".into(), &"shard".into(), vec![], Checkpoint::TrimHorizon, i64::MAX);
        lease.caught_up_ms = -1;
        let row = LeaseRow::from(&lease);
        assert_eq!((row.caught_up_at, row.updated_at), (Time(0), Time(10_413_791_999_999)));
        assert!(serde_json::to_string(&row).expect("JSON").contains("2299-12-31 23:59:59.999"));
    }
}
