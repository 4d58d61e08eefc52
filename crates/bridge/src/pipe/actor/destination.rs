//! Where the rows of a pull go, according to the definition of the pulling view.

use tokio::time::Instant;

use super::Actor;
use crate::pipe::pull::{Confirm, PullOptions};
use domain::error::Error;
use domain::lease::Destination;
use domain::names::PipeName;
use domain::ports::{Definition, ViewState};

impl Actor {
    /// The table that the pulling view inserts into; none if the reader sends acks itself.
    pub(super) async fn destination(
        &mut self,
        options: &PullOptions,
        state: Option<&ViewState>,
    ) -> Result<Option<Destination>, Error> {
        let (Confirm::View { database, view }, Some(state)) = (&options.confirm, state) else { return Ok(None) };
        if let Some(destination) = self.known.destination(state) {
            return Ok(Some(destination.clone()));
        }
        let at = Instant::now();
        let Some(definition) = self.deps.views.definition(database, view).await? else { return Ok(None) };
        let view = format!("{database}.{view}");
        usable(&self.pipe, &definition, &view)?;
        let destination = Destination { view, target: definition.target };
        // A stopped copy may be started, and nothing but the definition shows that.
        if definition.copies.is_empty() {
            self.known.note(state, destination.clone(), at);
        }
        Ok(Some(destination))
    }

    /// Refuses a pull whose rows would go to a table other than the pipe's
    /// (**one-target-per-pipe**).
    pub(super) async fn feed(&mut self, to: &Destination) -> Result<(), Error> {
        let Err(refused) = self.work()?.feed(to).await else { return Ok(()) };
        if refused.gives_way {
            // The two would keep each other from their shards. Without work, the pipe ends here
            // until the next pull.
            if let Some(mut work) = self.work.take() {
                work.release().await?;
            }
        }
        Err(refused.error)
    }
}

/// Refuses a pull if the end of the view's refresh would not confirm what is served now
/// (**only-a-refresh-confirms**), or if the next refresh would replace those rows.
fn usable(pipe: &PipeName, definition: &Definition, view: &str) -> Result<(), Error> {
    let Definition { target, appends, pipes, copies } = definition;
    let pulls = |pipes: &[PipeName]| pipes.iter().any(|pulled| pulled == pipe);
    if !appends {
        return Err(Error::BadRequest(format!(
            "view {view} replaces the rows of {target} with each refresh, so the rows of every batch but the last would be lost: drop it, and \
             create it with APPEND behind REFRESH"
        )));
    }
    // The view is known to pull only other pipes.
    if let Some(other) = pipes.first().filter(|_| !pulls(pipes)) {
        return Err(Error::BadRequest(format!(
            "view {view} pulls pipe '{other}', not '{pipe}', so its refresh cannot confirm a batch of '{pipe}': put the name of the view that pulls \
             '{pipe}' into view= (in a statement that was copied it still names the view it was copied from)"
        )));
    }
    // Either the view or its copy may be pulling now.
    match copies.iter().find(|copy| copy.running && pulls(&copy.pipes)) {
        Some(copy) => Err(Error::BadRequest(format!(
            "view {} pulls pipe '{pipe}' under the name of another one (its URL says view={view}), so a refresh of one would be taken for the \
             other's and rows would be missing: drop or stop {0}, or put its own name into view= (and another pipe into its URL if it inserts into \
             another table)",
            copy.view
        ))),
        None => Ok(()),
    }
}
