//! The user documentation is correct: its SQL runs, and what it names exists.

mod delimited;
pub mod markdown;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use bridge::http::request::parse;
use bridge::pipe::status::ShardState;
use domain::error::Error;
use domain::interface::{Parameter, Route};
use stack::{Bridge, ClickHouseOptions, KinesisOptions, LocalStack, MiniStack, User};

use crate::common::{bridge_binary, orders_sql};
use crate::engines::{engine, on_each_engine};
use crate::world::{get, wait_until};
use markdown::{Document, code_of, documents, statements};

on_each_engine!(every_sql_block_runs_and_every_select_has_rows,);

const RECORDS: u64 = 5_000;
/// The bridge's default address, which the documentation uses.
const DOCUMENTED: &str = "http://localhost:9020";
/// A bucket that the documentation uses.
const DOCUMENTED_BUCKET: &str = "https://example-bucket.s3.eu-central-1.amazonaws.com";
/// The user whose grants docs/operations.md prints, and who runs its statements.
const OPERATOR: &str = "operator";

/// A stack with the stream `orders` and the views of `sql setup`.
fn world() -> (LocalStack, Bridge) {
    let block = document("docs/operations.md").blocks.into_iter().find(|block| block.text.starts_with("GRANT"));
    let grants = statements(&block.expect("the grants").text);
    let grants = grants.iter().map(|grant| grant.strip_suffix(&format!(" TO {OPERATOR}")).expect(grant).to_owned());
    let operator = User { name: OPERATOR.into(), password: String::new(), grants: grants.collect() };
    let clickhouse = ClickHouseOptions { users: vec![operator], ..ClickHouseOptions::default() };
    let stack =
        LocalStack::start_with(engine(), &KinesisOptions::default(), &clickhouse).expect("the local stack starts");
    let bridge = stack.start_bridge(bridge_binary(), &[]).expect("the bridge starts");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = stack::kinesis_client(&stack.kinesis.endpoint()).await;
        stack::load::create_stream(&client, "orders", 4).await.expect("a stream");
        stack::load::put_orders(&client, "orders", 0, RECORDS).await.expect("records");
        delimited::put(&client).await;
    });
    let clickhouse = stack.clickhouse.url();
    let setup = run(&["sql", "setup", "--listen", bridge.address(), "--clickhouse-url", &clickhouse]);
    let setup = String::from_utf8(setup).expect("text");
    stack.clickhouse.run_script(&setup.replace("http://localhost:", "http://127.0.0.1:")).expect("the printed setup");
    (stack, bridge)
}

/// What the program prints.
fn run(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(bridge_binary()).args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn document(path: &str) -> Document {
    documents().into_iter().find(|document| document.path == path).expect(path)
}

fn checkout_file(path: &str) -> String {
    fs::read_to_string(stack::checkout().join(path)).expect(path)
}

/// The parts of a text that begin with `prefix`, followed by letters, digits, `-` and `_`.
fn words<'t>(text: &'t str, prefix: &'t str) -> impl Iterator<Item = &'t str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at..];
        let end = rest[prefix.len()..].find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'));
        &rest[..end.map_or(rest.len(), |end| end + prefix.len())]
    })
}

