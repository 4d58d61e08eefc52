//! The start of the next refresh: see [`start_next`].

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::view::{Puller, refresh_end, start_next};
use domain::ports::{RefreshOutcome, Views};

/// What starts the next refresh of the view that pulled last.
#[derive(Default)]
pub struct Next {
    /// A refresh is being answered.
    pulling: bool,
    /// The task, until the refresh has begun.
    starting: Option<AbortHandle>,
}

impl Next {
    /// A refresh pulls.
    pub fn begun(&mut self) {
        self.cancel();
        self.pulling = true;
    }

    /// It is answered.
    pub fn answered(&mut self) {
        self.pulling = false;
    }

    /// Nothing more is to be started.
    pub fn cancel(&mut self) {
        if let Some(starting) = self.starting.take() {
            starting.abort();
        }
    }

    /// Lets the next refresh begin now: the batch of the last one is committed
    /// (**started-after-the-commit**).
    pub fn start(&mut self, views: Arc<dyn Views>, view: Puller) {
        if !self.pulling {
            self.spawn(async move { start_next(&*views, &view).await });
        }
    }

    /// The same when the refresh that is given an empty answer has ended.
    pub fn start_after(&mut self, views: Arc<dyn Views>, view: Puller) {
        self.spawn(async move {
            if refresh_end(&*views, &view).await == RefreshOutcome::Succeeded {
                start_next(&*views, &view).await;
            }
        });
    }

    fn spawn(&mut self, start: impl Future<Output = ()> + Send + 'static) {
        self.cancel();
        self.starting = Some(tokio::spawn(start).abort_handle());
    }
}
