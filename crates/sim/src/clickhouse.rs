//! One ClickHouse server with a refreshable view or several, as far as a bridge can see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::dice::{Dice, Flag};
use domain::error::Error;
use domain::names::PipeName;
use domain::ports::{Below, Cause, Copied, Definition, Failure, RefreshOutcome, ViewState, Views};

/// The view.
pub const VIEW: &str = "orders_pipe";
/// A view that pulls the same pipe into another table.
pub const SECOND_VIEW: &str = "second_pipe";

/// A server and its view; further views of the same server are each one more of these.
pub struct FakeServer {
    dice: Arc<Dice>,
    /// The views of the server, by name.
    views: Arc<Mutex<BTreeMap<String, Weak<FakeServer>>>>,
    view: Mutex<View>,
    ended: Notify,
    wanted: Flag,
}

#[derive(Default)]
struct View {
    running: bool,
    down: bool,
    retry: u64,
    /// What WAIT VIEW returns if nothing is running: the exception of the last attempt.
    exception: String,
    /// Increases with every start of the server.
    start: u64,
    /// A new one for each CREATE.
    uuid: u64,
    waits: usize,
    gone: bool,
    /// The target table, if it is not the usual one.
    target: Option<String>,
    /// The pipes that its SELECT names.
    pulls: Vec<PipeName>,
    /// A view that was copied from it, and how many there have been.
    copy: Option<Copied>,
    copies: u32,
    /// The last refresh was cancelled, and WAIT VIEW reports OK nevertheless.
    cancelled: bool,
    /// The last refresh failed because of the rows.
    refused: bool,
    /// A refresh has succeeded since the start of the server.
    succeeded: bool,
    /// Whether its schedule has long pauses.
    slow: bool,
    /// Whether it is stopped.
    stopped: bool,
    /// How many REFRESH VIEW statements are still to be dropped.
    forgets: usize,
    /// REFRESH VIEW statements, and those that started a refresh.
    asked: (usize, usize),
}

impl View {
    fn cause(&self) -> Cause {
        if self.refused { Cause::Rows } else { Cause::Other("it is none of the rows") }
    }
}

impl FakeServer {
    /// A server whose view has not run yet.
    pub fn new(dice: Arc<Dice>) -> Arc<FakeServer> {
        FakeServer::with(dice, Arc::default(), VIEW)
    }

    /// Another view of the same server, which pulls the same pipe into the same table.
    pub fn another_view(&self, name: &str) -> Arc<FakeServer> {
        FakeServer::with(self.dice.clone(), self.views.clone(), name)
    }

    fn with(dice: Arc<Dice>, views: Arc<Mutex<BTreeMap<String, Weak<FakeServer>>>>, name: &str) -> Arc<FakeServer> {
        let (view, ended, wanted) = (Mutex::default(), Notify::new(), Flag::new(false));
        let server = Arc::new(FakeServer { dice, views: views.clone(), view, ended, wanted });
        views.lock().unwrap().insert(name.into(), Arc::downgrade(&server));
        server
    }

    /// All views of the server.
    fn all(&self) -> Vec<Arc<FakeServer>> {
        self.views.lock().unwrap().values().filter_map(Weak::upgrade).collect()
    }

    /// A view by its name; this one if there is none.
    pub fn named(self: &Arc<Self>, name: &str) -> Arc<FakeServer> {
        self.views.lock().unwrap().get(name).and_then(Weak::upgrade).unwrap_or_else(|| self.clone())
    }

    fn now(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap()
    }

    /// A refresh begins.
    pub fn begin(&self) {
        self.now().running = true;
        self.wanted.set(false);
    }

    /// It ends.
    pub fn end(&self, result: Result<(), String>) {
        let mut view = self.now();
        view.running = false;
        (view.cancelled, view.refused) = (false, false);
        view.succeeded |= result.is_ok();
        view.retry = if result.is_ok() { 0 } else { view.retry + 1 };
        view.exception = result.err().unwrap_or_default();
        drop(view);
        self.ended.notify_waiters();
    }

    /// It fails because of the rows.
    pub fn refuse(&self) {
        self.end(Err("a row is refused".into()));
        self.now().refused = true;
    }

    /// It is cancelled, for example by SYSTEM STOP VIEW.
    pub fn cancel(&self) {
        self.end(Err("Query was cancelled or a client has unexpectedly dropped the connection".into()));
        self.now().cancelled = true;
    }

    /// A refresh that runs, if any, fails because the bridge is gone.
    pub fn lose_bridge(&self) {
        if self.now().running {
            self.end(Err("the connection broke".into()));
        }
    }

    /// The server crashes and forgets the outcome of its refreshes.
    pub fn crash(&self) {
        self.all().iter().for_each(|view| view.crash_alone());
    }

    fn crash_alone(&self) {
        let mut view = self.now();
        let (copy, copies) = (view.copy.take(), view.copies);
        let start = view.start + 1;
        *view = View { down: true, start, waits: view.waits, uuid: view.uuid, copy, copies, ..View::default() };
        drop(view);
        self.ended.notify_waiters();
    }

    /// The server restarts.
    pub fn restart(&self) {
        self.all().iter().for_each(|view| view.now().down = false);
    }

    /// The view is dropped, and with `again` created under the same name.
    pub fn drop_view(&self, again: bool) {
        let mut view = self.now();
        *view = View { gone: !again, uuid: view.uuid + 1, waits: view.waits, start: view.start, ..View::default() };
        drop(view);
        self.ended.notify_waiters();
    }

    /// The view is recreated with another table.
    pub fn retarget(&self, target: &str) {
        self.drop_view(true);
        self.now().target = Some(target.into());
    }

