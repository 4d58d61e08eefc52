//! Takes the rows out of a batch that ClickHouse refuses: halves the open batch until a single row is left.
//!
//! Half of a batch is a batch like any other: frozen, offered before its first byte, recovered by whichever process finds it. What this process
//! knows about the other rows is lost with it; then the way to a bad row begins with the whole of what is open.

use std::sync::Arc;

use tracing::info;

use super::leases::Written;
use super::work::{Open, Work};
use domain::batch::{Batch, ShardRange};
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::ISOLATE_AFTER_ATTEMPTS;
use domain::ports::{QuarantinedRow, ViewState};
use domain::record::RecordRef;
use domain::unpacking::Unpacking;

/// What is known about rows of the open batch that ClickHouse refuses.
#[derive(Default)]
pub struct Suspicion {
    /// Attempts that failed because of its rows, since one ended in another way.
    pub refusals: u32,
    /// What ClickHouse said, and the view whose insert it was.
    pub said: (String, String),
    /// It is a part of a batch that was refused: one more attempt is enough.
    pub searched: bool,
    /// Its only row is in the quarantine.
    pub quarantined: bool,
    /// The refresh that it was given to last, while its end is not known: the view's UUID, and how many had failed in a row before.
    pub given: Option<(String, u64)>,
    /// How one of the refreshes ended that it was given to, only WAIT VIEW can tell.
    pub untold: bool,
}

impl Suspicion {
    /// Whether the rows are to blame beyond doubt.
    pub fn certain(&self) -> bool {
        self.refusals >= if self.searched { 1 } else { ISOLATE_AFTER_ATTEMPTS }
    }

    /// The refresh of a view in this state is given the batch.
    pub fn give(&mut self, state: &ViewState) {
        let to = (state.uuid.clone(), state.retry);
        if self.given.replace(to.clone()).is_some_and(|before| before != to) {
            (self.untold, self.refusals) = (true, 0);
        }
    }

    /// Whether the refresh that follows, now in this state, shows that the one before failed: exactly one has failed since.
    pub fn shows_failure(&self, state: &ViewState) -> bool {
        self.given.as_ref().is_some_and(|(uuid, retry)| *uuid == state.uuid && retry + 1 == state.retry)
    }
}

impl Open {
    /// Its only row; none when it has more.
    pub fn only_row(&self) -> Option<(&ShardRange, RecordRef<'_>)> {
        let range = self.batch.ranges.first().filter(|_| self.batch.rows() == 1)?;
        Some((range, range.records().next()?))
    }

    /// Its only row as the quarantine keeps it.
    pub fn quarantined(&self, pipe: &str, now_ms: i64) -> Option<QuarantinedRow> {
        let (range, row) = self.only_row()?;
        let (error, view) = self.suspicion.said.clone();
        Some(QuarantinedRow {
            pipe: pipe.into(),
            stream: self.batch.stream.clone(),
            shard_id: range.shard_id.clone(),
            sequence_number: row.sequence_number.into(),
            sub_sequence_number: row.sub_sequence,
            key: row.key.into(),
            timestamp_ms: row.timestamp_ms,
            view,
            error,
            quarantined_ms: now_ms,
            raw_message: row.payload.to_vec(),
        })
    }
}

impl Work {
    /// Replaces the open batch, of more than one row, by its first half in all its lease rows at once (**halves-are-prefixes**). The rest goes back
    /// to where it came from. After an error the rows tell which of the two is open, and that one is read again.
    pub async fn halve(&mut self) -> Result<(), Error> {
        self.leases.reload_if_in_doubt().await?;
        let Some(open) = &self.open else { return Ok(()) };
        let (whole, rows, refusals) = (open.batch.clone(), open.batch.rows(), open.suspicion.refusals);
        let (first, rest) = whole.split_at(rows / 2);
        let half = Arc::new(Batch { id: self.deps.clock.batch_id(), stream: whole.stream.clone(), ranges: first });
        let changes = self.halves(open, &half);
        let written = match changes {
            Ok(Some(changes)) => self.leases.write(changes).await,
            Ok(None) => Ok(Written::Changed),
            Err(refused) => Err(refused),
        };
        if !matches!(written, Ok(Written::Yes)) {
            self.forget_open();
            return Err(written.err().unwrap_or_else(|| self.positions_changed()));
        }
        let Some(mut open) = self.open.take() else { return Ok(()) };
        info!(
            pipe = self.pipe,
            batch = half.id,
            rows = half.rows(),
            "batch {} of {rows} rows was refused {refusals} times; its first half is tried, the rest later: {}",
            whole.id,
            open.suspicion.said.0
        );
        let as_now = Unpacking::within(&open.shape) == self.source.unpacking;
        if as_now {
            self.search.halved(rest.iter().map(|range| (range.shard_id.as_str(), range.rows())));
            self.shards.put_back(&whole.id, &half, rest);
        } else {
            // The rest was taken apart as an earlier view wanted it, and is read again.
            self.restart_readers();
        }
        open.before.retain(|(id, _)| half.ranges.iter().any(|range| range.shard_id == *id));
        let said = open.suspicion.said;
        let suspicion = Suspicion { searched: true, said, ..Suspicion::default() };
        // An answer that is still to come is about the whole, and not waited for.
        self.open = Some(Open { batch: half, waits: 0, latest: Arc::default(), suspicion, ..open });
        Ok(())
    }

    /// The lease rows that offer the half; none when positions were changed.
    fn halves(&self, open: &Open, half: &Batch) -> Result<Option<Vec<Lease>>, Error> {
        let (now, shards) = (self.deps.clock.now_ms(), half.ranges.len() as u32);
        let mut changes = Vec::with_capacity(open.before.len());
        for (id, before) in &open.before {
            let lease = self.leases.get(id).filter(|l| l.batch() == Some(&open.batch.id) && l.checkpoint == *before);
            let Some(lease) = lease else { return Ok(None) };
            let range = half.ranges.iter().find(|range| range.shard_id == *id);
            let offer = range.map(|range| range.offer(&half.id, &open.shape, shards)).transpose()?;
            changes.push(lease.halve(&self.leases.holder(id), &open.batch.id, offer, now)?);
        }
        Ok(Some(changes))
    }

    /// What a batch that is closed says about the rows that are left of a refused one.
    pub(super) fn search_on(&mut self, closed: &Open) {
        match (closed.suspicion.quarantined, closed.suspicion.searched) {
            (true, _) => self.search.found(),
            (false, true) => self.search.went_in(),
            (false, false) => {}
        }
    }
}
