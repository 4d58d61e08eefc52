//! The open batch, and what is known about rows of it that ClickHouse refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::pull::OnFailure;
use domain::batch::{Batch, ShardRange};
use domain::limits::ISOLATE_AFTER_ATTEMPTS;
use domain::names::{PipeName, ShardId};
use domain::ports::{QuarantinedRow, ViewState};
use domain::record::RecordRef;
use domain::sequence::Checkpoint;
use domain::shape::BatchShape;

/// A batch whose outcome is not known yet. There is at most one per pipe (**one-open-batch**).
pub struct Open {
    /// The batch; never changes.
    pub batch: Arc<Batch>,
    /// The response format of its first request.
    pub shape: BatchShape,
    /// The checkpoints before it; a row with a different one was moved by an operator.
    pub(super) before: Vec<(ShardId, Checkpoint)>,
    /// Whether its lease rows contain the offer.
    pub offered: bool,
    /// Whether it is stored in ClickHouse and only the commit is missing.
    pub confirmed: bool,
    /// Outstanding WAIT VIEW answers.
    pub waits: usize,
    /// Whether the last response with it was written to the connection completely.
    pub latest: Arc<AtomicBool>,
    /// How many times it was given to a refresh.
    pub(super) given: u64,
    /// The last of these that had not read it completely when the next one came; 0 for none.
    pub(super) unread: u64,
    /// `on_failure` of the view that was last given it.
    pub on_failure: OnFailure,
    /// What is known about rows of it that ClickHouse refuses.
    pub suspicion: Suspicion,
}

impl Open {
    /// Bytes of payloads, keys and sequence numbers from one shard.
    pub(super) fn bytes(&self, shard_id: &ShardId) -> u64 {
        let range = self.batch.ranges.iter().find(|range| range.shard_id == *shard_id);
        range.map_or(0, |range| range.slices.iter().map(|slice| slice.size() as u64).sum())
    }

    /// Whether it contains records of this shard.
    pub fn has(&self, shard_id: &ShardId) -> bool {
        self.before.iter().any(|(id, _)| id == shard_id)
    }

    /// A batch that has just been frozen.
    pub(super) fn new(batch: Arc<Batch>, shape: BatchShape, before: Vec<(ShardId, Checkpoint)>) -> Open {
        let (latest, on_failure, suspicion) = (Arc::default(), OnFailure::Stop, Suspicion::default());
        let (offered, confirmed, waits, given, unread) = (false, false, 0, 0, 0);
        Open { batch, shape, before, offered, confirmed, waits, latest, given, unread, on_failure, suspicion }
    }

    /// Gives it to another refresh, which sets `delivered` once it has read it completely. Returns
    /// the number of that refresh.
    pub fn give(&mut self, delivered: Arc<AtomicBool>) -> u64 {
        if self.given > 0 && !self.latest.load(Ordering::Acquire) {
            self.unread = self.given;
        }
        self.latest = delivered;
        self.given += 1;
        self.given
    }

    /// Whether all refreshes before the last have read it completely, from the one of this number
    /// on.
    pub fn read_since(&self, number: u64) -> bool {
        number > self.unread
    }

    /// Its only row; none if it has more.
    pub fn only_row(&self) -> Option<(&ShardRange, RecordRef<'_>)> {
        let range = self.batch.ranges.first().filter(|_| self.batch.rows() == 1)?;
        Some((range, range.records().next()?))
    }

    /// Its only row in the form the quarantine stores.
    pub fn quarantined(&self, pipe: &PipeName, now_ms: i64) -> Option<QuarantinedRow> {
        let (range, row) = self.only_row()?;
        let (error, view) = self.suspicion.said.clone();
        Some(QuarantinedRow {
            pipe: pipe.clone(),
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
    /// Consecutive attempts that failed because of its rows.
    pub refusals: u32,
    /// ClickHouse's error, and the view whose insert failed.
    pub said: (String, String),
    /// It is part of a batch that was refused, so one more failure is enough.
    pub searched: bool,
    /// Its only row is in the quarantine.
    pub quarantined: bool,
    /// The refresh that was last given it, until its outcome is known: the view's UUID, and how
    /// many refreshes in a row had failed before.
    pub given: Option<(String, u64)>,
    /// At least one refresh's outcome is known only to WAIT VIEW.
    pub untold: bool,
}

impl Suspicion {
    /// Whether the rows are certainly the cause.
    pub fn certain(&self) -> bool {
        self.refusals >= if self.searched { 1 } else { ISOLATE_AFTER_ATTEMPTS }
    }

    /// Notes that the refresh of a view in this state is given the batch.
    pub fn give(&mut self, state: &ViewState) {
        let to = (state.uuid.clone(), state.retry);
        if self.given.replace(to.clone()).is_some_and(|before| before != to) {
            (self.untold, self.refusals) = (true, 0);
        }
    }

    /// Whether this state of the following refresh shows that the last one failed: exactly one has
    /// failed since.
    pub fn shows_failure(&self, state: &ViewState) -> bool {
        self.given.as_ref().is_some_and(|(uuid, retry)| *uuid == state.uuid && retry + 1 == state.retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::names::{BatchId, StreamName};

    #[test]
    fn an_answer_counts_only_if_every_refresh_since_has_read_the_batch() {
        let batch = Batch { id: BatchId::default(), stream: StreamName::default(), ranges: Vec::new() };
        let mut open = Open::new(Arc::new(batch), BatchShape::of_column(""), Vec::new());
        let (read, unread) = (|| Arc::new(AtomicBool::new(true)), Arc::<AtomicBool>::default());
        let (first, second) = (open.give(read()), open.give(unread.clone()));
        assert!(open.read_since(first) && open.read_since(second), "whether the last has read it is known elsewhere");
        let third = open.give(read());
        assert_eq!([first, second, third].map(|number| open.read_since(number)), [false, false, true]);
        let fourth = open.give(read());
        assert_eq!([second, third, fourth].map(|number| open.read_since(number)), [false, true, true]);
    }
}
