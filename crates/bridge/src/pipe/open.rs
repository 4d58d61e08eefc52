//! The batch whose fate is open, and what is known about rows of it that ClickHouse refuses.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::pull::OnFailure;
use domain::batch::{Batch, ShardRange};
use domain::limits::ISOLATE_AFTER_ATTEMPTS;
use domain::ports::{QuarantinedRow, ViewState};
use domain::record::RecordRef;
use domain::sequence::Checkpoint;

/// The batch whose fate is open. There is at most one (**one-open-batch**).
pub struct Open {
    /// The batch, never changed.
    pub batch: Arc<Batch>,
    /// The response format it was first asked in.
    pub shape: String,
    /// The checkpoints before it; a row with another one was moved by a person.
    pub(super) before: Vec<(String, Checkpoint)>,
    /// Its lease rows hold the offer.
    pub offered: bool,
    /// It is in ClickHouse; only the commit is missing.
    pub confirmed: bool,
    /// Answers of WAIT VIEW still to come.
    pub waits: usize,
    /// Whether its last serving was handed to the connection to its end.
    pub latest: Arc<AtomicBool>,
    /// What the view that was given it last wants for bad rows.
    pub on_failure: OnFailure,
    /// What is known about rows of it that ClickHouse refuses.
    pub suspicion: Suspicion,
}

impl Open {
    /// Payload, key and sequence number bytes from one shard.
    pub(super) fn bytes(&self, shard_id: &str) -> u64 {
        let range = self.batch.ranges.iter().find(|range| range.shard_id == shard_id);
        range.map_or(0, |range| range.slices.iter().map(|slice| slice.size() as u64).sum())
    }

    /// Whether records of this shard are in it.
    pub fn has(&self, shard_id: &str) -> bool {
        self.before.iter().any(|(id, _)| id == shard_id)
    }

    /// A batch that was frozen just now.
    pub(super) fn new(batch: Arc<Batch>, shape: String, before: Vec<(String, Checkpoint)>) -> Open {
        let (latest, on_failure, suspicion) = (Arc::default(), OnFailure::Stop, Suspicion::default());
        Open { batch, shape, before, offered: false, confirmed: false, waits: 0, latest, on_failure, suspicion }
    }

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
    /// The refresh that it was given to last, while its end is not known: the view's UUID, and how
    /// many had failed in a row before.
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

    /// Whether the refresh that follows, now in this state, shows that the one before failed:
    /// exactly one has failed since.
    pub fn shows_failure(&self, state: &ViewState) -> bool {
        self.given.as_ref().is_some_and(|(uuid, retry)| *uuid == state.uuid && retry + 1 == state.retry)
    }
}
