//! The events that an actor waits for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::pull::Command;
use super::view::Puller;
use domain::limits::{MAX_OUTSTANDING_WAITS, MAX_QUEUED_PULLS};
use domain::names::BatchId;
use domain::ports::RefreshOutcome;

/// What wakes the actor.
pub enum Event {
    /// A request.
    Command(Command),
    /// `SYSTEM WAIT VIEW` has answered.
    Confirmed(Confirmation),
    /// A worker came, died or changed lease rows.
    Members,
    /// The deadline passed.
    Time,
    /// The process is stopping.
    Stop,
}

/// An answer of `SYSTEM WAIT VIEW`.
pub struct Confirmation {
    /// The batch that the refresh was given.
    pub batch: BatchId,
    /// Which of the refreshes that were given it this one is: see `Open::give`.
    pub number: u64,
    /// The view.
    pub view: Puller,
    /// Whether that response was written to the connection completely.
    pub delivered: Arc<AtomicBool>,
    /// How the refresh ended.
    pub outcome: RefreshOutcome,
}

/// The channels of an actor.
pub struct Inbox {
    commands: mpsc::Receiver<Command>,
    /// Pulls that came while another waited for records.
    postponed: VecDeque<Command>,
    answers: mpsc::Receiver<Confirmation>,
    answering: mpsc::Sender<Confirmation>,
    members: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
}

impl Inbox {
    /// Creates an empty inbox.
    pub fn new(commands: mpsc::Receiver<Command>, members: watch::Receiver<u64>, stop: watch::Receiver<bool>) -> Inbox {
        let (answering, answers) = mpsc::channel(MAX_OUTSTANDING_WAITS);
        Inbox { commands, postponed: VecDeque::new(), answers, answering, members, stop }
    }

    /// The next event, at `until` at the latest; postponed pulls come first.
    pub async fn next(&mut self, until: Instant) -> Event {
        match self.postponed.pop_front() {
            Some(command) => Event::Command(command),
            None => self.fresh(until).await,
        }
    }

    /// The next event other than a postponed pull, at `until` at the latest.
    pub async fn fresh(&mut self, until: Instant) -> Event {
        // In this order, an answer about the open batch is settled before another pull asks for it,
        // and simulated runs are reproducible.
        tokio::select! {
            biased;
            _ = self.stop.changed() => Event::Stop,
            Some(confirmation) = self.answers.recv() => Event::Confirmed(confirmation),
            command = self.commands.recv() => command.map_or(Event::Stop, Event::Command),
            Ok(()) = self.members.changed() => Event::Members,
            _ = sleep_until(until) => Event::Time,
        }
    }

    /// The next answer; none if it does not come before `until`.
    pub async fn confirmation(&mut self, until: Instant) -> Option<Confirmation> {
        timeout_at(until, self.answers.recv()).await.ok().flatten()
    }

    /// A sender for answers.
    pub fn answering(&self) -> mpsc::Sender<Confirmation> {
        self.answering.clone()
    }

    /// Queues a pull; returns it if too many are queued.
    pub fn postpone(&mut self, pull: Command) -> Option<Command> {
        if self.postponed.len() >= MAX_QUEUED_PULLS {
            return Some(pull);
        }
        self.postponed.push_back(pull);
        None
    }

    /// Whether the process is stopping.
    pub fn stopping(&self) -> bool {
        *self.stop.borrow()
    }
}
