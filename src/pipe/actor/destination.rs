//! Where the rows of a pull go.

use super::Actor;
use crate::domain::error::Error;
use crate::domain::lease::Destination;
use crate::limits::KNOWN_VIEWS;
use crate::pipe::pull::{Confirm, PullOptions};
use crate::ports::ViewState;

impl Actor {
    /// The table that the view that pulls inserts into; none where the reader acknowledges by itself. A view keeps its table for life, so
    /// ClickHouse is asked once for each.
    pub(super) async fn destination(
        &mut self,
        options: &PullOptions,
        state: Option<&ViewState>,
    ) -> Result<Option<Destination>, Error> {
        let (Confirm::View { database, view }, Some(state)) = (&options.confirm, state) else { return Ok(None) };
        if let Some(known) = self.destinations.get(&state.uuid) {
            return Ok(Some(known.clone()));
        }
        let Some(target) = self.deps.views.target(database, view).await? else { return Ok(None) };
        if self.destinations.len() >= KNOWN_VIEWS {
            self.destinations.clear();
        }
        let to = Destination { view: format!("{database}.{view}"), target };
        self.destinations.insert(state.uuid.clone(), to.clone());
        Ok(Some(to))
    }

    /// Refuses a pull whose rows would go to another table than those of the pipe (**one-target-per-pipe**).
    pub(super) async fn feed(&mut self, to: &Destination) -> Result<(), Error> {
        let Err(refused) = self.work()?.feed(to).await else { return Ok(()) };
        if refused.gives_way {
            // Each would keep the other from its shards. Without work the pipe ends here, until the next pull.
            if let Some(mut work) = self.work.take() {
                work.release().await?;
            }
        }
        Err(refused.error)
    }
}
