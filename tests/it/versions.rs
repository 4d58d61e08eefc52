//! What works on which ClickHouse: the same jobs on every installed engine. `make versions`
//! installs all, and prints the table.

use std::process::Command;
use std::time::Instant;

use stack::{Bridge, Engine, LocalStack};

use crate::common::{bridge_binary, is_committed, local_stack, orders_sql, seed};
use crate::drill::{Drill, PARAMETERS, Plan};
use crate::engines::on;
use crate::types::every_value_comes_into_its_type_as_documented;
use crate::world::{block_on, get, post, wait_until};

/// The jobs, under the headings of their columns.
const JOBS: [(&str, fn()); 4] = [
    ("main job", main_job),
    ("kill drill", kill_drill),
    ("repeated inserts", repeated_inserts),
    ("types", every_value_comes_into_its_type_as_documented),
];
const WINDOW: &str = "SETTINGS non_replicated_deduplication_window = 1000";
const RECORDS: u64 = 100_000;
/// Kills between insert and commit are for engines with a Keeper to stop: `drill` has them.
const PLAN: Plan = Plan {
    records: 60_000,
    broken: 0,
    kills: 10,
    forced_kills: 0,
    pipe: "drill",
    table: "drill",
    landing: "drill",
    sql: |bridge| orders_sql(bridge, "drill", PARAMETERS, WINDOW),
};
const REPEATED_ROWS: u64 = 500_000;
const REPEATS: usize = 20;

/// The first column of the table.
fn name(engine: Engine) -> &'static str {
    match engine {
        _ if Engine::is_users_own() => "your own",
        Engine::V25_8 => "25.8 LTS",
        Engine::V26_3 => "26.3 LTS",
        Engine::V26_7 => "26.7",
        Engine::V26_9 => "26.9",
        Engine::V24_8 => "24.8 LTS",
    }
}

