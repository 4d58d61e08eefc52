//! A pipe's published state: written by the actor, read by `/v1/pipes` and `/metrics` without
//! asking it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::buffer::ShardBuffer;
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::WARNING_HOLDS;
use domain::names::ShardId;

/// A pipe's public state. Cheap to clone.
#[derive(Clone, Default)]
pub struct Status(Arc<Mutex<Snapshot>>);

/// The state at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// All leases of the pipe, whoever holds them, ordered by shard id.
    pub leases: Arc<[Arc<Lease>]>,
    /// The buffers of the shards read here, ordered by shard id.
    pub buffers: Vec<Arc<ShardBuffer>>,
    /// How often in a row the offered batch has failed.
    pub failed_attempts: u32,
    /// The last error of the batch or the pipe; empty after a commit.
    pub last_error: String,
    /// A warning about committed rows that may be missing in ClickHouse, and since when it is
    /// shown.
    pub warning: Option<(Instant, String)>,
}

/// What a shard of a pipe is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// Records are being read.
    Reading,
    /// A parent shard is not committed to its end yet.
    WaitingForParent,
    /// Everything is committed.
    Finished,
    /// The position has expired; `seek` resumes.
    Gap,
    /// No live worker holds the lease.
    Unowned,
}

impl ShardState {
    /// The word that the HTTP interface uses.
    pub fn name(self) -> &'static str {
        match self {
            ShardState::Reading => "reading",
            ShardState::WaitingForParent => "waiting_for_parent",
            ShardState::Finished => "finished",
            ShardState::Gap => "gap",
            ShardState::Unowned => "unowned",
        }
    }
}

impl Status {
    /// Changes the snapshot.
    pub fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The current snapshot.
    pub fn get(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Snapshot {
    /// The warning about rows that may be missing in ClickHouse, shown for [`WARNING_HOLDS`]; empty
    /// if there is none.
    pub fn warning(&self) -> &str {
        self.warning.as_ref().filter(|(since, _)| since.elapsed() < WARNING_HOLDS).map_or("", |(_, warning)| warning)
    }

    /// The buffer of a shard, if it is read here.
    pub fn buffer(&self, shard_id: &ShardId) -> Option<&Arc<ShardBuffer>> {
        let at = self.buffers.binary_search_by(|buffer| buffer.shard_id.as_str().cmp(shard_id));
        self.buffers.get(at.ok()?)
    }

    /// What a shard is doing.
    pub fn state(&self, lease: &Lease) -> ShardState {
        let gap = self.buffer(&lease.shard_id).is_some_and(|b| matches!(b.progress().error, Some(Error::Gap(_))));
        if gap {
            return ShardState::Gap;
        }
        if lease.finished() {
            return ShardState::Finished;
        }
        if lease.owner.is_empty() {
            return ShardState::Unowned;
        }
        let unfinished_parent = |parent: &ShardId| {
            let at = self.leases.binary_search_by(|lease| lease.shard_id.cmp(parent));
            at.is_ok_and(|at| !self.leases[at].finished())
        };
        if lease.parents.iter().any(unfinished_parent) {
            return ShardState::WaitingForParent;
        }
        ShardState::Reading
    }
}
