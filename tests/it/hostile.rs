//! Clients that send garbage, too much, too slowly, or never read, and records that contain
//! garbage. None of them may change state or harm the others.

mod fuzz;
mod inline;
mod payloads;
mod slow;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use stack::Bridge;

use crate::world::{bridge, get, wait_until};

/// Far beyond every time limit of the server, except the one for clients that do not read.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the bridge.
fn connect(bridge: &Bridge) -> TcpStream {
    let connection = TcpStream::connect(bridge.address()).expect("a connection");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    connection.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    connection
}

/// Sends a request and returns everything received until the server closes the connection. The
/// server may close it before it has read everything.
fn exchange(bridge: &Bridge, request: &[u8]) -> Vec<u8> {
    let mut connection = connect(bridge);
    let _ = connection.write_all(request);
    // Without shutting down its side: a client that does so is taken to be gone.
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    answer
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let bridge = bridge("hostile_limits", &[]);
    let filler = |size: usize| "x".repeat(size);
    let headers: String = (0..100).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let table = [
        (
            "a long request line",
            format!("GET /v1/streams?format={} HTTP/1.1\r\nHost: localhost\r\n\r\n", filler(70_000)),
            ["431", "414"],
        ),
        (
            "a long path",
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", filler(20_000)),
            ["404", "414"],
        ),
        (
            "a long header",
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", filler(300_000)),
            ["431", "431"],
        ),
        ("many headers", format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"), ["431", "431"]),
        ("no HTTP", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\r\n\r\n".to_owned(), ["400", "400"]),
        (
            "a bad length",
            "POST /v1/pipes/p/seek HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_owned(),
            ["400", "400"],
        ),
        (
            "two lengths",
            "POST /v1/pipes/p/seek HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"
                .to_owned(),
            ["400", "400"],
        ),
    ];
    for (what, request, statuses) in table {
        let answer = exchange(&bridge, request.as_bytes());
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{what}: {}", &text[..text.len().min(200)]);
    }
    assert_eq!(get(&bridge, "/healthz").status, 200);
}

#[test]
fn a_body_that_is_too_large_is_refused_with_a_sentence() {
    let bridge = bridge("hostile_body", &[]);
    let row = "{\"shard_id\": \"\", \"position\": \"latest\"}\n";
    let body = row.repeat((2 << 20) / row.len());
    let answers = [
        ("a length", format!("Content-Length: {}\r\n\r\n{body}", body.len())),
        ("chunks", format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
    ];
    for (what, rest) in answers {
        let mut connection = connect(&bridge);
        // The server may answer and close before everything is sent.
        let _ = connection.write_all(format!("POST /v1/pipes/p/seek HTTP/1.1\r\nHost: localhost\r\n{rest}").as_bytes());
        let mut answer = vec![0; 4_096];
        let read = connection.read(&mut answer).expect("an answer");
        let text = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(text.starts_with("HTTP/1.1 400 "), "{what}: {text}");
        assert!(text.contains("longer than 1048576 bytes: send fewer rows at a time"), "{what}: {text}");
    }
    wait_until("health", || get(&bridge, "/healthz").status == 200);
}
