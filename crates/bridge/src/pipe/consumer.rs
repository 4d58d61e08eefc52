//! The registered consumer that a pipe reads through with enhanced fan-out: one per pipe, shared by
//! all workers and found by its name.

use std::sync::Arc;

use md5::{Digest, Md5};
use prometheus::IntCounter;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::broadcast::Broadcast;
use domain::error::Error;
use domain::limits::{CONSUMER_LOOK, CONSUMER_PATIENCE, MAX_CONSUMER_NAME, SUBSCRIBES_AT_ONCE};
use domain::names::{PipeName, ShardId};
use domain::ports::{FanOutApi, IteratorStart, KinesisError, Stream, Subscription};

/// Prefix of the pipe's name.
const PREFIX: &str = "clickhouse-kinesis-bridge-";
/// Prefix of a shortened name, so that it never equals the name of another pipe.
const PREFIX_OF_SHORTENED: &str = "clickhouse-kinesis-bridge.";

/// The name of a pipe's consumer. Pipe names have only characters that AWS allows; one that is too
/// long is cut and gets a hash.
pub fn consumer_name(pipe: &str) -> String {
    if PREFIX.len() + pipe.len() <= MAX_CONSUMER_NAME {
        return format!("{PREFIX}{pipe}");
    }
    // Not for security: it only has to be the same in every version of the program and on every
    // machine.
    let hash = format!(".{:x}", Md5::digest(pipe.as_bytes()));
    let kept: String = pipe.chars().take(MAX_CONSUMER_NAME - PREFIX_OF_SHORTENED.len() - hash.len()).collect();
    format!("{PREFIX_OF_SHORTENED}{kept}{hash}")
}

/// What the readers of a pipe need for enhanced fan-out. Cheap to clone.
#[derive(Clone)]
pub struct FanOut {
    api: Arc<dyn FanOutApi>,
    stream: Stream,
    name: String,
    /// The consumer's ARN, once it has been active.
    arn: Arc<Mutex<Option<String>>>,
    /// Whether readers are to use it.
    wanted: Arc<Broadcast<bool>>,
    turns: Arc<Semaphore>,
    stalls: IntCounter,
}

impl FanOut {
    /// Looks up and registers nothing until it is needed. `stalls` counts stalled subscriptions.
    pub fn new(api: Arc<dyn FanOutApi>, stream: Stream, pipe: &PipeName, stalls: IntCounter) -> FanOut {
        FanOut {
            api,
            stream,
            name: consumer_name(pipe),
            arn: Arc::default(),
            wanted: Arc::new(Broadcast::new(false)),
            turns: Arc::new(Semaphore::new(SUBSCRIBES_AT_ONCE)),
            stalls,
        }
    }

    /// Switches all readers. They are switched on only once the consumer exists; otherwise the
    /// error says why it does not.
    pub async fn want(&self, wanted: bool) -> Result<(), Error> {
        if self.wanted.get() != wanted {
            if wanted {
                self.consumer().await?;
            }
            self.wanted.set(wanted);
        }
        Ok(())
    }

    /// Whether readers are to use it, now and later.
    pub fn wanted(&self) -> watch::Receiver<bool> {
        self.wanted.subscribe()
    }

    /// Counts a stalled subscription, and makes later ones use another connection.
    pub fn stalled(&self) {
        self.stalls.inc();
        self.api.distrust_connections();
    }

    /// A turn to subscribe. First events are large, and not in the memory budget yet.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok()
    }

    /// Subscribes to a shard as the pipe's consumer.
    pub async fn subscribe(
        &self,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<Box<dyn Subscription>, KinesisError> {
        let arn = self.consumer().await.map_err(KinesisError::Other)?;
        let answer = self.api.subscribe(&self.stream.name, &arn, shard_id, start).await;
        if let Err(KinesisError::NoConsumer(_)) = answer {
            self.arn.lock().await.take_if(|known| *known == arn);
        }
        answer
    }

    /// The consumer's ARN. Finds or registers the consumer, and waits a while for it to become
    /// active.
    async fn consumer(&self) -> Result<String, Error> {
        let mut known = self.arn.lock().await;
        if let Some(arn) = &*known {
            return Ok(arn.clone());
        }
        let began = Instant::now();
        while began.elapsed() < CONSUMER_PATIENCE {
            match self.api.consumer(&self.stream, &self.name).await? {
                Some(consumer) if consumer.active => {
                    info!(
                        stream = self.stream.name.as_str(),
                        consumer = self.name,
                        "fan-out reads through this consumer"
                    );
                    return Ok(known.insert(consumer.arn).clone());
                }
                // Still being registered or deregistered.
                Some(_) => {}
                None => self.api.register(&self.stream, &self.name).await?,
            }
            sleep(CONSUMER_LOOK).await;
        }
        Err(Error::Unavailable(format!(
            "the consumer '{}' of stream '{}' is not active yet; trying again",
            self.name, self.stream.name
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// AWS takes every name, and two pipes never share one.
        #[test]
        fn consumers_are_named_after_their_pipes(one in "[a-zA-Z0-9_.-]{1,128}", same in 0..128usize, rest in "[a-z.]{1,64}") {
            let other: String = one.chars().take(same).chain(rest.chars()).take(128).collect();
            for pipe in [&one, &other] {
                let name = consumer_name(pipe);
                prop_assert!((1..=128).contains(&name.len()), "{}", name);
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)), "{}", name);
            }
            prop_assert_eq!(consumer_name(&one) == consumer_name(&other), one == other);
        }
    }

    #[test]
    fn names_stay_what_they_are() {
        // Another name for the same pipe would leave behind a consumer that costs money.
        assert_eq!(consumer_name("orders"), "clickhouse-kinesis-bridge-orders");
        assert_eq!(consumer_name(&"x".repeat(102)), format!("clickhouse-kinesis-bridge-{}", "x".repeat(102)));
        let long = consumer_name(&"x".repeat(103));
        assert_eq!(long, format!("clickhouse-kinesis-bridge.{}.7cdc883b9d4e1b41924cdf6f3e316915", "x".repeat(69)));
    }
}
