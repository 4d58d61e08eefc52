//! Follows an item that was not equal: it is rechecked until it is equal or time is up. Time is
//! counted from an arbitrary fixed point.

use std::time::Duration;

use super::value::{Item, says};
use domain::limits::{VERIFY_PAUSE_LONGEST, VERIFY_ROUND_SHARE, VERIFY_SETTLED_SHARE};

/// What the checks of one item found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// DynamoDB's content in the latest check, and since when every check found exactly that.
    same: Option<(u64, Duration)>,
    newest: Duration,
    changed: bool,
    /// DynamoDB's content in the latest check, and an upper bound on when it was read, in
    /// microseconds since 1970.
    read: Option<(u64, i64)>,
}

/// The verdict on an item that was still not equal at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// DynamoDB's content did not change for long enough, and ClickHouse has something else.
    Differs,
    /// It was changing in DynamoDB.
    Changing,
    /// It was not checked for long enough before time was up.
    NotReached,
}

impl History {
    /// A check that found it not equal; `content` is the fingerprint of DynamoDB's item as of
    /// `read` (microseconds since 1970).
    pub fn unequal(&mut self, now: Duration, content: u64, read: i64) {
        match self.same {
            Some((before, _)) if before == content => {}
            before => {
                self.changed |= before.is_some();
                self.same = Some((content, now));
            }
        }
        self.newest = now;
        self.read = Some((content, read));
    }

    /// Whether ClickHouse received what the previous check read, and has moved past it: then it was
    /// equal in between, and the difference now is a later change. `versions` are the key's
    /// versions not merged away yet, each with its fingerprint.
    pub fn was_brought(&self, versions: &[(i64, u64)]) -> bool {
        self.read.is_some_and(|(content, read)| {
            let newer = versions.iter().any(|(version, _)| *version > read);
            newer && versions.iter().any(|(version, print)| *version <= read && *print == content)
        })
    }

    /// The verdict when time is up, after `timeout` in all.
    pub fn verdict(&self, timeout: Duration) -> Verdict {
        match self.same {
            Some((_, since)) if self.newest.saturating_sub(since) >= timeout / VERIFY_SETTLED_SHARE => Verdict::Differs,
            _ if self.changed => Verdict::Changing,
            _ => Verdict::NotReached,
        }
    }
}

/// When a round that starts now must end, so that others can follow. Whatever it does not reach is
/// left to them.
pub fn round_until(now: Duration, deadline: Duration) -> Duration {
    now + deadline.saturating_sub(now) / VERIFY_ROUND_SHARE
}

/// The pause before the next round, and the one after that; `None` if this was the last round. The
/// last one is at the deadline.
pub fn pause(now: Duration, deadline: Duration, pause: Duration) -> Option<(Duration, Duration)> {
    let left = deadline.checked_sub(now).filter(|left| !left.is_zero())?;
    Some((pause.min(left), (pause * 2).min(VERIFY_PAUSE_LONGEST)))
}

/// A row of a key, among those not merged away yet: its version in microseconds since 1970, and its
/// item unless deleted.
pub type Version<'r> = (i64, Option<&'r Item>);

/// Whether ClickHouse has what DynamoDB had when it was read, no later than `read` (microseconds
/// since 1970). `last` is the row that counts. A row for a change after that read proves that the
/// pipe has moved past it; then an older version may be the one that was read.
pub fn brought(ours: Option<&Item>, last: Option<&Item>, versions: &[Version<'_>], read: i64) -> bool {
    let same = |theirs: Option<&Item>| match (ours, theirs) {
        (None, None) => true,
        (Some(ours), Some(theirs)) => says(ours, theirs),
        _ => false,
    };
    let newer = versions.iter().any(|(version, _)| *version > read);
    same(last) || newer && versions.iter().any(|(version, item)| *version <= read && same(*item))
}

#[cfg(test)]
mod tests {
    use super::super::value::Value;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn verdict(looks: &[(u64, u64)]) -> Verdict {
        let mut history = History::default();
        for (second, content) in looks {
            history.unequal(Duration::from_secs(*second), *content, 0);
        }
        history.verdict(MINUTE)
    }

    #[test]
    fn only_what_stands_still_differs() {
        assert_eq!(verdict(&[(0, 1), (1, 1), (60, 1)]), Verdict::Differs);
        assert_eq!(verdict(&[(0, 1), (20, 2), (41, 2)]), Verdict::Differs);
        assert_eq!(verdict(&[(0, 1), (30, 2), (59, 3)]), Verdict::Changing);
        assert_eq!(verdict(&[(0, 1), (1, 2), (45, 2), (46, 1), (60, 1)]), Verdict::Changing);
        // There and back again is not a visible change.
        assert_eq!(verdict(&[(0, 1), (30, 1), (60, 1)]), Verdict::Differs);
        assert_eq!(verdict(&[(59, 1), (60, 1)]), Verdict::NotReached);
        assert_eq!(verdict(&[]), Verdict::NotReached);
    }

    #[test]
    fn what_the_look_before_read_was_brought() {
        let mut history = History::default();
        assert!(!history.was_brought(&[(1, 7), (11, 8)]));
        history.unequal(Duration::ZERO, 7, 10);
        assert!(history.was_brought(&[(1, 7), (11, 8)]));
        assert!(!history.was_brought(&[(1, 7), (9, 8)]), "nothing after the read: a change back to 7 may be lost");
        assert!(!history.was_brought(&[(1, 6), (11, 8)]), "not 7");
        assert!(!history.was_brought(&[(11, 7), (12, 8)]), "7 again, later");
        history.unequal(Duration::ZERO, 9, 20);
        assert!(!history.was_brought(&[(1, 7), (21, 8)]), "the look before found 9");
    }

    #[test]
    fn rounds_get_shorter_and_the_last_is_at_the_deadline() {
        let (mut now, mut next, mut rounds) = (Duration::ZERO, Duration::from_secs(1), Vec::new());
        loop {
            rounds.push(now.as_secs());
            let Some((wait, after)) = pause(now, MINUTE, next) else { break };
            (now, next) = (now + wait, after);
        }
        assert_eq!(rounds, [0, 1, 3, 7, 15, 25, 35, 45, 55, 60]);
        assert_eq!(round_until(Duration::ZERO, MINUTE), MINUTE / 2);
        assert_eq!(round_until(MINUTE, MINUTE), MINUTE);
    }

    #[test]
    fn a_version_that_was_read_and_then_replaced_was_brought() {
        let item = |text: &str| -> Item { [("a".to_owned(), Value::Text(text.into()))].into() };
        let (x, y, z) = (item("x"), item("y"), item("z"));
        assert!(brought(Some(&x), Some(&x), &[], 10));
        assert!(brought(None, None, &[(5, None)], 10));
        assert!(!brought(Some(&x), None, &[(5, None)], 10));
        // x was read, z came after the read.
        assert!(brought(Some(&x), Some(&z), &[(5, Some(&x)), (11, Some(&z))], 10));
        assert!(brought(None, Some(&z), &[(5, None), (11, Some(&z))], 10));
        // A change back to x may have been lost: nothing is newer than the read.
        assert!(!brought(Some(&x), Some(&y), &[(5, Some(&x)), (9, Some(&y))], 10));
        // x is nowhere.
        assert!(!brought(Some(&x), Some(&z), &[(5, Some(&y)), (11, Some(&z))], 10));
        assert!(!brought(None, Some(&z), &[(11, Some(&z))], 10));
    }
}
