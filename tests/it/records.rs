//! Bounded reads and the metadata rows, through a real ClickHouse.

mod backfill;
mod formats;
mod large;
mod meta;
pub mod ranges;
pub mod reshard;

use stack::Bridge;

use crate::world::{RECORDS, sql};

/// `url(…)` over `records` of a stream; `query` is the query string.
fn records(bridge: &Bridge, stream: &str, query: &str) -> String {
    let format = query.split('&').find_map(|p| p.strip_prefix("format=")).unwrap_or("ArrowStream");
    format!("url('{}/v1/streams/{stream}/records?{query}', '{format}', '{RECORDS}')", bridge.url())
}

/// The keys that a bounded read returns, sorted.
fn keys(bridge: &Bridge, stream: &str, query: &str) -> Vec<String> {
    let answer = sql(&format!("SELECT _key FROM {} ORDER BY _key", records(bridge, stream, query)));
    answer.lines().map(str::to_owned).collect()
}
