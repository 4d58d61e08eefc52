//! `sql pipe --message`: the JSON in the messages of log events becomes columns, and every other
//! message stays unchanged.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{bridge, printed, put, refused, run, run_script, stream_of, wait_for_rows};
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(messages_become_columns_and_nothing_of_an_event_is_lost, other_streams_have_no_messages,);

const STREAM: &str = "sql-messages";

/// An envelope as CloudWatch Logs sends it, with these messages.
fn envelope(first: usize, messages: &[&str]) -> Vec<u8> {
    let event = |(n, message): (usize, &&str)| {
        let mut event = json!({"id": format!("{:056}", first + n), "timestamp": 1_795_255_200_123_u64 + n as u64, "message": message});
        if n == 1 {
            event["extractedFields"] = json!({"status": "ok"});
        }
        event
    };
    let events: Vec<Value> = messages.iter().enumerate().map(event).collect();
    json!({"messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "/aws/lambda/check'out", "logStream": "2026/11/21/[$LATEST]7d",
           "subscriptionFilters": ["to-kinesis"], "logEvents": events})
    .to_string()
    .into_bytes()
}

/// What to find for each message: its level, its `ms`, and the text if it is not an object.
fn expected(message: &str) -> (Option<String>, Option<i64>, Option<String>) {
    match serde_json::from_str::<Value>(message) {
        Ok(Value::Object(fields)) => (fields["level"].as_str().map(String::from), fields["ms"].as_i64(), None),
        _ => (None, None, Some(message.into())),
    }
}

const SAMPLED: [&str; 3] = [
    "{\"level\": \"info\", \"ms\": 84, \"user\": {\"id\": \"u-1\"}}",
    "{\"level\":\"warn\",\"ms\":5,\"user\":{\"id\":\"ü\\n\"}}\n",
    "{\"level\":\"info\",\"ms\":6,\"user\":null}",
];
const LATER: [&str; 7] = [
    "START RequestId: 069e87dc Version: $LATEST\n",
    "  {\"level\": \"error\", \"ms\": 7, \"user\": {\"id\": \"u-2\"}}  ",
    "{\"level\": \"cut off",
    "[1, 2]",
    "",
    "\"{}\"",
    "{braces} in {text}",
];
/// What does not fit goes to the errors table, whole: a level that is a number is text, but an `ms`
/// that is not a number does not fit.
const MISFIT: &str = "{\"level\":\"info\",\"ms\":\"soon\",\"user\":{\"id\":\"u-3\"}}";

fn messages_become_columns_and_nothing_of_an_event_is_lost() {
    stream_of(STREAM, &[std::str::from_utf8(&envelope(0, &SAMPLED)).expect("text")]);
    let script = printed(STREAM, "sqlp_messages", &["--message", "--flatten"]);
    let port = bridge().address().rsplit(':').next().expect("a port");
    assert!(script.contains("\n-- 3 of 3 messages are JSON objects, and their fields become columns.\n"), "{script}");
    assert!(
        script.contains(&format!("http://localhost:{port}/v1/pipes/sqlp_messages/next?"))
            && script.contains("&split=cloudwatch'"),
        "{script}"
    );
    run_script(&script);
    put(STREAM, [envelope(100, &LATER), envelope(200, &[MISFIT])]);
    wait_for_rows("sqlp_messages", SAMPLED.len() + LATER.len());
    let rows = sql(
        "SELECT level, ms, nullIf(_log_message, '') FROM sqlp_messages ORDER BY _log_event_id FORMAT JSONCompactEachRow \
                    SETTINGS output_format_json_quote_64bit_integers = 0",
    );
    let found: Vec<(Option<String>, Option<i64>, Option<String>)> =
        rows.lines().map(|row| serde_json::from_str(row).expect(row)).collect();
    let empty = |(level, ms, text): (_, _, Option<String>)| (level, ms, text.filter(|text| !text.is_empty()));
    let messages = SAMPLED.iter().chain(&LATER);
    assert_eq!(found, messages.map(|message| empty(expected(message))).collect::<Vec<_>>());
    let events = sql("SELECT DISTINCT _log_owner, _log_group, _log_stream FROM sqlp_messages");
    assert_eq!(events, "123456789012\t/aws/lambda/check\\'out\t2026/11/21/[$LATEST]7d\n");
    assert_eq!(
        sql("SELECT min(_log_timestamp), toTypeName(min(_log_timestamp)) FROM sqlp_messages"),
        "2026-11-21 10:00:00.123\tDateTime64(3, \\'UTC\\')\n"
    );
    assert_eq!(sql("SELECT countIf(_log_extractedFields_status = 'ok') FROM sqlp_messages"), "2\n");
    assert_eq!(sql("SELECT user_id FROM sqlp_messages WHERE ms = 5"), "ü\\n\n");
    wait_for_rows("sqlp_messages_errors", 1);
    let kept = sql("SELECT raw_message, reason FROM sqlp_messages_errors FORMAT JSONEachRow");
    let kept: BTreeMap<String, String> = serde_json::from_str(&kept).expect("a row");
    assert_eq!(kept["reason"], "does not fit: ms");
    let raw: Value = serde_json::from_str(&kept["raw_message"]).expect("an object");
    assert_eq!((&raw["ms"], &raw["_log_group"]), (&json!("soon"), &json!("/aws/lambda/check'out")));
    sql("DROP TABLE sqlp_messages_pipe");

    // The hint without the flag, and the rows of a dry run.
    let hint = printed(STREAM, "sqlp_events", &[]);
    assert!(hint.contains("messages are JSON objects: --message turns their fields into columns.\n"), "{hint}");
    let dry = printed(STREAM, "sqlp_messages_dry", &["--message", "--dry-run"]);
    assert!(dry.contains("\n-- level:") && dry.contains("\n-- _log_message:"), "{dry}");
}

fn other_streams_have_no_messages() {
    stream_of("sql-messages-none", &["{\"message\": \"{}\"}"]);
    let said = refused(&run("sql-messages-none", "sqlp_none", &["--message"]));
    assert_eq!(
        said,
        "error: --message is for log events of CloudWatch, and most records of stream \"sql-messages-none\" are not: leave it out\n"
    );
    stream_of("sql-messages-text", &[std::str::from_utf8(&envelope(0, &["START", "END"])).expect("text")]);
    let said = refused(&run("sql-messages-text", "sqlp_none", &["--message"]));
    assert!(
        said.starts_with(
            "error: none of the 2 newest messages in stream \"sql-messages-text\" is a JSON object: leave --message out"
        ),
        "{said}"
    );
}
