//! The statements of the KeeperMap store, as text.

use super::columns::{IDENTIFYING, LeaseRow, Value, WORKER_COLUMNS, lease_columns, time};
use domain::limits::KEEPER_REQUEST_BYTES;
use domain::ports::{StateError, Worker};
use sql::quote::literal;

/// Statements up to this size in bytes are accepted with ClickHouse's default `max_query_size`
/// (262,144).
pub const PARSED_BY_DEFAULT: usize = 250_000;

/// One transaction without the server's own retries: after a retry, "exists" could mean "I did it".
const ONE_TRANSACTION: &str = "keeper_map_strict_mode = 1, keeper_max_retries = 0, insert_keeper_max_retries = 0";

/// All matched rows in one block, whatever the user's profile says.
const ONE_BLOCK: &str = "max_threads = 1, max_block_size = 65536";

/// ClickHouse (24.11 and later) plans a mutation once to validate it and once to run it. KeeperMap
/// runs it immediately, so an error shows either way, and validation takes half of the statement's
/// time.
const NO_REHEARSAL: &str = "validate_mutation_query = 0";

/// The keys as a list of literals.
pub fn keys<'a>(rows: impl IntoIterator<Item = &'a LeaseRow>) -> String {
    list(rows.into_iter().map(|row| literal(&row.key)))
}

/// Creates all rows or none.
pub fn insert(table: &str, rows: &[LeaseRow]) -> Result<String, StateError> {
    fits(rows)?;
    let mut sql = format!(
        "INSERT INTO {table} ({}) SETTINGS {ONE_TRANSACTION}, date_time_input_format = 'basic' FORMAT JSONEachRow\n",
        lease_columns()
    );
    for row in rows {
        sql += &serde_json::to_string(row)
            .map_err(|e| StateError::Misconfigured(format!("the lease '{}' cannot be written: {e}", row.key)))?;
        sql.push('\n');
    }
    Ok(sql)
}

/// Replaces all rows, each of which must still be at its version, or none.
///
/// The version is compared in the statement; Keeper then compares it again with what the statement
/// read. A deleted row is not matched, so the matched rows are counted as well: read by one thread,
/// they are one block. (A subquery would count them at a different time, and costs as much as the
/// rest of the statement.) All columns are written except the key and its two parts.
pub fn update(table: &str, rows: &[LeaseRow], versions: &[i32]) -> Result<String, StateError> {
    fits(rows)?;
    let keys = keys(rows);
    let version = by_key(&keys, versions.iter().map(i32::to_string).collect(), "_version");
    let counted = match rows.len() {
        1 => String::new(),
        n => format!(" OR blockSize() != {n}"),
    };
    let guarded = |value: String| format!("if(throwIf(_version != {version}{counted}, 'version'), epoch, {value})");
    let values: Vec<_> = rows.iter().map(LeaseRow::values).collect();
    let columns = values.first().map_or(0, Vec::len);
    let changing = (0..columns).filter(|at| !IDENTIFYING.contains(&values[0][*at].0));
    let assignments = changing.map(|at| {
        let column = values[0][at].0;
        let value = assigned(&keys, values.iter().map(|row| &row[at].1).collect());
        match column {
            "epoch" => format!("{column} = {}", guarded(value)),
            _ => format!("{column} = {value}"),
        }
    });
    let assignments = list(assignments);
    Ok(format!(
        "ALTER TABLE {table} UPDATE {assignments} WHERE key IN ({keys}) SETTINGS {ONE_TRANSACTION}, {ONE_BLOCK}, {NO_REHEARSAL}"
    ))
}

/// Removes the rows that exist, each of which must still be at its version, or none. Compared in
/// the statement and again by Keeper.
pub fn delete(table: &str, rows: &[LeaseRow], versions: &[i32]) -> String {
    let keys = keys(rows);
    let version = by_key(&keys, versions.iter().map(i32::to_string).collect(), "_version");
    format!(
        "ALTER TABLE {table} DELETE WHERE key IN ({keys}) AND throwIf(_version != {version}, 'version') = 0 \
         SETTINGS {ONE_TRANSACTION}, {ONE_BLOCK}, {NO_REHEARSAL}"
    )
}

/// Selects the value that belongs to the row's key.
fn by_key(keys: &str, values: Vec<String>, otherwise: &str) -> String {
    match values.split_first() {
        Some((first, rest)) if rest.iter().all(|value| value == first) => first.clone(),
        _ => format!("transform(key, [{keys}], [{}], {otherwise})", list(values.into_iter())),
    }
}

/// One column's value for each of the keys.
fn assigned(keys: &str, values: Vec<&Value<'_>>) -> String {
    let otherwise = match values.first() {
        Some(Value::Number(_)) => "0",
        Some(Value::Texts(_)) => return arrays(keys, values.into_iter().map(text).collect()),
        _ => "''",
    };
    by_key(keys, values.into_iter().map(text).collect(), otherwise)
}

fn text(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => literal(text),
        Value::Texts(texts) => format!("[{}]", list(texts.iter().map(|text| literal(text)))),
        Value::Number(number) => number.to_string(),
        Value::Time(ms) => literal(&time::text(*ms)),
    }
}

/// `transform` does not accept arrays, so it picks the index of one.
fn arrays(keys: &str, arrays: Vec<String>) -> String {
    let mut distinct = arrays.clone();
    distinct.sort();
    distinct.dedup();
    match distinct.as_slice() {
        [one] => one.clone(),
        _ => {
            let place = |array| distinct.binary_search(array).map_or(0, |at| at + 1).to_string();
            let places = list(arrays.iter().map(place));
            format!("[{}][transform(key, [{keys}], [{places}], 0)]", list(distinct.iter().cloned()))
        }
    }
}

/// Writes the worker's row, whether it exists or not.
pub fn heartbeat(table: &str, worker: &Worker) -> String {
    let pipes = list(worker.pipes.iter().map(|(pipe, changes)| format!("{}, {changes}", literal(pipe))));
    format!(
        "INSERT INTO {table} ({WORKER_COLUMNS}) SETTINGS \
         keeper_map_strict_mode = 0 VALUES ({}, {}, {}, {}, {}, map({pipes}), now64(3))",
        literal(&worker.worker_id),
        literal(&worker.incarnation),
        literal(&worker.address),
        literal(&worker.version),
        worker.heartbeat
    )
}

/// Keeper refuses a larger request by closing the connection, which would look like a transient
/// fault.
fn fits(rows: &[LeaseRow]) -> Result<(), StateError> {
    let bytes: usize = rows.iter().map(size).sum();
    if bytes > KEEPER_REQUEST_BYTES {
        return Err(StateError::Misconfigured(format!(
            "{} leases of pipe '{}' with {bytes} bytes do not fit into one Keeper request ({KEEPER_REQUEST_BYTES}): read fewer \
             shards in one batch, or give pipe, stream and worker shorter names",
            rows.len(),
            rows.first().map_or("", |row| &row.pipe),
        )));
    }
    Ok(())
}

/// Bytes of a row in a Keeper request, slightly overestimated: its values, plus 100 bytes and twice
/// the key, for its path.
fn size(row: &LeaseRow) -> usize {
    let bytes = |value: &Value<'_>| match value {
        Value::Text(text) => text.len() + 2,
        Value::Texts(texts) => texts.iter().map(|text| text.len() + 2).sum::<usize>() + 2,
        Value::Number(_) | Value::Time(_) => 8,
    };
    let values = row.values().into_iter().filter(|(column, _)| *column != "key");
    values.map(|(_, value)| bytes(&value)).sum::<usize>() + 2 * row.key.len() + 100
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
