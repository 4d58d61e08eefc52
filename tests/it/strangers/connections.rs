//! More connections than there are slots.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use domain::limits::{MAX_CONNECTIONS, SPARE_CONNECTIONS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stack::Bridge;

use super::{ask, status};
use crate::world::*;

/// Both sides need a descriptor for each connection; the bridge inherits the limit.
fn many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 4 * MAX_CONNECTIONS as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("more descriptors");
    }
}

fn connect(bridge: &Bridge) -> TcpStream {
    TcpStream::connect(bridge.address()).expect("a connection")
}

/// Whether the bridge has not closed a connection on which it has nothing to say.
fn is_open(connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).expect("a mode");
    let open = connection.peek(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    connection.set_nonblocking(false).expect("a mode");
    open
}

#[test]
fn silent_connections_yield_to_those_that_ask() {
    many_descriptors();
    let bridge = bridge("str_silent", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    // It has been answered, and stays.
    let mut known = connect(&bridge);
    let again = |known: &mut TcpStream| {
        known.write_all(b"GET /v1/workers HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        known.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut answer = [0; 4_096];
        let read = known.read(&mut answer).expect("an answer");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{}", answer[..read].escape_ascii());
    };
    again(&mut known);
    let silent: Vec<TcpStream> = (0..MAX_CONNECTIONS + SPARE_CONNECTIONS + 100).map(|_| connect(&bridge)).collect();
    assert_eq!(status(&ask(&bridge, "GET /healthz", &["Host: h"])), "200");
    // It did not have to wait until all were given up for their silence.
    let open = silent.iter().filter(|connection| is_open(connection)).count();
    eprintln!("/healthz was answered while {open} of {} silent connections were open", silent.len());
    assert!(open > MAX_CONNECTIONS / 2, "only {open} are open");
    assert!(!is_open(&silent[0]) && is_open(silent.last().expect("one")), "the oldest goes first");
    again(&mut known);
    let closed = metric(&bridge, "kinesis_bridge_http_refused_total{reason=\"silent\"}").expect("the metric");
    assert!(closed >= 100.0, "{closed}");
    wait_until("the log line", || bridge.log().contains("silent connections, closed for others"));
}

#[test]
fn probes_are_answered_while_every_slot_is_taken() {
    many_descriptors();
    let bridge = bridge("str_busy", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    // Each waits for a body that does not come. A few more than are answered, but fewer than are
    // accepted: they take the places of those that are given up.
    let ask_for_ever = || {
        let mut connection = connect(&bridge);
        let request = b"POST /v1/end HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n";
        connection.write_all(request).expect("a request");
        connection
    };
    let mut asking: Vec<TcpStream> = (0..MAX_CONNECTIONS + SPARE_CONNECTIONS / 2).map(|_| ask_for_ever()).collect();
    let mut refused = String::new();
    wait_until("every slot is taken", || {
        asking.iter_mut().filter(|connection| !is_open(connection)).for_each(|answered| *answered = ask_for_ever());
        refused = ask(&bridge, "GET /v1/workers", &["Host: localhost"]);
        status(&refused) == "503"
    });
    assert!(refused.contains("is answering 1024 requests already"), "{refused}");
    for probe in ["GET /healthz", "GET /readyz"] {
        // A body that does not come is not waited for.
        for more in ["Accept: */*", "Content-Length: 9"] {
            assert_eq!(status(&ask(&bridge, probe, &["Host: h", more])), "200", "{probe}, {more}");
        }
    }
    drop(asking);
    wait_until("room", || status(&ask(&bridge, "GET /v1/workers", &["Host: localhost"])) == "200");
}
