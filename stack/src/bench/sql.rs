//! The statements of the benchmark: the contract's example, with other names and addresses.

/// The contract's main job. The benchmark measures exactly this.
const EXAMPLE: &str = include_str!("../../../sql/examples/orders.sql");
const EXAMPLE_URL: &str = "http://localhost:9020/v1/pipes/orders/next?stream=orders&view=default.orders_pipe";
const EXAMPLE_FIELDS: &str = "r.id AS id, r.user_id AS user_id, r.price AS price";
/// The columns of the example's SELECT, in order.
const EXAMPLE_COLUMNS: &str = "_shard_id, _sequence_number, _sub_sequence_number, _timestamp, id, user_id, price";

/// The example for a target table of another name.
pub struct Job {
    /// The target table.
    pub table: String,
    reading: Reading,
}

/// Where the SELECT takes the fields of an order from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// From the payload, as in the example.
    Payload,
    /// From columns of their own: `payload=inline`.
    Inline,
    /// From the payload of a DynamoDB event.
    EventPayload,
    /// From the columns of such an event: `unmarshal=dynamodb`.
    EventColumns,
}

impl Reading {
    /// The differences from the example.
    fn changes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Reading::Payload => &[],
            Reading::Inline => &INLINE,
            Reading::EventPayload => &EVENT_PAYLOAD,
            Reading::EventColumns => &EVENT_COLUMNS,
        }
    }
}

/// The differences if the payload's fields come as columns.
const INLINE: [(&str, &str); 4] = [
    (EXAMPLE_FIELDS, "id, user_id, price"),
    ("JSONExtract(_raw_message, 'Tuple(id String, user_id UInt64, price Float64)') AS r, ", "id, user_id, price, "),
    ("'ArrowStream'", "'JSONEachRow'"),
    ("_batch String'", "_batch String, _error String, id String, user_id UInt64, price Float64'"),
];

/// The differences if events are unpacked in SQL.
const EVENT_PAYLOAD: [(&str, &str); 2] = [
    (
        EXAMPLE_FIELDS,
        "r.dynamodb.NewImage.id.S AS id, toUInt64(r.dynamodb.NewImage.user_id.N) AS user_id, toFloat64(r.dynamodb.NewImage.price.N) AS price",
    ),
    (
        "'Tuple(id String, user_id UInt64, price Float64)'",
        "'Tuple(dynamodb Tuple(NewImage Tuple(id Tuple(S String), user_id Tuple(N String), price Tuple(N String))))'",
    ),
];

/// The differences if the bridge does it.
const EVENT_COLUMNS: [(&str, &str); 2] = [
    ("JSONExtract(_raw_message, ", "JSONExtract(_new, "),
    (
        "_raw_message String, _batch String'",
        "_event_name String, _event_id String, _table String, _version Int64, _is_deleted UInt8, _ttl_delete UInt8, _keys String, _new String, \
         _old String, _attributes Map(String, String), _error String, _raw_message String, _batch String'",
    ),
];

impl Job {
    /// A job into `table`.
    pub fn into(table: impl Into<String>) -> Job {
        Job::reading(Reading::Payload, table)
    }

    /// The same for orders that are read in another way.
    pub fn reading(reading: Reading, table: impl Into<String>) -> Job {
        Job { table: table.into(), reading }
    }

