//! What a pull asks for and what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::heartbeat::{Heartbeat, Standing};
use domain::batch::{Batch, Limits};
use domain::error::Error;
use domain::start::Beginning;
use domain::unpacking::Unpacking;

/// Who says that a batch is in ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// The refresh of the view that pulls.
    View {
        /// Its database.
        database: String,
        /// Its name.
        view: String,
    },
    /// The reader, with `POST …/ack`.
    Explicit,
}

/// How shards are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By asking again and again (GetRecords).
    #[default]
    Polling,
    /// By being told (SubscribeToShard).
    FanOut,
}

impl Mode {
    /// The word of the interface contract.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Polling => "polling",
            Mode::FanOut => "efo",
        }
    }
}

/// What becomes of a batch that ClickHouse refuses because of its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is served again and again, until somebody mends the view or the table.
    #[default]
    Stop,
    /// The bad rows go to the quarantine, the others into the table.
    Isolate,
}

/// What a pull asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullOptions {
    /// Who confirms.
    pub confirm: Confirm,
    /// The response format and how records become rows; part of the batch's identity.
    pub shape: String,
    /// How records become rows.
    pub unpacking: Unpacking,
    /// How large a new batch may be.
    pub limits: Limits,
    /// How long a new batch may fill once it has a record.
    pub linger: Duration,
    /// How long to wait for a first record.
    pub wait: Duration,
    /// How to read.
    pub mode: Mode,
    /// What becomes of bad rows.
    pub on_failure: OnFailure,
    /// Time between GetRecords calls of a shard.
    pub poll: Duration,
    /// Where the shards of a pipe without checkpoints begin.
    pub start: Beginning,
    /// The rest of a body whose connection broke: only the open batch can answer.
    pub resume: bool,
}

/// The answer to a pull.
pub struct Served {
    /// The batch; none when no record came in time.
    pub batch: Option<Arc<Batch>>,
    /// Stream name, for the columns of an empty answer.
    pub stream: String,
    /// Set when the last byte is handed to the connection.
    pub(super) delivered: Arc<AtomicBool>,
    /// This process, and its standing when the batch was handed out.
    pub(super) held: (Heartbeat, Standing),
}

impl Served {
    /// To be called before the last byte is handed to the connection: only a batch that was sent
    /// whole can be committed. False: the end must not be sent. This process stood still, so others
    /// may have taken its leases and may be serving the same batch (**a-zombie-serves-nothing**).
    pub fn deliver(&self) -> bool {
        let (heartbeat, standing) = &self.held;
        let may = heartbeat.standing() == Some(*standing);
        if may {
            self.delivered.store(true, Ordering::Release);
        }
        may
    }
}

/// That a pipe shall end for good.
pub struct EndRequest {
    /// Since when that is asked, again and again.
    pub since: Instant,
    /// How it went.
    pub reply: oneshot::Sender<Quiet>,
}

/// Whether a pipe that shall end is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// It has given its leases back and ends.
    Yes,
    /// Nobody is known to pull it, but that may change: ask again.
    NotYet,
    /// It is pulled.
    No,
}

/// What the actor is asked.
pub enum Command {
    /// The next batch.
    Pull(PullOptions, oneshot::Sender<Result<Served, Error>>),
    /// A batch is in ClickHouse, says its reader.
    Ack(String, oneshot::Sender<Result<(), Error>>),
    /// The pipe ends, if it is quiet.
    End(EndRequest),
    /// Lease rows were changed on purpose: look at them again.
    Reload,
}
