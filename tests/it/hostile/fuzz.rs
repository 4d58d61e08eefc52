//! Random requests, and valid ones with random damage.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use stack::Bridge;

use super::{PATIENCE, connect};
use crate::world::{bridge, create_stream, get, put_numbered, sql, wait_until};

const REQUESTS: usize = 10_000;
const THREADS: u64 = 4;
/// A server that is silent for this long is waiting for the rest of a body that will never come.
const SILENCE: Duration = Duration::from_millis(500);
/// Follows every request on its connection, so that the server has a final request.
const FAREWELL: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What gets damaged. Unchanged or damaged in any way, none may change a row: views that do not
/// exist, streams that do not exist, invalid positions.
const SEEDS: [&str; 23] = [
    "GET /v1/streams HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/streams/hostile-fuzz/shards?format=ArrowStream HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    "GET /v1/streams/hostile-fuzz/sample?limit=3 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/streams/hostile-fuzz/records?from=2026-11-21T10:00:00.000Z&to=&limit=7 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/streams/hostile-fuzz/records?shard=shardId-000000000000&from=49590338271490256608559692538361571095921575989136588898&format=JSONEachRow HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/streams/hostile-fuzz/records?slice=1/3&format=Parquet HTTP/1.1\r\nHost: localhost\r\nRange: bytes=100-\r\n\r\n",
    "GET /v1/pipes/hostile_fuzz/next?stream=hostile-fuzz&view=default.nowhere&start=latest&wait_ms=0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/pipes/hostile_fuzz/next?stream=hostile-fuzz&view=`a``b`.`c%5C`d`&max_rows=1&max_bytes=1&linger_ms=0&poll_ms=5 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/pipes/other/next?stream=nowhere&ack=explicit&wait_ms=0&mode=polling HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /v1/pipes/hostile_fuzz/next?stream=hostile-fuzz&view=default.nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /v1/streams/hostile-fuzz/records HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/pipes HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/workers?format=ArrowStream HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /v1/pipes/hostile_fuzz/seek HTTP/1.1\r\nHost: localhost\r\nContent-Length: 36\r\n\r\n{\"shard_id\": \"\", \"where\": \"tomorrow\"}",
    "POST /v1/pipes/hostile_fuzz/seek HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[[[[[\r\n0\r\n\r\n",
    "POST /v1/pipes/nowhere/seek HTTP/1.1\r\nHost: localhost\r\nContent-Length: 25\r\n\r\n{\"position\": \"somewhere\"}",
    "POST /v1/pipes/hostile_fuzz/ack HTTP/1.1\r\nHost: localhost\r\nContent-Length: 29\r\n\r\n{\"batch\": \"0123456789abcdef\"}",
    "POST /v1/pipes/nowhere/ack HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 29\r\n\r\n{\"batch\": \"0123456789abcdef\"}",
    "DELETE /v1/pipes/hostile_fuzz/seek HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /v1/end HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{\"pipe\": \"another\"}",
    "GET http://localhost/v1/streams?format=%4a%53%4fNEachRow HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

/// What is inserted as damage.
const PIECES: [&[u8]; 16] = [
    b"%",
    b"%00",
    b"%ff%fe",
    b"\xff\xfe",
    b"\0",
    b"\r\n",
    b"&&&",
    b"=",
    b"/../..",
    b"'\"`\\",
    b"18446744073709551616",
    b"-1",
    b"?",
    b"{}",
    b"HTTP/9.9",
    b"\r\n\r\n",
];

#[test]
fn ten_thousand_hostile_requests_change_nothing() {
    let seed =
        std::env::var("SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("SEED is a number"));
    eprintln!("SEED={seed}");
    create_stream("hostile-fuzz", 2);
    put_numbered("hostile-fuzz", "k", 20);
    let bridge = bridge("hostile_fuzz", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    // A pipe with an open batch: there is something to break.
    let pull = "/v1/pipes/hostile_fuzz/next?stream=hostile-fuzz&ack=explicit&format=JSONEachRow&linger_ms=0&max_rows=5";
    let batch = get(&bridge, pull).rows();
    assert!(!batch.is_empty());
    let rows = || sql("SELECT *, _version FROM hostile_fuzz.leases ORDER BY key");
    let (before, pid) = (rows(), bridge.pid());
    assert_eq!(before.lines().count(), 2);

    let (answered, silent) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (bridge, answered, silent) = (&bridge, &answered, &silent);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_add(thread));
                for _ in 0..REQUESTS / THREADS as usize {
                    let request = hostile(&mut rng);
                    match attempt(bridge, &request) {
                        Ok(0) => silent.fetch_add(1, Ordering::Relaxed),
                        Ok(answers) => answered.fetch_add(answers, Ordering::Relaxed),
                        Err(wrong) => panic!("SEED={seed}: {wrong} after\n{}", request.escape_ascii()),
                    };
                }
            });
        }
    });
    let (answered, silent) = (answered.into_inner(), silent.into_inner());
    assert!(answered > REQUESTS && silent < REQUESTS / 10, "{answered} answers, {silent} connections without any");

    assert_eq!((bridge.pid(), bridge.is_running()), (pid, true));
    let log = bridge.log();
    assert!(!log.contains("panicked"), "SEED={seed}: {log}");
    assert_eq!(rows(), before, "SEED={seed}");
    assert_eq!(get(&bridge, pull).rows(), batch, "the open batch is the same");
    let internal = get(&bridge, "/metrics").text().lines().filter(|l| l.contains("status=\"500\"")).count();
    assert_eq!(internal, 0, "SEED={seed}");
}

