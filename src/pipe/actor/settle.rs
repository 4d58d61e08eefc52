//! How the open batch of a pipe ends: what ClickHouse or the reader says about it, and the commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Actor;
use crate::domain::error::Error;
use crate::domain::sequence::Checkpoint;
use crate::domain::unpacking::Unpacking;
use crate::pipe::Mode;
use crate::ports::RefreshOutcome;

/// An answer of `SYSTEM WAIT VIEW`.
pub(super) struct Confirmation {
    pub batch: String,
    pub delivered: Arc<AtomicBool>,
    pub outcome: RefreshOutcome,
}

impl Actor {
    /// Waits up to `grace` for the answer about the open batch. A new pull means that its refresh has ended, so the answer is near; while in
    /// doubt the batch is simply served again.
    pub(super) async fn await_settlement(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        while self.open().is_some_and(|open| open.waits > 0 && !open.confirmed) {
            match timeout_at(deadline, self.confirmations.1.recv()).await {
                Ok(Some(confirmation)) => self.settle(confirmation).await,
                _ => return,
            }
        }
    }

    /// Takes note of how a refresh ended.
    pub(super) async fn settle(&mut self, confirmation: Confirmation) {
        let Some(open) = self.work.as_mut().and_then(|w| w.open.as_mut()) else { return };
        if open.batch.id != confirmation.batch {
            return;
        }
        open.waits = open.waits.saturating_sub(1);
        let id = open.batch.id.clone();
        match confirmation.outcome {
            // The answer may be about the refresh that was given the batch, or about one that was given it again since: all of them must have read it.
            RefreshOutcome::Succeeded if [&confirmation.delivered, &open.latest].iter().all(|d| d.load(Ordering::Acquire)) => {
                open.confirmed = true;
                if let Err(later) = self.finish_commit().await {
                    self.note_error(&later);
                }
            }
            RefreshOutcome::Succeeded => self.failed(
                "unread",
                format!("batch {id}: the refresh succeeded without reading the batch to its end (a LIMIT in the view?); it is served again"),
            ),
            RefreshOutcome::Failed(why) => self.failed("failed", format!("batch {id}: {why}")),
            RefreshOutcome::Unknown(why) => self.failed("unknown", format!("batch {id}: its refresh's end is not known: {why}")),
        }
    }

    fn failed(&mut self, outcome: &str, message: String) {
        warn!(pipe = self.pipe, "{message}");
        self.deps.metrics.batch(&self.pipe, outcome);
        self.status.publish(|s| {
            s.failed_attempts += 1;
            s.last_error = message;
        });
    }

    /// The reader says that `batch` is in ClickHouse.
    pub(super) async fn ack(&mut self, batch: &str) -> Result<(), Error> {
        if batch == self.last_committed {
            return Ok(());
        }
        self.start(&Checkpoint::TrimHorizon, Mode::Polling, Unpacking::default()).await?;
        self.work()?.recover().await?;
        match self.work()?.open.as_mut().filter(|open| open.batch.id == batch && open.offered) {
            Some(open) => open.confirmed = true,
            None => {
                return Err(Error::NotFound(format!(
                    "batch '{batch}' is not the open batch of pipe '{}': it was acknowledged before, or never served",
                    self.pipe
                )));
            }
        }
        self.finish_commit().await
    }

    /// Commits the open batch if it is confirmed. Until that is done nothing else is served.
    pub(super) async fn finish_commit(&mut self) -> Result<(), Error> {
        let Some(work) = self.work.as_mut().filter(|w| w.open.as_ref().is_some_and(|o| o.confirmed)) else {
            return Ok(());
        };
        let batch = work.commit().await?;
        self.deps.metrics.committed(&self.pipe, batch.rows() as u64, batch.bytes() as u64);
        self.last_committed = batch.id.clone();
        self.status.publish(|s| {
            s.failed_attempts = 0;
            s.last_error.clear();
        });
        self.publish();
        Ok(())
    }
}
