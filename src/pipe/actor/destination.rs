//! Where the rows of a pull go.

use super::Actor;
use crate::domain::error::Error;
use crate::domain::lease::Destination;
use crate::limits::KNOWN_VIEWS;
use crate::pipe::pull::{Confirm, PullOptions};
use crate::ports::{Definition, ViewState};

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
        let Some(definition) = self.deps.views.definition(database, view).await? else { return Ok(None) };
        confirms(&self.pipe, &definition, &format!("{database}.{view}"))?;
        if self.destinations.len() >= KNOWN_VIEWS {
            self.destinations.clear();
        }
        let to = Destination { view: format!("{database}.{view}"), target: definition.target };
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

/// Refuses a view that is known to pull other pipes only: the end of its refresh says nothing about a batch of this one
/// (**only-a-refresh-confirms**).
fn confirms(pipe: &str, definition: &Definition, view: &str) -> Result<(), Error> {
    match definition.pipes.first() {
        Some(other) if !definition.pipes.iter().any(|pulled| pulled == pipe) => Err(Error::BadRequest(format!(
            "view {view} pulls pipe '{other}', not '{pipe}', so its refresh cannot confirm a batch of '{pipe}': put the name of the view that pulls \
             '{pipe}' into view= (in a statement that was copied it still names the view it was copied from)"
        ))),
        _ => Ok(()),
    }
}
