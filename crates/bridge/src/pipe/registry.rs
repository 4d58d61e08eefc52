//! Finds the actor of a pipe, or starts it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::actor::Actor;
use super::deps::Deps;
use super::identity::{another_stream, one_stream};
use super::pull::{Command, PullOptions, Served};
use super::status::{Snapshot, Status};
use domain::error::Error;
use domain::lease::{Identity, Lease};
use domain::limits::{COMMIT_RETRIES, MAX_PIPES, MAX_QUEUED_PULLS};
use domain::lineage::{Subject, missing};
use domain::ports::{StateError, Versioned, kinesis_now_ms};
use domain::sequence::Checkpoint;
use domain::shard::Shard;

/// All pipes of this process.
pub struct Pipes {
    deps: Deps,
    running: Mutex<HashMap<String, Running>>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

pub(super) struct Running {
    stream: String,
    pub(super) commands: mpsc::Sender<Command>,
    status: Status,
}

impl Pipes {
    /// No pipe yet.
    pub fn new(deps: Deps) -> Pipes {
        let (stop, _) = watch::channel(false);
        Pipes { deps, running: Mutex::default(), tasks: tokio::sync::Mutex::default(), stop }
    }

    /// What the pipes need of the world.
    pub fn deps(&self) -> &Deps {
        &self.deps
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch of `pipe`.
    pub async fn pull(&self, pipe: &str, stream: &str, options: PullOptions) -> Result<Served, Error> {
        let commands = self.find_or_start(pipe, stream).await?;
        let (reply, answer) = oneshot::channel();
        commands.try_send(Command::Pull(options, reply)).map_err(|_| {
            Error::Unavailable(format!("pipe '{pipe}' has {MAX_QUEUED_PULLS} pulls waiting already, or is just ending"))
        })?;
        answer.await.unwrap_or_else(|_| Err(ended(pipe)))
    }

    /// Commits a batch that its reader has stored.
    pub async fn ack(&self, pipe: &str, batch: &str) -> Result<(), Error> {
        let running = self.running().get(pipe).map(|r| r.stream.clone());
        let stream = match running {
            Some(stream) => stream,
            None => self.rows(pipe).await?.remove(0).value.stream,
        };
        let commands = self.find_or_start(pipe, &stream).await?;
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Ack(batch.into(), reply)).await.map_err(|_| ended(pipe))?;
        answer.await.unwrap_or_else(|_| Err(ended(pipe)))
    }

    /// Moves checkpoints; an empty shard id means all shards. An open batch is given up for all its
    /// shards: those that are not moved are read again from their checkpoints, so its rows may come
    /// twice. A shard that is no longer listed has nothing to read: it is finished, so that its
    /// children go on.
    pub async fn seek(&self, pipe: &str, moves: &[(String, Checkpoint)]) -> Result<(), Error> {
        for _ in 0..COMMIT_RETRIES {
            let rows = self.rows(pipe).await?;
            let stream = self.deps.kinesis.stream(&rows[0].value.stream).await?;
            one_stream(pipe, rows.iter().map(|row| &row.value), &stream)?;
            let shards = self.deps.kinesis.shards(&stream.name).await?;
            let times = Times {
                since_ms: kinesis_now_ms(&*self.deps.kinesis, &*self.deps.clock),
                now_ms: self.deps.clock.now_ms(),
            };
            if self.lease_children(pipe, &rows, &shards, &stream.identity(), times).await? {
                continue;
            }
            let listed = shards.iter().map(|shard| (shard.id.as_str(), shard)).collect();
            let changes = sought(pipe, &rows, moves, &listed, &stream.identity(), times)?;
            let mut written = Ok(());
            for part in changes.chunks(domain::limits::LEASE_ROWS_PER_STATEMENT) {
                written = written.and(self.deps.store.update(part).await);
            }
            match written {
                Ok(()) => {
                    self.deps.heartbeat.changed(pipe);
                    let commands = self.running().get(pipe).map(|r| r.commands.clone());
                    if let Some(commands) = commands {
                        // A pipe that has just ended reads the rows at its next start.
                        let _ = commands.send(Command::Reload).await;
                    }
                    return Ok(());
                }
                Err(StateError::Conflict(_)) => continue,
                Err(other) => return Err(other.into()),
            }
        }
        Err(Error::Unavailable(format!(
            "the leases of pipe '{pipe}' keep changing: stop its view (SYSTEM STOP VIEW) and seek again"
        )))
    }

    /// What time it is to Kinesis, by an answer about the pipe's stream that came for this.
    pub async fn now_ms(&self, pipe: &str) -> Result<i64, Error> {
        let stream = self.rows(pipe).await?.remove(0).value.stream;
        self.deps.kinesis.shards(&stream).await?;
        Ok(kinesis_now_ms(&*self.deps.kinesis, &*self.deps.clock))
    }

