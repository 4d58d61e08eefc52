//! The statements of the KeeperMap store, as text.

use super::columns::{LEASE_COLUMNS, LeaseRow, time};
use crate::limits::KEEPER_REQUEST_BYTES;
use crate::ports::Worker;
use crate::sql::quote::literal;

/// Statements up to this many bytes pass ClickHouse's default `max_query_size` (262,144).
pub const PARSED_BY_DEFAULT: usize = 250_000;

/// One transaction without the server's own retries: after a retry, "exists" could mean "I did it".
const ONE_TRANSACTION: &str = "keeper_map_strict_mode = 1, keeper_max_retries = 0, insert_keeper_max_retries = 0";

/// All matched rows in one block, whatever the user's profile says.
const ONE_BLOCK: &str = "max_threads = 1, max_block_size = 65536";

/// ClickHouse (24.11 and later) plans a mutation once to validate it and once more to run it. KeeperMap runs it at once, so an error
/// shows either way, and the rehearsal is half of the statement's time.
const NO_REHEARSAL: &str = "validate_mutation_query = 0";

/// The keys as a list of literals.
pub fn keys<'a>(rows: impl IntoIterator<Item = &'a LeaseRow>) -> String {
    list(rows.into_iter().map(|row| literal(&row.key)))
}

/// Creates all rows or none.
pub fn insert(table: &str, rows: &[LeaseRow]) -> Result<String, String> {
    fits(rows)?;
    let mut sql = format!(
        "INSERT INTO {table} ({LEASE_COLUMNS}) SETTINGS {ONE_TRANSACTION}, async_insert = 0, date_time_input_format = 'basic' \
         FORMAT JSONEachRow\n"
    );
    for row in rows {
        sql += &serde_json::to_string(row).map_err(|e| format!("the lease '{}' cannot be written: {e}", row.key))?;
        sql.push('\n');
    }
    Ok(sql)
}

/// Replaces all rows, each of which must still be at its version, or none.
///
/// The version is compared inside the statement; Keeper then compares it again with what the statement had read. A row that was
/// deleted is not matched, so the matched rows are counted as well: read by one thread, they are one block. (A subquery would
/// count them at another time, and costs as much as the rest of the statement.) All columns but the key and its two parts are written.
pub fn update(table: &str, rows: &[LeaseRow], versions: &[i32]) -> Result<String, String> {
    fits(rows)?;
    let keys = keys(rows);
    let by_key = |values: Vec<String>, otherwise: &str| by_key(&keys, values, otherwise);
    let text = |get: fn(&LeaseRow) -> &str| by_key(rows.iter().map(|row| literal(get(row))).collect(), "''");
    let number = |get: fn(&LeaseRow) -> u64| by_key(rows.iter().map(|row| get(row).to_string()).collect(), "0");
    let moment =
        |get: fn(&LeaseRow) -> i64| by_key(rows.iter().map(|row| literal(&time::text(get(row)))).collect(), "''");
    let version = by_key(versions.iter().map(i32::to_string).collect(), "_version");
    let counted = match rows.len() {
        1 => String::new(),
        n => format!(" OR blockSize() != {n}"),
    };
    let assignments = [
        ("epoch", format!("if(throwIf(_version != {version}{counted}, 'version'), epoch, {})", number(|r| r.epoch))),
        ("stream", text(|r| &r.stream)),
        ("parents", parents(rows, &keys)),
        ("owner", text(|r| &r.owner)),
        ("sequence_number", text(|r| &r.sequence_number)),
        ("sub_sequence_number", number(|r| r.sub_sequence_number.into())),
        ("unpacking", text(|r| &r.unpacking)),
        ("began_sequence_number", text(|r| &r.began_sequence_number)),
        ("began_sub_sequence_number", number(|r| r.began_sub_sequence_number.into())),
        ("offered_batch", text(|r| &r.offered_batch)),
        ("offered_shape", text(|r| &r.offered_shape)),
        ("offered_shards", number(|r| r.offered_shards.into())),
        ("offered_first", text(|r| &r.offered_first)),
        ("offered_first_sub", number(|r| r.offered_first_sub.into())),
        ("offered_through", text(|r| &r.offered_through)),
        ("offered_through_sub", number(|r| r.offered_through_sub.into())),
        ("offered_rows", number(|r| r.offered_rows)),
        ("committed_rows", number(|r| r.committed_rows)),
        ("bytes_per_second", number(|r| r.bytes_per_second)),
        ("last_commit_time", moment(|r| r.last_commit_time)),
        ("caught_up_at", moment(|r| r.caught_up_at)),
        ("updated_at", moment(|r| r.updated_at)),
    ];
    let assignments = list(assignments.iter().map(|(column, value)| format!("{column} = {value}")));
    Ok(format!(
        "ALTER TABLE {table} UPDATE {assignments} WHERE key IN ({keys}) SETTINGS {ONE_TRANSACTION}, {ONE_BLOCK}, {NO_REHEARSAL}"
    ))
}

