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

/// Connections beyond [`MAX_CONNECTIONS`]: they are answered only if they probe, so that a bridge
/// which is busy does not look dead.
pub const SPARE_CONNECTIONS: usize = 32;
/// While slots are short, a connection that has been silent for this long may be closed for
/// another one. Clients send their request as soon as they are connected, and probes often give up
/// after a second.
pub const SILENT_GRACE: Duration = Duration::from_millis(200);
/// Fewest characters of a bearer token: 16 hexadecimal digits are 64 bits, which nobody guesses
/// over a network.
pub const MIN_TOKEN: usize = 16;
/// How long a request with a wrong token waits for its refusal.
pub const GUESS_DELAY: Duration = Duration::from_millis(250);
/// Most requests that wait like this. More are refused at once: they must not use up
/// [`MAX_CONNECTIONS`].
pub const GUESS_WAITERS: usize = 64;
/// Time between two log lines about refused requests, and about closed connections.
pub const REFUSALS_EVERY: Duration = Duration::from_mins(1);
/// Addresses named in such a line.
pub const REFUSED_PEERS: usize = 8;
/// Characters of a User-Agent that are logged.
pub const USER_AGENT_CHARS: usize = 64;
/// How long an answer of the state store counts for `/readyz`, from when it was asked: probes come
/// every few seconds, and strangers may ask as often as they like.
pub const READY_HOLDS: Duration = Duration::from_secs(1);
/// How long `/readyz` waits for that answer: probes often give up after a second.
pub const READY_WAIT: Duration = Duration::from_millis(900);
/// How long a good answer counts for `/readyz` while the next one is not there: a busy ClickHouse
/// takes seconds now and then, and a load balancer should not turn away from it for that.
pub const READY_TRUST: Duration = Duration::from_secs(5);