    /// Adds leases for children that have none yet, as long as their parents' leases tell since
    /// when: after a `seek` they do not. Whether there were any.
    async fn lease_children(
        &self,
        pipe: &str,
        rows: &[Versioned<Lease>],
        shards: &[Shard],
        identity: &Identity,
        times: Times,
    ) -> Result<bool, Error> {
        let known: BTreeMap<&str, &Lease> = rows.iter().map(|r| (r.value.shard_id.as_str(), &r.value)).collect();
        let subject = Subject {
            pipe,
            stream: &rows[0].value.stream,
            identity,
            now_ms: times.since_ms,
            listed_ms: 0,
            written_ms: times.now_ms,
        };
        let new = missing(&known, shards, &Checkpoint::TrimHorizon, subject);
        for part in new.chunks(domain::limits::LEASE_ROWS_PER_STATEMENT) {
            match self.deps.store.create(part).await {
                // Somebody else was faster.
                Ok(()) | Err(StateError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(!new.is_empty())
    }

    pub(super) async fn rows(&self, pipe: &str) -> Result<Vec<Versioned<Lease>>, Error> {
        let rows = self.deps.store.leases(Some(pipe)).await?;
        match rows.is_empty() {
            true => {
                Err(Error::NotFound(format!("there is no pipe '{pipe}': it begins with the first pull of its view")))
            }
            false => Ok(rows),
        }
    }

    async fn find_or_start(&self, pipe: &str, stream: &str) -> Result<mpsc::Sender<Command>, Error> {
        if *self.stop.borrow() {
            return Err(Error::Unavailable("the bridge is stopping".into()));
        }
        let mut tasks = self.tasks.lock().await;
        while tasks.try_join_next().is_some() {}
        let mut running = self.running();
        running.retain(|_, r| !r.commands.is_closed());
        if let Some(found) = running.get(pipe) {
            return match found.stream == stream {
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
        let actor = Actor::new(self.deps.clone(), pipe.into(), stream.into(), status.clone(), receiver, stop);
        tasks.spawn(actor.run());
        running.insert(pipe.into(), Running { stream: stream.into(), commands: commands.clone(), status });
        Ok(commands)
    }

    /// The state of the pipes that run here, by name.
    pub fn snapshots(&self) -> HashMap<String, Snapshot> {
        let running = self.running();
        running.iter().filter(|(_, r)| !r.commands.is_closed()).map(|(n, r)| (n.clone(), r.status.get())).collect()
    }

    /// Ends all pipes: settles what can be settled, gives the leases back.
    pub async fn stop(&self) {
        let _ = self.stop.send(true);
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

/// When a `seek` takes place.
#[derive(Clone, Copy)]
struct Times {
    /// Kinesis' time, Unix ms.
    since_ms: i64,
    /// The local clock, for what users read.
    now_ms: i64,
}

/// The lease rows that `seek` changes.
fn sought(
    pipe: &str,
    rows: &[Versioned<Lease>],
    moves: &[(String, Checkpoint)],
    listed: &HashMap<&str, &Shard>,
    identity: &Identity,
    Times { since_ms, now_ms }: Times,
) -> Result<Vec<Versioned<Lease>>, Error> {
    if let Some((unknown, _)) =
        moves.iter().find(|(id, _)| !id.is_empty() && rows.iter().all(|r| r.value.shard_id != *id))
    {
        return Err(Error::NotFound(format!("pipe '{pipe}' has no shard '{unknown}'")));
    }
    let target = |lease: &Lease| {
        moves.iter().rev().find(|(id, _)| id.is_empty() || *id == lease.shard_id).map(|(_, to)| to.clone())
    };
    let given_up: Vec<&str> = rows
        .iter()
        .filter(|r| target(&r.value).is_some())
        .filter_map(|r| r.value.offer.as_ref().map(|o| o.batch.as_str()))
        .collect();
    let changed = rows.iter().filter_map(|row| {
        let in_batch = row.value.offer.as_ref().is_some_and(|o| given_up.contains(&o.batch.as_str()));
        let value = match (target(&row.value), listed.get(row.value.shard_id.as_str())) {
            (Some(_), None) => {
                Lease { identity: identity.clone(), ..row.value.seek(Checkpoint::ShardEnd, since_ms, now_ms) }
            }
            (Some(to), Some(shard)) => {
                // In a stream that was created anew, the shard may have come from others, or from
                // none.
                let parents = shard.parents().into_iter().filter(|parent| row.value.parents.contains(parent)).collect();
                Lease { parents, identity: identity.clone(), ..row.value.seek(shard.position(to), since_ms, now_ms) }
            }
            (None, _) if in_batch => row.value.give_up(now_ms),
            (None, _) => return None,
        };
        Some(Versioned { version: row.version, value })
    });
    Ok(changed.collect())
}

fn ended(pipe: &str) -> Error {
    Error::Unavailable(format!("pipe '{pipe}' has just ended here and starts anew with the next pull"))
}