fn every_sql_block_runs_and_every_select_has_rows() {
    let (stack, bridge) = world();
    let s3 = MiniStack::start().expect("an S3");
    let bucket = s3.create_bucket("example-bucket").expect("a bucket");
    let here = |sql: &str| sql.replace(DOCUMENTED, &bridge.url()).replace(DOCUMENTED_BUCKET, &bucket);
    with_base64(&stack);
    for document in documents() {
        for block in &document.blocks {
            match &*block.info {
                "sql" | "sql norows" => {
                    let user = if document.path == "docs/operations.md" { OPERATOR } else { "default" };
                    let rows = block.info == "sql";
                    let mut run = |sql: &String| run_statement(&stack, user, &block.at, &here(sql), rows);
                    statements(&block.text).iter().for_each(&mut run);
                }
                // Run by `grants`, on a server with SQL-managed users.
                "sql grants" => {}
                "sh" | "json" | "xml" | "yaml" => {}
                // The page has a test of its own, with its own tables.
                "sql dynamodb" => {}
                // Run by `replicated`, on several servers.
                "sql cluster" => {}
                other => panic!("{}: what is a block of '{other}'?", block.at),
            }
        }
        if document.path == "README.md" {
            let count = || stack.clickhouse.query("SELECT count() FROM orders").expect("a count");
            wait_until("the README's pipe", || count() == format!("{RECORDS}\n"));
        }
    }

    let holds = |sql: &str, expected: String| {
        let ask = || stack.clickhouse.query(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        wait_until(&format!("{expected:?} from {sql}"), || ask() == expected);
    };
    // Every record is there, also after the seek back.
    holds("SELECT uniqExact(id) FROM orders", format!("{RECORDS}\n"));
    holds("SELECT count(), uniqExact(_shard_id, _sequence_number) FROM orders_raw", format!("{RECORDS}\t{RECORDS}\n"));
    holds("SELECT count(), uniqExact(status) FROM orders_by_status", format!("{RECORDS}\t4\n"));
    holds("SELECT sum(orders) FROM orders_daily", format!("{RECORDS}\n"));
    holds("SELECT count(), uniqExact(id) FROM orders_history", format!("{RECORDS}\t{RECORDS}\n"));
    holds("SELECT count() FROM kinesis.leases WHERE pipe = 'orders_by_hand' AND offered_batch = ''", "4\n".into());

    delimited::arrived(&stack);
    metrics_are_documented(&bridge);
    columns_of_pipes_are_documented(&stack);
    errors_are_seen(&stack, &bridge);
}

/// The 25.8 library is built without these functions, unlike a server.
fn with_base64(stack: &LocalStack) {
    let known = stack.clickhouse.query("SELECT count() FROM system.functions WHERE name = 'tryBase64Decode'");
    if known.as_deref() == Ok("0\n") {
        let six_bits = "c -> substring(bin(toUInt8(position('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', c) - 1)), 3)";
        let function = format!(
            "CREATE FUNCTION tryBase64Decode AS text -> unbin(substring(arrayStringConcat(arrayMap({six_bits}, splitByString('', replaceAll(text, '=', '')))) AS bits, \
             1, intDiv(length(bits), 8) * 8))"
        );
        stack.clickhouse.query(&function).expect("a function");
    }
}

/// Runs a statement; repeats a SELECT until it returns rows, if it must return any.
fn run_statement(stack: &LocalStack, user: &str, at: &str, sql: &str, rows: bool) {
    let began = Instant::now();
    loop {
        let answer = stack.clickhouse.query_as(user, "", sql).unwrap_or_else(|error| panic!("{at}: {error}\n{sql}"));
        if !answer.is_empty() || !rows || !sql.starts_with("SELECT") {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{at}: no rows\n{sql}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A failing view is among the errors with its own exception, and so are the shards of its pipe.
/// What cannot be moved or ended is refused with a reason.
fn errors_are_seen(stack: &LocalStack, bridge: &Bridge) {
    let ask = |sql: &str| stack.clickhouse.query_as(OPERATOR, "", sql);
    let failing = orders_sql(&bridge.url(), "failing", "", "")
        .replace("ORDER BY ALL", "WHERE throwIf(r.id != '', 'as it must') = 0");
    stack.clickhouse.run_script(&failing).expect("a pipe");
    let errors = "SELECT groupUniqArray(place) FROM kinesis.errors WHERE pipe = 'failing' AND error LIKE '%as it must%' AND error NOT LIKE '%Stack trace%'";
    let both =
        || ask(errors).is_ok_and(|places| places.contains("'default.failing_pipe'") && places.contains("shardId-"));
    wait_until("the errors of a view and of its shards", both);
    let retries = "SELECT retry > 0 FROM kinesis.refreshes WHERE pipe = 'failing' AND exception != ''";
    wait_until("a view that retries", || ask(retries).is_ok_and(|more| more == "1\n"));
    // A copy of a statement in which the view in the URL was not changed.
    let copied =
        orders_sql(&bridge.url(), "copied", "", "").replace("view=default.copied_pipe", "view=default.orders_pipe");
    stack.clickhouse.run_script(&copied).expect("a view");
    let forgotten = "SELECT place FROM kinesis.errors WHERE pipe = 'copied' AND error LIKE '%view=default.orders_pipe%write view=default.copied_pipe'";
    assert_eq!(ask(forgotten).expect("errors"), "default.copied_pipe\n");
    let right = "SELECT count() FROM kinesis.errors WHERE pipe != 'copied' AND error LIKE 'its URL has%'";
    assert_eq!(ask(right).expect("errors"), "0\n");
    stack.clickhouse.query("DROP VIEW copied_pipe").expect("dropped");
    for (refused, why) in [
        ("INSERT INTO kinesis.end VALUES ('failing')", "is being pulled here, so it cannot end"),
        ("INSERT INTO kinesis.end VALUES ('absent')", "pipe 'absent'"),
        ("INSERT INTO kinesis.seek (pipe, position) VALUES ('absent', 'latest')", "pipe 'absent'"),
        ("INSERT INTO kinesis.seek (pipe, position) VALUES ('failing', 'soon')", "must be trim_horizon"),
        ("INSERT INTO kinesis.seek (position) VALUES ('latest')", "it names no pipe"),
    ] {
        let error = ask(refused).expect_err(refused);
        assert!(error.contains(why), "{refused}: {error}");
    }
}

fn metrics_are_documented(bridge: &Bridge) {
    // A counter appears once it counts: here, a failed call.
    assert_eq!(get(bridge, "/v1/streams/absent/shards").status, 404);
    let text = get(bridge, "/metrics").text();
    let real: BTreeMap<&str, BTreeSet<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| {
            let sample = text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| !rest.starts_with('_')));
            let labels =
                sample.and_then(|rest| rest.strip_prefix('{')?.split_once('}')).map_or("", |(labels, _)| labels);
            (name, labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label).collect())
        })
        .collect();
    let table = document("docs/operations.md").table("metric");
    let documented: BTreeMap<&str, BTreeSet<&str>> =
        table.rows.iter().map(|row| (code_of(&row[0])[0], code_of(&row[1]).into_iter().collect())).collect();
    assert_eq!(documented, real);
    for document in documents() {
        for name in document.code().iter().flat_map(|code| words(code, "kinesis_bridge_")) {
            assert!(real.contains_key(name), "{}: there is no metric {name}", document.path);
        }
    }
}

