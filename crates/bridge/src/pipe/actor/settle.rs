//! How a pipe's open batch is settled: the outcome reported by ClickHouse or the reader, and the
//! commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Actor;
use crate::pipe::Mode;
use crate::pipe::inbox::Confirmation;
use crate::pipe::pull::OnFailure;
use domain::error::Error;
use domain::limits::VIEW_STATE_HOLDS;
use domain::names::BatchId;
use domain::ports::{Cause, Failure, RefreshOutcome, ViewState};
use domain::start::Beginning;
use domain::unpacking::Unpacking;

impl Actor {
    /// Waits up to `grace` for the outcome of the open batch. A new pull means that its refresh has
    /// ended, so the answer is near; without one, the batch is simply served again.
    pub(super) async fn await_settlement(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        while self.open().is_some_and(|open| open.waits > 0 && !open.confirmed) {
            match self.inbox.confirmation(deadline).await {
                Some(confirmation) => self.settle(confirmation).await,
                None => return,
            }
        }
    }

    /// Records how a refresh ended.
    pub(super) async fn settle(&mut self, confirmation: Confirmation) {
        let Some(open) = self.work.as_mut().and_then(|w| w.open.as_mut()) else { return };
        if open.batch.id != confirmation.batch {
            return;
        }
        open.waits = open.waits.saturating_sub(1);
        let (id, view) = (open.batch.id.clone(), confirmation.view);
        // The answer is about an earlier refresh, or one whose outcome the view's state has already
        // shown.
        let told = !Arc::ptr_eq(&confirmation.delivered, &open.latest) || open.suspicion.given.is_none();
        if !told && !matches!(confirmation.outcome, RefreshOutcome::Unknown(_)) {
            open.suspicion.given = None;
        }
        match confirmation.outcome {
            // The answer may be about the refresh that was given the batch or about a later one
            // that was given it again, so all of them must have read it.
            RefreshOutcome::Succeeded
                if [&confirmation.delivered, &open.latest].iter().all(|d| d.load(Ordering::Acquire))
                    && open.read_since(confirmation.number) =>
            {
                open.confirmed = true;
                let batch = open.batch.clone();
                let views = self.deps.views.clone();
                let fed =
                    self.known.fed(&view.uuid).and_then(|(target, below)| Some((target.to_owned(), below?.clone())));
                let below = async {
                    let (target, known) = fed?;
                    Some(views.below(&target, &known).await)
                };
                // Looked up beside the commit, so that the next refresh starts right after it; but
                // after a slow one, the view may have been stopped or started since.
                let (looked, state) = (Instant::now(), views.view(&view.database, &view.name));
                let (done, below, state) = tokio::join!(self.finish_commit(), below, state);
                let state = state.ok().flatten().filter(|_| looked.elapsed() <= VIEW_STATE_HOLDS);
                match done {
                    Ok(()) => self.next.start(self.deps.views.clone(), view.clone(), state),
                    Err(later) => self.note_error(&later),
                }
                if let Some(below) = below {
                    self.compare_below(&view.uuid, &batch, below);
                }
            }
            RefreshOutcome::Succeeded => {
                open.suspicion.refusals = 0;
                self.failed(
                    "unread",
                    format!("batch {id}: the refresh of view {view} succeeded without reading the batch to its end (a LIMIT in the view?); it is served again"),
                );
            }
            RefreshOutcome::Failed(_) if told => {}
            RefreshOutcome::Failed(failure) => self.refresh_failed(failure, &view.to_string()),
            // The view's state at the next pull may show the outcome.
            RefreshOutcome::Unknown(why) => {
                self.failed(
                    "unknown",
                    format!("batch {id}: the outcome of the refresh of view {view} is unknown: {why}"),
                );
            }
        }
    }

    /// Records a failure of the refresh that was last given the open batch, if the view's state at
    /// this pull shows it. WAIT VIEW reports a failure only if no other refresh begins at once, and
    /// ClickHouse's first retry delays are very short.
    pub(super) fn look_back(&mut self, state: &ViewState, view: &str) {
        let Some(open) = self.work.as_mut().and_then(|w| w.open.as_mut()) else { return };
        if open.offered && !open.confirmed && open.suspicion.shows_failure(state) {
            open.suspicion.given = None;
            self.refresh_failed(Failure { why: state.exception.clone(), cause: state.cause }, view);
        }
    }

    /// Records that the refresh that was last given the open batch has failed.
    fn refresh_failed(&mut self, failure: Failure, view: &str) {
        let Some(open) = self.work.as_mut().and_then(|w| w.open.as_mut()) else { return };
        let Failure { why, cause } = failure;
        let (rows, whole) = (open.batch.rows(), open.latest.load(Ordering::Acquire));
        // A single row was tried only if it was sent in full; with several, the first may have been
        // refused before the rest was sent.
        let refused = cause == Cause::Rows && (whole || rows > 1);
        let mut message = format!("batch {} ({rows} rows) was not inserted by view {view}: {why}", open.batch.id);
        if let (Cause::Other(reason), OnFailure::Isolate) = (cause, open.on_failure) {
            message = format!("{message}; its rows are not isolated: {reason}");
        }
        open.suspicion.refusals = if refused { open.suspicion.refusals + 1 } else { 0 };
        open.suspicion.said = (why, view.into());
        self.failed("failed", message);
    }

    fn failed(&mut self, outcome: &str, message: String) {
        warn!(pipe = self.pipe.as_str(), "{message}");
        self.deps.metrics.batch(&self.pipe, outcome);
        self.status.publish(|s| {
            s.failed_attempts += 1;
            s.last_error = message;
        });
    }

    /// The reader reports that `batch` is stored.
    pub(super) async fn ack(&mut self, batch: &BatchId) -> Result<(), Error> {
        if *batch == self.last_committed {
            return Ok(());
        }
        self.start(&Beginning::TrimHorizon, Mode::Polling, Unpacking::default(), None).await?;
        self.work()?.recover().await?;
        match self.work()?.open.as_mut().filter(|open| open.batch.id == *batch && open.offered) {
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

    /// Commits the open batch if it is confirmed. Nothing else is served until that is done.
    pub(super) async fn finish_commit(&mut self) -> Result<(), Error> {
        let Some(work) = self.work.as_mut().filter(|w| w.open.as_ref().is_some_and(|o| o.confirmed)) else {
            return Ok(());
        };
        let closed = work.commit().await?;
        let batch = &closed.batch;
        match closed.suspicion.quarantined {
            true => self.deps.metrics.quarantined(&self.pipe),
            false => self.deps.metrics.committed(&self.pipe, batch.rows() as u64, batch.bytes() as u64),
        }
        self.last_committed = batch.id.clone();
        self.status.publish(|s| {
            s.failed_attempts = 0;
            s.last_error.clear();
        });
        self.publish();
        Ok(())
    }
}
