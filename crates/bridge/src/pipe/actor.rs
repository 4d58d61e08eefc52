//! The task of one pipe. Nothing else changes its leases, readers and open batch.
//!
//! A batch's life: `wait_for_records` → `freeze` → `offer` (durable, before the first byte) →
//! served, as often as needed → confirmed by the refresh or by `ack` → `commit`. While a batch is
//! open, no other is made (**one-open-batch**), and it is served exactly as frozen.

mod below;
mod destination;
mod end;
mod isolate;
mod settle;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::error;

use super::deps::Deps;
use super::heartbeat::Standing;
use super::inbox::{Confirmation, Event, Inbox};
use super::known::KnownViews;
use super::linger::{Made, due};
use super::next::Next;
use super::open::Open;
use super::pull::{Command, Confirm, EndRequest, Mode, PullOptions, Quiet, Served};
use super::status::Status;
use super::view::{Puller, refresh_end, running_view};
use super::work::Work;
use domain::batch::Limits;
use domain::error::Error;
use domain::lease::Destination;
use domain::limits::{MAX_OUTSTANDING_WAITS, MAX_QUEUED_PULLS, PULLS_RESTED, SETTLE_GRACE, VIEW_STATE_HOLDS};
use domain::names::{BatchId, PipeName, StreamName};
use domain::ports::ViewState;
use domain::start::Beginning;
use domain::unpacking::Unpacking;

/// When the last pull began, when the last answer was sent, and the last batch.
struct Pulls {
    began: Instant,
    answered: Instant,
    batch: Option<Made>,
}

/// The state of a pipe's task.
pub struct Actor {
    deps: Deps,
    pipe: PipeName,
    stream: StreamName,
    status: Status,
    inbox: Inbox,
    work: Option<Work>,
    /// Views that have pulled here.
    known: KnownViews,
    /// Starts the next refresh.
    next: Next,
    /// The standing when the rows were last known to be current.
    standing: Option<Standing>,
    last_committed: BatchId,
    pulls: Pulls,
    /// The request that ends the pipe, once it is granted.
    ending: Option<EndRequest>,
    /// Its view is gone.
    leaving: bool,
}

impl Actor {
    /// Creates an idle actor.
    pub fn new(
        deps: Deps,
        pipe: PipeName,
        stream: StreamName,
        status: Status,
        commands: mpsc::Receiver<Command>,
        stop: watch::Receiver<bool>,
    ) -> Actor {
        let inbox = Inbox::new(commands, deps.members.changes(), stop);
        Actor {
            deps,
            pipe,
            stream,
            status,
            inbox,
            work: None,
            known: KnownViews::default(),
            next: Next::default(),
            standing: None,
            last_committed: BatchId::default(),
            pulls: Pulls { began: Instant::now(), answered: Instant::now(), batch: None },
            ending: None,
            leaving: false,
        }
    }

    /// Runs until the pipe is idle for too long, is fenced, fails to start, or the process stops.
    pub async fn run(mut self) {
        // Whether nothing is left to drop since the last event.
        let mut rests = false;
        while !self.inbox.stopping() {
            let event = self.inbox.next(self.idle_look(rests)).await;
            rests = false;
            let done = match event {
                Event::Command(command) => self.handle(command).await,
                Event::Confirmed(confirmation) => {
                    self.settle(confirmation).await;
                    continue;
                }
                Event::Members if self.work.as_ref().is_some_and(Work::circle_changed) => self.tend().await,
                Event::Time if self.idle() => break,
                Event::Time => {
                    rests = self.rests();
                    continue;
                }
                Event::Members => continue,
                Event::Stop => break,
            };
            if self.ending.is_some() || self.leaving {
                break;
            }
            if let Err(fatal) = done {
                if self.inbox.stopping() {
                    break;
                }
                self.note_error(&fatal);
                match fatal {
                    Error::Fenced(_) => break,
                    _ if self.work.is_none() => break,
                    _ => {}
                }
            }
        }
        self.end().await;
    }

