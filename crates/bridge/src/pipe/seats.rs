//! Which seat of a pipe a pull gets: several views that pull one pipe have readers, leases and
//! batches of their own (**a-view-is-a-worker**).

use super::pull::Confirm;
use domain::seat::Seat;

/// A seat that is taken, and who pulled from it last.
pub struct Taken {
    /// The seat.
    pub seat: Seat,
    /// Who pulled; a view stays, also after a reader that acknowledges batches itself.
    pub by: Confirm,
}

/// What is decided about a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It gets this seat.
    Sits(Seat),
    /// First it must be known which of the views still pull.
    Ask,
    /// All seats are taken.
    Full,
}

/// The seat for a pull by `who`. `idle` are views that are gone or stopped; none if nobody has
/// asked yet.
///
/// A view keeps its seat. One that is new takes over from a view that no longer pulls, with that
/// one's open batch, or gets a seat of its own.
pub fn choose(taken: &[Taken], who: &Confirm, idle: Option<&[Confirm]>) -> Choice {
    let first = |taken: &&Taken| taken.seat == Seat::FIRST;
    if *who == Confirm::Explicit || taken.is_empty() {
        return Choice::Sits(Seat::FIRST);
    }
    let own = taken.iter().find(|taken| taken.by == *who);
    let unused = || taken.iter().find(first).filter(|first| first.by == Confirm::Explicit);
    if let Some(found) = own.or_else(unused) {
        return Choice::Sits(found.seat);
    }
    let Some(idle) = idle else { return Choice::Ask };
    let left = taken.iter().find(|taken| idle.contains(&taken.by)).map(|taken| taken.seat);
    let free = || Seat::all().find(|seat| taken.iter().all(|taken| taken.seat != *seat));
    left.or_else(free).map_or(Choice::Full, Choice::Sits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::limits::MAX_VIEWS_PER_PIPE;

    fn view(name: &str) -> Confirm {
        Confirm::View { database: "default".into(), view: name.into() }
    }

    fn taken(by: &[Confirm]) -> Vec<Taken> {
        Seat::all().zip(by).map(|(seat, by)| Taken { seat, by: by.clone() }).collect()
    }

    fn seat(number: usize) -> Choice {
        Choice::Sits(Seat::all().nth(number - 1).unwrap())
    }

    #[test]
    fn each_view_has_a_seat_and_keeps_it() {
        let two = taken(&[view("a"), view("b")]);
        assert_eq!(choose(&[], &view("a"), None), seat(1));
        assert_eq!(choose(&two, &view("a"), None), seat(1));
        assert_eq!(choose(&two, &view("b"), None), seat(2));
        assert_eq!(choose(&two, &view("c"), None), Choice::Ask);
        assert_eq!(choose(&two, &view("c"), Some(&[])), seat(3));
        assert_eq!(choose(&two[1..], &view("c"), Some(&[])), seat(1), "the lowest free one");
    }

    #[test]
    fn a_view_that_no_longer_pulls_leaves_its_seat_to_the_next() {
        let two = taken(&[view("a"), view("b")]);
        assert_eq!(choose(&two, &view("c"), Some(&[view("b")])), seat(2));
    }

    #[test]
    fn readers_that_acknowledge_share_the_first_seat() {
        let acknowledged = taken(&[Confirm::Explicit]);
        assert_eq!(choose(&acknowledged, &view("a"), None), seat(1));
        assert_eq!(choose(&taken(&[view("a"), view("b")]), &Confirm::Explicit, None), seat(1));
        assert_eq!(choose(&taken(&[view("a"), view("b")])[1..], &Confirm::Explicit, None), seat(1));
    }

    #[test]
    fn there_are_only_so_many_seats() {
        let views: Vec<Confirm> = (0..MAX_VIEWS_PER_PIPE).map(|n| view(&n.to_string())).collect();
        assert_eq!(choose(&taken(&views), &view("another"), Some(&[])), Choice::Full);
    }
}
