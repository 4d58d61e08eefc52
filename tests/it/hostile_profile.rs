//! A ClickHouse user whose profile reverses defaults: everything works as under any other profile.
//! And users who lack what the bridge needs: one clear message each.

use std::process::{Command, Output};

use adapters::clickhouse::{ClickHouse, Wanted};
use domain::finding::Verdict;
use stack::{ClickHouseOptions, Engine, KinesisOptions, LocalStack};

use crate::common::{bridge_binary, is_committed, orders_sql};
use crate::engines::{engine, on, on_each_engine};
use crate::world::{block_on, get, post, wait_for, wait_until};

on_each_engine!(
    everything_works_under_a_profile_that_turns_defaults_around,
    a_read_only_user_is_one_sentence,
    a_constraint_is_one_sentence,
    a_quota_is_one_sentence,
    a_generated_pipe_is_exact_under_the_profile_of_its_definer,
);

/// What a profile can contain. Each of these made a statement of the bridge fail or read too much,
/// too little or something else, or might do so.
pub const HOSTILE: [(&str, &str); 55] = [
    ("http_write_exception_in_output_format", "1"),
    ("output_format_json_array_of_rows", "1"),
    ("output_format_json_quote_64bit_integers", "1"),
    ("output_format_json_quote_64bit_floats", "1"),
    ("output_format_json_quote_decimals", "1"),
    ("output_format_json_quote_denormals", "1"),
    ("output_format_json_named_tuples_as_objects", "0"),
    ("output_format_json_map_as_array_of_tuples", "1"),
    ("output_format_json_escape_forward_slashes", "0"),
    ("output_format_tsv_crlf_end_of_line", "1"),
    ("output_format_write_statistics", "0"),
    ("format_tsv_null_representation", "none"),
    ("date_time_output_format", "iso"),
    ("date_time_input_format", "best_effort"),
    ("session_timezone", "Asia/Tokyo"),
    ("extremes", "1"),
    ("limit", "1"),
    ("offset", "1"),
    ("additional_result_filter", "0"),
    ("max_result_rows", "100000"),
    ("result_overflow_mode", "break"),
    ("read_overflow_mode", "break"),
    ("max_execution_time", "60"),
    ("timeout_overflow_mode", "break"),
    ("use_query_cache", "1"),
    ("final", "1"),
    ("dialect", "prql"),
    ("join_use_nulls", "1"),
    ("transform_null_in", "1"),
    ("group_by_use_nulls", "1"),
    ("aggregate_functions_null_for_empty", "1"),
    ("empty_result_for_aggregation_by_empty_set", "1"),
    ("prefer_column_name_to_alias", "1"),
    ("union_default_mode", "DISTINCT"),
    ("data_type_default_nullable", "1"),
    ("force_primary_key", "1"),
    ("force_index_by_date", "1"),
    ("max_query_size", "200"),
    ("max_ast_elements", "20"),
    ("max_ast_depth", "5"),
    ("max_parser_depth", "10"),
    ("async_insert", "1"),
    ("wait_for_async_insert", "0"),
    ("mutations_sync", "0"),
    ("alter_sync", "0"),
    ("keeper_map_strict_mode", "1"),
    ("insert_keeper_max_retries", "0"),
    ("validate_mutation_query", "0"),
    ("http_response_buffer_size", "1"),
    ("http_wait_end_of_query", "1"),
    ("enable_http_compression", "1"),
    ("send_progress_in_http_headers", "1"),
    ("max_block_size", "1"),
    ("max_threads", "1"),
    ("enable_positional_arguments", "0"),
];
const USER: &str = "odd";

/// A stack with a user whose profile is `profile` (XML), with a quota; both may be empty.
fn stack_with(profile: &str, quota: &str) -> LocalStack {
    let xml = format!(
        "<clickhouse><profiles><odd>{profile}</odd></profiles><quotas><odd>{quota}</odd></quotas><users><odd><password></password>\
         <networks><ip>::/0</ip></networks><profile>odd</profile><quota>odd</quota><access_management>1</access_management>\
         <named_collection_control>1</named_collection_control></odd></users></clickhouse>"
    );
    let options = ClickHouseOptions { users_xml: Some(xml), ..ClickHouseOptions::default() };
    LocalStack::start_with(engine(), &KinesisOptions::default(), &options).expect("the local stack")
}

