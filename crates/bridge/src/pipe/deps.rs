//! What pipes depend on.

use std::sync::Arc;

use super::consumer::FanOut;
use super::heartbeat::Heartbeat;
use super::members::Members;
use super::reader::{Calls, Knob, Source};
use super::retention::Retention;
use crate::metrics::Metrics;
use crate::read::budget::Budget;
use domain::names::{PipeName, WorkerId};
use domain::ports::{Clock, FanOutApi, KinesisApi, Quarantine, StateStore, Stream, Views};
use domain::seat::Seat;
use domain::unpacking::Unpacking;
use formats::unpack::Counts;

/// What pipes depend on. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    /// Kinesis.
    pub kinesis: Arc<dyn KinesisApi>,
    /// Enhanced fan-out.
    pub fan_out: Arc<dyn FanOutApi>,
    /// Leases and workers.
    pub store: Arc<dyn StateStore>,
    /// Refreshable views.
    pub views: Arc<dyn Views>,
    /// Rows that cannot be inserted.
    pub quarantine: Arc<dyn Quarantine>,
    /// Clock and batch ids.
    pub clock: Arc<dyn Clock>,
    /// Memory for all buffers.
    pub budget: Budget,
    /// Metrics.
    pub metrics: Metrics,
    /// Live and dead workers.
    pub members: Members,
    /// This process's own heartbeat.
    pub heartbeat: Heartbeat,
    /// Id of this worker, and the name under which its leases are owned.
    pub worker_id: WorkerId,
}

impl Deps {
    /// The same for one of several views that pull a pipe.
    pub fn seated(&self, seat: Seat) -> Deps {
        let (worker_id, heartbeat) = (seat.owner(&self.worker_id), self.heartbeat.seated(seat));
        Deps { worker_id, heartbeat, ..self.clone() }
    }

    /// What the readers of a pipe share.
    pub fn source(&self, pipe: &PipeName, stream: Stream, unpacking: Unpacking) -> Source {
        // Used until the number of readers is known. Never 0: a reader without room would wait for
        // someone to take rows from its empty buffer.
        let shard_cap = Knob::new(self.budget.limit() as u64 / 4);
        for (outcome, _) in Counts::default().labelled() {
            self.metrics.unpacked.with_label_values(&[stream.name.as_str(), outcome]);
        }
        Source {
            kinesis: self.kinesis.clone(),
            clock: self.clock.clone(),
            budget: self.budget.clone(),
            stream: stream.name.clone(),
            calls: Arc::new(Calls::new()),
            retention: Retention::new(self.kinesis.clone(), self.clock.clone(), &stream),
            shard_cap,
            unpacking,
            unpacked: self.metrics.unpacked.clone(),
            fan_out: FanOut::new(
                self.fan_out.clone(),
                stream,
                pipe,
                self.metrics.fan_out_stalls.with_label_values(&[pipe.as_str()]),
            ),
        }
    }
}
