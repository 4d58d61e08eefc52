//! `stack demo`: from an empty machine to records flowing from a Kinesis stream into a ClickHouse
//! table, checked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use stack::load::{create_stream, put_orders};
use stack::{Bridge, Engine, LocalStack, checkout, kinesis_client};

const STREAM: &str = "orders";
const SHARDS: i32 = 4;
const DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The address used in the examples and the printed SQL: the bridge's default.
const DOCUMENTED_URL: &str = "http://localhost:9020";

/// The last sequence number of each shard in the table. Sequence numbers compare as integers, never
/// as strings.
const LAST_OF_SHARDS: &str = "SELECT _shard_id AS shard_id, argMax(_sequence_number, toUInt256(_sequence_number)) \
                              AS last_in_table FROM orders GROUP BY shard_id";

/// The flags of `stack demo`.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// The clickhouse-kinesis-bridge program to show.
    #[arg(long)]
    bridge: PathBuf,
    /// How many records to write to the stream.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// SQL file with the table and the view to create; by default the checkout's
    /// sql/examples/orders.sql.
    #[arg(long)]
    sql: Option<PathBuf>,
}

/// Runs the demo; an error if a record is lost or duplicated, or if nothing arrives.
pub fn run(args: &DemoArgs) -> Result<i32, String> {
    let example = args.sql.clone().unwrap_or_else(|| checkout().join("sql/examples/orders.sql"));
    let example =
        std::fs::read_to_string(&example).map_err(|error| format!("cannot read {}: {error}", example.display()))?;
    let runtime = super::runtime()?;

    step("starting ZooKeeper, ClickHouse, Kinesis and the bridge");
    let started = Instant::now();
    let stack = LocalStack::start(Engine::V26_7)?;
    let bridge = stack.start_bridge(&args.bridge, &[])?;
    println!(
        "   ClickHouse {}, Kinesis {}, bridge {} ({})",
        stack.clickhouse.url(),
        stack.kinesis.endpoint(),
        bridge.url(),
        seconds(started)
    );

    step("creating the views and functions that `clickhouse-kinesis-bridge sql setup` prints");
    let setup = sql_setup(&args.bridge, &stack)?;
    stack.clickhouse.run_script(&localised(&setup, &bridge))?;

    step(&format!("creating the stream `{STREAM}` with {SHARDS} shards and putting {} records", args.records));
    let client = runtime.block_on(kinesis_client(&stack.kinesis.endpoint()));
    let put = runtime.block_on(async {
        create_stream(&client, STREAM, SHARDS).await?;
        put_orders(&client, STREAM, 0, args.records).await
    })?;
    println!("   {} records, {:.1} MB in {:.1} s", put.records, put.bytes as f64 / 1e6, put.elapsed.as_secs_f64());

    step("creating the table and the view that pulls");
    let example = localised(&example, &bridge);
    println!("{}", indented(&example));
    let pulling = Instant::now();
    stack.clickhouse.run_script(&example)?;

    step(&format!("waiting until the table has {} rows", args.records));
    wait_for(&stack, &bridge, "the rows", || {
        number(&stack, "SELECT count() FROM orders").map(|rows| rows >= args.records)
    })?;
    println!("   {} after the view was created", seconds(pulling));

    step("waiting until every shard's checkpoint is its last sequence number");
    wait_for(&stack, &bridge, "the checkpoints", || behind(&stack).map(|shards| shards == 0))?;

    show(
        &stack,
        "the table",
        "SELECT count(), uniqExact(_shard_id, _sequence_number) AS distinct, uniqExact(id) AS ids, \
        min(_timestamp) AS first, max(_timestamp) AS last, round(sum(price), 2) AS total FROM orders",
    )?;
    show(&stack, "some rows", "SELECT id, user_id, price, _timestamp, _shard_id FROM orders ORDER BY id LIMIT 5")?;
    show(
        &stack,
        "the checkpoints beside the last sequence numbers",
        &format!(
            "SELECT c.shard_id AS shard_id, c.sequence_number AS checkpoint, l.last_in_table = checkpoint AS is_last, c.owner AS owner, c.epoch AS epoch \
         FROM kinesis.checkpoints AS c LEFT JOIN ({LAST_OF_SHARDS}) AS l ON c.shard_id = l.shard_id \
         WHERE c.pipe = 'orders' ORDER BY shard_id"
        ),
    )?;

    verify(&stack, args.records)?;
    step("ending everything");
    let code = bridge.stop()?;
    if code != 0 {
        return Err(format!("the bridge ended with exit code {code} instead of 0.{}", bridge.log_tail()));
    }
    println!("== {} records came through, each once ({} in all)", args.records, seconds(started));
    Ok(0)
}

