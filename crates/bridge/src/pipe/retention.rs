//! The retention of a pipe's stream, as its readers share it: looked at again in time, and before
//! it decides (**retention-is-followed**).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::{debug, info};

use domain::error::Error;
use domain::limits::RETENTION_LOOK_MS;
use domain::ports::{Clock, KinesisApi, Stream, kinesis_now_ms};
use domain::retention::Kept;

/// Cheap to clone; all clones know what one of them saw.
#[derive(Clone)]
pub struct Retention {
    kinesis: Arc<dyn KinesisApi>,
    clock: Arc<dyn Clock>,
    stream: String,
    known: Arc<Mutex<Known>>,
    /// Readers that have to know it at the same time are served by one call.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy)]
struct Known {
    kept: Kept,
    /// When it was asked for.
    asked: Instant,
    /// When that was last tried.
    tried: Instant,
}

impl Retention {
    /// From a stream that was described just now.
    pub fn new(kinesis: Arc<dyn KinesisApi>, clock: Arc<dyn Clock>, stream: &Stream) -> Retention {
        let kept = Kept::new(retention_ms(stream), kinesis_now_ms(&*kinesis, &*clock));
        let known = Arc::new(Mutex::new(Known { kept, asked: Instant::now(), tried: Instant::now() }));
        Retention { kinesis, clock, stream: stream.name.clone(), known, turn: Arc::default() }
    }

    fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it was at the last look.
    pub fn kept(&self) -> Kept {
        self.known().kept
    }

    /// As it is now: what was asked for before this is not good enough.
    pub async fn look(&self) -> Result<Kept, Error> {
        let needed = Instant::now();
        let _turn = self.turn.lock().await;
        let known = self.known();
        // A call that began in the same instant may have been answered with what was before it.
        if known.asked > needed {
            return Ok(known.kept);
        }
        let asked = Instant::now();
        let stream = self.kinesis.stream(&self.stream).await?;
        Ok(self.seen(&stream, asked))
    }

    /// Notes what the answer to a description says that was asked for at `asked`, and gives what is
    /// known then.
    pub fn seen(&self, stream: &Stream, asked: Instant) -> Kept {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A later question may have been answered earlier.
        if known.asked > asked {
            return known.kept;
        }
        let retention_ms = retention_ms(stream);
        let kept = known.kept.then(retention_ms, kinesis_now_ms(&*self.kinesis, &*self.clock));
        if retention_ms != known.kept.retention_ms {
            let (before, now) = (known.kept.retention_ms / 3_600_000, retention_ms / 3_600_000);
            info!(stream = self.stream, "the retention was changed from {before} h to {now} h");
        }
        *known = Known { kept, asked, tried: asked };
        kept
    }

    /// Looks when it is time, without letting anybody wait: where it decides, it is asked for
    /// again.
    pub fn look_in_time(&self) {
        if self.known().tried.elapsed().as_millis() < RETENTION_LOOK_MS.unsigned_abs().into() {
            return;
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).tried = Instant::now();
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.look().await {
                debug!(stream = this.stream, "the retention could not be checked: {error}");
            }
        });
    }
}

fn retention_ms(stream: &Stream) -> i64 {
    i64::from(stream.retention_hours) * 3_600_000
}
