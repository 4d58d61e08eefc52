//! What the tests share: the contract's SQL with other names, waiting, the bridge's binary.

use std::path::Path;
use std::time::{Duration, Instant};

use stack::{Bridge, ClickHouse, LocalStack};

use crate::engines::engine;

/// The program under test.
pub fn bridge_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clickhouse-kinesis-bridge"))
}

/// A running local stack.
pub fn local_stack() -> LocalStack {
    LocalStack::start(engine()).expect("the local stack starts")
}

/// `sql/examples/orders.sql` as shipped, for another pipe, table and view: all called `name`,
/// `name_pipe`; `parameters` are added to the URL, and `settings` replace those of the table.
pub fn orders_sql(bridge: &str, name: &str, parameters: &str, table_settings: &str) -> String {
    include_str!("../../sql/examples/orders.sql")
        .replace("http://localhost:9020", bridge)
        .replace("default.orders_pipe", &format!("default.{name}_pipe{parameters}"))
        .replace("MATERIALIZED VIEW orders_pipe", &format!("MATERIALIZED VIEW {name}_pipe"))
        .replace("CREATE TABLE orders", &format!("CREATE TABLE {name}"))
        .replace("TO orders AS", &format!("TO {name} AS"))
        .replace("/v1/pipes/orders/", &format!("/v1/pipes/{name}/"))
        .replace("SETTINGS non_replicated_deduplication_window = 1000", table_settings)
}

/// A number from ClickHouse; none while it is unavailable or the result is something else.
pub fn number(clickhouse: &ClickHouse, sql: &str) -> Option<u64> {
    clickhouse.query(sql).ok()?.trim().parse().ok()
}

/// Whether a pipe has loaded this many rows, and has none in flight.
pub fn is_committed(bridge: &Bridge, pipe: &str, rows: u64) -> bool {
    let answer = crate::world::get(bridge, "/v1/pipes");
    // Keeper may be unavailable.
    let shards = if answer.status == 200 { answer.rows() } else { Vec::new() };
    let sum = |name: &str| {
        shards.iter().filter(|row| row["pipe"] == pipe).map(|row| row[name].as_u64().unwrap_or_default()).sum::<u64>()
    };
    sum("committed_rows") == rows && sum("offered_rows") == 0
}

/// Waits until `ready`, or panics with the text of `else_say` after `deadline`.
pub fn wait_until(deadline: Duration, mut ready: impl FnMut() -> bool, else_say: impl FnOnce() -> String) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < deadline, "{}", else_say());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The seed from the environment, or a new one; printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: SEED={seed} repeats this schedule");
    seed
}
