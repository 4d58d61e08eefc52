//! Clients that send slowly, send nothing, or do not read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use domain::limits::MAX_CONNECTIONS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{PATIENCE, connect};
use crate::world::{bridge, create_pipe, create_stream, drop_pipe, get, metric, put, put_numbered, sql, wait_until};

#[test]
fn a_header_that_comes_a_byte_at_a_time_is_cut_off() {
    let bridge = bridge("hostile_header", &[]);
    let mut slow = connect(&bridge);
    slow.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let began = Instant::now();
    let endless = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
    for byte in endless {
        assert!(began.elapsed() < PATIENCE, "it is still served");
        let mut answer = [0; 1_024];
        // The timeout for a response is also the pause between two bytes.
        match (slow.write_all(&[*byte]), slow.read(&mut answer)) {
            (Err(_), _) | (_, Ok(0)) => break,
            (Ok(()), Ok(read)) => {
                assert!(answer[..read].starts_with(b"HTTP/1.1 408 "), "{}", answer[..read].escape_ascii());
                break;
            }
            (Ok(()), Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            (Ok(()), Err(_)) => break,
        }
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(get(&bridge, "/healthz").status, 200);
}

#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let bridge = bridge("hostile_no_body", &[]);
    let mut slow = connect(&bridge);
    slow.write_all(b"POST /v1/pipes/p/seek HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        .expect("a part");
    let mut answer = [0; 4_096];
    let read = slow.read(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("the request's body did not arrive in time"), "{text}");
}

#[test]
fn more_connections_than_allowed_wait_their_turn() {
    // Both sides need a descriptor for each; the bridge inherits the limit.
    let limit = getrlimit(Resource::Nofile);
    let wanted = 4 * MAX_CONNECTIONS as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("more descriptors");
    }
    let bridge = bridge("hostile_many", &[]);
    let idle: Vec<TcpStream> = (0..MAX_CONNECTIONS + 100).map(|_| connect(&bridge)).collect();
    // Silent ones are closed, and the others get their turn.
    assert_eq!(get(&bridge, "/healthz").status, 200);
    for mut connection in idle {
        let mut nothing = [0; 1_024];
        // Closed, perhaps after a message about the timeout.
        while connection.read(&mut nothing).is_ok_and(|read| read > 0) {}
    }
    assert_eq!(get(&bridge, "/healthz").status, 200);
    assert!(bridge.is_running() && !bridge.log().contains("panicked"), "{}", bridge.log());
}

#[test]
fn clients_that_do_not_read_block_nobody() {
    create_stream("hostile-big", 8);
    create_stream("hostile-small", 1);
    put("hostile-big", (0..60_000).map(|n| (format!("k-{n}"), vec![b'x'; 1_000])));
    put_numbered("hostile-small", "k", 100);
    let bridge = bridge("hostile_unread", &[("--memory", "32MiB")]);
    let stuck: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut connection = connect(&bridge);
            let request = b"GET /v1/streams/hostile-big/records HTTP/1.1\r\nHost: localhost\r\n\r\n";
            connection.write_all(request).expect("a request");
            connection
        })
        .collect();
    // The response to each of them has started.
    for connection in &stuck {
        connection.peek(&mut [0; 1]).expect("a first byte");
    }
    let held = || metric(&bridge, "kinesis_bridge_memory_used_bytes").expect("the metric");
    wait_until("as much as they may hold", || held() >= f64::from(4 << 20));
    // Pipes have memory of their own.
    create_pipe(&bridge, "hostile_unread", "stream=hostile-small&view=default.hostile_unread_view&linger_ms=0");
    let committed = || metric(&bridge, "kinesis_bridge_rows_total{pipe=\"hostile_unread\"}");
    wait_until("the pipe's rows", || committed() == Some(100.0));
    assert_eq!(sql("SELECT count() FROM hostile_unread"), "100\n");
    drop_pipe("hostile_unread");
    // Other reads get the memory held for clients that do not read.
    for (stream, count) in [("hostile-small", "100\n"), ("hostile-big", "60000\n")] {
        let url = format!("{}/v1/streams/{stream}/records", bridge.url());
        let select =
            format!("SELECT count(_key) FROM url('{url}', 'ArrowStream', '_key String') SETTINGS http_max_tries = 1");
        assert_eq!(sql(&select), count);
    }
    assert!(bridge.log().contains("closed connection: client stopped reading"), "{}", bridge.log());
    drop(stuck);
    wait_until("the memory back", || held() == 0.0);
}