#[test]
fn each_engine_does_the_job() {
    let headings = JOBS.map(|(heading, _)| heading).join(" | ");
    println!("| ClickHouse | {headings} |\n|---|{}", "---|".repeat(JOBS.len()));
    let mut failed = Vec::new();
    for engine in Engine::installed() {
        let cells = JOBS.map(|(heading, job)| {
            let began = Instant::now();
            match std::thread::spawn(move || on(engine, job)).join() {
                Ok(()) => format!("yes, {} s", began.elapsed().as_secs()),
                Err(_) => {
                    failed.push((name(engine), heading));
                    "no".to_owned()
                }
            }
        });
        println!("| {} | {} |", name(engine), cells.join(" | "));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// What `check`, `serve`, the generators and a pull report on a release without APPEND, if one is
/// installed.
#[test]
fn each_engine_below_the_floor_is_refused() {
    for engine in Engine::installed_but_too_old() {
        println!("| {} | {} |", name(engine), refused(engine));
    }
}

fn refused(engine: Engine) -> String {
    let stack = LocalStack::start(engine).expect("the local stack");
    block_on(async {
        let client = stack::kinesis_client(&stack.kinesis.endpoint()).await;
        stack::load::create_stream(&client, "orders", 1).await.expect("a stream");
    });
    let (version, server) = (stack.clickhouse.query("SELECT version()").expect("a version"), stack.clickhouse.url());
    let begins = format!(
        "ClickHouse {} at {server} lacks APPEND, SYSTEM WAIT VIEW, system.view_refreshes.uuid, system.view_refreshes.retry",
        version.trim()
    );
    let lacks = |settings: &str| format!("{begins}{settings}, which pipes need: upgrade to 25.8 LTS or later");
    let output = |arguments: &[&str]| {
        let mut command = Command::new(bridge_binary());
        let output = command.args(arguments).envs(stack.bridge_environment()).output().expect("an end");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let of_keeper_map = lacks(" and the setting validate_mutation_query");
    let (said, _) = output(&["check"]);
    assert!(said.contains(&format!("FAIL  ClickHouse: {of_keeper_map}\n")), "{said}");
    let refused = lacks("").replace(".uuid, system", ".uuid and system");
    let of_orders = ["--stream", "orders", "--table", "orders"];
    for command in [&["sql", "pipe"][..], &["sql", "dynamodb", "--key", "id:S"]] {
        let (_, said) = output(&[command, &of_orders].concat());
        assert_eq!(said, format!("error: {refused}\n"));
    }
    let bridge = stack.start_bridge(bridge_binary(), &[]).expect("a bridge");
    wait_until("the sentence in the log", || bridge.log().contains(&of_keeper_map));
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let pull = get(&bridge, "/v1/pipes/p/next?stream=orders&view=default.v");
    assert!(pull.status == 400 && pull.text().contains(&refused), "{}", pull.text());
    refused
}

fn documented() -> Vec<String> {
    let readme = std::fs::read_to_string(stack::checkout().join("README.md")).expect("README.md");
    let rows = readme.lines().filter_map(|line| line.trim_start().strip_prefix("| 2"));
    rows.map(|row| format!("2{}", row.split(" | ").next().unwrap_or_default())).collect()
}

#[test]
fn the_readme_names_the_engines() {
    if !Engine::is_users_own() {
        assert_eq!(documented(), Engine::ALL.map(name));
    }
}

/// A stack with this many orders in the stream `orders`.
fn stack_with(orders: u64) -> LocalStack {
    let stack = local_stack();
    let client = block_on(stack::kinesis_client(&stack.kinesis.endpoint()));
    block_on(stack::load::create_stream(&client, "orders", 4)).expect("a stream");
    block_on(stack::load::put_orders(&client, "orders", 0, orders)).expect("orders");
    stack
}

/// As in the README: every record once.
fn main_job() {
    let stack = stack_with(RECORDS);
    let bridge = stack.start_bridge(bridge_binary(), &[]).expect("a bridge");
    stack.clickhouse.run_script(&orders_sql(&bridge.url(), "main", "", WINDOW)).expect("the example");
    wait_until("all records", || is_committed(&bridge, "main", RECORDS));
    let counts = stack.clickhouse.query("SELECT count(), uniqExact(id) FROM main");
    assert_eq!(counts, Ok(format!("{RECORDS}\t{RECORDS}\n")));
}

fn kill_drill() {
    let drill = Drill::run(PLAN, seed("kill_drill"));
    drill.report();
    assert_eq!((drill.rows(), drill.distinct_ids()), (PLAN.records, PLAN.records));
}

/// A stack with this many orders, short enough for one batch, in enough shards to read them
/// quickly.
fn stack_with_short(orders: u64) -> LocalStack {
    let stack = local_stack();
    let client = block_on(stack::kinesis_client(&stack.kinesis.endpoint()));
    block_on(stack::load::create_stream(&client, "orders", 8)).expect("a stream");
    let order = |n: u64| {
        (n.to_string(), format!("{{\"id\":\"{n}\",\"user_id\":{},\"price\":{}.25}}", n % 997, n % 89).into_bytes())
    };
    block_on(stack::load::put_records(&client, "orders", (0..orders).map(order))).expect("orders");
    stack
}

/// Makes the pipe read: takes one record, and waits until this many more are available for the next
/// batch.
fn read_ahead(bridge: &Bridge, pipe: &str, records: u64) {
    let path = format!("/v1/pipes/{pipe}");
    let one = get(bridge, &format!("{path}/next?stream=orders&ack=explicit&format=JSONEachRow&max_rows=1")).rows();
    let batch = one[0]["_batch"].as_str().expect("a batch");
    assert_eq!(post(bridge, &format!("{path}/ack"), &format!("{{\"batch\": \"{batch}\"}}\n")).status, 200);
    let buffered = || {
        let metrics = get(bridge, "/metrics").text();
        let of_shards = metrics.lines().filter(|line| line.starts_with("kinesis_bridge_buffered_rows{"));
        of_shards.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    wait_until("all records", || buffered() == records as f64);
}

/// The columns of the README's SELECT, in order.
const COLUMNS: &str = "_shard_id, _sequence_number, _sub_sequence_number, _timestamp, id, user_id, price";

/// A batch that the README's SELECT inserts again and again is there once, however threads and
/// blocks divide it.
fn repeated_inserts() {
    let stack = stack_with_short(REPEATED_ROWS + 1);
    let bridge = stack.start_bridge(bridge_binary(), &[("--memory", "1GiB")]).expect("a bridge");
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    read_ahead(&bridge, "again", REPEATED_ROWS);
    let sql = orders_sql(&bridge.url(), "again", "", WINDOW);
    let (table, view) = sql.split_once("CREATE MATERIALIZED VIEW").expect("a view");
    stack.clickhouse.run_script(table).expect("the table");
    let (_, select) = view.split_once("APPEND TO again AS").expect("a SELECT");
    // An open batch is served again, byte for byte, until it is acknowledged.
    let explicit = format!("ack=explicit&max_rows={REPEATED_ROWS}&max_bytes=134217728");
    let select = select.replace("view=default.again_pipe", &explicit);
    let select = select.trim().trim_end_matches(';');
    for repeat in 0..REPEATS {
        let insert = format!("INSERT INTO again ({COLUMNS}) {select}");
        stack.clickhouse.query(&insert).expect("an insert");
        let count = stack.clickhouse.query("SELECT count() FROM again").expect("a count");
        let count: u64 = count.trim().parse().expect("a number");
        assert_eq!(count, REPEATED_ROWS, "rows after repeat {repeat}");
    }
    println!("{REPEATED_ROWS} rows inserted {REPEATS} times are there once");
}
