//! Ends a pipe for good: deregisters its consumer and deletes its leases.

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::consumer::consumer_name;
use super::identity::{one_stream, region};
use super::leases::{delete, keep_changing};
use super::pull::{Command, EndRequest, Quiet};
use super::registry::Pipes;
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::{COMMIT_RETRIES, END_LOOK, END_QUIET};
use domain::names::{PipeName, StreamName};
use domain::ports::{Stream, Versioned, Worker};
use domain::seat::{seat_of, worker_of};

impl Pipes {
    /// Ends a pipe that nobody pulls: stops it here, deregisters its consumer and deletes its lease
    /// rows. Refused while it is pulled here or held by a live worker.
    pub async fn end(&self, pipe: &PipeName) -> Result<(), Error> {
        self.rows(pipe).await?;
        self.quiet(pipe).await?;
        for _ in 0..COMMIT_RETRIES {
            let rows = self.rows(pipe).await?;
            let mut here = Vec::new();
            for stream in streams(&rows) {
                here.extend(self.here(pipe, stream, &rows).await?);
            }
            self.nobodys(pipe, &rows).await?;
            for stream in &here {
                self.deregister(pipe, stream).await?;
            }
            if delete(&*self.deps().store, &rows).await? {
                info!(pipe = pipe.as_str(), leases = rows.len(), "the pipe has ended for good; its leases are deleted");
                return Ok(());
            }
            // Another worker took it; `nobodys` reports which.
        }
        Err(keep_changing(pipe))
    }

    /// Waits until the pipe has stopped here.
    async fn quiet(&self, pipe: &PipeName) -> Result<(), Error> {
        let since = Instant::now();
        for commands in self.commands(pipe) {
            quiet(pipe, &commands, since).await?;
        }
        Ok(())
    }

    /// Refuses if another live worker holds one of the leases or runs the pipe. The pipe has
    /// stopped here, so leases under this worker's own name are left over.
    async fn nobodys(&self, pipe: &PipeName, rows: &[Versioned<Lease>]) -> Result<(), Error> {
        let deps = self.deps();
        let workers = deps.store.workers().await?;
        let runs = |worker: &&Worker| worker.pipes.keys().any(|name| seat_of(name, pipe).is_some());
        let running = workers.iter().filter(runs).map(|worker| &*worker.worker_id);
        let held = rows.iter().map(|row| &row.value).filter(|lease| !deps.members.is_nobodys(lease));
        let mut owners = held.map(|lease| worker_of(&lease.owner)).chain(running);
        match owners.find(|id| **id != *deps.worker_id && !deps.members.is_dead(id)) {
            None => Ok(()),
            Some(owner) => Err(Error::BadRequest(format!(
                "pipe '{pipe}' is held by worker '{owner}', which is alive or died only a moment ago, so it cannot end: DROP its view there, or stop \
                 it with SYSTEM STOP VIEW, and end the pipe at that worker, or here once it has released the leases"
            ))),
        }
    }

    /// The pipe's stream; none if it was deleted. Refused if it is not in this bridge's account and
    /// region.
    async fn here(
        &self,
        pipe: &PipeName,
        stream: &StreamName,
        rows: &[Versioned<Lease>],
    ) -> Result<Option<Stream>, Error> {
        let mut rows = rows.iter().map(|row| &row.value).filter(|lease| lease.stream == *stream);
        match self.deps().kinesis.stream(stream).await {
            Ok(stream) => one_stream(pipe, rows, &stream).map(|()| Some(stream)),
            Err(Error::NotFound(_)) => {
                let here = self.deps().kinesis.region();
                let elsewhere = |arn: &str| !here.is_empty() && !arn.is_empty() && region(arn) != here;
                match rows.find(|lease| elsewhere(&lease.identity.arn)) {
                    None => Ok(None),
                    Some(lease) => Err(Error::BadRequest(format!(
                        "pipe '{pipe}' reads stream {}, and this bridge is in region {here}: end it at a bridge in its region",
                        lease.identity.arn
                    ))),
                }
            }
            Err(other) => Err(other),
        }
    }

    async fn deregister(&self, pipe: &PipeName, stream: &Stream) -> Result<(), Error> {
        let (api, name) = (&self.deps().fan_out, consumer_name(pipe));
        match api.consumer(stream, &name).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                api.deregister(stream, &name).await?;
                info!(
                    pipe = pipe.as_str(),
                    stream = stream.name.as_str(),
                    consumer = name,
                    "the consumer is deregistered"
                );
                Ok(())
            }
            Err(Error::AccessDenied(why)) => {
                warn!(pipe = pipe.as_str(), "a bridge that may not look for a consumer has not registered one: {why}");
                Ok(())
            }
            Err(other) => Err(other),
        }
    }
}

/// Waits until an actor of the pipe has stopped.
async fn quiet(pipe: &PipeName, commands: &mpsc::Sender<Command>, since: Instant) -> Result<(), Error> {
    loop {
        let (reply, answer) = oneshot::channel();
        if commands.send(Command::End(EndRequest { since, reply })).await.is_err() {
            return Ok(());
        }
        // No answer: the actor has just ended.
        match answer.await.unwrap_or(Quiet::Yes) {
            Quiet::Yes => return Ok(()),
            Quiet::NotYet if since.elapsed() < END_QUIET + END_LOOK => sleep(END_LOOK).await,
            Quiet::NotYet | Quiet::No => {
                return Err(Error::BadRequest(format!(
                    "pipe '{pipe}' is being pulled here, so it cannot end: DROP its view, or stop it with SYSTEM STOP VIEW, first"
                )));
            }
        }
    }
}

/// The streams named in the rows; one, unless they were edited by hand.
fn streams(rows: &[Versioned<Lease>]) -> Vec<&StreamName> {
    let mut streams: Vec<&StreamName> = rows.iter().map(|row| &row.value.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    streams
}
