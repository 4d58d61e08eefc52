//! The protocol between a pipe and the view that pulls it: whether a pull comes from a refresh, how
//! that refresh ended, and when the next one starts.

use std::fmt;

use tokio::time::{Instant, sleep};
use tracing::debug;

use domain::error::Error;
use domain::interface::Route;
use domain::limits::{REFRESH_LOOK, REFRESH_START};
use domain::names::PipeName;
use domain::ports::{Cause, Failure, RefreshOutcome, ViewState, Views};

/// The view whose refresh pulls.
#[derive(Clone, Debug)]
pub struct Puller {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// A new one for each CREATE.
    pub uuid: String,
}

impl fmt::Display for Puller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.name)
    }
}

/// Makes sure that a pull comes from a running refresh of its view, whose end can be awaited
/// (**only-a-refresh-confirms**).
pub async fn running_view(views: &dyn Views, pipe: &PipeName, database: &str, view: &str) -> Result<ViewState, Error> {
    match views.view(database, view).await? {
        Some(state) if state.running => Ok(state),
        Some(state) => Err(Error::BadRequest(format!(
            "view '{database}.{view}' is not refreshing now (status {}), so this pull of pipe '{pipe}' does not come from it: view= must name \
             the view that pulls; to read by hand, use {} or ack=explicit",
            state.status,
            Route::Records.with("…")
        ))),
        None => Err(Error::NotFound(format!(
            "there is no refreshable view '{database}.{view}' that the bridge's user may see: view= must name the refreshable materialized view that \
             pulls pipe '{pipe}', and the user needs SYSTEM VIEWS on it (if its CREATE fails with this error, give url() the structure as its \
             third argument)"
        ))),
    }
}

/// How the running refresh of the view ends.
/// WAIT VIEW alone is not enough: it also returns OK if `SYSTEM STOP VIEW` cancelled the refresh.
/// The view's exception reveals this, and it stays until a later refresh succeeds, which cannot
/// happen before this outcome is known: that refresh pulls here and gets the same batch (while a
/// batch is open, a pull gets an empty response only if no outcome is awaited). A server that
/// restarts forgets the exception, and that a refresh ever succeeded.
pub async fn refresh_end(views: &dyn Views, view: &Puller) -> RefreshOutcome {
    let outcome = views.wait(&view.database, &view.name).await;
    if outcome != RefreshOutcome::Succeeded {
        return outcome;
    }
    match views.view(&view.database, &view.name).await {
        Ok(Some(state)) if state.uuid != view.uuid => {
            RefreshOutcome::Unknown(format!("the view '{view}' was replaced meanwhile"))
        }
        Ok(Some(state)) if !state.exception.is_empty() => {
            RefreshOutcome::Failed(Failure { why: state.exception, cause: Cause::Other("the refresh was cancelled") })
        }
        Ok(Some(state)) if !state.succeeded => RefreshOutcome::Unknown("the server restarted meanwhile".into()),
        Ok(Some(_)) => RefreshOutcome::Succeeded,
        Ok(None) => RefreshOutcome::Unknown(format!("the view '{view}' is gone")),
        Err(error) => RefreshOutcome::Unknown(error.to_string()),
    }
}

/// Starts the next refresh of a view whose last one succeeded, instead of letting it wait for its
/// schedule. A view that is stopped, fails, or has a slow schedule of its own is left alone. To be
/// called when the end of the last refresh is known and its batch committed
/// (**started-after-the-commit**), and dropped when the view pulls again. `seen` is the view's
/// state after that refresh, if it is known.
pub async fn start_next(views: &dyn Views, view: &Puller, mut seen: Option<ViewState>) {
    let until = Instant::now() + REFRESH_START;
    let mut pause = REFRESH_LOOK;
    while Instant::now() < until {
        let state = match seen.take() {
            Some(state) => Ok(Some(state)),
            None => views.view(&view.database, &view.name).await,
        };
        match state {
            Ok(Some(state)) if state.uuid == view.uuid && state.due() => {
                if let Err(error) = views.refresh(&view.database, &view.name).await {
                    return debug!(
                        "cannot start the next refresh of view '{view}', which now waits for its schedule: {error}"
                    );
                }
            }
            // The last refresh is about to leave this state, or the next one has started and pulls
            // in a moment.
            Ok(Some(state)) if state.uuid == view.uuid && state.running => {}
            _ => return,
        }
        // ClickHouse loses a request that arrives at the wrong moment.
        sleep(pause).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ports::{Below, Definition};

    /// `SYSTEM WAIT VIEW` returns OK, and the view is in this state.
    struct Waited(Option<ViewState>);

    #[async_trait::async_trait]
    impl Views for Waited {
        async fn view(&self, _: &str, _: &str) -> Result<Option<ViewState>, Error> {
            Ok(self.0.clone())
        }

        async fn definition(&self, _: &str, _: &str) -> Result<Option<Definition>, Error> {
            Ok(None)
        }

        async fn below(&self, _: &str, known: &Below) -> Result<Below, Error> {
            Ok(known.clone())
        }

        async fn wait(&self, _: &str, _: &str) -> RefreshOutcome {
            RefreshOutcome::Succeeded
        }

        async fn refresh(&self, _: &str, _: &str) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn wait_view_alone_proves_nothing() {
        let state = |uuid: &str, exception: &str, succeeded| ViewState {
            uuid: uuid.into(),
            running: false,
            status: "Scheduled".into(),
            exception: exception.into(),
            cause: Cause::Other("cancelled"),
            succeeded,
            retry: 0,
            due_soon: true,
            others: 0,
        };
        let view = Puller { database: "default".into(), name: "orders_pipe".into(), uuid: "a".into() };
        let outcome = async |state| refresh_end(&Waited(state), &view).await;
        assert_eq!(outcome(Some(state("a", "", true))).await, RefreshOutcome::Succeeded);
        assert!(matches!(outcome(Some(state("a", "cancelled", true))).await, RefreshOutcome::Failed(_)));
        for unknown in [None, Some(state("b", "", true)), Some(state("a", "", false))] {
            assert!(matches!(outcome(unknown).await, RefreshOutcome::Unknown(_)));
        }
    }
}
