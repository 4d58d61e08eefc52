//! `unmarshal=dynamodb`: ClickHouse reads every event from every format, and what is not an event
//! arrives unchanged.

mod events;
mod large;
mod pipe;

use serde_json::Value;
use stack::{Bridge, ClickHouse};

use crate::world::stack;
use testkit::tree::Expected;

/// The structure of `records` with the columns of events, as docs/sql.md prints it.
const EVENTS: &str = "_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, \
                      _sub_sequence_number UInt32, _event_name String, _event_id String, _table String, _version Int64, _is_deleted UInt8, \
                      _ttl_delete UInt8, _keys String, _new String, _old String, _attributes Map(String, String), _error String, _raw_message String";
/// The compared columns of a row, in the order of [`Row`].
const COLUMNS: &str = "_key, _event_name, _event_id, _table, toString(_version), _is_deleted, _ttl_delete, _keys, _new, _old, \
                       arraySort(arrayZip(mapKeys(_attributes), mapValues(_attributes))), _error, hex(_raw_message)";
const FORMATS: [&str; 3] = ["ArrowStream", "JSONEachRow", "Parquet"];

/// `url(…)` over `records` of a stream; a non-empty `query` begins with `&`.
fn records(bridge: &Bridge, stream: &str, format: &str, query: &str) -> String {
    let url = bridge.url();
    format!(
        "url('{url}/v1/streams/{stream}/records?unmarshal=dynamodb&format={format}{query}', '{format}', '{EVENTS}')"
    )
}

/// A row in ClickHouse.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    key: String,
    event: Expected,
    error: String,
    raw: Vec<u8>,
}

impl Row {
    fn event(key: impl ToString, event: Expected) -> Row {
        Row { key: key.to_string(), event: in_order(event), error: String::new(), raw: Vec::new() }
    }
}

/// Not every format keeps the order of a map.
fn in_order(mut event: Expected) -> Expected {
    event.attributes.sort();
    event
}

/// The rows of a table or of `url(…)`, in this order.
fn rows(from: &str, order: &str) -> Vec<Row> {
    rows_in(&stack().clickhouse, from, order)
}

fn rows_in(clickhouse: &ClickHouse, from: &str, order: &str) -> Vec<Row> {
    let select = format!("SELECT {COLUMNS} FROM {from} ORDER BY {order} FORMAT JSONCompactEachRow");
    let answer = clickhouse.query(&select).unwrap_or_else(|error| panic!("{error}\nin\n{select}"));
    answer.lines().map(row).collect()
}

fn row(line: &str) -> Row {
    let row: Vec<Value> = serde_json::from_str(line).expect(line);
    let text = |value: &Value| value.as_str().expect(line).to_owned();
    let attributes = row[10].as_array().expect(line).iter().map(|pair| (text(&pair[0]), text(&pair[1])));
    let mut attributes: Vec<_> = attributes.collect();
    attributes.sort();
    let event = Expected {
        name: text(&row[1]),
        id: text(&row[2]),
        table: text(&row[3]),
        version: text(&row[4]).parse().expect(line),
        is_deleted: row[5] == 1,
        ttl_delete: row[6] == 1,
        keys: text(&row[7]),
        new: text(&row[8]),
        old: text(&row[9]),
        attributes,
    };
    let hex = text(&row[12]);
    let raw = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    Row { key: text(&row[0]), event, error: text(&row[11]), raw }
}
