//! What a pull asks for, and what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::heartbeat::{Heartbeat, Standing};
use domain::batch::{Batch, Limits};
use domain::error::Error;
use domain::names::{BatchId, StreamName};
use domain::shape::BatchShape;
use domain::start::Beginning;
use domain::unpacking::Unpacking;

/// Who confirms that a batch is in ClickHouse.
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
    /// By polling (GetRecords).
    #[default]
    Polling,
    /// By enhanced fan-out (SubscribeToShard).
    FanOut,
}

impl Mode {
    /// The word that the HTTP interface uses.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Polling => "polling",
            Mode::FanOut => "efo",
        }
    }
}

/// What happens to a batch that ClickHouse refuses because of its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is served again and again, until an operator fixes the view or the table.
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
    pub shape: BatchShape,
    /// How records become rows.
    pub unpacking: Unpacking,
    /// How large a new batch may become.
    pub limits: Limits,
    /// How long a new batch fills once it has a record; none leaves it to the bridge.
    pub linger: Option<Duration>,
    /// How long to wait for a first record.
    pub wait: Duration,
    /// How to read.
    pub mode: Mode,
    /// What happens to bad rows.
    pub on_failure: OnFailure,
    /// Time between GetRecords calls of a shard; none leaves it to the bridge.
    pub poll: Option<Duration>,
    /// Where the shards of a pipe without checkpoints start.
    pub start: Beginning,
    /// Asks for the rest of a body whose connection broke: only the open batch can provide it.
    pub resume: bool,
}

/// The response to a pull.
pub struct Served {
    /// The batch; none if no record arrived in time.
    pub batch: Option<Arc<Batch>>,
    /// Stream name, for the columns of an empty response.
    pub stream: StreamName,
    /// Set once the last byte is handed to the connection.
    pub(super) delivered: Arc<AtomicBool>,
    /// This process's heartbeat, and its standing when the batch was handed out.
    pub(super) held: (Heartbeat, Standing),
}

impl Served {
    /// To be called before the last byte is handed to the connection: only a batch that was sent
    /// whole can be committed. False if the end must not be sent: this process was paused, so
    /// others may have taken its leases and may be serving the same batch
    /// (**a-zombie-serves-nothing**).
    pub fn deliver(&self) -> bool {
        let (heartbeat, standing) = &self.held;
        let may = heartbeat.standing() == Some(*standing);
        if may {
            self.delivered.store(true, Ordering::Release);
        }
        may
    }
}

/// A request to end a pipe for good.
pub struct EndRequest {
    /// When this was first asked; it is asked repeatedly.
    pub since: Instant,
    /// The outcome.
    pub reply: oneshot::Sender<Quiet>,
}

/// Whether a pipe that is to end is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// It has released its leases and ends.
    Yes,
    /// No pull is known, but there may still be one: ask again.
    NotYet,
    /// It is pulled.
    No,
}

/// What the actor is asked to do.
pub enum Command {
    /// The next batch.
    Pull(PullOptions, oneshot::Sender<Result<Served, Error>>),
    /// The reader acknowledges a batch.
    Ack(BatchId, oneshot::Sender<Result<(), Error>>),
    /// End the pipe, if it is idle.
    End(EndRequest),
    /// Lease rows were changed on purpose: reread them.
    Reload,
    /// Its view is gone: release the leases.
    Leave,
}