fn hostile(settings: &[(&str, &str)]) -> String {
    settings.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect()
}

/// Runs the program to its end as the odd user.
fn run(stack: &LocalStack, arguments: &[&str]) -> Output {
    let mut command = Command::new(bridge_binary());
    command.args(arguments).args(["--clickhouse-user", USER]);
    command.envs(stack.bridge_environment()).env("NO_COLOR", "1").output().expect("an end")
}

/// The program's output; it must succeed.
fn printed(stack: &LocalStack, arguments: &[&str]) -> String {
    let output = run(stack, arguments);
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}{complaints}");
    said.into_owned()
}

fn put_orders(stack: &LocalStack, first: u64, count: u64) {
    block_on(async {
        let client = stack::kinesis_client(&stack.kinesis.endpoint()).await;
        if first == 0 {
            stack::load::create_stream(&client, "orders", 2).await.expect("a stream");
        }
        stack::load::put_orders(&client, "orders", first, count).await.expect("orders");
    });
}

fn ask(stack: &LocalStack, sql: &str) -> String {
    stack.clickhouse.query(sql).unwrap_or_else(|error| panic!("{error}\nin\n{sql}"))
}

fn everything_works_under_a_profile_that_turns_defaults_around() {
    let stack = stack_with(&hostile(&HOSTILE), "");
    put_orders(&stack, 0, 500);
    let bridge = stack.start_bridge(bridge_binary(), &[("--clickhouse-user", USER)]).expect("a bridge");
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);

    // The main job, with a failing refresh in between, whose error must be parsed correctly. The
    // view belongs to another user: what a profile does to a view's own SELECT is up to its
    // definer.
    let window = "SETTINGS non_replicated_deduplication_window = 1000";
    let script = orders_sql(&bridge.url(), "main", "&linger_ms=0", window);
    let (table, view) = script.split_once("CREATE MATERIALIZED VIEW").expect("a view");
    stack.clickhouse.run_script(table).expect("the table");
    ask(&stack, "ALTER TABLE main ADD CONSTRAINT none_now CHECK user_id < 0");
    stack.clickhouse.run_script(&format!("CREATE MATERIALIZED VIEW{view}")).expect("the view");
    let last_error = wait_for("the error in the status", || {
        let rows = get(&bridge, "/v1/pipes");
        let rows = if rows.status == 200 { rows.rows() } else { Vec::new() };
        rows.iter().find_map(|row| row["last_error"].as_str().filter(|e| !e.is_empty()).map(String::from))
    });
    assert!(last_error.contains("Constraint `none_now`"), "{last_error}");
    ask(&stack, "ALTER TABLE main DROP CONSTRAINT none_now");
    wait_until("all records", || is_committed(&bridge, "main", 500));
    assert_eq!(ask(&stack, "SELECT count(), uniqExact(id) FROM main"), "500\t500\n");

    // Every command.
    let of_check = printed(&stack, &["check", "--stream", "orders"]);
    assert!(!of_check.contains("FAIL"), "{of_check}");
    let leases = of_check.lines().find(|line| line.starts_with("ok    state tables")).expect("the state tables");
    assert!(leases.ends_with(": 2 leases, 1 workers"), "{leases}");
    let listen = bridge.url().replace("http://", "");
    let setup = printed(&stack, &["sql", "setup", "--listen", &listen]);
    stack.clickhouse.run_script(&setup).expect("the views");
    let flags = ["--listen", &*listen, "--stream", "orders", "--table", "default.made"];
    let dry_run = printed(&stack, &[&["sql", "pipe", "--dry-run"], &flags[..]].concat());
    assert!(dry_run.contains("user_id"), "{dry_run}");
    let text =
        Command::new(bridge_binary()).args(["sql", "pipe"]).args(flags).envs(stack.bridge_environment()).output();
    let of_default_user = String::from_utf8_lossy(&text.expect("an end").stdout).into_owned();
    assert_eq!(printed(&stack, &[&["sql", "pipe"], &flags[..]].concat()), of_default_user);
    let applied = printed(&stack, &[&["sql", "pipe", "--apply"], &flags[..]].concat());
    assert!(applied.contains("CREATE MATERIALIZED VIEW"), "{applied}");
    let views = "SELECT count() FROM system.view_refreshes WHERE view = 'made_pipe'";
    assert_eq!(ask(&stack, views), "1\n");
    ask(&stack, "DROP VIEW made_pipe");
    let of_dynamodb = printed(&stack, &["sql", "dynamodb", "--key", "id:S", "--stream", "orders", "--table", "items"]);
    assert!(of_dynamodb.contains("CREATE TABLE"), "{of_dynamodb}");

    // Seek and end, through HTTP and SQL.
    ask(&stack, "SYSTEM STOP VIEW main_pipe");
    wait_until("the stopped view", || {
        ask(&stack, "SELECT status FROM system.view_refreshes WHERE view = 'main_pipe'") == "Disabled\n"
    });
    let moved = post(&bridge, "/v1/pipes/main/seek", "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}\n");
    assert_eq!(moved.status, 200, "{}", moved.text());
    ask(&stack, "INSERT INTO kinesis.seek (pipe, position) VALUES ('main', 'trim_horizon')");
    assert_eq!(
        ask(&stack, "SELECT DISTINCT sequence_number FROM kinesis.leases WHERE pipe = 'main'"),
        "TRIM_HORIZON\n"
    );
    ask(&stack, "DROP VIEW main_pipe");
    wait_until("the end", || stack.clickhouse.query("INSERT INTO kinesis.end VALUES ('main')").is_ok());
    assert_eq!(ask(&stack, "SELECT count() FROM kinesis.leases WHERE pipe = 'main'"), "0\n");
}

