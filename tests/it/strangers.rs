//! Requests that nobody should be able to make: from web pages, by guessing the token, with too
//! many connections. And the honest ones beside them, which must not notice.

mod browser;
mod connections;
mod rotation;
mod token;

use std::io::{Read, Write};
use std::net::TcpStream;

use stack::Bridge;

use crate::engines::on_each_engine;
use crate::world::*;

on_each_engine!(what_url_sends_is_answered, readiness_is_asked_for_once_a_second_and_tells_no_address);

/// What the bridge answers to a request in full: its head and its body.
fn exchange(bridge: &Bridge, request: &str) -> String {
    let mut connection = TcpStream::connect(bridge.address()).expect("a connection");
    connection.write_all(request.as_bytes()).expect("the request is sent");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The answer to a request with these headers and without a body.
fn ask(bridge: &Bridge, line: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    exchange(bridge, &format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"))
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn what_url_sends_is_answered() {
    create_stream("str-url", 1);
    put_numbered("str-url", "a", 7);
    let bridge = bridge("str_url", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let port = bridge.address().rsplit(':').next().expect("a port").to_owned();
    for host in ["127.0.0.1", "localhost", "127.0.0.2"] {
        // The listener has one address; of 127.0.0.2 only the header is sent.
        let name = format!("Host: {host}:{port}");
        assert_eq!(status(&ask(&bridge, "GET /v1/streams", &[&name])), "200", "{host}");
        if host == "127.0.0.2" {
            continue;
        }
        let url = format!("http://{host}:{port}/v1");
        let select = format!(
            "SELECT count(_key) FROM url('{url}/streams/str-url/records', 'ArrowStream', '{RECORDS}') SETTINGS http_max_tries = 1"
        );
        assert_eq!(sql(&select), "7\n", "{host}");
        let insert = format!(
            "INSERT INTO FUNCTION url('{url}/end', 'JSONEachRow', 'pipe String') SETTINGS http_max_tries = 1 VALUES ('nobody')"
        );
        let refused = exception(&insert);
        assert!(message(&refused).contains("pipe 'nobody'"), "{refused}");
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    let named = format!("Host: {}:{port}", machine.trim());
    assert_eq!(status(&ask(&bridge, "GET /v1/streams", &[&named])), "200");
    // A pipe works through localhost, too.
    create_pipe(&bridge, "str_url", "stream=str-url&view=default.str_url_view&linger_ms=0");
    wait_until("the rows", || sql("SELECT count() FROM str_url") == "7\n");
    let refused = |reason: &str| metric(&bridge, &format!("kinesis_bridge_http_refused_total{{reason=\"{reason}\"}}"));
    for reason in ["wrong_token", "no_token", "page", "host", "busy", "silent"] {
        assert_eq!(refused(reason), Some(0.0), "{reason}");
    }
    drop_pipe("str_url");
}

#[test]
fn pages_and_foreign_hosts_are_refused_with_a_sentence() {
    let bridge = bridge("str_refused", &[]);
    let host = format!("Host: {}", bridge.address());
    let own = format!("Origin: http://{}", bridge.address());
    let foreign = "requests from web pages of other origins are refused";
    let another = "does not answer requests for the host";
    let table: [(&[&str], &str, &str); 9] = [
        (&[&host], "200", ""),
        (&[&host, &own, "Sec-Fetch-Site: same-origin"], "200", ""),
        (&[&host, "Sec-Fetch-Site: none"], "200", ""),
        (&[&host, "Sec-Fetch-Site: cross-site"], "403", foreign),
        (&[&host, "Sec-Fetch-Site: same-site"], "403", foreign),
        (&[&host, "Origin: https://evil.example"], "403", foreign),
        (&[&host, "Origin: null"], "403", foreign),
        (&["Host: evil.example:9020"], "403", another),
        (&["Host: evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: same-origin"], "403", another),
    ];
    for (headers, expected, sentence) in table {
        let answer = ask(&bridge, "GET /v1/streams", headers);
        assert_eq!(status(&answer), expected, "{headers:?}: {answer}");
        assert!(answer.contains(sentence), "{headers:?}: {answer}");
        assert_eq!(answer.contains("\"error\":\"forbidden\""), expected == "403", "{headers:?}: {answer}");
    }
    for line in ["POST /v1/end", "POST /v1/pipes/p/seek", "GET /metrics", "GET /nowhere", "OPTIONS /v1/end"] {
        let answer = ask(&bridge, line, &[&host, "Sec-Fetch-Site: cross-site", "Content-Length: 0"]);
        assert_eq!(status(&answer), "403", "{line}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control-"), "{answer}");
    }
    // Probes tell nothing, and load balancers use names of their own.
    assert_eq!(status(&ask(&bridge, "GET /healthz", &["Host: evil.example"])), "200");
    // So does HEAD.
    assert_eq!(status(&ask(&bridge, "HEAD /v1/streams", &["Host: evil.example"])), "200");
    for line in ["GET /v1/streams", "GET /nowhere", "GET /metrics", "GET /healthz", "HEAD /v1/streams", "POST /v1/end"]
    {
        let answer = ask(&bridge, line, &[&host, "Content-Length: 0"]).to_ascii_lowercase();
        assert!(answer.contains("\r\nx-content-type-options: nosniff\r\n"), "{line}: {answer}");
    }
}

#[test]
fn beyond_loopback_any_host_is_answered_and_a_missing_token_is_warned_about() {
    let open = bridge("str_open", &[("--listen", "0.0.0.0:0")]);
    assert_eq!(status(&ask(&open, "GET /v1/streams", &["Host: kinesis-bridge.default.svc:9020"])), "200");
    assert_eq!(status(&ask(&open, "GET /v1/streams", &["Host: h", "Origin: http://evil.example"])), "403");
    let warning = "without a token: whoever can reach this address can read the streams";
    wait_until("the warning", || open.log().contains(warning));
    let closed = bridge("str_closed", &[]);
    wait_until("readiness", || get(&closed, "/readyz").status == 200);
    assert!(!closed.log().contains(" WARN "), "{}", closed.log());
}

#[test]
fn seek_and_end_are_logged_with_who_asked() {
    create_stream("str-log", 1);
    put_numbered("str-log", "a", 3);
    let bridge = bridge("str_log", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    assert_eq!(get(&bridge, "/v1/pipes/str_log/next?stream=str-log&ack=explicit").status, 200);
    let post = |path: &str, body: &str, agent: &str| {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
        exchange(&bridge, &format!("{head}User-Agent: {agent}\r\n\r\n{body}"))
    };
    let long = format!("tool\u{1b}[31m\t{}", "x".repeat(500));
    let refused = post("/v1/pipes/str_log/seek", "{\"shard_id\": \"\", \"position\": \"latest\"}\n", &long);
    assert_eq!(status(&refused), "400", "a header cannot hold control characters: {refused}");
    let long = format!("tool\t{}", "x".repeat(500));
    let sought = post("/v1/pipes/str_log/seek", "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}\n", &long);
    assert_eq!(status(&sought), "200", "{sought}");
    wait_until("an end", || status(&post("/v1/end", "{\"pipe\": \"str_log\"}\n", "curl/8.0")) == "200");
    let log = bridge.log();
    let line =
        |part: &str| log.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {log}")).to_owned();
    let sought = line("seek: all shards to TRIM_HORIZON");
    for part in ["pipe=\"str_log\"", "by=127.0.0.1:", "(tool\u{fffd}xxx", "xxx…)"] {
        assert!(sought.contains(part), "{part}: {sought}");
    }
    assert!(sought.len() < 300 && !sought.contains('\t'), "{sought}");
    let ended = line("the pipe was ended");
    assert!(ended.contains("pipe=\"str_log\"") && ended.contains("(curl/8.0)"), "{ended}");
}

fn readiness_is_asked_for_once_a_second_and_tells_no_address() {
    let server = crate::proxy::Relay::new(&stack().clickhouse.url());
    server.open();
    let bridge = bridge_in("str_ready", &[], &[("KINESIS_BRIDGE_CLICKHOUSE_URL", &server.url())]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    // Asked in seconds of the server, whose query log shows who asked it how often.
    let statements = || -> u64 {
        sql("SYSTEM FLUSH LOGS");
        let count = "SELECT count() FROM system.query_log WHERE type = 'QueryStart' AND query LIKE '%str_ready%workers%' \
                     AND query NOT LIKE '%query_log%' AND query LIKE 'SELECT%'";
        sql(count).trim().parse().expect("a number")
    };
    let (before, began) = (statements(), std::time::Instant::now());
    for _ in 0..2_000 {
        assert_eq!(get(&bridge, "/readyz").status, 200);
    }
    let seconds = began.elapsed().as_secs() + 1;
    let asked = statements() - before;
    // Heartbeats ask as well.
    let beats = 2 * 5 * seconds / 10 + 2;
    eprintln!("2000 requests in {seconds} s: {asked} statements");
    assert!(asked <= seconds + 1 + beats, "{asked} statements in {seconds} s");
    server.close();
    wait_until("unreadiness", || get(&bridge, "/readyz").status == 503);
    let said = get(&bridge, "/readyz").text();
    let port = server.url().rsplit(':').next().expect("a port").to_owned();
    assert!(
        said.contains("the bridge's log has the reason") && !said.contains(&port) && !said.contains("127.0.0.1"),
        "{said}"
    );
    wait_until("the reason in the log", || bridge.log().contains("not ready: ClickHouse at"));
}
