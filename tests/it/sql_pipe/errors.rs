//! Records that do not fit are stored separately, each once, and the others are in the table, each
//! once.

use std::collections::BTreeMap;

use super::{printed, put, run_in, run_script, stream, succeeded, wait_for_rows};
use crate::engines::on_each_engine;
use crate::world::{self, sql};

on_each_engine!(
    each_bad_record_is_once_in_errors_and_each_good_one_once_in_the_table,
    a_view_that_is_dropped_stops_the_pipe_and_nothing_is_lost,
);

/// A record that fits; `note` is missing in some, and null in others.
fn good(n: usize) -> String {
    let note = ["", ",\"note\":null", ",\"note\":\"ok\""][n % 3];
    let at = format!("2026-11-21T10:{:02}:{:02}.123+01:00", n / 60 % 60, n % 60);
    format!(
        "{{\"n\":{n},\"price\":{}.25,\"paid\":true,\"at\":\"{at}\",\"day\":\"2026-11-21\",\"id\":\"550e8400-e29b-41d4-a716-{n:012}\",\"lines\":[{{\"q\":{n}}}],\
         \"by\":{{\"x{n}\":1}},\"tags\":[\"a\"]{note}}}",
        n % 7
    )
}

/// What does not fit, and why. Each contains its number, so that it can be found again.
fn bad(n: usize) -> (Vec<u8>, &'static str) {
    let changed = |from: &str, to: &str| {
        let text = good(n);
        assert!(text.contains(from), "{from} in {text}");
        text.replace(from, to).into_bytes()
    };
    let number = |to: &str| changed(&format!("\"n\":{n},"), &format!("\"n\":{to},"));
    match n % 20 {
        0 => (format!("garbage {n}").into_bytes(), "no valid JSON"),
        1 => (format!("[{n}]").into_bytes(), "no JSON object"),
        2 => (format!("{{\"n\":{n},\"price\":1").into_bytes(), "no valid JSON"),
        3 => ([b"\xff\xfe".as_slice(), good(n).as_bytes()].concat(), "no valid JSON"),
        4 => (number(&format!("\"x{n}\"")), "does not fit: n"),
        5 => (number(&format!("{n}.5")), "does not fit: n"),
        6 => (number("true"), "does not fit: n"),
        7 => (number(&format!("184467440737095{n:05}")), "does not fit: n"),
        8 => (number(&format!("92233720368547758070{n:05}")), "does not fit: n"),
        9 => (changed("T10:", "T10h"), "does not fit: at"),
        10 => (changed(".123", ".1234"), "does not fit: at"),
        11 => (changed("\"550e8400", "\"no-uuid0"), "does not fit: id"),
        12 => (changed(&format!("{{\"q\":{n}}}"), "{\"q\":[1]}"), "does not fit: lines"),
        13 => (changed("\"lines\":[", "\"lines\":5,\"more\":["), "does not fit: lines"),
        14 => (changed(&format!("\"x{n}\":1"), "\"x\":\"one\""), "does not fit: by"),
        15 => (changed("T10:", "T25:"), "does not fit: at"),
        16 => (changed("2026-11-21\",\"id", "2026-11-31\",\"id"), "does not fit: day"),
        17 => (changed("\"paid\":true", "\"paid\":true,\"paid\":false"), "a field comes twice"),
        18 => (changed("\"paid\":true", "\"paid\":\"yes\"").to_vec(), "does not fit: paid"),
        _ => (changed("\"paid\":true,\"at\":\"", "\"paid\":1,\"at\":\"x"), "does not fit: paid, at"),
    }
}

fn each_bad_record_is_once_in_errors_and_each_good_one_once_in_the_table() {
    const FIRST: usize = 40;
    const WAVES: usize = 6;
    const WAVE: usize = 85;
    stream("sql-errors", (0..FIRST).map(|n| good(n).into_bytes()));
    let bridge = world::bridge("sql_errors", &[("--lease-duration", "1s")]);
    let flags = ["--listen", bridge.address(), "--stream", "sql-errors", "--table", "default.sqlp_errors"];
    run_script(&succeeded(run_in(&[], &flags)));
    let mut expected: BTreeMap<String, &str> = BTreeMap::new();
    let mut goods = FIRST;
    for wave in 0..WAVES {
        let mut payloads = Vec::new();
        for n in (FIRST + wave * WAVE)..(FIRST + (wave + 1) * WAVE) {
            if n % 2 == 0 {
                payloads.push(good(n).into_bytes());
                goods += 1;
            } else {
                let (payload, reason) = bad(n / 2);
                // Each number occurs only once, so what is in errors is identified by its bytes.
                let hex = payload.iter().map(|byte| format!("{byte:02X}")).collect();
                assert!(expected.insert(hex, reason).is_none());
                payloads.push(payload);
            }
        }
        put("sql-errors", payloads);
        // In the middle of whatever it does.
        bridge.restart().expect("the bridge starts again");
    }
    wait_for_rows("sqlp_errors", goods);
    wait_for_rows("sqlp_errors_errors", expected.len());
    let rows = sql("SELECT hex(raw_message), reason FROM sqlp_errors_errors ORDER BY 1");
    let found: BTreeMap<String, &str> =
        rows.lines().filter_map(|line| line.split_once('\t')).map(|(hex, reason)| (hex.to_string(), reason)).collect();
    assert_eq!(found.len(), expected.len());
    for (hex, reason) in &expected {
        assert_eq!(found.get(hex), Some(reason), "{}", sql(&format!("SELECT unhex('{hex}')")));
    }
    assert_eq!(
        sql(
            "SELECT count(), uniqExact(n), countIf(note = 'ok') > 0, countIf(note IS NULL) > 0, min(length(by)), min(at) FROM sqlp_errors"
        ),
        format!("{goods}\t{goods}\t1\t1\t1\t2026-11-21 09:00:00.123\n")
    );
    sql("DROP TABLE sqlp_errors_pipe");
}

fn a_view_that_is_dropped_stops_the_pipe_and_nothing_is_lost() {
    let goods = |numbers: std::ops::Range<usize>| numbers.map(|n| good(n).into_bytes());
    stream("sql-dropped", goods(0..10));
    let script = printed("sql-dropped", "sqlp_dropped", &[]);
    run_script(&script);
    wait_for_rows("sqlp_dropped", 10);
    // A refresh that has started would continue without it.
    sql("SYSTEM STOP VIEW sqlp_dropped_pipe");
    sql("DROP TABLE sqlp_dropped_mv");
    sql("SYSTEM START VIEW sqlp_dropped_pipe");
    put("sql-dropped", goods(10..20));
    let sentence = "the views \"sqlp_dropped_mv\" and \"sqlp_dropped_errors_mv\" must both exist";
    // The refresh that was stopped may have reported something before.
    world::wait_until(sentence, || world::refresh_exception("sqlp_dropped_pipe").contains(sentence));
    let view = script.split(";\n").find(|statement| statement.contains("`sqlp_dropped_mv` TO")).expect("the view");
    run_script(view);
    wait_for_rows("sqlp_dropped", 20);
    sql("DROP TABLE sqlp_dropped_pipe");
}
