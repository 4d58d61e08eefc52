//! What a handler gets, and what it returns.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::body::Answer;

/// A response before it is turned into HTTP.
pub struct Reply {
    /// The body.
    pub body: Answer,
    /// Its type.
    pub content_type: &'static str,
    /// `Content-Range`, when the body is a part.
    pub part: Option<Part>,
}

/// A part of a body: `bytes first-last/total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
    /// Bytes of the whole.
    pub total: u64,
}

impl Reply {
    /// A response whose body is known.
    pub fn whole(body: impl Into<Bytes>, content_type: &'static str) -> Reply {
        Reply { body: Answer::Whole(Some(body.into())), content_type, part: None }
    }
}

/// What a request carries besides its path and query.
pub struct Incoming {
    /// The body of a POST.
    pub body: Bytes,
    /// First and, if given, last byte of the `Range` header.
    pub range: Option<(u64, Option<u64>)>,
    /// Who asks.
    pub caller: Caller,
    /// Ends the connection.
    pub cut: Arc<Notify>,
}

/// Who asks, for the log.
pub struct Caller {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// What it calls itself; may be empty, as for an INSERT of ClickHouse.
    pub agent: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.agent {
            "" => self.peer.fmt(f),
            agent => write!(f, "{} ({agent})", self.peer),
        }
    }
}
