//! Isolates rows that ClickHouse refuses: halves the open batch until a single row is left.
//!
//! A half is a batch like any other: frozen, offered before its first byte, recovered by whichever
//! process finds it. What is known about the other rows is only in memory; after a restart the
//! search begins again with the whole open batch.

use std::sync::Arc;

use tracing::info;

use super::changes;
use super::open::{Open, Suspicion};
use super::work::Work;
use domain::batch::Batch;
use domain::error::Error;

impl Work {
    /// Replaces the open batch, which has more than one row, by its first half, in all its lease
    /// rows at once (**halves-are-prefixes**). The rest goes back into the buffers. After an error,
    /// the rows show which of the two is open, and that one is read again.
    pub async fn halve(&mut self) -> Result<(), Error> {
        self.leases.reload_if_in_doubt().await?;
        let Some(open) = &self.open else { return Ok(()) };
        let (whole, rows, refusals) = (open.batch.clone(), open.batch.rows(), open.suspicion.refusals);
        let (first, rest) = whole.split_at(rows / 2);
        let half = Arc::new(Batch { id: self.deps.clock.batch_id(), stream: whole.stream.clone(), ranges: first });
        let written = self.leases.try_change(|rows, now_ms| changes::halves(rows, open, &half, now_ms)).await;
        if !matches!(written, Ok(true)) {
            self.forget_open();
            return Err(written.err().unwrap_or_else(|| self.positions_changed()));
        }
        let Some(mut open) = self.open.take() else { return Ok(()) };
        info!(
            pipe = self.pipe.as_str(),
            batch = half.id.as_str(),
            rows = half.rows(),
            "batch {} of {rows} rows was refused {refusals} times; trying its first half, the rest later: {}",
            whole.id,
            open.suspicion.said.0
        );
        let as_now = open.shape.unpacking() == self.source.unpacking;
        if as_now {
            self.search.halved(rest.iter().map(|range| (&range.shard_id, range.rows())));
            self.shards.put_back(&whole.id, &half, rest);
        } else {
            // The rest was unpacked with an earlier view's settings, so it is read again.
            self.restart_readers();
        }
        open.before.retain(|(id, _)| half.ranges.iter().any(|range| range.shard_id == *id));
        let said = open.suspicion.said;
        let suspicion = Suspicion { searched: true, said, ..Suspicion::default() };
        // Outstanding answers are about the whole batch; they are not awaited.
        self.open = Some(Open { batch: half, waits: 0, latest: Arc::default(), suspicion, ..open });
        Ok(())
    }

    /// Updates the search for refused rows from a closed batch.
    pub(super) fn search_on(&mut self, closed: &Open) {
        match (closed.suspicion.quarantined, closed.suspicion.searched) {
            (true, _) => self.search.found(),
            (false, true) => self.search.went_in(),
            (false, false) => {}
        }
    }
}
