//! A place in one shard, and the pages that follow it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use domain::error::Error;
use domain::limits::{
    CURSOR_PATIENCE, DEFAULT_POLL, GET_RECORDS_FIRST_RECORDS, GET_RECORDS_MAX_BYTES, GET_RECORDS_MAX_RECORDS,
    GET_RECORDS_TARGET_BYTES, RETRY_FIRST, RETRY_LONGEST, SLOW_RESPONSE,
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
    /// Most records to request, as the link allows.
    most: usize,
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
            most: GET_RECORDS_MAX_RECORDS,
        }
    }

    /// Whether the last error concerned the position: no iterator could be had for it.
    pub fn without_place(&self) -> bool {
        self.placing
    }

    /// How many records to request, so that the response has about [`GET_RECORDS_TARGET_BYTES`].
    pub fn limit(&self) -> usize {
        let wanted = match self.average {
            // A first request: enough to learn the size, few enough to be safe with large records.
            0 => GET_RECORDS_FIRST_RECORDS,
            average => (GET_RECORDS_TARGET_BYTES / average).max(1),
        };
        wanted.min(self.most)
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
        let asked = Instant::now();
        let answered = self.kinesis.records(&self.stream, &self.shard_id, &iterator, limit).await;
        self.most = most_after(self.most, limit, answered.as_ref().ok().map(|p| p.records.len()), asked.elapsed());
        let page = match answered {
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

/// How many records to request at most, after a call for `limit` of them that brought this many, or
/// failed, after `took`. A link that is so slow that a response takes seconds is asked for less, so
/// that something arrives before the call's time is up; and for more again once it is fast.
fn most_after(most: usize, limit: usize, brought: Option<usize>, took: Duration) -> usize {
    match brought {
        _ if took < SLOW_RESPONSE => most.saturating_mul(2).min(GET_RECORDS_MAX_RECORDS),
        Some(0) => most,
        None => (limit / 8).max(1),
        Some(records) => ((records as f64 * SLOW_RESPONSE.as_secs_f64() / took.as_secs_f64()) as usize).max(1),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_link_is_asked_for_less_and_a_fast_one_for_more() {
        let seconds = Duration::from_secs_f64;
        // Nothing came in time: again and again less, down to a single record.
        let mut most = GET_RECORDS_MAX_RECORDS;
        for expected in [125, 15, 1, 1] {
            most = most_after(most, most.min(1_000), None, seconds(60.0));
            assert_eq!(most, expected);
        }
        // What came took too long: as many as come in the time that is all right.
        assert_eq!(most_after(GET_RECORDS_MAX_RECORDS, 1_000, Some(800), seconds(8.0)), 200);
        assert_eq!(most_after(500, 500, Some(0), seconds(3.0)), 500);
        // A fast response: twice as many, up to what AWS allows.
        assert_eq!(most_after(200, 200, Some(200), seconds(0.1)), 400);
        assert_eq!(most_after(GET_RECORDS_MAX_RECORDS, 100, Some(3), seconds(0.1)), GET_RECORDS_MAX_RECORDS);
        // A fast failure tells nothing about the link.
        assert_eq!(most_after(300, 300, None, seconds(0.1)), 600);
    }
}
