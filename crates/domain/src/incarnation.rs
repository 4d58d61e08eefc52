//! Which process owns a worker's row.

use std::fmt;

/// Successive processes with the same worker id, in order: the latest one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// How many processes had the id before this one.
    generation: u64,
    /// Random, plus where the process runs; empty once it has announced its end.
    process: String,
}

impl Incarnation {
    /// The incarnation after the one in the row; `None` means the first. `name` is random. `place`
    /// is equal for processes that cannot listen on the same address at the same time; empty if
    /// unknown.
    pub fn after(row: Option<&str>, name: &str, place: &str) -> Incarnation {
        let generation = row.map_or(0, |text| Incarnation::parse(text).generation.saturating_add(1));
        Incarnation { generation, process: format!("{name}@{place}") }
    }

    /// Where it runs; empty if unknown.
    pub fn place(&self) -> &str {
        self.process.split_once('@').map_or("", |(_, place)| place)
    }

    /// Parses the column. Anything other than `<number>-<process>` is a process of generation 0.
    pub fn parse(text: &str) -> Incarnation {
        let parts = text.split_once('-').and_then(|(number, process)| Some((number.parse().ok()?, process)));
        let (generation, process) = parts.unwrap_or((0, text));
        Incarnation { generation, process: process.into() }
    }

    /// The row's value once this process has ended.
    pub fn end(&self) -> Incarnation {
        Incarnation { generation: self.generation, process: String::new() }
    }

    /// Whether the process has announced its end.
    pub fn ended(&self) -> bool {
        self.process.is_empty()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_one_counts() {
        let first = Incarnation::after(None, "zz", "");
        let second = Incarnation::after(Some(&first.to_string()), "aa", "here");
        assert!(first < second, "{first} {second}");
        assert_eq!(Incarnation::parse(&second.to_string()), second);
        assert!(!second.ended() && second.end().ended());
        assert_eq!(Incarnation::parse(&second.end().to_string()), second.end());
        // Two that started at the same time are ordered, too.
        assert_ne!(Incarnation::after(None, "a", ""), Incarnation::after(None, "b", ""));
        assert_eq!((first.place(), second.place(), second.end().place()), ("", "here", ""));
        assert_eq!(Incarnation::parse("something else").generation, 0);
    }
}
