//! A new token, without an interruption.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::engines::{engine, on, on_each_engine};
use crate::errors::command_line::{run, stderr, token_file};
use crate::world::*;

use super::{ask, status};

on_each_engine!(the_token_changes_while_pipes_and_queries_run,);

const OLD: &str = "the-token-of-yesterday";
const NEW: &str = "the-token-of-tomorrow";

fn the_token_changes_while_pipes_and_queries_run() {
    create_stream("str-rotate", 1);
    let (file, path) = token_file(OLD);
    let write = |text: &str| std::fs::write(file.path(), text).expect("tokens");
    let bridge = bridge("str_rotate", &[("--token-file", &path)]);
    let ready = || status(&ask(&bridge, "GET /readyz", &["Host: h"])) == "200";
    wait_until("readiness", ready);
    let flags = ["--listen", bridge.address(), "--clickhouse-database", "str_rotate", "--token-file", &path];
    let set_up = || {
        let printed = run(&[&["sql", "setup"], &flags[..]].concat(), &[]);
        assert!(printed.status.success(), "{}", stderr(&printed));
        let script = String::from_utf8(printed.stdout).expect("text").replace("http://localhost:", "http://127.0.0.1:");
        stack().clickhouse.run_script(&script).expect("the printed setup");
    };
    set_up();
    let url = format!(
        "{}/v1/pipes/str_rotate/next?stream=str-rotate&view=default.str_rotate_view&linger_ms=20",
        bridge.url()
    );
    sql("CREATE TABLE str_rotate (_key String, _sequence_number String) ENGINE = MergeTree ORDER BY _key \
         SETTINGS non_replicated_deduplication_window = 1000");
    sql(&format!(
        "CREATE MATERIALIZED VIEW str_rotate_view REFRESH AFTER 2 SECOND SETTINGS refresh_retries = -1 APPEND TO str_rotate AS \
         SELECT _key, _sequence_number FROM url(str_rotate_bridge, url = '{url}&poll_ms=20') ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
    ));
    let (ended, here) = (AtomicBool::new(false), engine());
    let mut rows = 0;
    let mut more = || {
        put_numbered("str-rotate", &format!("r{rows}"), 10);
        rows += 10;
        wait_until("the rows", || sql("SELECT count() FROM str_rotate").trim() == rows.to_string());
    };
    let queries = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            on(here, || {
                let mut queries = 0;
                while !ended.load(Ordering::Relaxed) {
                    // The views of `sql setup` use the named collection.
                    sql("SELECT count() FROM str_rotate.pipes SETTINGS http_max_tries = 1");
                    queries += 1;
                }
                queries
            })
        });
        more();
        write(&format!("{NEW}\n{OLD}\n"));
        bridge.signal(Signal::HUP);
        wait_until("both are accepted", || bridge.log().contains("SIGHUP: --token-file was read again: two tokens"));
        more();
        set_up();
        more();
        // A query that began before the change has ended.
        more();
        write(&format!("{NEW}\n"));
        bridge.signal(Signal::HUP);
        wait_until("one is accepted", || bridge.log().contains("SIGHUP: --token-file was read again: one token"));
        more();
        // Files that cannot be used change nothing.
        for (broken, why) in [("", "which is empty"), ("short\n", "fewer than 16 characters")] {
            write(broken);
            bridge.signal(Signal::HUP);
            wait_until(why, || {
                let log = bridge.log();
                log.lines().any(|line| line.contains(why) && line.ends_with("; the bridge keeps what it read before"))
            });
            more();
        }
        ended.store(true, Ordering::Relaxed);
        asking.join().expect("no query failed")
    });
    eprintln!("{rows} rows and {queries} queries while the token changed");
    let with = |token: &str| {
        status(&ask(&bridge, "GET /v1/pipes", &["Host: h", &format!("Authorization: Bearer {token}")])).to_owned()
    };
    let metrics = ask(&bridge, "GET /metrics", &["Host: h", &format!("Authorization: Bearer {NEW}")]);
    for refused in ["wrong_token", "no_token"] {
        assert!(
            metrics.contains(&format!("kinesis_bridge_http_refused_total{{reason=\"{refused}\"}} 0\n")),
            "{metrics}"
        );
    }
    assert!(!metrics.contains("outcome=\"failed\""), "{metrics}");
    assert_eq!((with(NEW).as_str(), with(OLD).as_str()), ("200", "401"));
    assert!(![OLD, NEW].iter().any(|token| bridge.log().contains(token)), "{}", bridge.log());
    // Inserting works with what the setup wrote, too.
    let refused = exception("INSERT INTO str_rotate.end VALUES ('nobody')");
    assert!(refused.contains("pipe 'nobody'"), "{refused}");
    sql("DROP TABLE str_rotate_view");
    sql("DROP TABLE str_rotate");
}