    /// Executes one command. An error has already been sent to the caller; it is returned so that
    /// `run` can stop a pipe that cannot continue.
    async fn handle(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Pull(options, mut reply) => {
                self.pulls.began = Instant::now();
                if reply.is_closed() {
                    return Ok(());
                }
                self.next.begun();
                let answer = self.pull(&options, &mut reply).await;
                self.next.answered();
                // A view that is always refused must not keep the leases.
                if !matches!(answer, Err(Error::BadRequest(_) | Error::NotFound(_))) {
                    self.pulls.answered = Instant::now();
                }
                let result = answer.as_ref().map(|_| ()).map_err(Clone::clone);
                // If the client is gone, the batch stays open and is served to the next pull.
                let _ = reply.send(answer);
                result
            }
            Command::Ack(batch, reply) => {
                let answer = self.ack(&batch).await;
                let _ = reply.send(answer.clone());
                answer
            }
            Command::Reload => self.reload().await,
            Command::Leave => {
                self.leaving = true;
                Ok(())
            }
            Command::End(asked) => {
                self.end_if_quiet(asked);
                Ok(())
            }
        }
    }

    /// Finds or makes the batch to serve. Commits only an earlier batch, whose confirmation may
    /// arrive meanwhile (**get-moves-no-checkpoint**).
    async fn pull(
        &mut self,
        options: &PullOptions,
        reply: &mut oneshot::Sender<Result<Served, Error>>,
    ) -> Result<Served, Error> {
        let (rested, looked) = (self.pulls.answered.elapsed(), Instant::now());
        let mut state = self.view_state(options).await?;
        if let Some(state) = &state {
            // After a failure, WAIT VIEW may keep waiting for the refresh that is pulling now, so
            // no answer is expected.
            self.await_settlement(if state.retry > 0 { Duration::ZERO } else { SETTLE_GRACE }).await;
        }
        let to = self.destination(options, state.as_ref()).await?;
        if let Some(state) = &state {
            self.look_below(&state.uuid).await;
        }
        self.start(&options.start, options.mode, options.unpacking, to.as_ref()).await?;
        self.standing().await?;
        self.finish_commit().await?;
        if let Some(to) = &to {
            self.feed(to).await?;
        }
        let work = self.work()?;
        work.source.calls.set(options.poll, options.linger.is_none());
        if rested >= PULLS_RESTED {
            work.source.calls.hurry();
        }
        work.wake();
        work.recover().await?;
        if let (Some(state), Confirm::View { database, view }) = (&state, &options.confirm) {
            self.look_back(state, &format!("{database}.{view}"));
        }
        if self.isolate(options).await? {
            return self.nothing_to_serve(options, state).await;
        }
        let work = self.work()?;
        work.unpack_by(options.unpacking);
        if work.open.is_none() {
            if options.resume {
                return Err(Error::RangeNotSatisfiable(format!(
                    "pipe '{}' has no open batch that a Range could continue: run the query again",
                    self.pipe
                )));
            }
            work.read_by(options.mode).await?;
            // A batch gets at most half of its view's memory, so that the next one can be read while
            // it is inserted.
            let most = work.source.budget.limit() / 2 / work.views_here();
            let max_bytes = options.limits.max_bytes.min(most);
            let limits = Limits { max_bytes, ..options.limits };
            if !self.wait_for_records(options, limits, reply).await? {
                return self.nothing_to_serve(options, state).await;
            }
            // Check again right before WAIT VIEW: if the view stopped while this pull waited, WAIT
            // VIEW would report success at once.
            if looked.elapsed() > VIEW_STATE_HOLDS {
                state = self.view_state(options).await?;
            }
            let (work, at) = (self.work()?, Instant::now());
            let since = work.shards.since().unwrap_or(at);
            work.freeze(limits, &options.shape);
            self.pulls.batch = Some(Made { since, at });
        }
        self.serve(options, state).await
    }

    async fn nothing_to_serve(&mut self, options: &PullOptions, state: Option<ViewState>) -> Result<Served, Error> {
        if let Some(view) = puller(options, state) {
            self.next.start_after(self.deps.views.clone(), view);
        }
        let held = (self.deps.heartbeat.clone(), self.standing().await?);
        Ok(Served { batch: None, stream: self.stream.clone(), delivered: Arc::default(), held })
    }

    /// Makes sure that this process was not suspended long enough for others to take over. After a
    /// suspension, rereads the rows to see what it still holds.
    async fn standing(&mut self) -> Result<Standing, Error> {
        let standing = self.deps.heartbeat.standing().ok_or_else(|| self.deps.heartbeat.lapsed())?;
        if self.standing != Some(standing) {
            self.work()?.look_again().await?;
            self.standing = Some(standing);
        }
        Ok(standing)
    }

    async fn tend(&mut self) -> Result<(), Error> {
        if self.work()?.tend().await? {
            self.publish();
        }
        Ok(())
    }

    /// The state of the pulling view, which must be refreshing; none if the reader sends acks
    /// itself.
    async fn view_state(&self, options: &PullOptions) -> Result<Option<ViewState>, Error> {
        match &options.confirm {
            Confirm::View { database, view } => {
                running_view(&*self.deps.views, &self.pipe, database, view).await.map(Some)
            }
            Confirm::Explicit => Ok(None),
        }
    }

    async fn start(
        &mut self,
        start: &Beginning,
        mode: Mode,
        unpacking: Unpacking,
        to: Option<&Destination>,
    ) -> Result<(), Error> {
        if self.work.is_none() {
            self.work = Some(Work::start(&self.deps, &self.pipe, &self.stream, start, mode, unpacking, to).await?);
            self.standing = None;
            self.publish();
        }
        Ok(())
    }

    /// Waits for the first record, then lets the batch fill. False if none came in time or the
    /// client disconnected.
    async fn wait_for_records(
        &mut self,
        options: &PullOptions,
        limits: Limits,
        reply: &mut oneshot::Sender<Result<Served, Error>>,
    ) -> Result<bool, Error> {
        let last = self.pulls.batch.map(|made| (made, made.at.elapsed()));
        let deadline = Instant::now() + options.wait;
        loop {
            let work = self.work()?;
            if work.chores_due() <= Instant::now() {
                self.tend().await?;
            }
            let work = self.work()?;
            work.keep_up();
            let until = match work.shards.since() {
                Some(_) if work.search.active() || work.shards.full(limits, &work.source) => return Ok(true),
                Some(since) => match due(since, last, options, work) {
                    due if due <= Instant::now() => return Ok(true),
                    due => due,
                },
                None if Instant::now() >= deadline => return self.nothing(),
                None => deadline,
            };
            let (arrivals, until) = (work.shards.arrivals().clone(), until.min(work.chores_due()));
            let event = tokio::select! {
                biased;
                _ = reply.closed() => return Ok(false),
                event = self.inbox.fresh(until) => event,
                _ = arrivals.woken() => continue,
            };
            match event {
                Event::Members if self.work()?.circle_changed() => self.tend().await?,
                Event::Time | Event::Members => {}
                Event::Confirmed(confirmation) => self.settle(confirmation).await,
                Event::Stop => {
                    return Err(Error::Unavailable(format!(
                        "the bridge is stopping; another bridge can continue pipe '{}'",
                        self.pipe
                    )));
                }
                // Pulls queue; other commands need not wait for a record.
                Event::Command(pull @ Command::Pull(..)) => {
                    if let Some(Command::Pull(_, other)) = self.inbox.postpone(pull) {
                        let busy = format!("pipe '{}' has {MAX_QUEUED_PULLS} pulls of this view waiting", self.pipe);
                        let _ = other.send(Err(Error::Unavailable(busy)));
                    }
                }
                Event::Command(Command::Ack(batch, other)) => {
                    let _ = other.send(self.ack(&batch).await);
                }
                Event::Command(Command::Reload) => self.reload().await?,
                // It is pulled.
                Event::Command(Command::Leave) => {}
                Event::Command(Command::End(asked)) => {
                    let quiet = if self.pulls.began >= asked.since { Quiet::No } else { Quiet::NotYet };
                    let _ = asked.reply.send(quiet);
                }
            }
        }
    }

    /// No record came: an empty answer, or an error if every shard has one, since the user must see
    /// it.
    fn nothing(&mut self) -> Result<bool, Error> {
        let work = self.work()?;
        let mut errors = work.shards.buffers().map(|b| b.progress().error);
        match errors.next().flatten() {
            Some(error) if errors.all(|e| e.is_some()) => Err(error),
            _ => Ok(false),
        }
    }

    /// Makes the open batch durable if necessary (**offered-before-first-byte**), and serves it in
    /// the format of its offer or not at all (**shape-is-identity**).
    async fn serve(&mut self, options: &PullOptions, state: Option<ViewState>) -> Result<Served, Error> {
        let delivered = Arc::new(AtomicBool::new(false));
        let held = (self.deps.heartbeat.clone(), self.standing().await?);
        let pipe = self.pipe.clone();
        let open = self.work()?.open.as_mut().ok_or_else(|| not_started(&pipe))?;
        if !open.offered {
            open.shape.clone_from(&options.shape);
        } else if open.shape.as_asked() != options.shape.as_asked() {
            let (offered, asked) = (open.shape.as_asked(), options.shape.as_asked());
            return Err(Error::BadRequest(format!(
                "batch {} of pipe '{pipe}' was offered as {offered} and is not committed yet, so it cannot be served as {asked}: go back to \
                 format={offered} until it is committed, or POST to /v1/pipes/{pipe}/ack or /seek",
                open.batch.id
            )));
        }
        let number = open.give(delivered.clone());
        open.on_failure = options.on_failure;
        if let Some(state) = &state {
            open.suspicion.give(state);
        }
        let (batch, again) = (open.batch.clone(), open.offered);
        // Issued before the offer is written, so that it is registered well before the refresh can
        // end.
        let wait = match puller(options, state) {
            Some(view) if open.waits < MAX_OUTSTANDING_WAITS => {
                open.waits += 1;
                let (views, answers) = (self.deps.views.clone(), self.inbox.answering());
                let (batch, delivered) = (batch.id.clone(), delivered.clone());
                let task = tokio::spawn(async move {
                    let outcome = refresh_end(&*views, &view).await;
                    let _ = answers.send(Confirmation { batch, number, view, delivered, outcome }).await;
                });
                Some(task.abort_handle())
            }
            _ => None,
        };
        if let Err(failed) = self.work()?.offer().await {
            if let Some(wait) = wait {
                wait.abort();
                if let Some(open) = self.work()?.open.as_mut() {
                    open.waits -= 1;
                }
            }
            return Err(failed);
        }
        self.deps.metrics.batch(&self.pipe, if again { "replayed" } else { "served" });
        self.publish();
        Ok(Served { batch: Some(batch), stream: self.stream.clone(), delivered, held })
    }

    async fn reload(&mut self) -> Result<(), Error> {
        if let Some(work) = self.work.as_mut() {
            work.reload().await?;
        }
        self.publish();
        Ok(())
    }

    fn work(&mut self) -> Result<&mut Work, Error> {
        self.work.as_mut().ok_or_else(|| not_started(&self.pipe))
    }

    fn open(&self) -> Option<&Open> {
        self.work.as_ref()?.open.as_ref()
    }

    fn note_error(&self, error: &Error) {
        error!(pipe = self.pipe.as_str(), code = error.code(), "{error}");
        self.status.publish(|s| s.last_error = error.to_string());
        // A gap found on the way is part of its shard's published state.
        self.publish();
    }

    fn publish(&self) {
        if let Some(work) = &self.work {
            work.publish(&self.status);
        }
    }
}

/// The pulling view; none if the reader sends acks itself.
fn puller(options: &PullOptions, state: Option<ViewState>) -> Option<Puller> {
    match (&options.confirm, state) {
        (Confirm::View { database, view }, Some(state)) => {
            Some(Puller { database: database.clone(), name: view.clone(), uuid: state.uuid })
        }
        _ => None,
    }
}

fn not_started(pipe: &PipeName) -> Error {
    Error::Internal(format!("pipe '{pipe}' is used before it has started"))
}