/// A request that nobody should send.
fn hostile(rng: &mut Rng) -> Vec<u8> {
    if rng.u8(..) < 8 {
        return (0..rng.usize(1..300)).map(|_| rng.u8(..)).collect();
    }
    let mut request = rng.choice(SEEDS).expect("a seed").as_bytes().to_vec();
    for _ in 0..rng.usize(0..5) {
        let at = rng.usize(..request.len());
        match rng.u8(..7) {
            0 => request[at] = rng.u8(..),
            1 => drop(request.remove(at)),
            2 => drop(request.splice(at..at, rng.choice(PIECES).expect("a piece").iter().copied())),
            3 => {
                let end = (at + rng.usize(..20)).min(request.len());
                let part = request[at..end].to_vec();
                drop(request.splice(at..at, part));
            }
            4 => {
                let end = (at + rng.usize(1..10)).min(request.len());
                drop(request.drain(at..end));
            }
            5 => request[at] ^= 1 << rng.u8(..8),
            _ => {
                let other = rng.choice(SEEDS).expect("a seed").as_bytes();
                request.truncate(at);
                request.extend_from_slice(&other[rng.usize(..other.len())..]);
            }
        }
        if request.is_empty() {
            request.push(b'G');
        }
    }
    request
}

/// Sends a request and the final one, reads to the end of the connection, and counts the responses.
/// The error says what is not HTTP.
fn attempt(bridge: &Bridge, request: &[u8]) -> Result<usize, String> {
    let mut connection = connect(bridge);
    // A server that has seen enough closes the connection, possibly before everything is sent.
    let _ = connection.write_all(&[request, FAREWELL].concat());
    connection.set_read_timeout(Some(SILENCE)).map_err(|e| e.to_string())?;
    let (mut answer, mut piece, mut waited) = (Vec::new(), [0; 16_384], false);
    loop {
        match connection.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && !waited => {
                // It is waiting for more than was sent, which never comes.
                waited = true;
                let _ = connection.shutdown(Shutdown::Write);
                connection.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err("the server neither answers nor closes the connection".into());
            }
            // Closed with our bytes unread.
            Err(_) => break,
        }
    }
    answers(&answer, request.starts_with(b"HEAD "))
}

/// Counts the responses in what was received; the last one may be truncated where the connection
/// was closed, but only within its body.
fn answers(mut bytes: &[u8], mut head: bool) -> Result<usize, String> {
    let mut count = 0;
    while !bytes.is_empty() {
        let shown = || bytes[..bytes.len().min(300)].escape_ascii().to_string();
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .ok_or_else(|| format!("no end of a header: {}", shown()))?;
        let header =
            std::str::from_utf8(&bytes[..end]).map_err(|_| format!("a header that is no text: {}", shown()))?;
        let mut lines = header.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.").filter(|l| l.len() > 5)?.get(2..5)?.parse::<u16>().ok());
        let status = status.filter(|s| (100..600).contains(s)).ok_or_else(|| format!("no status line: {}", shown()))?;
        bytes = &bytes[end + 4..];
        if status == 100 {
            continue;
        }
        count += 1;
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let (name, value) = line.split_once(": ").ok_or_else(|| format!("no header: {line}"))?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse::<usize>().map_err(|_| format!("no length: {line}"))?),
                "transfer-encoding" => chunked = value == "chunked",
                _ => {}
            }
        }
        match (std::mem::take(&mut head), chunked, length) {
            (true, _, _) => {}
            (_, true, _) => match skip_chunks(bytes)? {
                Some(rest) => bytes = rest,
                None => return Ok(count),
            },
            (_, _, Some(length)) => bytes = bytes.get(length..).unwrap_or_default(),
            // Without a length the body ends with the connection.
            (_, _, None) => return Ok(count),
        }
    }
    Ok(count)
}

/// What follows a chunked body; none if it is truncated.
fn skip_chunks(mut bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    loop {
        let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(|| format!("no size of a chunk: {}", bytes[..end].escape_ascii()))?;
        match bytes.get(end + 2 + size + 2..) {
            Some(rest) if size == 0 => return Ok(Some(rest)),
            Some(rest) => bytes = rest,
            None => return Ok(None),
        }
    }
}
