//! What is known about the views that pull a pipe: the table that each fills, and the views below
//! it.

use std::collections::HashMap;

use tokio::time::Instant;

use domain::lease::Destination;
use domain::limits::{DEFINITION_HOLDS, KNOWN_VIEWS, VIEWS_BELOW_HOLD};
use domain::ports::{Below, ViewState};

/// Views by their UUIDs.
#[derive(Default)]
pub struct KnownViews(HashMap<String, Known>);

/// A view whose definition was checked and accepted.
struct Known {
    destination: Destination,
    /// What [`ViewState::others`] was then.
    others: u32,
    at: Instant,
    /// What is below that table, and when that was checked; none before the first check.
    below: Option<(Below, Instant)>,
}

impl KnownViews {
    /// Where the rows of a view in this state go, if that was checked recently.
    pub fn destination(&self, state: &ViewState) -> Option<&Destination> {
        let known = self.0.get(&state.uuid)?;
        let holds = known.others == state.others && known.at.elapsed() < DEFINITION_HOLDS;
        holds.then_some(&known.destination)
    }

    /// Notes where the rows of a view go, as queried at `at`.
    pub fn note(&mut self, state: &ViewState, destination: Destination, at: Instant) {
        if self.0.len() >= KNOWN_VIEWS {
            self.0.clear();
        }
        let below = self.0.remove(&state.uuid).and_then(|known| known.below);
        self.0.insert(state.uuid.clone(), Known { destination, others: state.others, at, below });
    }

    /// The table that a view fills, and what was below it at the last check; none if the view is
    /// unknown.
    pub fn fed(&self, uuid: &str) -> Option<(&str, Option<&Below>)> {
        let known = self.0.get(uuid)?;
        Some((&known.destination.target, known.below.as_ref().map(|(below, _)| below)))
    }

    /// Whether what is below a view's table was checked recently.
    pub fn below_is_fresh(&self, uuid: &str) -> bool {
        let looked = self.0.get(uuid).and_then(|known| known.below.as_ref());
        looked.is_some_and(|(_, at)| at.elapsed() < VIEWS_BELOW_HOLD)
    }

    /// Notes what is below a view's table now.
    pub fn note_below(&mut self, uuid: &str, below: Below) {
        if let Some(known) = self.0.get_mut(uuid) {
            known.below = Some((below, Instant::now()));
        }
    }
}
