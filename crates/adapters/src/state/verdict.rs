//! What the rows reveal about a write that returned an error, or whose OK may mean that no row was
//! matched.
//!
//! A write is one transaction, so one row can speak for all: a row as written proves that the write
//! happened; a row as before proves that it did not.

use std::collections::HashMap;

use super::columns::LeaseRow;

/// The outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rows are, or were, as written.
    Written,
    /// The rows are as before.
    Untouched,
    /// Another write took the place of this one; this one did not happen.
    Lost(String),
    /// The rows have changed since: the outcome can no longer be determined.
    Unclear(String),
}

/// Decides from the rows as they are `now`, by key. `written` should be there, each at its version;
/// `acknowledged` means that the server answered OK.
pub fn verdict(acknowledged: bool, written: &[(LeaseRow, i32)], now: &HashMap<String, (LeaseRow, i32)>) -> Verdict {
    let (mut done, mut untouched) = (false, false);
    let (mut lost, mut later, mut gone) = (None, None, None);
    for (row, version) in written {
        let key = &row.key;
        match now.get(key) {
            Some((is, at)) if at == version && is == row => done = true,
            Some((_, at)) if at == version => {
                lost = Some(format!("the lease '{key}' was changed by another bridge or by hand"))
            }
            Some((_, at)) if *at == version - 1 => untouched = true,
            Some((_, at)) => later = Some(format!("the lease '{key}' is now at version {at}")),
            None if *version == 0 => untouched = true,
            None => gone = Some(format!("the lease '{key}' was deleted by another bridge or by hand")),
        }
    }
    if let (true, Some(gone)) = (acknowledged, &gone) {
        // An update that matches no row is acknowledged as well.
        return Verdict::Lost(gone.clone());
    }
    if done || acknowledged && !untouched && lost.is_none() {
        return Verdict::Written;
    }
    match (lost, untouched, later.or(gone)) {
        (Some(other), _, _) | (None, true, Some(other)) => Verdict::Lost(other),
        (None, true, None) => Verdict::Untouched,
        (None, false, Some(other)) => Verdict::Unclear(other),
        (None, false, None) => Verdict::Written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::lease::Lease;
    use domain::sequence::Checkpoint;

    fn row(shard: &str, owner: &str) -> LeaseRow {
        let lease = Lease::new(&"orders".into(), &"orders".into(), &shard.into(), vec![], Checkpoint::TrimHorizon, 0);
        LeaseRow::from(&lease.take(&owner.into(), 0))
    }

    fn judge(acknowledged: bool, written: &[(&str, i32)], now: &[(&str, &str, i32)]) -> Verdict {
        let written: Vec<_> = written.iter().map(|(shard, version)| (row(shard, "me"), *version)).collect();
        let now = now.iter().map(|(shard, owner, version)| {
            let row = row(shard, owner);
            (row.key.clone(), (row, *version))
        });
        verdict(acknowledged, &written, &now.collect())
    }

    #[test]
    fn an_error_is_not_a_defeat() {
        assert_eq!(judge(false, &[("a", 3), ("b", 1)], &[("a", "me", 3), ("b", "me", 1)]), Verdict::Written);
        assert_eq!(judge(false, &[("a", 0)], &[("a", "me", 0)]), Verdict::Written);
        // One row as written proves the transaction, whatever happened to the others.
        assert_eq!(judge(false, &[("a", 3), ("b", 1)], &[("a", "me", 3), ("b", "you", 2)]), Verdict::Written);
        assert_eq!(judge(false, &[("a", 3), ("b", 1)], &[("a", "me", 3)]), Verdict::Written);
    }

    #[test]
    fn rows_as_before_prove_that_nothing_was_written() {
        assert_eq!(judge(false, &[("a", 3), ("b", 1)], &[("a", "you", 2), ("b", "me", 0)]), Verdict::Untouched);
        assert_eq!(judge(false, &[("a", 0), ("b", 0)], &[]), Verdict::Untouched);
        assert!(matches!(judge(false, &[("a", 3), ("b", 1)], &[("a", "me", 2), ("b", "you", 5)]), Verdict::Lost(_)));
        assert!(matches!(judge(false, &[("a", 3), ("b", 1)], &[("a", "me", 2)]), Verdict::Lost(_)));
        assert!(matches!(judge(false, &[("a", 0), ("b", 0)], &[("a", "you", 0)]), Verdict::Lost(_)));
        assert!(matches!(judge(false, &[("a", 0), ("b", 0)], &[("a", "you", 1)]), Verdict::Lost(_)));
    }

    #[test]
    fn anothers_row_in_our_place_is_a_defeat() {
        assert!(matches!(judge(false, &[("a", 3)], &[("a", "you", 3)]), Verdict::Lost(_)));
        assert!(matches!(judge(true, &[("a", 3)], &[("a", "you", 3)]), Verdict::Lost(_)));
    }

    #[test]
    fn rows_that_went_on_tell_nothing_after_an_error() {
        assert!(matches!(judge(false, &[("a", 3)], &[("a", "me", 4)]), Verdict::Unclear(_)));
        assert!(matches!(judge(false, &[("a", 3)], &[]), Verdict::Unclear(_)));
        assert_eq!(judge(true, &[("a", 3)], &[("a", "you", 4)]), Verdict::Written);
    }

    #[test]
    fn an_ok_that_matched_no_row_is_a_defeat() {
        assert!(matches!(judge(true, &[("a", 3)], &[]), Verdict::Lost(_)));
        assert!(matches!(judge(true, &[("a", 3), ("b", 3)], &[("a", "me", 3)]), Verdict::Lost(_)));
        assert_eq!(judge(true, &[("a", 3)], &[("a", "me", 2)]), Verdict::Untouched);
    }
}
