//! The columns of records: what the bridge sends, and what ClickHouse is told to expect.

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    Text,
    /// One of few texts.
    Word,
    /// Any bytes.
    Bytes,
    /// A time, ms.
    Time,
    /// An unsigned integer of 8 bits.
    UInt8,
    /// An unsigned integer of 32 bits.
    UInt32,
    /// An integer of 64 bits.
    Int64,
    /// Texts by name.
    Texts,
}

impl Type {
    /// As ClickHouse calls it.
    pub const fn clickhouse(self) -> &'static str {
        match self {
            Type::Text | Type::Bytes => "String",
            Type::Word => "LowCardinality(String)",
            Type::Time => "DateTime64(3)",
            Type::UInt8 => "UInt8",
            Type::UInt32 => "UInt32",
            Type::Int64 => "Int64",
            Type::Texts => "Map(String, String)",
        }
    }
}

/// A column; none may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub ty: Type,
}

impl Column {
    const fn new(name: &'static str, ty: Type) -> Column {
        Column { name, ty }
    }

    /// Name and type, as in a structure and in a CREATE TABLE.
    pub fn definition(self) -> String {
        format!("{} {}", self.name, self.ty.clickhouse())
    }
}

/// The partition key.
pub const KEY: Column = Column::new("_key", Type::Text);
/// When the record arrived.
pub const TIMESTAMP: Column = Column::new("_timestamp", Type::Time);
/// The stream.
pub const STREAM: Column = Column::new("_stream", Type::Word);
/// The shard.
pub const SHARD_ID: Column = Column::new("_shard_id", Type::Word);
/// Where the record is in its shard.
pub const SEQUENCE_NUMBER: Column = Column::new("_sequence_number", Type::Text);
/// Where the row is in its record.
pub const SUB_SEQUENCE_NUMBER: Column = Column::new("_sub_sequence_number", Type::UInt32);
/// The payload.
pub const RAW_MESSAGE: Column = Column::new("_raw_message", Type::Bytes);
/// Why a payload has no columns of its own; empty if it has.
pub const ERROR: Column = Column::new("_error", Type::Text);
/// The batch of a pipe.
pub const BATCH: Column = Column::new("_batch", Type::Text);

/// What comes before the payload, in order.
pub const POSITION: [Column; 6] = [KEY, TIMESTAMP, STREAM, SHARD_ID, SEQUENCE_NUMBER, SUB_SEQUENCE_NUMBER];

/// What identifies a row, of any stream.
pub const PLACE: [Column; 3] = [SHARD_ID, SEQUENCE_NUMBER, SUB_SEQUENCE_NUMBER];

/// A change event of DynamoDB, in order.
pub const EVENT: [Column; 11] = [
    Column::new("_event_name", Type::Text),
    Column::new("_event_id", Type::Text),
    Column::new("_table", Type::Text),
    Column::new("_version", Type::Int64),
    Column::new("_is_deleted", Type::UInt8),
    Column::new("_ttl_delete", Type::UInt8),
    Column::new("_keys", Type::Text),
    Column::new("_new", Type::Text),
    Column::new("_old", Type::Text),
    Column::new("_attributes", Type::Texts),
    ERROR,
];

/// The columns of records, in order. In a pipe's batch, [`BATCH`] comes after them.
pub fn records() -> impl Iterator<Item = Column> {
    POSITION.into_iter().chain([RAW_MESSAGE])
}

/// The same for change events of DynamoDB.
pub fn events() -> impl Iterator<Item = Column> {
    POSITION.into_iter().chain(EVENT).chain([RAW_MESSAGE])
}

/// Whether one of these columns has the name, in any case, in rows whose other columns are the
/// fields of the payload.
pub fn is_beside_fields(name: &str) -> bool {
    records().chain([ERROR, BATCH]).any(|column| column.name.eq_ignore_ascii_case(name))
}

/// A structure, as ClickHouse's url() takes it.
pub fn structure(columns: impl IntoIterator<Item = Column>) -> String {
    columns.into_iter().map(Column::definition).collect::<Vec<_>>().join(", ")
}

/// The names, as a SELECT lists them.
pub fn names(columns: impl IntoIterator<Item = Column>) -> String {
    columns.into_iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_documented() {
        assert_eq!(
            structure(records().chain([BATCH])),
            "_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), \
             _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String"
        );
        assert_eq!(
            structure(events().skip(POSITION.len())),
            "_event_name String, _event_id String, _table String, _version Int64, _is_deleted UInt8, _ttl_delete UInt8, _keys String, \
             _new String, _old String, _attributes Map(String, String), _error String, _raw_message String"
        );
        assert_eq!(names(PLACE), "_shard_id, _sequence_number, _sub_sequence_number");
    }

    #[test]
    fn fields_must_not_have_the_names_of_columns() {
        assert!(["_key", "_Batch", "_ERROR", "_raw_message"].into_iter().all(is_beside_fields));
        assert!(["key", "_keys", "_table", ""].into_iter().all(|name| !is_beside_fields(name)));
    }
}
