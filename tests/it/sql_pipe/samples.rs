//! Twelve realistic streams, from files. UPDATE_SNAPSHOTS=1 rewrites the expected SQL: review the
//! diff.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::arrivals::{Json, arrived};
use super::{bridge, printed, run_script, stream, wait_for_rows};
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(every_field_of_every_record_arrives,);

const SAMPLES: [&str; 12] = [
    "app_logs",
    "clickstream",
    "cloudwatch",
    "github_events",
    "iot_sensors",
    "metrics",
    "ndjson",
    "network_flow",
    "orders",
    "payments",
    "user_profiles",
    "vehicles",
];

fn folder() -> PathBuf {
    stack::checkout().join("tests/it/sql_pipe")
}

/// A stream and the expected result.
struct Case {
    name: &'static str,
    payloads: Vec<Vec<u8>>,
    /// The rows, as the text of objects.
    rows: Vec<String>,
}

fn case(name: &'static str) -> Case {
    let text = fs::read_to_string(folder().join(format!("samples/{name}.ndjson"))).expect(name);
    let lines: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(String::from).collect();
    let (payloads, rows) = match name {
        "ndjson" => (text.split_terminator("\n\n").map(|record| record.as_bytes().to_vec()).collect(), lines),
        "cloudwatch" => {
            (lines.iter().map(|line| gzip(line)).collect(), lines.iter().flat_map(|line| log_events(line)).collect())
        }
        _ => (lines.iter().map(|line| line.as_bytes().to_vec()).collect(), lines),
    };
    Case { name, payloads, rows }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// The log events of an envelope, each with the fields that they share.
fn log_events(envelope: &str) -> Vec<String> {
    let envelope: serde_json::Value = serde_json::from_str(envelope).expect("an envelope");
    let events = envelope["logEvents"].as_array().expect("events");
    let row = |event: &serde_json::Value| {
        let mut event = event.clone();
        for name in ["owner", "logGroup", "logStream"] {
            event[name] = envelope[name].clone();
        }
        event.to_string()
    };
    events.iter().map(row).collect()
}

/// Most have the defaults.
fn flags(name: &str) -> &'static [&'static str] {
    match name {
        "cloudwatch" => &["--no-errors"],
        "iot_sensors" => &["--no-rest"],
        "vehicles" => &["--no-errors", "--no-rest"],
        _ => &[],
    }
}

fn every_field_of_every_record_arrives() {
    let mut wrong = Vec::new();
    sql("CREATE DATABASE IF NOT EXISTS shop");
    let cases: Vec<Case> = SAMPLES.into_iter().map(case).collect();
    for case in &cases {
        let (stream_name, table) = (format!("sql-{}", case.name), format!("shop.{}", case.name));
        stream(&stream_name, case.payloads.clone());
        let flags = flags(case.name);
        let script = printed(&stream_name, &table, flags);
        wrong.extend(differs_from_snapshot(case.name, &script));
        run_script(&script);
    }
    for case in &cases {
        wait_for_rows(&format!("shop.{}", case.name), case.rows.len());
        wrong.extend(differences(case));
        if !flags(case.name).contains(&"--no-errors") {
            assert_eq!(sql(&format!("SELECT count() FROM shop.{}_errors", case.name)), "0\n", "{}", case.name);
        }
        sql(&format!("DROP TABLE shop.{}_pipe", case.name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The fields that are not in the table as they were in the stream.
fn differences(case: &Case) -> Vec<String> {
    let table = sql(&format!(
        "SELECT * FROM shop.{} ORDER BY _shard_id, toUInt256(_sequence_number), _sub_sequence_number FORMAT JSONEachRow \
         SETTINGS output_format_json_quote_64bit_integers = 0, date_time_output_format = 'simple'",
        case.name
    ));
    let mut wrong = Vec::new();
    for (sent, got) in case.rows.iter().zip(table.lines()) {
        let row = Json::object(got);
        for (name, value) in Json::object(sent) {
            // A dot is not part of a column's name.
            let got = Json::get(&row, &name.replace('.', "_"));
            if !arrived(&value, &got) {
                wrong.push(format!("{}: {name}: sent {value:?}, got {got:?}", case.name));
            }
        }
        let known: Vec<String> = Json::object(sent).iter().map(|(name, _)| name.replace('.', "_")).collect();
        for (column, value) in row.iter().filter(|(column, _)| !column.starts_with('_') && !known.contains(column)) {
            if !arrived(&Json::Null, value) {
                wrong.push(format!("{}: {column}: nothing sent, got {value:?}", case.name));
            }
        }
    }
    wrong
}

fn differs_from_snapshot(name: &str, script: &str) -> Option<String> {
    let script = script.replace(bridge().address().rsplit(':').next().expect("a port"), "PORT");
    // The only difference: 25.8 may round integers in a JSON outside of arrays, too.
    let script = script.replace(r"(?:^|[\\[,:])(-?", r"[\\[,](-?");
    let file = folder().join(format!("snapshots/{name}.sql"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&file, &script).expect("a snapshot");
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    (expected != script)
        .then(|| format!("{} is not what is printed; UPDATE_SNAPSHOTS=1 writes it anew:\n{script}", file.display()))
}
