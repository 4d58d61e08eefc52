//! Finds or starts the actor of a pipe, one for each of its seats.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::actor::Actor;
use super::broadcast::Broadcast;
use super::deps::Deps;
use super::identity::another_stream;
use super::pull::{Command, Confirm, PullOptions, Served};
use super::seats::{Choice, Taken, choose};
use super::status::{Snapshot, Status};
use super::view::running_view;
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::{MAX_PIPES, MAX_QUEUED_PULLS, MAX_VIEWS_PER_PIPE};
use domain::names::{BatchId, PipeName, StreamName, WorkerId};
use domain::ports::{Versioned, kinesis_now_ms};
use domain::seat::Seat;

/// All pipes of this process.
pub struct Pipes {
    deps: Deps,
    running: Mutex<BTreeMap<(PipeName, Seat), Running>>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    stop: Broadcast<bool>,
}

struct Running {
    stream: StreamName,
    by: Confirm,
    commands: mpsc::Sender<Command>,
    status: Status,
}

impl Pipes {
    /// Creates an empty registry.
    pub fn new(deps: Deps) -> Pipes {
        let stop = Broadcast::new(false);
        Pipes { deps, running: Mutex::default(), tasks: tokio::sync::Mutex::default(), stop }
    }

    /// The pipes' external dependencies.
    pub fn deps(&self) -> &Deps {
        &self.deps
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<(PipeName, Seat), Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the actors of a pipe take commands.
    pub(super) fn commands(&self, pipe: &PipeName) -> Vec<mpsc::Sender<Command>> {
        let running = self.running();
        of(&running, pipe).map(|(_, r)| r.commands.clone()).collect()
    }

    /// The next batch of `pipe`.
    pub async fn pull(&self, pipe: &PipeName, stream: &StreamName, options: PullOptions) -> Result<Served, Error> {
        let confirm = options.confirm.clone();
        let seat = self.seat(pipe, &confirm).await?;
        let commands = self.find_or_start(pipe, stream, seat, &confirm).await?;
        let (reply, answer) = oneshot::channel();
        commands.try_send(Command::Pull(options, reply)).map_err(|_| {
            Error::Unavailable(format!("pipe '{pipe}' has {MAX_QUEUED_PULLS} pulls waiting already, or is being ended"))
        })?;
        let served = answer.await.unwrap_or_else(|_| Err(ended(pipe)))?;
        // A view that is refused must not take the seat of another one.
        if confirm != Confirm::Explicit
            && let Some(running) = self.running().get_mut(&(pipe.clone(), seat))
        {
            running.by = confirm;
        }
        Ok(served)
    }

    /// Commits a batch that its reader has stored.
    pub async fn ack(&self, pipe: &PipeName, batch: &BatchId) -> Result<(), Error> {
        let (seat, stream) = match self.holder(pipe, batch) {
            Some(found) => found,
            None => (Seat::FIRST, self.rows(pipe).await?.remove(0).value.stream),
        };
        let commands = self.find_or_start(pipe, &stream, seat, &Confirm::Explicit).await?;
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Ack(batch.clone(), reply)).await.map_err(|_| ended(pipe))?;
        answer.await.unwrap_or_else(|_| Err(ended(pipe)))
    }

    /// The seat here whose leases have the batch, or had no other before; none if the pipe does not
    /// run here.
    fn holder(&self, pipe: &PipeName, batch: &BatchId) -> Option<(Seat, StreamName)> {
        let running = self.running();
        let has = |(seat, running): &(Seat, &Running)| {
            let owner = seat.owner(&self.deps.worker_id);
            running.status.get().leases.iter().any(|lease| lease.owner == owner && lease.batch() == Some(batch))
        };
        let found = of(&running, pipe).find(has).or_else(|| of(&running, pipe).next());
        found.map(|(seat, running)| (seat, running.stream.clone()))
    }

    /// Kinesis' current time, Unix ms, from a fresh answer about the pipe's stream.
    pub async fn now_ms(&self, pipe: &PipeName) -> Result<i64, Error> {
        let stream = self.rows(pipe).await?.remove(0).value.stream;
        self.deps.kinesis.shards(&stream).await?;
        Ok(kinesis_now_ms(&*self.deps.kinesis, &*self.deps.clock))
    }

    pub(super) async fn rows(&self, pipe: &PipeName) -> Result<Vec<Versioned<Lease>>, Error> {
        let rows = self.deps.store.leases(Some(pipe)).await?;
        match rows.is_empty() {
            true => Err(Error::NotFound(format!("there is no pipe '{pipe}': the first pull of its view creates it"))),
            false => Ok(rows),
        }
    }