    /// Its SELECT names these pipes.
    pub fn pulls(&self, pipes: &[&str]) {
        self.now().pulls = pipes.iter().map(|pipe| PipeName::from(*pipe)).collect();
    }

    /// Another view names this one, or no longer does.
    pub fn copied(&self, copy: Option<Copied>) {
        let mut view = self.now();
        view.copies += 1;
        view.copy = copy;
    }

    /// A refresh of that view begins.
    pub fn start_copy(&self) {
        self.now().copy.iter_mut().for_each(|copy| copy.running = true);
    }

    /// Number of WAIT VIEW statements received.
    pub fn waits(&self) -> usize {
        self.now().waits
    }

    /// The view is stopped, or started again.
    pub fn stop_view(&self, stopped: bool) {
        self.now().stopped = stopped;
    }

    /// Gives its schedule long pauses, or short ones.
    pub fn slow_schedule(&self, slow: bool) {
        self.now().slow = slow;
    }

    /// The next REFRESH VIEW statements are dropped.
    pub fn forget(&self, statements: usize) {
        self.now().forgets = statements;
    }

    /// Returns when a REFRESH VIEW statement starts a refresh.
    pub async fn wanted(&self) {
        self.wanted.until(true).await;
    }

    /// Number of REFRESH VIEW statements received, and how many of them started a refresh.
    pub fn asked(&self) -> (usize, usize) {
        self.now().asked
    }

    fn lost(&self, start: u64) -> Option<RefreshOutcome> {
        let view = self.now();
        (view.down || view.start != start).then(|| RefreshOutcome::Unknown("the connection broke".into()))
    }
}

#[async_trait]
impl Views for FakeServer {
    async fn view(&self, _: &str, name: &str) -> Result<Option<ViewState>, Error> {
        self.dice.travel(5).await;
        let view = self.now();
        if view.down || self.dice.trouble(2) {
            return Err(Error::Unavailable("ClickHouse does not answer".into()));
        }
        if name == SECOND_VIEW {
            // It refreshes continuously.
            return Ok(Some(ViewState {
                uuid: name.into(),
                running: true,
                status: "Running".into(),
                exception: String::new(),
                cause: Cause::Other("it has not failed"),
                succeeded: true,
                retry: 0,
                due_soon: true,
                others: view.copies,
            }));
        }
        Ok((!view.gone).then(|| ViewState {
            uuid: format!("{:?}", view.uuid),
            running: view.running,
            status: if view.running { "Running" } else { ["Scheduled", "Disabled"][usize::from(view.stopped)] }.into(),
            exception: view.exception.clone(),
            cause: view.cause(),
            succeeded: view.succeeded,
            retry: view.retry,
            due_soon: !view.slow,
            others: view.copies,
        }))
    }

    async fn definition(&self, _: &str, view: &str) -> Result<Option<Definition>, Error> {
        self.dice.travel(5).await;
        let now = self.now();
        if now.down || self.dice.trouble(2) {
            return Err(Error::Unavailable("ClickHouse does not answer".into()));
        }
        let target = match view {
            SECOND_VIEW => Some("default.another".into()),
            _ => (!now.gone).then(|| now.target.clone().unwrap_or_else(|| "default.orders".into())),
        };
        let copies = now.copy.clone().filter(|_| view != SECOND_VIEW).into_iter().collect();
        Ok(target.map(|target| Definition { target, appends: true, pipes: now.pulls.clone(), copies }))
    }

    async fn below(&self, _: &str, known: &Below) -> Result<Below, Error> {
        self.dice.travel(5).await;
        match self.now().down || self.dice.trouble(2) {
            true => Err(Error::Unavailable("ClickHouse does not answer".into())),
            false => Ok(known.clone()),
        }
    }

    async fn wait(&self, _: &str, name: &str) -> RefreshOutcome {
        if name == SECOND_VIEW {
            return RefreshOutcome::Unknown("its refresh goes on".into());
        }
        let start = self.now().start;
        self.dice.travel(20).await;
        self.now().waits += 1;
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(lost) = self.lost(start) {
                return lost;
            }
            if !self.now().running {
                break;
            }
            ended.await;
            if self.dice.trouble(25) {
                // The next refresh may start before a waiting statement checks again; then it waits
                // for that one.
                self.dice.linger(Duration::from_millis(self.dice.below(3_000))).await;
            }
        }
        let lost = self.dice.trouble(10);
        let view = self.now();
        let cause = view.cause();
        let outcome = match view.exception.as_str() {
            _ if lost => RefreshOutcome::Unknown("the answer got lost".into()),
            why if !why.is_empty() && !view.cancelled => RefreshOutcome::Failed(Failure { why: why.into(), cause }),
            _ => RefreshOutcome::Succeeded,
        };
        tracing::debug!("WAIT VIEW answers {outcome:?}");
        let idle = view.cancelled && !view.running;
        drop(view);
        if idle && self.dice.trouble(30) {
            // It crashes right after its response, which is all that is left of the refresh.
            self.crash();
            self.restart();
        }
        outcome
    }

    async fn refresh(&self, _: &str, _: &str) -> Result<(), Error> {
        self.dice.travel(5).await;
        let mut view = self.now();
        if view.down || self.dice.trouble(2) {
            return Err(Error::Unavailable("ClickHouse does not answer".into()));
        }
        view.asked.0 += 1;
        if view.forgets > 0 {
            view.forgets -= 1;
        } else if !view.running && !view.stopped && !view.gone {
            view.asked.1 += 1;
            // The driver of a run simulates the refresh.
            self.wanted.set(true);
        }
        Ok(())
    }
}