/// Each of these, in the profile of the user that a view runs as, loses or duplicates rows while
/// its refreshes succeed.
const SILENT: [(&str, &str); 5] = [
    ("limit", "1"),
    ("offset", "1"),
    ("insert_deduplicate", "0"),
    ("insert_deduplication_token", "always"),
    ("sort_overflow_mode", "break"),
];

fn a_generated_pipe_is_exact_under_the_profile_of_its_definer() {
    let stack = stack_with(&hostile(&SILENT), "");
    put_orders(&stack, 0, 500);
    let bridge = stack.start_bridge(bridge_binary(), &[]).expect("a bridge");
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let listen = bridge.url().replace("http://", "");
    printed(&stack, &["sql", "pipe", "--apply", "--listen", &listen, "--stream", "orders", "--table", "default.made"]);
    wait_until("the first records", || is_committed(&bridge, "made", 500));

    // A table below refuses a batch that the target already has. The first batch after the view's
    // creation may miss it.
    ask(
        &stack,
        "CREATE TABLE below (id String) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100",
    );
    ask(&stack, "CREATE MATERIALIZED VIEW below_mv TO below AS SELECT id FROM made");
    put_orders(&stack, 500, 100);
    wait_until("the second records", || is_committed(&bridge, "made", 600));
    ask(&stack, "ALTER TABLE below ADD CONSTRAINT none_now CHECK id = ''");
    put_orders(&stack, 600, 300);
    let exception = "SELECT exception FROM system.view_refreshes WHERE view = 'made_pipe'";
    wait_until("a refusal", || ask(&stack, exception).contains("Constraint `none_now`"));
    wait_until("the third records in the target", || ask(&stack, "SELECT count() >= 601 FROM made") == "1\n");
    ask(&stack, "ALTER TABLE below DROP CONSTRAINT none_now");
    wait_until("the third records", || is_committed(&bridge, "made", 900));
    assert_eq!(ask(&stack, "SELECT count(), uniqExact(id) FROM made"), "900\t900\n");
    assert_eq!(ask(&stack, "SELECT count(), uniqExact(id) FROM below WHERE id >= 'order-000000600'"), "300\t300\n");
}

/// The bridge's answers about a server, as one text.
fn abilities(stack: &LocalStack) -> Result<String, String> {
    let clickhouse = ClickHouse::new(&stack.clickhouse.url(), USER, "");
    let wanted = Wanted { user: USER, database: "kinesis", keeper_map: true };
    match block_on(clickhouse.abilities(&wanted)) {
        Ok(findings) => Ok(findings.iter().map(|f| format!("{:?} {}: {}\n", f.verdict, f.what, f.says)).collect()),
        Err(error) => Err(clickhouse.explain(&error)),
    }
}