    /// The seat for a pull.
    async fn seat(&self, pipe: &PipeName, who: &Confirm) -> Result<Seat, Error> {
        let choose = |idle: Option<&[Confirm]>| {
            let running = self.running();
            let taken: Vec<Taken> = of(&running, pipe).map(|(seat, r)| Taken { seat, by: r.by.clone() }).collect();
            (choose(&taken, who, idle), taken)
        };
        let (mut choice, taken) = choose(None);
        if let (Choice::Ask, Confirm::View { database, view }) = (choice, who) {
            running_view(&*self.deps.views, pipe, database, view).await?;
            let (idle, gone) = self.idle(taken).await?;
            choice = choose(Some(&idle)).0;
            self.leave(pipe, gone.into_iter().filter(|seat| choice != Choice::Sits(*seat)));
        }
        match choice {
            Choice::Sits(seat) => Ok(seat),
            Choice::Ask | Choice::Full => Err(Error::Unavailable(format!(
                "pipe '{pipe}' is pulled by {MAX_VIEWS_PER_PIPE} views of this server already; use fewer"
            ))),
        }
    }

    /// Those of the views that are gone or stopped, and the seats of those that are gone.
    async fn idle(&self, taken: Vec<Taken>) -> Result<(Vec<Confirm>, Vec<Seat>), Error> {
        let (mut idle, mut gone) = (Vec::new(), Vec::new());
        for Taken { seat, by } in taken {
            let Confirm::View { database, view } = &by else { continue };
            match self.deps.views.view(database, view).await? {
                Some(state) if !state.stopped() => continue,
                Some(_) => {}
                None => gone.push(seat),
            }
            idle.push(by);
        }
        Ok((idle, gone))
    }

    /// Ends what runs at these seats: their views are gone, and would keep their shards for a while.
    fn leave(&self, pipe: &PipeName, seats: impl Iterator<Item = Seat>) {
        let running = self.running();
        for seat in seats {
            if let Some(gone) = running.get(&(pipe.clone(), seat)) {
                // If its queue is full, it is pulled after all.
                let _ = gone.commands.try_send(Command::Leave);
            }
        }
    }

    async fn find_or_start(
        &self,
        pipe: &PipeName,
        stream: &StreamName,
        seat: Seat,
        by: &Confirm,
    ) -> Result<mpsc::Sender<Command>, Error> {
        if self.stop.get() {
            return Err(Error::Unavailable("the bridge is stopping".into()));
        }
        let mut tasks = self.tasks.lock().await;
        while tasks.try_join_next().is_some() {}
        let mut running = self.running();
        running.retain(|_, r| !r.commands.is_closed());
        if let Some((_, other)) = of(&running, pipe).find(|(_, other)| other.stream != *stream) {
            return Err(another_stream(pipe, stream, &other.stream));
        }
        if let Some(found) = running.get(&(pipe.clone(), seat)) {
            return Ok(found.commands.clone());
        }
        if running.len() >= MAX_PIPES {
            return Err(Error::Unavailable(format!(
                "this bridge runs {MAX_PIPES} pipes already; start another bridge"
            )));
        }
        let (commands, receiver) = mpsc::channel(MAX_QUEUED_PULLS);
        let status = Status::default();
        let (deps, stop) = (self.deps.seated(seat), self.stop.subscribe());
        let actor = Actor::new(deps, pipe.clone(), stream.clone(), status.clone(), receiver, stop);
        tasks.spawn(actor.run());
        let new = Running { stream: stream.clone(), by: by.clone(), commands: commands.clone(), status };
        running.insert((pipe.clone(), seat), new);
        Ok(commands)
    }

    /// The state of the pipes that run here, by name and by the owner of each seat's leases.
    pub fn snapshots(&self) -> BTreeMap<(PipeName, WorkerId), Snapshot> {
        let running = self.running();
        let open = running.iter().filter(|(_, r)| !r.commands.is_closed());
        open.map(|((pipe, seat), r)| ((pipe.clone(), seat.owner(&self.deps.worker_id)), r.status.get())).collect()
    }

    /// Stops all pipes: settles what it can, releases the leases.
    pub async fn stop(&self) {
        self.stop.set(true);
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

/// The seats of a pipe that are taken.
fn of<'a>(
    running: &'a BTreeMap<(PipeName, Seat), Running>,
    pipe: &'a PipeName,
) -> impl Iterator<Item = (Seat, &'a Running)> {
    let seats = running.range((pipe.clone(), Seat::FIRST)..).take_while(move |((name, _), _)| name == pipe);
    seats.filter(|(_, running)| !running.commands.is_closed()).map(|((_, seat), running)| (*seat, running))
}

fn ended(pipe: &PipeName) -> Error {
    Error::Unavailable(format!("pipe '{pipe}' has just stopped here; the next pull starts it again"))
}
