//! Records read from one shard that are not in a batch yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::arrivals::Arrivals;
use crate::pipe::Mode;
use domain::error::Error;
use domain::names::ShardId;
use domain::record::Slice;
use domain::shard::Shard;

/// A bounded queue between one reader and the pipe, with the reader's latest progress.
pub struct ShardBuffer {
    /// The shard's id.
    pub shard_id: ShardId,
    state: Mutex<State>,
    /// Totals over the pipe's buffers; wakes the pipe when records arrive.
    arrivals: Arc<Arrivals>,
    /// Wakes the reader when there is room.
    drained: Notify,
}

#[derive(Default)]
struct State {
    slices: VecDeque<(Instant, Slice)>,
    bytes: usize,
    progress: Progress,
    /// Further records are dropped.
    closed: bool,
}

impl State {
    fn rows(&self) -> usize {
        self.slices.iter().map(|(_, slice)| slice.len()).sum()
    }
}

/// What a reader knows about its shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// How far behind the tip the last response was, ms; none before the first response.
    pub millis_behind_latest: Option<i64>,
    /// When the last response was requested, Unix ms, if nothing was left to read after it.
    pub tip_ms: Option<i64>,
    /// The shard is closed and read to its end.
    pub ended: bool,
    /// The child shards named at the end.
    pub children: Vec<Shard>,
    /// How the shard is read now.
    pub mode: Mode,
    /// Why the shard is polled although fan-out is requested; cleared by the first event.
    pub fallback: Option<String>,
    /// The last error; cleared by the next successful response. A `Gap` stays until the shard is
    /// read from another position.
    pub error: Option<Error>,
}

impl ShardBuffer {
    /// Creates an empty buffer.
    pub fn new(shard_id: &ShardId, arrivals: Arc<Arrivals>) -> ShardBuffer {
        ShardBuffer { shard_id: shard_id.clone(), state: Mutex::default(), arrivals, drained: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; if it did, the data would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records.
    pub fn push(&self, slice: Slice) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let (rows, bytes) = (slice.len(), slice.size());
        state.bytes += bytes;
        state.slices.push_back((Instant::now(), slice));
        self.arrivals.add(rows, bytes);
    }

    /// Updates the reader's progress. Wakes the pipe only at the shard's end; the rest can wait for
    /// its next look.
    pub fn note(&self, change: impl FnOnce(&mut Progress)) {
        let mut state = self.state();
        let before = state.progress.ended;
        change(&mut state.progress);
        let ended = state.progress.ended && !before;
        drop(state);
        if ended {
            self.arrivals.end();
        }
    }

    /// Drops what is buffered, and whatever a stopping reader still adds.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let (rows, bytes) = (state.rows(), std::mem::take(&mut state.bytes));
        state.slices.clear();
        self.arrivals.remove(rows, bytes);
    }

    /// The totals that this buffer is part of.
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Whether more is about to come than would for a shard at its tip: the last response was
    /// further behind than this, or there was none yet. A shard that cannot be read is not waited
    /// for.
    pub fn is_behind(&self, ms: i64) -> bool {
        let progress = &self.state().progress;
        progress.error.is_none() && progress.millis_behind_latest.is_none_or(|behind| behind > ms)
    }

    /// The reader's progress.
    pub fn progress(&self) -> Progress {
        self.state().progress.clone()
    }

    /// Just [`Progress::tip_ms`].
    pub fn tip_ms(&self) -> Option<i64> {
        self.state().progress.tip_ms
    }

    /// Whether the shard is closed and read to its end.
    pub fn ended(&self) -> bool {
        self.state().progress.ended
    }

    /// Puts records that were just taken back in front of the rest.
    pub fn put_back(&self, slices: Vec<Slice>) {
        let mut state = self.state();
        for slice in slices.into_iter().rev() {
            let (rows, bytes) = (slice.len(), slice.size());
            state.bytes += bytes;
            state.slices.push_front((Instant::now(), slice));
            self.arrivals.add(rows, bytes);
        }
    }

