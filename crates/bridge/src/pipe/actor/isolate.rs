//! Handles a batch whose rows ClickHouse refuses, for views with `on_failure=isolate`.

use tracing::warn;

use super::Actor;
use crate::pipe::pull::{OnFailure, PullOptions};
use domain::error::Error;
use domain::limits::QUARANTINE_ROWS;
use domain::ports::Kept;

impl Actor {
    /// If ClickHouse refused the open batch and every refresh that was given it is known to have
    /// failed, halves the batch, or quarantines its only row and commits it. True if it did either:
    /// an empty answer then resets the view's back-off.
    pub(super) async fn isolate(&mut self, options: &PullOptions) -> Result<bool, Error> {
        let (pipe, now) = (self.pipe.clone(), self.deps.clock.now_ms());
        let refused = |open: &&crate::pipe::open::Open| {
            let told = open.suspicion.given.is_none() && (open.waits == 0 || !open.suspicion.untold);
            open.offered && !open.confirmed && told && open.suspicion.certain()
        };
        let Some(open) = self.open().filter(refused) else { return Ok(false) };
        if options.on_failure != OnFailure::Isolate || options.resume {
            return Ok(false);
        }
        let Some(row) = open.quarantined(&pipe, now) else {
            self.work()?.halve().await?;
            self.deps.metrics.halvings.with_label_values(&[pipe.as_str()]).inc();
            self.publish();
            return Ok(true);
        };
        let place = format!(
            "batch {} is the row {} (sub-sequence number {}) of shard {}, which view {} cannot insert: {}",
            open.batch.id, row.sequence_number, row.sub_sequence_number, row.shard_id, row.view, row.error
        );
        // Durable before the checkpoint passes it (**quarantined-before-passed**).
        let kept = self.deps.quarantine.put(&row).await;
        let why = match kept {
            Ok(Kept::Yes) => {
                warn!(
                    pipe = pipe.as_str(),
                    batch = self.open().map(|open| open.batch.id.as_str()),
                    shard = row.shard_id.as_str(),
                    sequence_number = row.sequence_number,
                    sub_sequence_number = row.sub_sequence_number,
                    view = row.view,
                    "a row that cannot be inserted is put into the quarantine: {}",
                    row.error
                );
                if let Some(open) = self.work()?.open.as_mut() {
                    (open.confirmed, open.suspicion.quarantined) = (true, true);
                }
                self.finish_commit().await?;
                return Ok(true);
            }
            Ok(Kept::Full) => format!(
                "the quarantine has {QUARANTINE_ROWS} rows of pipe '{pipe}' already, which is the limit: fix the view or the table, insert the rows \
                 from the quarantine, and delete them there"
            ),
            Err(error) => error.to_string(),
        };
        // The row is not dropped: it is served again, as with `stop`.
        warn!(pipe = pipe.as_str(), "{place}; it is not put into the quarantine: {why}");
        self.status.publish(|s| s.last_error = format!("{place}; it is not put into the quarantine: {why}"));
        Ok(false)
    }
}
