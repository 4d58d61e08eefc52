//! Free TCP ports that stay free while a component restarts.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Result;

/// Below Linux's default ephemeral range (32768 and up): an outgoing connection can then never take
/// the port of a component that is being restarted.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

static NEXT: AtomicU32 = AtomicU32::new(u32::MAX);

/// A TCP port on 127.0.0.1 that nothing listens on. No two calls in one process return the same
/// port.
pub fn free_port() -> Result<u16> {
    // Concurrent test processes start at different ports.
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos())
        .wrapping_add(std::process::id().wrapping_mul(2_654_435_761));
    let _ = NEXT.compare_exchange(u32::MAX, seed % COUNT, Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(FIRST + offset).map_err(|error| error.to_string())?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no free TCP port on 127.0.0.1 between {FIRST} and {}: end what listens there", FIRST + COUNT))
}
