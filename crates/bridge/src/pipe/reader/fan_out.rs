//! Enhanced fan-out: a monitored subscription to the shard, and what happens when it fails.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::retry::Retry;
use super::{Found, Reader, Source};
use crate::pipe::Mode;
use crate::read::budget::Reservation;
use domain::error::Error;
use domain::limits::{
    SUBSCRIBE_AGAIN, SUBSCRIBE_TIMEOUT, SUBSCRIPTION_SILENCE, SUBSCRIPTION_UNREAD, SUBSCRIPTION_WELL, TAKEOVER_PATIENCE,
};
use domain::names::ShardId;
use domain::ports::{Event, IteratorStart, KinesisError, Subscription};

/// A subscription that has delivered its first event.
pub(super) struct Opened {
    subscription: Box<dyn Subscription>,
    first: Event,
    /// When it was requested, in Kinesis' time, Unix ms: what an event says about the newest record
    /// was true then, however long the event waited to be read.
    asked_ms: i64,
    began: Instant,
}

/// A subscription that is being opened.
pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Opened, Left>> + Send>>;

/// Why fan-out ended.
pub(super) enum Left {
    /// Nothing is wrong: Kinesis ended the subscription on schedule, it was not read for long, or
    /// it is no longer wanted.
    Over,
    /// Kinesis reported an error.
    Failed(Error),
    /// Kinesis sent nothing for this long.
    Stalled(String, Duration),
}

/// Subscribes and waits for the first event. If another subscription blocks this one, waits:
/// Kinesis replaces it once it is 5 s old. A consumer that no longer exists is registered again.
pub(super) async fn open(source: Source, shard_id: ShardId, start: IteratorStart) -> Result<Opened, Left> {
    let _turn = source.fan_out.turn().await;
    let patience = Instant::now() + TAKEOVER_PATIENCE;
    let subject = format!("shard {shard_id} of stream '{}'", source.stream);
    loop {
        let (asked, asked_ms) = (Instant::now(), source.now_ms());
        let answer = timeout(SUBSCRIBE_TIMEOUT, source.fan_out.subscribe(&shard_id, &start)).await;
        let error = match answer {
            Err(_) => {
                return Err(Left::Stalled(format!("SubscribeToShard on {subject} got no answer"), SUBSCRIBE_TIMEOUT));
            }
            Ok(Err(error)) => error,
            Ok(Ok(mut subscription)) => match timeout(SUBSCRIPTION_SILENCE, subscription.next()).await {
                Err(_) => {
                    let silent = format!("a subscription to {subject} delivered no event");
                    return Err(Left::Stalled(silent, SUBSCRIPTION_SILENCE));
                }
                Ok(Ok(Some(first))) => return Ok(Opened { subscription, first, asked_ms, began: Instant::now() }),
                Ok(Ok(None)) => {
                    let ended = format!("a subscription to {subject} ended before its first event");
                    return Err(Left::Failed(Error::Unavailable(ended)));
                }
                Ok(Err(error)) => error,
            },
        };
        match error {
            KinesisError::InUse(_) | KinesisError::NoConsumer(_) if Instant::now() < patience => {
                sleep_until(asked + SUBSCRIBE_AGAIN).await;
            }
            other => return Err(Left::Failed(other.into())),
        }
    }
}

impl Reader {
    /// Where a subscription starts: at the last record, so that `verify` can check it, unless an
    /// earlier subscription said where to continue.
    pub(super) fn subscribe_at(&self) -> IteratorStart {
        let behind = |c: &&_| self.last.as_ref().is_none_or(|last| last.sequence <= **c);
        match (&self.continuation, &self.last) {
            (Some(_), Some(last)) if self.unverified => IteratorStart::At(last.sequence.clone()),
            (Some(continuation), _) if behind(&continuation) => IteratorStart::After(continuation.clone()),
            (_, Some(last)) => IteratorStart::At(last.sequence.clone()),
            (_, None) => self.start.clone(),
        }
    }

    /// A reader that lags by nearly the shortest possible retention must check every response,
    /// which only polling allows.
    pub(super) fn may_subscribe(&self) -> bool {
        self.unverified || !self.doubtful()
    }