/// The SQL that the bridge prints for its views.
fn sql_setup(binary: &Path, stack: &LocalStack) -> Result<String, String> {
    let failed = |why: &str| format!("`{} sql setup` failed: {why}", binary.display());
    let output = Command::new(binary)
        .args(["sql", "setup"])
        .envs(stack.bridge_environment())
        .output()
        .map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(&error.to_string()))
}

/// The SQL with this bridge's address in place of the default one.
fn localised(sql: &str, bridge: &Bridge) -> String {
    sql.replace(DOCUMENTED_URL, &bridge.url()).replace("http://127.0.0.1:9020", &bridge.url())
}

/// How many shards of the table have a checkpoint other than their last sequence number.
fn behind(stack: &LocalStack) -> Result<u64, String> {
    number(
        stack,
        &format!(
            "SELECT count() FROM ({LAST_OF_SHARDS}) AS l LEFT JOIN (SELECT shard_id, sequence_number FROM kinesis.checkpoints \
         WHERE pipe = 'orders') AS c ON c.shard_id = l.shard_id WHERE c.sequence_number != l.last_in_table"
        ),
    )
}

fn verify(stack: &LocalStack, records: u64) -> Result<(), String> {
    for (what, sql) in [
        ("rows", "SELECT count() FROM orders"),
        ("distinct sequence numbers", "SELECT uniqExact(_shard_id, _sequence_number) FROM orders"),
        ("distinct ids", "SELECT uniqExact(id) FROM orders"),
    ] {
        let found = number(stack, sql)?;
        if found != records {
            return Err(format!("the table has {found} {what} instead of {records}"));
        }
    }
    match behind(stack)? {
        0 => Ok(()),
        shards => Err(format!("the checkpoints of {shards} shards are not their last sequence numbers")),
    }
}

fn number(stack: &LocalStack, sql: &str) -> Result<u64, String> {
    let answer = stack.clickhouse.query(sql)?;
    answer
        .trim()
        .parse()
        .map_err(|error| format!("ClickHouse answered {answer:?} instead of a number to {sql}: {error}"))
}

/// Waits for a condition; if it is not met in time, the error shows what the view and the bridge
/// report.
fn wait_for(
    stack: &LocalStack,
    bridge: &Bridge,
    what: &str,
    mut condition: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let started = Instant::now();
    while !condition()? {
        if !bridge.is_running() || started.elapsed() > DEADLINE {
            let refreshes = stack
                .clickhouse
                .query("SELECT view, status, retry, splitByString(', Stack trace', exception)[1] AS error FROM system.view_refreshes FORMAT Vertical")
                .unwrap_or_else(|error| error);
            return Err(format!(
                "{what} did not come within {} s.\nsystem.view_refreshes:\n{refreshes}\nrows so far: {}{}",
                started.elapsed().as_secs(),
                stack.clickhouse.query("SELECT count() FROM orders").unwrap_or_else(|error| error),
                bridge.log_tail()
            ));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn show(stack: &LocalStack, title: &str, sql: &str) -> Result<(), String> {
    step(title);
    let table = stack.clickhouse.query(&format!("{sql} FORMAT PrettyCompactNoEscapes"))?;
    println!("{}", indented(&table));
    Ok(())
}

fn step(what: &str) {
    println!("== {what}");
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.trim_end().lines().map(|line| format!("   {line}")).collect();
    lines.join("\n")
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
