//! The views of `sql setup` while the bridge is dead, hangs or refuses: they answer soon, name its
//! address, and say what to do.

use std::time::{Duration, Instant};

use stack::Bridge;

use crate::engines::on_each_engine;
use crate::errors::command_line::{run, stderr, token_file};
use crate::world::{create_pipe, create_stream, drop_pipe, exception, put_numbered, sql, stack, wait_for, wait_until};

on_each_engine!(sql_answers_while_the_bridge_does_not,);

/// Far more than these views need, and far less than the two minutes of ClickHouse's own retries.
const SOON: Duration = Duration::from_secs(30);
const STREAM: &str = "unreachable";

/// What asks the bridge, and has nothing to answer without it.
fn views(database: &str) -> [String; 6] {
    [
        format!("SELECT * FROM {database}.pipes"),
        format!("SELECT * FROM {database}.lag"),
        format!("SELECT * FROM {database}.streams"),
        format!("SELECT * FROM {database}.shards(stream = '{STREAM}')"),
        format!("SELECT * FROM {database}.sample(stream = '{STREAM}')"),
        format!("SELECT * FROM {database}.records(stream = '{STREAM}', from = '', to = '')"),
    ]
}

/// Runs what must come to an end soon.
fn soon<T>(what: &str, ask: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let answer = ask();
    assert!(began.elapsed() < SOON, "{what} took {} s", began.elapsed().as_secs());
    answer
}

/// Each view that needs the bridge fails with this sentence, and the errors have a row with it.
fn names_the_bridge(database: &str, bridge: &Bridge) {
    let sentence = format!("the bridge at {} does not answer ClickHouse: start it", bridge.url());
    for view in views(database) {
        let said = soon(&view, || exception(&view));
        assert!(said.contains(&sentence), "{view}: {said}");
    }
    let errors = format!("SELECT pipe, place, state FROM {database}.errors WHERE error LIKE '{sentence}%'");
    let row = format!("\t{}\tunreachable\n", bridge.url());
    let found = soon(&errors, || sql(&errors));
    assert!(found.contains(&row), "{found}");
}

fn sql_answers_while_the_bridge_does_not() {
    let database = "unreachable";
    create_stream(STREAM, 1);
    put_numbered(STREAM, "a", 7);
    let (_first, first) = token_file("unreachable-token-0123456789");
    let (_second, second) = token_file("unreachable-token-9876543210");
    let bridge = crate::world::bridge(database, &[("--token-file", &first)]);
    let (address, clickhouse) = (bridge.address(), stack().clickhouse.url());
    let setup = run(
        &["sql", "setup", "--listen", address, "--clickhouse-database", database, "--token-file", &first],
        &[("KINESIS_BRIDGE_CLICKHOUSE_URL", &clickhouse)],
    );
    assert!(setup.status.success(), "{}", stderr(&setup));
    let setup = String::from_utf8_lossy(&setup.stdout).replace("http://localhost:", "http://127.0.0.1:");
    stack().clickhouse.run_script(&setup).expect("the printed setup");
    create_pipe(&bridge, STREAM, &format!("stream={STREAM}&view=default.{STREAM}_view"));
    // The view has no token.
    let refused = format!(
        "SELECT exception FROM {database}.refreshes WHERE pipe = '{STREAM}' AND exception LIKE '%requires a bearer token%'"
    );
    wait_until("an exception that the bridge worded", || sql(&refused).contains("HTTP status code: 401"));
    for view in &views(database)[2..] {
        assert!(!sql(view).is_empty(), "{view}");
    }
    let unreachable = format!("SELECT count() FROM {database}.errors WHERE state IN ('unreachable', 'refusing')");
    assert_eq!(sql(&unreachable), "0\n");
    assert_eq!(sql(&format!("SELECT answers FROM {database}.bridge")), "1\n");

    bridge.kill();
    names_the_bridge(database, &bridge);
    let refreshes = format!("SELECT exception FROM {database}.refreshes WHERE pipe = '{STREAM}'");
    let sentence = format!("the bridge at {} does not answer ClickHouse: start it", bridge.url());
    let said = wait_for("the address in the exception of the view", || {
        let said = soon(&refreshes, || sql(&refreshes));
        said.starts_with(&sentence).then_some(said)
    });
    println!("kinesis.refreshes: {said}");

    // It takes connections and says nothing.
    bridge.start_again().expect("the bridge");
    wait_until("an answer", || sql(&unreachable) == "0\n");
    bridge.sigstop();
    names_the_bridge(database, &bridge);
    bridge.sigcont();
    wait_until("an answer", || sql(&unreachable) == "0\n");

    // Another token than the named collection's: its own sentence, and a row that says so.
    bridge.change_launch(|launch| {
        launch
            .args
            .iter_mut()
            .filter(|argument| **argument == *first)
            .for_each(|argument| *argument = second.clone().into());
    });
    bridge.restart().expect("the bridge");
    let [pipes, ..] = views(database);
    let refuses = wait_for("the sentence about the token", || {
        let said = exception(&pipes);
        said.contains("the bearer token is not this bridge's").then_some(said)
    });
    assert!(refuses.contains("sql setup"), "{refuses}");
    let refusing = format!(
        "SELECT place, error LIKE '%run `sql setup` with its --token-file again%' FROM {database}.errors WHERE state = 'refusing'"
    );
    assert_eq!(sql(&refusing), format!("{}\t1\n", bridge.url()));
    drop_pipe(STREAM);
}
