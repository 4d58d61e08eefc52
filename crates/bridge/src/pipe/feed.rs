//! The one table that a pipe feeds (**one-target-per-pipe**).

use tracing::info;

use super::work::Work;
use domain::error::Error;
use domain::lease::{Destination, Lease};
use domain::ports::Views;

/// Why a pull is refused.
pub(super) struct Refused {
    pub error: Error,
    /// Another worker feeds the other table: this one must release its leases, or each would block
    /// the other.
    pub gives_way: bool,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused { error, gives_way: false }
    }
}

impl Work {
    /// Makes sure that the rows of this pull go to the pipe's table, before any are served
    /// (**one-target-per-pipe**).
    ///
    /// If the view that fed another table is gone, the pipe moves to this one. That view's open
    /// batch, whose outcome is unknown, moves with it as a whole: its rows may end up in both
    /// tables, but are certain to be in one.
    pub(super) async fn feed(&mut self, to: &Destination) -> Result<(), Refused> {
        // Finished leases show where rows went; they count only if there are no others.
        let some_left = self.leases.all().any(|lease| !lease.finished() || lease.offer.is_some());
        let counts = |lease: &&Lease| !some_left || !lease.finished() || lease.offer.is_some();
        let others = |lease: &&Lease| counts(lease) && lease.destination.is_another_than(to);
        let mut before: Vec<Destination> = self.leases.all().filter(others).map(|l| l.destination.clone()).collect();
        before.sort_by(|a, b| (&a.view, &a.target).cmp(&(&b.view, &b.target)));
        before.dedup();
        for other in &before {
            if target_of(&*self.deps.views, &other.view).await?.as_ref() == Some(&other.target) {
                return Err(to.conflict(&self.pipe, other, "").into());
            }
        }
        let members = &self.deps.members;
        let elsewhere = |l: &&Lease| others(l) && l.owner != self.deps.worker_id && !members.is_nobodys(l);
        if let Some(lease) = self.leases.all().find(elsewhere) {
            let holder = format!(" at worker '{}'", lease.owner);
            let error = to.conflict(&self.pipe, &lease.destination, &holder);
            return Err(Refused { error, gives_way: true });
        }
        self.leases.feed(to);
        if before.is_empty() {
            return Ok(());
        }
        info!(pipe = self.pipe.as_str(), "view {} replaces {}: rows now go to {}", to.view, before[0].view, to.target);
        let fed = self.leases.try_change(|rows, now_ms| {
            rows.each_held(|l| others(&l), |lease, holder| lease.feed(holder, to, now_ms)).map(Some)
        });
        match fed.await? {
            true => Ok(()),
            false => Err(self.positions_changed().into()),
        }
    }

    /// Checks again once the first leases are taken: another bridge may have started with another
    /// table at the same time, and whichever checks last sees the other.
    pub(super) async fn feed_alone(&mut self, to: &Destination) -> Result<(), Error> {
        self.leases.reload().await?;
        if let Err(refused) = self.feed(to).await {
            self.release().await?;
            return Err(refused.error);
        }
        Ok(())
    }
}

/// The table that a view writes to now, by the view's name as stored in the rows; the database and
/// the view may both have dots in their names.
async fn target_of(views: &dyn Views, name: &str) -> Result<Option<String>, Error> {
    for (at, _) in name.match_indices('.') {
        if let Some(found) = views.definition(&name[..at], &name[at + 1..]).await? {
            return Ok(Some(found.target));
        }
    }
    Ok(None)
}