fn columns_of_pipes_are_documented(stack: &LocalStack) {
    let real = stack.clickhouse.query("SELECT name FROM system.columns WHERE database = 'kinesis' AND table = 'pipes'");
    let real = real.expect("columns");
    let table = document("docs/operations.md").table("column");
    let documented: BTreeSet<&str> = table.rows.iter().flat_map(|row| code_of(&row[0])).collect();
    assert_eq!(documented, real.lines().collect());

    let columns = "SELECT concat('kinesis.', table), arraySort(groupArray(name)) FROM system.columns WHERE database = 'kinesis' \
                   AND table IN ('lag', 'throughput', 'refreshes', 'errors', 'problems', 'bridge', 'seek', 'end') GROUP BY table FORMAT JSONCompactEachRow";
    let real = stack.clickhouse.query(columns).expect("columns");
    let real: BTreeMap<String, BTreeSet<String>> =
        real.lines().map(|row| serde_json::from_str(row).expect(row)).collect::<Vec<_>>().into_iter().collect();
    let texts = |cell: &str| code_of(cell).into_iter().map(String::from).collect::<BTreeSet<_>>();
    let table = document("docs/operations.md").table("name");
    let documented = table.rows.iter().map(|row| (code_of(&row[0])[0].to_owned(), texts(&row[1]))).collect();
    assert_eq!(real, documented);
}

#[test]
fn the_main_sql_is_the_example() {
    let readme = document("README.md");
    let main = readme.blocks.iter().find(|block| block.info == "sql").expect("a block of SQL");
    assert_eq!(statements(&main.text), statements(&checkout_file("sql/examples/orders.sql")));
}

#[test]
fn what_the_documentation_names_exists() {
    let makefile = checkout_file("Makefile");
    let all = documents();
    for document in &all {
        let path = &document.path;
        for code in document.code() {
            if let Some(target) = code.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next()) {
                assert!(makefile.contains(&format!("\n{target}: ")), "{path}: there is no `make {target}`");
            }
            for word in code.split([' ', '\'', '(', ')']) {
                let word = word.trim_start_matches("../");
                let ours = ["docker/", "docs/", "sql/", "scripts/"].iter().any(|folder| word.starts_with(folder));
                assert!(!ours || stack::checkout().join(word).exists(), "{path}: there is no {word}");
            }
            for url in code.split(['\'', ' ']).filter_map(|word| word.strip_prefix(DOCUMENTED)) {
                let url = url.replace("{0..7}", "0").replace("{0..3}", "0");
                let (place, query) = url.split_once('?').map_or((&*url, None), |(place, query)| (place, Some(query)));
                let posted = ["/seek", "/ack", "/end"].iter().any(|end| place.ends_with(end));
                let method = if posted { "POST" } else { "GET" };
                assert!(place.is_empty() || parse(method, place, query).is_ok(), "{path}: {url}");
            }
        }
        document.links().iter().for_each(|link| document.resolve(link, &all));
    }
}