/// Removes the rows that are there, each of which must still be at its version, or none. Compared inside the statement and again by Keeper.
pub fn delete(table: &str, rows: &[LeaseRow], versions: &[i32]) -> String {
    let keys = keys(rows);
    let version = by_key(&keys, versions.iter().map(i32::to_string).collect(), "_version");
    format!(
        "ALTER TABLE {table} DELETE WHERE key IN ({keys}) AND throwIf(_version != {version}, 'version') = 0 \
         SETTINGS {ONE_TRANSACTION}, {ONE_BLOCK}, {NO_REHEARSAL}"
    )
}

/// The value that belongs to the row's key.
fn by_key(keys: &str, values: Vec<String>, otherwise: &str) -> String {
    match values.split_first() {
        Some((first, rest)) if rest.iter().all(|value| value == first) => first.clone(),
        _ => format!("transform(key, [{keys}], [{}], {otherwise})", list(values.into_iter())),
    }
}

/// `transform` takes no arrays, so it picks the number of one.
fn parents(rows: &[LeaseRow], keys: &str) -> String {
    let arrays: Vec<String> =
        rows.iter().map(|row| format!("[{}]", list(row.parents.iter().map(|parent| literal(parent))))).collect();
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
        "INSERT INTO {table} (worker_id, incarnation, address, version, heartbeat, pipes, updated_at) SETTINGS async_insert = 0, \
         keeper_map_strict_mode = 0 VALUES ({}, {}, {}, {}, {}, map({pipes}), now64(3))",
        literal(&worker.worker_id),
        literal(&worker.incarnation),
        literal(&worker.address),
        literal(&worker.version),
        worker.heartbeat
    )
}

/// Keeper refuses a larger request by closing the connection, which would look like a passing fault.
fn fits(rows: &[LeaseRow]) -> Result<(), String> {
    let bytes: usize = rows.iter().map(size).sum();
    if bytes > KEEPER_REQUEST_BYTES {
        return Err(format!(
            "{} leases of pipe '{}' with {bytes} bytes are more than one Keeper request takes ({KEEPER_REQUEST_BYTES}): read fewer \
             shards in one batch, or give pipe, stream and worker shorter names",
            rows.len(),
            rows.first().map_or("", |row| &row.pipe),
        ));
    }
    Ok(())
}

/// Bytes of a row in a Keeper request, a little too many: strings, 100 bytes of numbers, and the path with the key.
fn size(row: &LeaseRow) -> usize {
    let strings = [
        &row.pipe,
        &row.stream,
        &row.shard_id,
        &row.owner,
        &row.sequence_number,
        &row.offered_batch,
        &row.offered_shape,
        &row.offered_first,
        &row.offered_through,
    ];
    let parents: usize = row.parents.iter().map(|parent| parent.len() + 2).sum();
    strings.iter().map(|s| s.len() + 2).sum::<usize>() + parents + 100 + 2 * row.key.len() + 100
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
