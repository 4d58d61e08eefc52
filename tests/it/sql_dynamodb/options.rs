//! The effects of flags.

use std::io::Write;
use std::process::Command;

use super::{answers, captured, now, printed, put_event, run_in, run_script, send, succeeded};
use crate::dynamodb::items::{Item, Key};
use crate::engines::on_each_engine;
use crate::world::{self, binary, sql};

on_each_engine!(with_a_token_the_pipe_goes_through_the_named_collection, a_dry_run_shows_items_and_changes_nothing,);

fn item(id: &str) -> Item {
    [("id".to_owned(), aws_sdk_dynamodb::types::AttributeValue::S(id.into()))].into()
}

fn with_a_token_the_pipe_goes_through_the_named_collection() {
    let table = captured("sqld_token", &[("id", Key::S)]);
    send("sqld_token", [put_event(&table, &item("a"), now())]);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "a-very-secret-token").expect("a token");
    let token = ["--token-file", file.path().to_str().expect("a path")];
    let bridge = world::bridge("sqld_token", &[(token[0], token[1])]);
    let mut setup = Command::new(binary());
    setup.args(["sql", "setup", "--clickhouse-database", "sqld_token", "--listen", bridge.address()]).args(token);
    run_script(&succeeded(setup.output().expect("an end")));
    let flags = ["--listen", bridge.address(), "--table", "sqld_token", "--stream", "sqld_token", "--apply"];
    let flags = [&flags[..], &["--clickhouse-database", "sqld_token"]].concat();
    let script = succeeded(run_in(&[], &[&flags[..], &token].concat()));
    assert!(
        script.contains("FROM url(sqld_token_bridge, url = ") && !script.contains("a-very-secret-token"),
        "{script}"
    );
    answers("SELECT id FROM sqld_token", "a\n");
    sql("DROP TABLE sqld_token_pipe");
}

fn a_dry_run_shows_items_and_changes_nothing() {
    let table = captured("sqld_dry", &[("id", Key::S)]);
    send("sqld_dry", (0..12).map(|n| put_event(&table, &item(&format!("i-{n}")), now())));
    let shown = printed("sqld_dry", &["--dry-run", "--target", "default.sqld_dried"]);
    assert!(shown.contains("\n-- id:   i-11\n") && shown.contains("Row 10:") && !shown.contains("Row 11:"), "{shown}");
    assert!(!shown.contains("CREATE"), "{shown}");
    assert_eq!(sql("SELECT count() FROM system.tables WHERE name LIKE 'sqld_dried%'"), "0\n");
    let script = printed("sqld_dry", &["--start", "2026-11-21 10:00:00", "--mode", "efo", "--pipe", "dry"]);
    let query = "/v1/pipes/dry/next?stream=sqld_dry&view=default.sqld_dry_pipe&unmarshal=dynamodb&start=2026-11-21%2010:00:00&mode=efo'";
    assert!(script.contains(query), "{script}");
    let script = printed("sqld_dry", &["--start", "-1h"]);
    assert!(script.contains("unmarshal=dynamodb&start=-1h'"), "{script}");
}
