//! A place in one shard, and the pages that follow it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use domain::error::Error;
use domain::limits::{
    CURSOR_PATIENCE, DEFAULT_POLL, GET_RECORDS_MAX_BYTES, GET_RECORDS_MAX_RECORDS, GET_RECORDS_TARGET_BYTES,
    RETRY_FIRST, RETRY_LONGEST,
};
use domain::names::{ShardId, StreamName};
use domain::ports::{IteratorStart, KinesisApi, KinesisError, Page};

/// Goes through a shard. Keeps iterator and position, so that nothing is lost if an iterator
/// expires or fails.
pub struct Cursor {
    kinesis: Arc<dyn KinesisApi>,
    stream: StreamName,
    shard_id: ShardId,
    position: IteratorStart,
    iterator: Option<String>,
    /// An iterator for `position` is being requested.
    placing: bool,
    /// Bytes per record, from the last response that had any; 0 before that.
    average: usize,
    /// Nothing is known yet: there may be many large records to catch up on.
    first: bool,
}

impl Cursor {
    /// A cursor before the records that `position` names.
    pub fn new(
        kinesis: Arc<dyn KinesisApi>,
        stream: &StreamName,
        shard_id: &ShardId,
        position: IteratorStart,
    ) -> Cursor {
        Cursor {
            kinesis,
            stream: stream.clone(),
            shard_id: shard_id.clone(),
            position,
            iterator: None,
            placing: false,
            average: 0,
            first: true,
        }
    }

    /// Whether the last error concerned the position: no iterator could be had for it.
    pub fn without_place(&self) -> bool {
        self.placing
    }

    /// How many records to request, so that the response has about [`GET_RECORDS_TARGET_BYTES`].
    pub fn limit(&self) -> usize {
        match self.average {
            // A first request: enough to learn the size, few enough to be safe with large records.
            0 => 1_000,
            average => (GET_RECORDS_TARGET_BYTES / average).clamp(1, GET_RECORDS_MAX_RECORDS),
        }
    }

    /// Bytes of memory that requesting `limit` records needs for a moment: the response and its
    /// decoded form.
    pub fn expected_memory(&self, limit: usize) -> usize {
        // At the tip of a shard, a response has what arrived since the last one.
        const GUESS_AT_THE_TIP: usize = 1_024;
        match self.average {
            0 if self.first => GET_RECORDS_MAX_BYTES,
            0 => 2 * limit * GUESS_AT_THE_TIP,
            average => 2 * limit * average,
        }
    }

    /// One call of GetRecords (and of GetShardIterator before it, if there is no iterator). After
    /// an error the next call continues from the same position.
    pub async fn page(&mut self, limit: usize) -> Result<Page, KinesisError> {
        // An iterator that failed is not used again: a new one for the same position cannot be
        // wrong. After throttling it is kept, since a new one would cost another call.
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => {
                self.placing = true;
                let iterator = self.kinesis.iterator(&self.stream, &self.shard_id, &self.position).await?;
                self.placing = false;
                iterator
            }
        };
        let page = match self.kinesis.records(&self.stream, &self.shard_id, &iterator, limit).await {
            Err(throttled @ (KinesisError::Throttled(_) | KinesisError::LimitExceeded(_))) => {
                self.iterator = Some(iterator);
                return Err(throttled);
            }
            answered => answered?,
        };
        if let Some(last) = page.records.last() {
            self.position = IteratorStart::After(last.position().map_err(KinesisError::Other)?.sequence);
            self.average = (page.records.memory() / page.records.len()).max(1);
        }
        self.iterator = page.next.clone();
        self.first = false;
        Ok(page)
    }

    /// Like [`Cursor::page`], but retries through throttling, expired iterators and outages of
    /// Kinesis shorter than [`CURSOR_PATIENCE`].
    pub async fn patient_page(&mut self, limit: usize, pace: &mut Pace) -> Result<Page, Error> {
        let (began, mut pause) = (Instant::now(), RETRY_FIRST);
        loop {
            pace.wait().await;
            match self.page(limit).await {
                Ok(page) => return Ok(page),
                Err(KinesisError::IteratorExpired) => {}
                Err(KinesisError::Throttled(_) | KinesisError::LimitExceeded(_)) => pause = back_off(pause).await,
                Err(KinesisError::Other(Error::Unavailable(_))) if began.elapsed() < CURSOR_PATIENCE => {
                    pause = back_off(pause).await;
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
}

/// Sleeps for about `pause` and returns the next one. With jitter, so that shards and consumers do
/// not retry in lockstep.
pub async fn back_off(pause: Duration) -> Duration {
    sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    (pause * 2).min(RETRY_LONGEST)
}

/// Leaves at least `poll` between two calls.
pub struct Pace {
    next: Instant,
    poll: Duration,
}

impl Pace {
    /// As often as AWS allows for a shard.
    pub fn polite() -> Pace {
        Pace::new(DEFAULT_POLL)
    }

    /// The first call is made immediately.
    pub fn new(poll: Duration) -> Pace {
        Pace { next: Instant::now(), poll }
    }

    /// Waits for the next call's time.
    pub async fn wait(&mut self) {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.poll;
    }
}