    /// Waits until less than `cap` bytes are buffered.
    pub async fn room(&self, cap: usize) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if self.bytes() < cap {
                return;
            }
            drained.await;
        }
    }

    /// Bytes buffered, as counted by [`Slice::size`].
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Records buffered.
    pub fn rows(&self) -> usize {
        self.state().rows()
    }

    /// When the oldest buffered record arrived here.
    pub fn since(&self) -> Option<Instant> {
        self.state().slices.front().map(|(since, _)| *since)
    }

    /// The buffered slices, to choose from. Cheap: slices share their records.
    pub fn peek(&self) -> Vec<Slice> {
        self.state().slices.iter().map(|(_, slice)| slice.clone()).collect()
    }

    /// Removes and returns the first `count` records.
    pub fn take(&self, count: usize) -> Vec<Slice> {
        let mut state = self.state();
        let (mut taken, mut left, before) = (Vec::new(), count, state.bytes);
        while left > 0
            && let Some((since, slice)) = state.slices.pop_front()
        {
            let (front, back) = slice.split_at(left);
            left -= front.len();
            state.bytes -= front.size();
            if !back.is_empty() {
                state.slices.push_front((since, back));
            }
            taken.push(front);
        }
        self.arrivals.remove(count - left, before - state.bytes);
        let drained = state.slices.is_empty() && state.progress.ended;
        drop(state);
        if drained {
            self.arrivals.end();
        }
        self.drained.notify_waiters();
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use domain::record::{Chunk, RecordRef};

    fn slice(numbers: std::ops::Range<usize>) -> Slice {
        let mut chunk = Chunk::default();
        for number in numbers {
            let (sequence_number, payload) = (number.to_string(), vec![b'x'; number % 7]);
            let (key, timestamp_ms, sub_sequence) = ("", 0, 0);
            assert!(chunk.push(RecordRef {
                key,
                timestamp_ms,
                sequence_number: &sequence_number,
                sub_sequence,
                payload: &payload
            }));
        }
        Slice::whole(Arc::new(chunk))
    }

    fn numbers(slices: &[Slice]) -> Vec<usize> {
        slices.iter().flat_map(Slice::records).map(|r| r.sequence_number.parse().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// However pushes and takes interleave, every record comes out once and in order, and the
        /// counts match what is left.
        #[test]
        fn nothing_is_lost_or_reordered(steps in prop::collection::vec((0..9usize, 0..12usize, 0..12usize), 1..30)) {
            let arrivals = Arc::<Arrivals>::default();
            let buffer = ShardBuffer::new(&"shard-0".into(), arrivals.clone());
            let (mut pushed, mut taken) = (0, Vec::new());
            for (more, take, back) in steps {
                if more > 0 {
                    buffer.push(slice(pushed..pushed + more));
                    pushed += more;
                }
                let out = buffer.take(take);
                prop_assert_eq!(numbers(&out).len(), take.min(pushed - taken.len()));
                // Put the last ones back, in the slices they came in.
                let back = out.len() - back.min(out.len());
                taken.extend(numbers(&out[..back]));
                buffer.put_back(out[back..].to_vec());
                let left = buffer.peek();
                prop_assert_eq!(numbers(&left), (taken.len()..pushed).collect::<Vec<_>>());
                prop_assert_eq!(buffer.rows(), pushed - taken.len());
                prop_assert_eq!(buffer.bytes(), left.iter().map(Slice::size).sum::<usize>());
                prop_assert_eq!(buffer.since().is_some(), taken.len() < pushed);
                prop_assert_eq!((arrivals.sums().rows, arrivals.sums().bytes), (buffer.rows(), buffer.bytes()));
                // Each asks the clock for itself.
                prop_assert_eq!(arrivals.since(|| buffer.since()).is_some(), buffer.since().is_some());
            }
            taken.extend(numbers(&buffer.take(usize::MAX)));
            prop_assert_eq!(taken, (0..pushed).collect::<Vec<_>>());
            prop_assert_eq!(buffer.bytes(), 0);
            buffer.push(slice(0..3));
            buffer.close();
            buffer.push(slice(3..5));
            prop_assert_eq!((arrivals.sums().rows, arrivals.sums().bytes, arrivals.since(|| None)), (0, 0, None));
        }
    }
}
