//! Limits of the HTTP interface.

use std::time::Duration;

/// Most concurrent connections.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Bytes of the request line and all headers.
pub const MAX_HEADER_BYTES: usize = 64 << 10;
/// Number of headers.
pub const MAX_HEADERS: usize = 64;
/// Bytes of a request body (`seek`, `ack`).
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// Time for a client to send its headers.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a client to send its body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time within which a client must accept the next piece of a response, or the connection is
/// closed.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(300);
/// The same for a bounded read while another one waits for the memory it holds. ClickHouse
/// takes seconds when a query is heavy.
pub const STALLED_READ: Duration = Duration::from_secs(10);
/// The same once that other one has been waiting for [`STALLED_READ`]: several clients that
/// read nothing must not hold it up for longer than its ClickHouse waits, one after another.
pub const STALLED_NEXT: Duration = Duration::from_secs(2);
/// How often a waiting sender checks whether it is blocking another request.
pub const SENDER_LOOK: Duration = Duration::from_millis(500);
/// How long accepting pauses after a connection could not be accepted (usually out of file
/// descriptors), so that others can close.
pub const ACCEPT_REST: Duration = Duration::from_millis(50);
/// Pieces of a body queued for the socket.
pub const BODY_QUEUE: usize = 4;
