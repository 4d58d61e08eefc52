//! Finds or starts the actor of a pipe.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::actor::Actor;
use super::deps::Deps;
use super::identity::another_stream;
use super::pull::{Command, PullOptions, Served};
use super::status::{Snapshot, Status};
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::{MAX_PIPES, MAX_QUEUED_PULLS};
use domain::names::{BatchId, PipeName, StreamName};
use domain::ports::{Versioned, kinesis_now_ms};

/// All pipes of this process.
pub struct Pipes {
    deps: Deps,
    running: Mutex<HashMap<PipeName, Running>>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

pub(super) struct Running {
    stream: StreamName,
    pub(super) commands: mpsc::Sender<Command>,
    status: Status,
}

impl Pipes {
    /// Creates an empty registry.
    pub fn new(deps: Deps) -> Pipes {
        let (stop, _) = watch::channel(false);
        Pipes { deps, running: Mutex::default(), tasks: tokio::sync::Mutex::default(), stop }
    }

    /// The pipes' external dependencies.
    pub fn deps(&self) -> &Deps {
        &self.deps
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<PipeName, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch of `pipe`.
    pub async fn pull(&self, pipe: &PipeName, stream: &StreamName, options: PullOptions) -> Result<Served, Error> {
        let commands = self.find_or_start(pipe, stream).await?;
        let (reply, answer) = oneshot::channel();
        commands.try_send(Command::Pull(options, reply)).map_err(|_| {
            Error::Unavailable(format!("pipe '{pipe}' has {MAX_QUEUED_PULLS} pulls waiting already, or is being ended"))
        })?;
        answer.await.unwrap_or_else(|_| Err(ended(pipe)))
    }

    /// Commits a batch that its reader has stored.
    pub async fn ack(&self, pipe: &PipeName, batch: &BatchId) -> Result<(), Error> {
        let running = self.running().get(pipe).map(|r| r.stream.clone());
        let stream = match running {
            Some(stream) => stream,
            None => self.rows(pipe).await?.remove(0).value.stream,
        };
        let commands = self.find_or_start(pipe, &stream).await?;
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Ack(batch.clone(), reply)).await.map_err(|_| ended(pipe))?;
        answer.await.unwrap_or_else(|_| Err(ended(pipe)))
    }

    /// Kinesis' current time, Unix ms, from a fresh answer about the pipe's stream.
    pub async fn now_ms(&self, pipe: &PipeName) -> Result<i64, Error> {
        let stream = self.rows(pipe).await?.remove(0).value.stream;
        self.deps.kinesis.shards(&stream).await?;
        Ok(kinesis_now_ms(&*self.deps.kinesis, &*self.deps.clock))
    }

    pub(super) async fn rows(&self, pipe: &PipeName) -> Result<Vec<Versioned<Lease>>, Error> {
        let rows = self.deps.store.leases(Some(pipe)).await?;
        match rows.is_empty() {
            true => Err(Error::NotFound(format!("there is no pipe '{pipe}': the first pull of its view creates it"))),
            false => Ok(rows),
        }
    }

    async fn find_or_start(&self, pipe: &PipeName, stream: &StreamName) -> Result<mpsc::Sender<Command>, Error> {
        if *self.stop.borrow() {
            return Err(Error::Unavailable("the bridge is stopping".into()));
        }
        let mut tasks = self.tasks.lock().await;
        while tasks.try_join_next().is_some() {}
        let mut running = self.running();
        running.retain(|_, r| !r.commands.is_closed());
        if let Some(found) = running.get(pipe) {
            return match found.stream == *stream {
                true => Ok(found.commands.clone()),
                false => Err(another_stream(pipe, stream, &found.stream)),
            };
        }
        if running.len() >= MAX_PIPES {
            return Err(Error::Unavailable(format!(
                "this bridge runs {MAX_PIPES} pipes already; start another bridge"
            )));
        }
        let (commands, receiver) = mpsc::channel(MAX_QUEUED_PULLS);
        let status = Status::default();
        let stop = self.stop.subscribe();
        let actor = Actor::new(self.deps.clone(), pipe.clone(), stream.clone(), status.clone(), receiver, stop);
        tasks.spawn(actor.run());
        running.insert(pipe.clone(), Running { stream: stream.clone(), commands: commands.clone(), status });
        Ok(commands)
    }

    /// The state of the pipes that run here, by name.
    pub fn snapshots(&self) -> HashMap<PipeName, Snapshot> {
        let running = self.running();
        running.iter().filter(|(_, r)| !r.commands.is_closed()).map(|(n, r)| (n.clone(), r.status.get())).collect()
    }

    /// Stops all pipes: settles what it can, releases the leases.
    pub async fn stop(&self) {
        let _ = self.stop.send(true);
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

fn ended(pipe: &PipeName) -> Error {
    Error::Unavailable(format!("pipe '{pipe}' has just stopped here; the next pull starts it again"))
}
