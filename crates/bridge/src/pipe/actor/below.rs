//! Materialized views below a pipe's table. An insert feeds those that were there when it began, so
//! one that is added while a refresh waits here for records misses the rows of that refresh,
//! without an error anywhere.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::Actor;
use domain::batch::Batch;
use domain::error::Error;
use domain::limits::{SHARDS_IN_A_WARNING, VIEWS_BELOW_HOLD};
use domain::ports::Below;

/// What is below a table, and when that was looked at.
pub(super) struct Looked {
    below: Below,
    at: Instant,
}

impl Actor {
    /// Notes which views a refresh feeds that has just begun. Right after another one they are
    /// those that were there at its end: one that was added since may have been too late for this
    /// refresh.
    pub(super) async fn look_below(&mut self, view: &str) {
        let Some(known) = self.known.get(view) else { return };
        if known.looked.as_ref().is_some_and(|looked| looked.at.elapsed() < VIEWS_BELOW_HOLD) {
            return;
        }
        let before = known.looked.as_ref().map(|looked| looked.below.clone()).unwrap_or_default();
        let found = self.deps.views.below(&known.destination.target, &before).await;
        self.note_below(view, found);
    }

    /// The table that a view fills, by its UUID, and what was below that.
    pub(super) fn fed(&self, view: &str) -> Option<(String, Below)> {
        let known = self.known.get(view)?;
        Some((known.destination.target.clone(), known.looked.as_ref()?.below.clone()))
    }

    /// Warns of views that were added while the refresh was under way that inserted `batch`, by
    /// what was found when it had ended.
    pub(super) fn compare_below(&mut self, view: &str, batch: &Batch, found: Result<Below, Error>) {
        let Some(known) = self.known.get(view) else { return };
        let (Some(before), Ok(after)) = (&known.looked, &found) else { return self.note_below(view, found) };
        let added: Vec<_> = after.views.difference(&before.below.views).map(|name| name.join(".")).collect();
        if !added.is_empty() {
            let warning = missed(&added, &known.destination.target, batch);
            warn!(pipe = self.pipe, "{warning}");
            self.status.publish(|s| s.warning = Some((Instant::now(), warning)));
        }
        self.note_below(view, found);
    }

    fn note_below(&mut self, view: &str, found: Result<Below, Error>) {
        let Some(known) = self.known.get_mut(view) else { return };
        match found {
            Ok(below) => known.looked = Some(Looked { below, at: Instant::now() }),
            Err(error) => {
                debug!(pipe = self.pipe, "views below {} are not looked at: {error}", known.destination.target)
            }
        }
    }
}

/// The warning. It names the rows by their positions, so that they can be looked for, and put in.
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
        "{} was added below {target} while batch {} ({} rows) was on its way, and may have none of these rows: {}{more}; compare it with {target}, and \
         insert from there what is missing",
        added.join(", "),
        batch.id,
        batch.rows(),
        rows.join(", ")
    )
}
