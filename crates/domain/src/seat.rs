//! The places of several views that pull one pipe at one worker: each has leases and batches of its
//! own, as if it were a worker.

use crate::limits::MAX_VIEWS_PER_PIPE;
use crate::names::{PipeName, WorkerId};

/// What stands between a name and the number of a seat. Neither a worker id nor a pipe's name has
/// it.
const MARK: char = '/';

/// A view's place among those that pull one pipe at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(usize);

impl Seat {
    /// The seat of the only view. Readers that acknowledge batches themselves share it.
    pub const FIRST: Seat = Seat(1);

    /// All seats, in the order in which they are taken.
    pub fn all() -> impl Iterator<Item = Seat> {
        (1..=MAX_VIEWS_PER_PIPE).map(Seat)
    }

    /// The name under which this seat of a worker owns leases: the worker's own for the first one.
    pub fn owner(self, worker: &WorkerId) -> WorkerId {
        WorkerId::from(self.of(worker))
    }

    /// The name under which a worker announces in its row that this seat pulls the pipe.
    pub fn announced(self, pipe: &PipeName) -> PipeName {
        PipeName::from(self.of(pipe))
    }

    fn of(self, name: &str) -> String {
        if self == Seat::FIRST { name.into() } else { format!("{name}{MARK}{}", self.0) }
    }
}

/// The worker and the seat's part of an owner's name; that part is empty for the first seat.
pub fn split_owner(owner: &str) -> (&str, &str) {
    owner.split_at(owner.find(MARK).unwrap_or(owner.len()))
}

/// The worker that owns what is under `owner`'s name.
pub fn worker_of(owner: &str) -> &str {
    split_owner(owner).0
}

/// The seat's part of a name that is announced for `pipe`; none if it is another pipe's.
pub fn seat_of<'a>(announced: &'a str, pipe: &str) -> Option<&'a str> {
    announced.strip_prefix(pipe).filter(|rest| rest.is_empty() || rest.starts_with(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_seat_it_is() {
        let (worker, pipe) = (WorkerId::from("host:9020"), PipeName::from("orders"));
        let seats: Vec<Seat> = Seat::all().take(2).collect();
        assert_eq!(seats[0], Seat::FIRST);
        let names = seats.iter().map(|seat| (seat.owner(&worker), seat.announced(&pipe)));
        let names: Vec<_> = names.collect();
        assert_eq!(names[0], (worker.clone(), pipe.clone()));
        assert_eq!(names[1], ("host:9020/2".into(), "orders/2".into()));
        assert_eq!(split_owner(&names[0].0), ("host:9020", ""));
        assert_eq!(split_owner(&names[1].0), ("host:9020", "/2"));
        assert_eq!(seat_of(&names[0].1, "orders"), Some(""));
        assert_eq!(seat_of(&names[1].1, "orders"), Some("/2"));
        assert_eq!((seat_of("orders2", "orders"), seat_of("orders/2", "orders2")), (None, None));
    }
}