#[test]
fn flags_and_variables_are_those_of_help() {
    let commands = [
        &["serve", "--help"][..],
        &["check", "--help"],
        &["sql", "setup", "--help"],
        &["sql", "pipe", "--help"],
        &["sql", "dynamodb", "--help"],
        &["dynamodb", "verify", "--help"],
        &["--help"],
    ];
    let help: Vec<String> = commands.iter().map(|arguments| String::from_utf8(run(arguments)).expect("text")).collect();
    let help = help.join("\n");
    let flags: BTreeSet<&str> = words(&help, "--").collect();
    let variables: BTreeSet<&str> = words(&help, "KINESIS_BRIDGE_").collect();
    for document in documents() {
        for code in document.code() {
            for variable in words(&code, "KINESIS_BRIDGE_") {
                assert!(variables.contains(variable), "{}: there is no {variable}", document.path);
            }
            // Text about other programs names no flag of this one.
            let ours = code.split(['|', '#']).next().unwrap_or_default();
            let commands =
                ["serve", "check", "sql", "dynamodb"].map(|command| format!("clickhouse-kinesis-bridge {command}"));
            let command = commands.iter().find_map(|command| ours.find(&**command));
            // Followed by a space, it is an SQL comment.
            let is_flag = ours.starts_with("--") && !ours.starts_with("-- ");
            let told = if is_flag { ours } else { command.map_or("", |at| &ours[at..]) };
            for flag in words(told, "--") {
                assert!(flags.contains(flag), "{}: there is no {flag}", document.path);
            }
        }
    }
    let (deploy, sql, operations) =
        (document("docs/deploy.md"), document("docs/sql.md"), document("docs/operations.md"));
    let of_sql = sql.tables().into_iter().filter(|table| table.header[0] == "flag").flat_map(|table| table.rows);
    let of_commands = [of_sql.collect(), operations.table("flag").rows].concat();
    let spans = [deploy.spans(), of_commands.iter().map(|row| code_of(&row[0])[0].to_string()).collect()].concat();
    for name in flags.iter().chain(&variables) {
        let named = |span: &String| {
            span == name || span.starts_with(&format!("{name} ")) || span.starts_with(&format!("{name}["))
        };
        assert!(
            spans.iter().any(named),
            "neither docs/deploy.md nor the tables in docs/sql.md and docs/operations.md tell of {name}"
        );
    }
    // Defaults as printed by --help.
    for row in of_commands {
        let name = code_of(&row[0])[0].split([' ', '[']).next().unwrap_or_default();
        let (_, told) = help.split_once(&format!("      {name}")).expect(name);
        // A default that contains a space is in quotes.
        let told = told.split("\n      --").next().unwrap_or_default().replace('"', "");
        match &code_of(&row[1])[..] {
            [default] => assert!(told.contains(&format!("[default: {default}]")), "{name}: {told}"),
            _ => assert!(!told.contains("[default:"), "{name}: {told}"),
        }
    }
    for row in deploy.table("flag").rows {
        let (flag, variable) = (code_of(&row[0])[0], code_of(&row[1])[0]);
        let name = flag.split(' ').next().unwrap_or_default();
        assert_eq!(variable, name.replace("--", "KINESIS_BRIDGE_").replace('-', "_").to_uppercase());
        let (_, told) = help.split_once(&format!("{name} <")).expect(name);
        let told = told.split("\n      --").next().unwrap_or_default();
        match &code_of(&row[2])[..] {
            [default] => assert!(told.contains(&format!("[default: {default}]")), "{name}: {told}"),
            _ => assert!(!told.contains("[default:"), "{name}: {told}"),
        }
    }
}