    /// The URL parameters of the format.
    pub fn format(&self) -> &'static str {
        match self.reading {
            Reading::Payload | Reading::EventPayload => "format=ArrowStream",
            Reading::Inline => "format=JSONEachRow&payload=inline",
            Reading::EventColumns => "format=ArrowStream&unmarshal=dynamodb",
        }
    }

    /// The example's view.
    fn view(&self) -> Result<String, String> {
        self.reading.changes().iter().try_fold(parts()?.1.to_owned(), |view, (from, to)| replaced(&view, from, to))
    }

    /// Creates the table.
    pub fn create_table(&self) -> Result<String, String> {
        replaced(parts()?.0, "CREATE TABLE orders ", &format!("CREATE TABLE {} ", self.table))
    }

    /// Creates the view that pulls pipe `{table}` from the bridge at `bridge`. `parameters` go to
    /// the end of the URL.
    pub fn create_view(&self, bridge: &str, stream: &str, parameters: &str) -> Result<String, String> {
        let (table, format) = (&self.table, self.format());
        let url =
            format!("{bridge}/v1/pipes/{table}/next?stream={stream}&view=default.{table}_pipe&{format}{parameters}");
        let view = replaced(&self.view()?, EXAMPLE_URL, &url)?;
        let view = replaced(&view, "VIEW orders_pipe ", &format!("VIEW {table}_pipe "))?;
        replaced(&view, "APPEND TO orders AS", &format!("APPEND TO {table} AS"))
    }

    /// An INSERT of what `url` returns, with the view's SELECT.
    pub fn insert(&self, url: &str) -> Result<String, String> {
        let view = replaced(&self.view()?, EXAMPLE_URL, url)?;
        let (_, select) = view.split_once(" AS\nSELECT ").ok_or("the example's view has no SELECT")?;
        Ok(format!("INSERT INTO {} ({EXAMPLE_COLUMNS}) SELECT {select}", self.table))
    }

    /// Drops view and table.
    pub fn drop(&self) -> String {
        let table = &self.table;
        format!("DROP VIEW IF EXISTS {table}_pipe SYNC;\nDROP TABLE IF EXISTS {table} SYNC;\n")
    }
}

/// The example's table and view.
fn parts() -> Result<(&'static str, &'static str), String> {
    let table = EXAMPLE.find("CREATE TABLE").ok_or("the example creates no table")?;
    let view = EXAMPLE.find("CREATE MATERIALIZED VIEW").ok_or("the example creates no view")?;
    let whole = |statement: &'static str| statement.trim().trim_end_matches(';');
    Ok((whole(&EXAMPLE[table..view]), whole(&EXAMPLE[view..])))
}

/// Like [`str::replace`], but fails if `from` does not occur.
fn replaced(text: &str, from: &str, to: &str) -> Result<String, String> {
    match text.contains(from) {
        true => Ok(text.replace(from, to)),
        false => Err(format!("sql/examples/orders.sql no longer contains {from:?}, which the benchmark replaces")),
    }
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLE_COLUMNS, Job, Reading};

    #[test]
    fn the_example_is_taken_apart() {
        let job = Job::into("t");
        assert!(job.create_table().expect("a table").starts_with("CREATE TABLE t (id String"));
        let view = job.create_view("http://b", "s", "&poll_ms=5").expect("a view");
        assert!(view.contains("CREATE MATERIALIZED VIEW t_pipe REFRESH"));
        assert!(view.contains("http://b/v1/pipes/t/next?stream=s&view=default.t_pipe&format=ArrowStream&poll_ms=5'"));
        let insert = job.insert("http://c/1").expect("an insert");
        assert!(insert.starts_with(&format!("INSERT INTO t ({EXAMPLE_COLUMNS}) SELECT _shard_id, ")));
        assert!(insert.contains("url('http://c/1'"));
    }

    #[test]
    fn an_inline_job_extracts_nothing() {
        let view = Job::reading(Reading::Inline, "t").create_view("http://b", "s", "").expect("a view");
        assert!(view.contains("default.t_pipe&format=JSONEachRow&payload=inline', 'JSONEachRow',"));
        assert!(view.contains(
            "SELECT _shard_id, _sequence_number, _sub_sequence_number, _timestamp, id, user_id, price\nFROM ("
        ));
        assert!(!view.contains("JSONExtract"));
    }
    #[test]
    fn events_are_taken_apart_by_either() {
        let view = |reading| Job::reading(reading, "t").create_view("http://b", "s", "").expect("a view");
        let by_sql = view(Reading::EventPayload);
        assert!(by_sql.contains("JSONExtract(_raw_message, 'Tuple(dynamodb ") && !by_sql.contains("unmarshal"));
        let by_bridge = view(Reading::EventColumns);
        assert!(
            by_bridge.contains("&format=ArrowStream&unmarshal=dynamodb'")
                && by_bridge.contains("JSONExtract(_new, 'Tuple(id ")
        );
    }
}
