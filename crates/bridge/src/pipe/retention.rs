//! The retention of a pipe's stream, shared by its readers: refreshed regularly, and before a
//! decision depends on it (**retention-is-followed**).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::{debug, info};

use domain::error::Error;
use domain::limits::RETENTION_LOOK_MS;
use domain::names::StreamName;
use domain::ports::{Clock, KinesisApi, Stream, kinesis_now_ms};
use domain::retention::Kept;

/// Cheap to clone; all clones share what one of them saw.
#[derive(Clone)]
pub struct Retention {
    kinesis: Arc<dyn KinesisApi>,
    clock: Arc<dyn Clock>,
    stream: StreamName,
    known: Arc<Mutex<Known>>,
    /// Readers that need it at the same time share one call.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy)]
struct Known {
    kept: Kept,
    /// When it was requested.
    asked: Instant,
    /// When it was last attempted.
    tried: Instant,
}

impl Retention {
    /// From a stream description that has just been fetched.
    pub fn new(kinesis: Arc<dyn KinesisApi>, clock: Arc<dyn Clock>, stream: &Stream) -> Retention {
        let kept = Kept::new(retention_ms(stream), kinesis_now_ms(&*kinesis, &*clock));
        let known = Arc::new(Mutex::new(Known { kept, asked: Instant::now(), tried: Instant::now() }));
        Retention { kinesis, clock, stream: stream.name.clone(), known, turn: Arc::default() }
    }

    fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As of the last look.
    pub fn kept(&self) -> Kept {
        self.known().kept
    }

    /// The current retention: a response to an earlier request is not good enough.
    pub async fn look(&self) -> Result<Kept, Error> {
        let needed = Instant::now();
        let _turn = self.turn.lock().await;
        let known = self.known();
        // A call that started at the same instant may have been answered with the state before it.
        if known.asked > needed {
            return Ok(known.kept);
        }
        let asked = Instant::now();
        let stream = self.kinesis.stream(&self.stream).await?;
        Ok(self.seen(&stream, asked))
    }

    /// Notes the response to a description requested at `asked`, and returns what is known after
    /// it.
    pub fn seen(&self, stream: &Stream, asked: Instant) -> Kept {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A later request may have been answered earlier.
        if known.asked > asked {
            return known.kept;
        }
        let retention_ms = retention_ms(stream);
        let kept = known.kept.then(retention_ms, kinesis_now_ms(&*self.kinesis, &*self.clock));
        if retention_ms != known.kept.retention_ms {
            let (before, now) = (known.kept.retention_ms / 3_600_000, retention_ms / 3_600_000);
            info!(stream = self.stream.as_str(), "the retention was changed from {before} h to {now} h");
        }
        *known = Known { kept, asked, tried: asked };
        kept
    }

    /// Refreshes it when due, without making anyone wait: a decision that depends on it requests it
    /// again.
    pub fn look_in_time(&self) {
        if self.known().tried.elapsed().as_millis() < RETENTION_LOOK_MS.unsigned_abs().into() {
            return;
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).tried = Instant::now();
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.look().await {
                debug!(stream = this.stream.as_str(), "the retention could not be checked: {error}");
            }
        });
    }
}

fn retention_ms(stream: &Stream) -> i64 {
    i64::from(stream.retention_hours) * 3_600_000
}
