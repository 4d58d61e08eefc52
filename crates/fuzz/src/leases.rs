//! Rows of the lease table, as a server that may say anything answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use adapters::clickhouse::ClickHouse;
use adapters::state::KeeperMapStore;
use bytes::Bytes;
use domain::lease::{Holder, Lease, Seen};
use domain::ports::{StateError, StateStore};
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::input::{Checked, JSON, fuzz};
use super::state_file::{State, representable, runtime};
use domain::names::PipeName;

/// Words of rows, which the state file has, too.
pub const WORDS: &[&[u8]] = &[
    b"\xff",
    b"\0",
    b"null",
    b"true",
    b"0",
    b"1",
    b"-1",
    b"1.5",
    b"1e3",
    b"4294967295",
    b"4294967296",
    b"2147483647",
    b"-2147483648",
    b"18446744073709551615",
    b"18446744073709551616",
    b"49590338271490256608559692538361571095921575989136588898",
    b"TRIM_HORIZON",
    b"SHARD_END",
    b"AT_TIMESTAMP:",
    b"AT_TIMESTAMP:1795255200",
    b"AT_TIMESTAMP:1795255200000",
    b"AT_TIMESTAMP:-1",
    b"AT_TIMESTAMP:+5",
    b"1970-01-01 00:00:00.000",
    b"2299-12-31 23:59:59.999",
    b"1900-01-01 00:00:00.000",
    b"+262142-12-31 23:59:59.999",
    b"-9999-01-01 00:00:00",
    b"2026-06-30 23:59:60.999",
    b"0000-00-00 00:00:00.000",
    b"2026-11-21 10:00:00",
    b"\"_version\":",
    b"\"key\":\"orders/shardId-000000000000\"",
    b"\"pipe\":\"orders\"",
    b"\"parents\":[\"a\",\"\"]",
    b"\"epoch\":",
    b"\"offered_batch\":\"0123456789abcdef\"",
    b"\"offered_first\":\"7\"",
    b"\"offered_through\":\"9\"",
    b"\"offered_rows\":",
    b"\"committed_rows\":",
    b"decompress=none",
    b"split=json",
    b"edition=2",
    b"\"format\":1",
    b"\"rows\":",
    b"\"crc32\":\"\"",
    b"Code: 241. DB::Exception: Memory limit",
    b"__exception__\r\n",
    b"\\ud800",
    b"\\u0000",
    b"/",
];

/// A server that gives this answer to every statement, and a store that asks it.
struct World {
    runtime: Runtime,
    answer: Arc<Mutex<Bytes>>,
    store: KeeperMapStore,
}

impl World {
    fn start() -> World {
        let (runtime, answer) = (runtime(), Arc::new(Mutex::new(Bytes::new())));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        runtime.spawn(serve(listener, Arc::clone(&answer)));
        World { runtime, answer, store: KeeperMapStore::new(ClickHouse::new(&url, "default", ""), "kinesis") }
    }

    fn leases(&self, pipe: Option<&PipeName>) -> Result<Vec<Lease>, StateError> {
        let rows = self.runtime.block_on(self.store.leases(pipe))?;
        Ok(rows.into_iter().map(|row| row.value).collect())
    }

    fn check(&self, input: &[u8]) -> Checked {
        *self.answer.lock().expect("no panic before") = Bytes::copy_from_slice(input);
        let (all, of_one) = (self.leases(None), self.leases(Some(&"orders".into())));
        for error in [&all, &of_one].into_iter().filter_map(|answer| answer.as_ref().err()) {
            let told = match error {
                StateError::Unavailable(told) | StateError::Misconfigured(told) | StateError::Conflict(told) => told,
            };
            prop_assert!(!told.is_empty());
        }
        // One bad row stops the pipe that asks, and all that is right is there for all.
        let Ok(all) = all else {
            prop_assert!(of_one.is_err(), "{:?}", of_one);
            return Ok(());
        };
        prop_assert!(of_one.as_ref().is_err() || of_one.as_ref() == Ok(&all), "{:?}", of_one);
        prop_assert!(all.len() <= input.iter().filter(|byte| **byte == b'\n').count() + 1);
        all.iter().for_each(used);
        // What is written is read back, as far as the table can represent its times.
        let leases: BTreeMap<String, Lease> = all.into_iter().map(|lease| (lease.key(), lease)).collect();
        let state = State::new();
        let leases: Vec<Lease> = leases.into_values().collect();
        prop_assert_eq!(state.write(&self.runtime, &leases), Ok(()));
        let expected: Vec<Lease> = leases.into_iter().map(representable).collect();
        prop_assert_eq!(state.read(&self.runtime).expect("what was written"), expected);
        Ok(())
    }
}

/// Answers every statement with what stands there now.
async fn serve(listener: TcpListener, answer: Arc<Mutex<Bytes>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let answer = Arc::clone(&answer);
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let answer = answer.lock().expect("no panic before").clone();
            async move {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(answer)))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// What is first done with a lease that was read, whatever it says: none of it may panic.
fn used(lease: &Lease) {
    let taken = lease.take(&"me".into(), 1);
    let holder = Holder { owner: "me".into(), epoch: taken.epoch };
    let seen = Seen { tip_ms: Some(1), arrived_ms: 1, listed_ms: 1, now_ms: 1_795_255_200_000 };
    let _ = (taken.whole_ms(seen.now_ms), taken.open_ms(seen.now_ms), taken.caught_up(&holder, seen, 1));
    let _ = taken.batch().map(|batch| taken.commit(&holder, batch, seen, 1));
}

#[test]
fn any_row_is_a_lease_or_an_error() {
    let world = World::start();
    fuzz("leases", &[JSON, WORDS].concat(), 10_000, |input| world.check(input));
}