#[test]
fn parameters_and_paths_are_those_of_the_program() {
    let sql = document("docs/sql.md");
    let table = sql.table("path");
    let documented = table.rows.iter().map(|row| code_of(&row[0])[0].split_once(' ').expect("a method and a path"));
    let paths = Route::ALL.iter().map(|route| (route.method(), route.path()));
    assert_eq!(documented.collect::<BTreeSet<_>>(), paths.collect());

    let mut told = BTreeSet::new();
    let tables = sql.tables();
    for table in tables.iter().filter(|table| table.header[0] == "parameter") {
        let path = code_of(&table.introduction)[0].strip_prefix("GET ").expect("a path");
        let path = path.replace("{pipe}", "p").replace("{stream}", "orders");
        let base: &[(&str, &str)] = if path.ends_with("/next") { &[("stream", "s"), ("ack", "explicit")] } else { &[] };
        let with = |name: &str, value: &str| {
            let without = if matches!(name, "view" | "on_failure") { "ack" } else { name };
            let mut pairs: Vec<(&str, &str)> = base.iter().copied().filter(|(n, _)| *n != without).collect();
            pairs.push((name, value));
            // Those that need another one.
            pairs.extend((name == "payload").then_some(("format", "JSONEachRow")));
            pairs.extend((name == "on_failure").then_some(("view", "default.v")));
            let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            parse("GET", &path, Some(&query.join("&")))
                .unwrap_or_else(|error| panic!("{path}, {name}={value}: {error}"))
        };
        for row in &table.rows {
            let (name, example) = (code_of(&row[0])[0], code_of(&row[1])[0]);
            with(name, example);
            told.insert(name.to_string());
            // A default in words, such as "this or `ack`", is not a value.
            if let [default] = code_of(&row[2])[..]
                && row[2].starts_with('`')
            {
                assert_eq!(with(name, default), with(name, ""), "{path}, {name}");
            }
        }
        assert!(parse("GET", &path, Some("absent=1")).is_err());
    }
    assert_eq!(told, Parameter::ALL.iter().map(Parameter::to_string).collect());
}

#[test]
fn errors_and_states_are_those_of_the_program() {
    let text = String::new;
    let errors = [
        Error::BadRequest(text()),
        Error::NotFound(text()),
        Error::Unauthorized(text()),
        Error::Forbidden(text()),
        Error::RangeNotSatisfiable(text()),
        Error::Gap(text()),
        Error::Fenced(text()),
        Error::AccessDenied(text()),
        Error::Misconfigured(text()),
        Error::Unavailable(text()),
        Error::Internal(text()),
    ];
    let operations = document("docs/operations.md");
    let names = |heading: &str| -> BTreeSet<String> {
        operations.table(heading).rows.iter().map(|row| code_of(&row[0])[0].to_string()).collect()
    };
    assert_eq!(names("error"), errors.iter().map(|error| error.code().to_string()).collect());
    let states =
        [ShardState::Reading, ShardState::WaitingForParent, ShardState::Finished, ShardState::Gap, ShardState::Unowned];
    assert_eq!(names("state"), states.iter().map(|state| state.name().to_string()).collect());
}

#[test]
fn rights_are_those_that_are_used() {
    // The first policy on a page allows exactly the calls that the sources make.
    let allows = |page: &str, service: &str, sources: &[&str], call: &str| {
        let policy = document(page).blocks.into_iter().find(|block| block.info == "json").expect("a policy");
        let policy: serde_json::Value = serde_json::from_str(&policy.text).expect("JSON");
        let statements = policy["Statement"].as_array().expect("statements").iter();
        let actions = statements.flat_map(|statement| statement["Action"].as_array().expect("actions"));
        let allowed = actions.filter_map(|action| action.as_str()?.strip_prefix(service).map(String::from));
        let source: String = sources.iter().map(|source| checkout_file(source)).collect();
        let called = source.split(call).skip(1).filter_map(|rest| rest.split('"').next().map(String::from));
        assert_eq!(allowed.collect::<BTreeSet<_>>(), called.collect(), "{page}");
    };
    let kinesis = ["crates/adapters/src/kinesis/client.rs", "crates/adapters/src/kinesis/fan_out.rs"];
    allows("docs/deploy.md", "kinesis:", &kinesis, "checked!(self, \"");
    allows(
        "docs/dynamodb.md",
        "dynamodb:",
        &["crates/capture/src/dynamodb/client.rs", "crates/capture/src/dynamodb/read.rs"],
        " explain(\"",
    );

    let deploy = document("docs/deploy.md");
    let xml = checkout_file("docker/clickhouse/users.d/bridge.xml");
    let granted = xml.split("<query>").skip(1).filter_map(|rest| rest.split("</query>").next());
    let granted: BTreeSet<String> = granted.map(|grant| format!("{grant} TO bridge")).collect();
    let block = deploy.blocks.iter().find(|block| block.text.starts_with("GRANT")).expect("the grants");
    assert_eq!(markdown::statements(&block.text).into_iter().collect::<BTreeSet<_>>(), granted);
}
