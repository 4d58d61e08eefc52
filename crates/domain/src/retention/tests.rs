use super::*;

const HOUR: i64 = 3_600_000;
/// The hour that the tests call 0.
const NOW: i64 = 1_795_255_200_000;

fn at(hour: i64) -> i64 {
    NOW + hour * HOUR
}

/// Checks as often as a running pipe does, from hour `from` to hour `to`.
fn looked(mut kept: Kept, hours: i64, from: i64, to: i64) -> Kept {
    let mut now = at(from);
    while now <= at(to) {
        kept = kept.then(hours * HOUR, now);
        now += RETENTION_LOOK_MS;
    }
    kept
}

#[test]
fn what_is_as_old_as_the_retention_may_be_gone() {
    let kept = Kept::new(24 * HOUR, at(0));
    assert!(kept.may_have_lost(at(-24), at(0)));
    assert!(!kept.may_have_lost(at(-24) + 1, at(0)));
    // Time passes, whether anyone checks or not.
    assert!(kept.may_have_lost(at(-23), at(1)));
}

#[test]
fn a_lower_retention_counts_from_when_it_is_seen() {
    let kept = Kept::new(48 * HOUR, at(0));
    assert!(!kept.may_have_lost(at(0), at(30)));
    assert!(kept.then(24 * HOUR, at(30)).may_have_lost(at(0), at(30)));
    assert!(!kept.then(24 * HOUR, at(20)).may_have_lost(at(0), at(20)));
}

#[test]
fn a_higher_retention_brings_nothing_back_and_loses_nothing() {
    let kept = Kept::new(24 * HOUR, at(0));
    // Raised in time: nothing that arrived at hour 0 or later is gone 30 hours later.
    let raised = looked(looked(kept, 24, 0, 1), 48, 1, 30);
    assert!(!raised.may_have_lost(at(0), at(30)));
    assert!(raised.may_have_lost(at(0), at(49)));
    // Raised too late: what was gone by then stays gone.
    let late = looked(looked(kept, 24, 0, 30), 48, 30, 31);
    assert!(late.may_have_lost(at(0), at(31)));
    assert!(!late.may_have_lost(at(8), at(31)));
    // Lowered and raised again, between two checks or not.
    let both = looked(looked(Kept::new(48 * HOUR, at(0)), 24, 1, 2), 48, 2, 3);
    assert!(both.may_have_lost(at(-23), at(3)) && !both.may_have_lost(at(-21), at(3)));
}

#[test]
fn nobody_looked_for_long() {
    // A pipe that was idle: the current retention counts.
    let rested = Kept::new(24 * HOUR, at(0)).then(48 * HOUR, at(30));
    assert!(!rested.may_have_lost(at(0), at(30)));
}
