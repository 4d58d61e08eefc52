//! Starts the next refresh: see [`start_next`].

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::view::{Puller, refresh_end, start_next};
use domain::ports::{RefreshOutcome, ViewState, Views};

/// Starts the next refresh of the view that pulled last.
#[derive(Default)]
pub struct Next {
    /// A refresh is pulling.
    pulling: bool,
    /// The task that starts the refresh.
    starting: Option<AbortHandle>,
}

impl Next {
    /// Notes that a refresh pulls.
    pub fn begun(&mut self) {
        self.cancel();
        self.pulling = true;
    }

    /// Notes that it was answered.
    pub fn answered(&mut self) {
        self.pulling = false;
    }

    /// Cancels a pending start.
    pub fn cancel(&mut self) {
        if let Some(starting) = self.starting.take() {
            starting.abort();
        }
    }

    /// Starts the next refresh now that the last one's batch is committed
    /// (**started-after-the-commit**). `seen` is the view's state after the last refresh, if known.
    pub fn start(&mut self, views: Arc<dyn Views>, view: Puller, seen: Option<ViewState>) {
        if !self.pulling {
            self.spawn(async move { start_next(&*views, &view, seen).await });
        }
    }

    /// Starts the next refresh once the one that gets an empty answer has succeeded.
    pub fn start_after(&mut self, views: Arc<dyn Views>, view: Puller) {
        self.spawn(async move {
            if refresh_end(&*views, &view).await == RefreshOutcome::Succeeded {
                start_next(&*views, &view, None).await;
            }
        });
    }

    fn spawn(&mut self, start: impl Future<Output = ()> + Send + 'static) {
        self.cancel();
        self.starting = Some(tokio::spawn(start).abort_handle());
    }
}
