//! Moves a pipe's positions on an operator's request.

use std::collections::HashMap;

use super::changes::Seek;
use super::leases::Leases;
use super::pull::Command;
use super::registry::Pipes;
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::COMMIT_RETRIES;
use domain::lineage::{Subject, missing};
use domain::names::{PipeName, ShardId};
use domain::ports::kinesis_now_ms;
use domain::sequence::Checkpoint;
use domain::shard::Shard;

impl Pipes {
    /// Moves checkpoints; an empty shard id means all shards. An open batch is given up for all its
    /// shards: those not moved are read again from their checkpoints, so its rows may arrive twice.
    /// A shard that is no longer listed has nothing to read: it is finished, so that its children
    /// can be read.
    pub async fn seek(&self, pipe: &PipeName, moves: &[(ShardId, Checkpoint)]) -> Result<(), Error> {
        let deps = self.deps();
        let rows = self.rows(pipe).await?;
        let stream = deps.kinesis.stream(&rows[0].value.stream).await?;
        let mut leases = Leases::load(deps.store.clone(), deps.clock.clone(), pipe, &deps.worker_id, &stream).await?;
        let identity = stream.identity();
        for _ in 0..COMMIT_RETRIES {
            // After the rows were read: a shard that has a lease and is not listed has expired.
            let shards = deps.kinesis.shards(&stream.name).await?;
            let since_ms = kinesis_now_ms(&*deps.kinesis, &*deps.clock);
            let new = self.children(pipe, &leases, &shards, since_ms);
            if !new.is_empty() {
                leases.create(new).await?;
                continue;
            }
            let listed = shards.iter().map(|shard| (shard.id.as_str(), shard)).collect::<HashMap<_, _>>();
            let seek = Seek { pipe, moves, listed: &listed, identity: &identity, since_ms };
            if leases.try_change(|rows, now_ms| seek.changes(rows, now_ms).map(Some)).await? {
                self.tell(pipe).await;
                return Ok(());
            }
        }
        Err(keep_changing(pipe))
    }

    /// Tells whoever runs the pipe that its rows were changed.
    async fn tell(&self, pipe: &PipeName) {
        self.deps().heartbeat.changed(pipe);
        for commands in self.commands(pipe) {
            // A pipe that has just ended reads the rows at its next start.
            let _ = commands.send(Command::Reload).await;
        }
    }

    /// Leases for children that have none yet, as long as their parents' leases tell since when:
    /// after the seek they do not.
    fn children(&self, pipe: &PipeName, leases: &Leases, shards: &[Shard], now_ms: i64) -> Vec<Lease> {
        let stream = leases.stream();
        let known = leases.all().map(|lease| (lease.shard_id.as_str(), lease)).collect();
        let subject = Subject {
            pipe,
            stream: &stream.name,
            identity: &stream.identity(),
            now_ms,
            listed_ms: 0,
            written_ms: self.deps().clock.now_ms(),
        };
        missing(&known, shards, &Checkpoint::TrimHorizon, subject)
    }
}

fn keep_changing(pipe: &PipeName) -> Error {
    Error::Unavailable(format!(
        "the leases of pipe '{pipe}' keep changing: stop its view (SYSTEM STOP VIEW) and seek again"
    ))
}