/// A SELECT of the bridge returns the same rows, byte for byte, under each single setting. Only
/// 25.8 has SQL-managed users.
#[test]
fn no_setting_of_a_profile_changes_what_is_read() {
    on(Engine::V25_8, || {
        let stack = LocalStack::start(engine()).expect("the local stack");
        ask(&stack, "CREATE TABLE leases (key String, n UInt64) ENGINE = KeeperMap('/odd') PRIMARY KEY key");
        ask(&stack, "INSERT INTO leases SELECT toString(number), number FROM numbers(8)");
        let sql = "SELECT key, n, mapKeys(map(key, n)) AS m, [key] AS a, toDateTime64(n, 3, 'UTC') AS t, n / 0 AS d, toDecimal64(n, 2) AS c, \
                   CAST((n, key), 'Tuple(n UInt64, key String)') AS named, (SELECT count() FROM leases WHERE key = '') AS none \
                   FROM leases WHERE key IN ('0', '1', '2', '3', '4', '5', '6', '7') ORDER BY key";
        let rows = |user: &str| block_on(ClickHouse::new(&stack.clickhouse.url(), user, "").json_lines(sql));
        let parsed = |lines: Vec<String>| -> Vec<serde_json::Value> {
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect()
        };
        let expected = parsed(rows("default").expect("rows"));
        assert_eq!(expected.len(), 8);
        for (name, value) in HOSTILE {
            ask(&stack, &format!("CREATE USER OR REPLACE single SETTINGS {name} = '{value}'"));
            ask(&stack, "GRANT CURRENT GRANTS ON *.* TO single");
            let got = rows("single").map(parsed).unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
            assert_eq!(got, expected, "{name} = {value}");
        }
    });
}

/// `check` and the log report this, and nothing else happens.
fn assert_told(stack: &LocalStack, begins: &str, what_to_do: &str) {
    let told = |text: &str| text.contains(begins) && text.contains(what_to_do);
    let output = run(stack, &["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && told(&said), "{said}");
    let bridge = stack.start_bridge(bridge_binary(), &[("--clickhouse-user", USER)]).expect("a bridge");
    wait_until(begins, || told(&bridge.log()));
    put_orders(stack, 0, 1);
    let pull = get(&bridge, "/v1/pipes/p/next?stream=orders&view=default.v");
    assert!(pull.status == 503 && told(&pull.text()), "{}: {}", pull.status, pull.text());
}

fn a_read_only_user_is_one_sentence() {
    let stack = stack_with("<readonly>1</readonly>", "");
    let begins = "ClickHouse user 'odd' is read-only (Cannot modify '";
    assert_told(&stack, begins, "give the user a profile with readonly = 0");
    // May change settings, but not write.
    let stack = stack_with("<readonly>2</readonly>", "");
    let found = abilities(&stack).expect("answers");
    let says = "Bad grants of ClickHouse user 'odd': ClickHouse user 'odd' has the setting readonly = 2, but the bridge writes";
    assert!(found.contains(says), "{found}");
    let clickhouse = ClickHouse::new(&stack.clickhouse.url(), USER, "");
    let findings = block_on(clickhouse.abilities(&Wanted { user: USER, database: "kinesis", keeper_map: true }));
    assert_eq!(findings.expect("answers").iter().filter(|f| f.verdict == Verdict::Bad).count(), 1);
}

fn a_constraint_is_one_sentence() {
    let stack = stack_with("<limit>5</limit><constraints><limit><readonly/></limit></constraints>", "");
    let begins = "the profile of ClickHouse user 'odd' forbids a setting that the bridge sends with every statement (Setting limit should \
                  not be changed.";
    assert_told(&stack, begins, "remove the constraint");
}

fn a_quota_is_one_sentence() {
    let quota = "<interval><duration>3600000</duration><queries>5</queries></interval>";
    let stack = stack_with("", quota);
    let begins = "ClickHouse user 'odd' has used up its quota (Quota for user `odd` for ";
    assert_told(&stack, begins, "raise it, or give the bridge a user without one");
}