    /// Reads a subscription until it ends. True if that is the shard's end.
    pub(super) async fn listen(
        &mut self,
        opened: Opened,
        wanted: &mut watch::Receiver<bool>,
        retry: &mut Retry,
    ) -> Result<bool, Error> {
        let Opened { mut subscription, first, asked_ms, began } = opened;
        let memory = self.source.budget.hold(0);
        let mut next = Ok((first, memory));
        let left = loop {
            let (mut event, mut memory) = match next {
                // Only now is the time certain.
                Ok(_) if !self.may_subscribe() => break Left::Over,
                Ok(next) => next,
                Err(left) => break left,
            };
            let bytes = event.records.memory();
            memory.resize(bytes);
            event.records.hold(memory);
            let ended = event.continuation.is_none();
            let tip = !ended && event.millis_behind_latest == 0 && event.records.is_empty();
            let found = Found {
                records: event.records,
                ended,
                tip_ms: tip.then_some(asked_ms),
                millis_behind_latest: event.millis_behind_latest,
                children: event.children,
            };
            self.buffer.note(|p| (p.mode, p.fallback) = (Mode::FanOut, None));
            match self.accept(found).await {
                Ok(true) => return Ok(true),
                Ok(false) => self.continuation = event.continuation,
                Err(gap @ Error::Gap(_)) => return Err(gap),
                Err(other) => break Left::Failed(other),
            }
            next = match self.may_subscribe() {
                // Room for as much as the last event, and for its decoded form.
                true => self.next_event(&mut *subscription, wanted, 2 * bytes).await,
                false => Err(Left::Over),
            };
        };
        let lived = began.elapsed();
        retry.lived(lived);
        match left {
            Left::Over => {}
            Left::Failed(why) if lived >= SUBSCRIPTION_WELL => {
                info!(
                    stream = self.source.stream.as_str(),
                    shard = self.buffer.shard_id.as_str(),
                    "subscribing again: {why}"
                );
            }
            left => self.fall_back(&left, retry),
        }
        Ok(false)
    }

    /// The next event, once there is room for it.
    async fn next_event(
        &self,
        subscription: &mut dyn Subscription,
        wanted: &mut watch::Receiver<bool>,
        expected: usize,
    ) -> Result<(Event, Reservation), Left> {
        let read = async {
            let room = timeout(SUBSCRIPTION_UNREAD, async {
                self.buffer.room(self.source.shard_cap.get() as usize).await;
                self.source.budget.reserve(expected.min(self.source.budget.limit() / 2)).await
            });
            let Ok(memory) = room.await else { return Err(Left::Over) };
            match timeout(SUBSCRIPTION_SILENCE, subscription.next()).await {
                Ok(Ok(Some(event))) => Ok((event, memory)),
                Ok(Ok(None)) => Err(Left::Over),
                Ok(Err(error)) => Err(Left::Failed(error.into())),
                Err(_) => {
                    let (shard, stream) = (&self.buffer.shard_id, &self.source.stream);
                    let silent = format!("the subscription to shard {shard} of stream '{stream}' delivered no event");
                    Err(Left::Stalled(silent, SUBSCRIPTION_SILENCE))
                }
            }
        };
        tokio::select! {
            biased;
            _ = wanted.wait_for(|wanted| !wanted) => Err(Left::Over),
            read = read => read,
        }
    }

    /// Reports that the shard is polled although fan-out is wanted, why, and when fan-out is
    /// retried.
    pub(super) fn fall_back(&self, left: &Left, retry: &mut Retry) {
        let why = match left {
            Left::Over => return,
            Left::Failed(error) => error.to_string(),
            Left::Stalled(silent, time) => {
                self.source.fan_out.stalled();
                format!("{silent} for {} s", time.as_secs())
            }
        };
        let pause = retry.failed().as_secs();
        let message = format!("{why}; polling instead, and trying fan-out again in {pause} s");
        warn!(stream = self.source.stream.as_str(), shard = self.buffer.shard_id.as_str(), "{message}");
        self.buffer.note(|p| (p.mode, p.fallback) = (Mode::Polling, Some(message)));
    }
}
