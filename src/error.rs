//! Why the program fails.

use std::io;
use std::net::SocketAddr;

use capture::error::CommandError;
use config::Problems;
use thiserror::Error;
use tracing_subscriber::filter::ParseError;

/// Printed once, at the end.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// Flags that cannot be used.
    #[error(transparent)]
    Flags(#[from] Problems),
    /// A filter that only the library refuses.
    #[error("--log-level: {0}")]
    LogLevel(#[from] ParseError),
    /// A part of the bridge does not work.
    #[error(transparent)]
    Bridge(#[from] domain::error::Error),
    /// A command of `capture` did not do what it was asked for.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The operating system refused something.
    #[error("cannot {what}: {why}")]
    System {
        /// What it refused.
        what: &'static str,
        /// Its reason.
        why: io::Error,
    },
    /// The port is not free, or the address is not this host's.
    #[error("cannot listen on {address}: {why}; another process may be using the port: choose another with --listen")]
    Listen {
        /// `--listen`.
        address: SocketAddr,
        /// The reason of the operating system.
        why: io::Error,
    },
    /// Another process has this bridge's worker id.
    #[error("{0}")]
    Replaced(String),
    /// `check` found that something will not work.
    #[error("{bad} of {all} checks failed")]
    Findings {
        /// How many are bad.
        bad: usize,
        /// How many there are.
        all: usize,
    },
}

/// Says what the operating system refused: `what` follows "cannot".
pub fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> ProgramError {
    move |why| ProgramError::System { what, why }
}
