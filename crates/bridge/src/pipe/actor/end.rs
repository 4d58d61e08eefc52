//! How a pipe stops here: because nobody pulls it, or because it is being ended for good.

use tokio::time::Instant;
use tracing::{info, warn};

use super::Actor;
use crate::pipe::pull::{EndRequest, Quiet};
use crate::pipe::work::Work;
use domain::limits::{END_QUIET, IDLE_TICK, PIPE_IDLE_BUFFERS, PIPE_IDLE_LEASES, SHUTDOWN};

impl Actor {
    /// Ends the pipe if nobody has pulled it for a while and no refresh is inserting its batch.
    pub(super) fn end_if_quiet(&mut self, asked: EndRequest) {
        let pulled = self.pulls.began >= asked.since;
        let inserting = self.open().is_some_and(|open| open.waits > 0);
        let quiet = self.pulls.answered.elapsed().max(asked.since.elapsed()) >= END_QUIET;
        match (pulled, inserting, quiet) {
            (false, false, true) => self.ending = Some(asked),
            (true, ..) => drop(asked.reply.send(Quiet::No)),
            _ => drop(asked.reply.send(Quiet::NotYet)),
        }
    }

    /// Handles a pipe that nobody pulls: first drops the buffers, later returns true to end the
    /// pipe, which releases its leases.
    pub(super) fn idle(&mut self) -> bool {
        let idle = self.pulls.answered.elapsed();
        let others = |work: &Work| work.others_pull();
        if idle >= PIPE_IDLE_LEASES || idle >= PIPE_IDLE_BUFFERS && self.work.as_ref().is_some_and(others) {
            info!(pipe = self.pipe.as_str(), "the pipe is no longer pulled; releasing the leases");
            return true;
        }
        if idle >= PIPE_IDLE_BUFFERS
            && let Some(work) = self.work.as_mut()
        {
            if work.shards.buffers().next().is_some() {
                info!(
                    pipe = self.pipe.as_str(),
                    "the pipe is no longer pulled; reading stops and the buffers are dropped"
                );
            }
            if work.rest() {
                self.publish();
            }
        }
        false
    }

    /// When [`Actor::idle`] is to be asked next. Once it has nothing left to drop, not before the
    /// leases are due, unless something happens.
    pub(super) fn idle_look(&self, rests: bool) -> Instant {
        let (buffers, leases) = (self.pulls.answered + PIPE_IDLE_BUFFERS, self.pulls.answered + PIPE_IDLE_LEASES);
        match Instant::now() < buffers {
            true => buffers,
            false if rests => leases,
            false => Instant::now() + IDLE_TICK,
        }
    }

    /// Whether nobody pulls, and nothing is left that is only in memory.
    pub(super) fn rests(&self) -> bool {
        let empty = |work: &Work| work.open.is_none() && work.shards.buffers().next().is_none();
        self.pulls.answered.elapsed() >= PIPE_IDLE_BUFFERS && self.work.as_ref().is_none_or(empty)
    }

    /// Ends the pipe here: settles what it can in time, stops reading, releases the leases.
    pub(super) async fn end(mut self) {
        self.next.cancel();
        self.await_settlement(SHUTDOWN / 2).await;
        if let Err(error) = self.finish_commit().await {
            self.note_error(&error);
        }
        if let Some(work) = self.work.as_mut() {
            if let Err(error) = work.release().await {
                warn!(pipe = self.pipe.as_str(), "the leases could not be released and will expire: {error}");
            }
            self.publish();
        }
        self.deps.heartbeat.left(&self.pipe);
        if let Some(asked) = self.ending {
            let _ = asked.reply.send(Quiet::Yes);
        }
    }
}
