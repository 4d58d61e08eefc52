//! Materialized views attached to a pipe's table. An insert feeds those that existed when it began,
//! so a view added while a refresh waits here for records silently misses the rows of that refresh.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::Actor;
use domain::batch::Batch;
use domain::error::Error;
use domain::limits::SHARDS_IN_A_WARNING;
use domain::ports::Below;

impl Actor {
    /// Notes which views the refresh that has just begun feeds. Right after another refresh, these
    /// are the views found at its end: one added since may be too late for this refresh.
    pub(super) async fn look_below(&mut self, view: &str) {
        let Some((target, before)) = self.known.fed(view) else { return };
        if self.known.below_is_fresh(view) {
            return;
        }
        let found = self.deps.views.below(target, before.unwrap_or(&Below::default())).await;
        self.note_below(view, found);
    }

    /// Warns of views that were added during the refresh that inserted `batch`. `found` is what was
    /// there when it had ended.
    pub(super) fn compare_below(&mut self, view: &str, batch: &Batch, found: Result<Below, Error>) {
        if let (Some((target, Some(before))), Ok(after)) = (self.known.fed(view), &found) {
            let added: Vec<_> = after.views.difference(&before.views).map(|name| name.join(".")).collect();
            if !added.is_empty() {
                let warning = missed(&added, target, batch);
                warn!(pipe = self.pipe.as_str(), "{warning}");
                self.status.publish(|s| s.warning = Some((Instant::now(), warning)));
            }
        }
        self.note_below(view, found);
    }

    fn note_below(&mut self, view: &str, found: Result<Below, Error>) {
        match found {
            Ok(below) => self.known.note_below(view, below),
            Err(error) => debug!(pipe = self.pipe.as_str(), "cannot find the views below view {view} (UUID): {error}"),
        }
    }
}

/// The warning. It gives the rows' positions, so that an operator can find and insert them.
fn missed(added: &[String], target: &str, batch: &Batch) -> String {
    let rows: Vec<String> = batch
        .ranges
        .iter()
        .filter_map(|range| {
            let first = range.slices.iter().find_map(|slice| slice.first())?;
            let last = range.slices.iter().rev().find_map(|slice| slice.last())?;
            Some(format!("{} from {} to {}", range.shard_id, first.sequence_number, last.sequence_number))
        })
        .take(SHARDS_IN_A_WARNING)
        .collect();
    let more = batch.ranges.len() - rows.len();
    let more = if more > 0 { format!(" and {more} more shards") } else { String::new() };
    format!(
        "{} was added below {target} while batch {} ({} rows) was in flight, and may be missing these rows: {}{more}; compare it with {target}, and \
         insert the missing rows from there",
        added.join(", "),
        batch.id,
        batch.rows(),
        rows.join(", ")
    )
}
