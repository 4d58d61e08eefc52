//! The bugs that only a directed test finds for certain.

use super::list::Mutant;

/// Bugs that need so many coincidences that random runs find them only by luck, each with the
/// directed test that shows it.
pub const RARE: &[(Mutant, &str)] = &[
    (
        Mutant {
            name: "a process that stood still takes the lease of its open batch again",
            breaks: "a-zombie-serves-nothing",
            edits: &[(
                "crates/bridge/src/pipe/balance.rs",
                "let missed = |l: &Lease| self.open",
                "let missed = |l: &Lease| l.shard_id.is_empty() && self.open",
            )],
        },
        "zombies::a_zombie_takes_nothing_of_its_open_batch_back",
    ),
    (
        Mutant {
            name: "a process that stood still leaves its rows as they are",
            breaks: "a-zombie-serves-nothing",
            edits: &[(
                "crates/bridge/src/pipe/balance.rs",
                "kept.collect::<Result<_, _>>()",
                "kept.take(0).collect::<Result<_, _>>()",
            )],
        },
        "zombies::a_take_that_was_decided_before_a_zombie_looked_again_fails",
    ),
    (
        Mutant {
            name: "a process that stood still before it sent its heartbeat does not notice",
            breaks: "a-zombie-serves-nothing",
            edits: &[(
                "crates/bridge/src/pipe/heartbeat.rs",
                "own.sent.is_some_and(|before| answered.saturating_duration_since(before) >= lapse)",
                "own.sent.is_some_and(|before| sent.max(before).saturating_duration_since(before) >= lapse && answered >= sent)",
            )],
        },
        "zombies::a_zombie_whose_heartbeat_waited_for_it_serves_nothing",
    ),
    (
        Mutant {
            name: "what was buffered before a position was moved is served",
            breaks: "offer-is-frozen",
            edits: &[(
                "crates/bridge/src/pipe/actor.rs",
                "            work.keep_up();\n            let until",
                "            let until",
            )],
        },
        "follow::what_was_buffered_before_a_position_was_moved_is_not_served",
    ),
    (
        Mutant {
            name: "a reader that began after a dropped batch finishes its shard",
            breaks: "parents-before-children",
            edits: &[(
                "crates/bridge/src/pipe/work.rs",
                "        self.keep_up();\n        let (mut ends",
                "        let (mut ends",
            )],
        },
        "follow::a_reader_that_began_after_a_dropped_batch_does_not_finish_its_shard",
    ),
    (
        Mutant {
            name: "rereading the rows clears the doubt about readers",
            breaks: "offer-is-frozen",
            edits: &[
                ("crates/bridge/src/pipe/leases.rs", "        self.readers_in_doubt\n", "        self.in_doubt\n"),
                (
                    "crates/bridge/src/pipe/work.rs",
                    "if self.followed != self.leases.changes() {",
                    "if self.pipe.is_empty() {",
                ),
            ],
        },
        "isolate::nothing_is_skipped_after_a_half_whose_answer_got_lost",
    ),
    (
        Mutant {
            name: "a view that left is waited for",
            breaks: "a-view-is-a-worker",
            edits: &[(
                "crates/bridge/src/pipe/members.rs",
                "Some(at) => watched - *at >= self.0.lease_duration,",
                "Some(at) => watched - *at >= 10_000 * self.0.lease_duration,",
            )],
        },
        "seats::leases_that_could_not_be_released_are_taken_by_others",
    ),
    (
        Mutant {
            name: "a moment's difference moves shards",
            breaks: "balance",
            edits: &[(
                "crates/bridge/src/pipe/sharing.rs",
                "since.elapsed() >= BALANCE_PATIENCE",
                "since.elapsed() < 2 * BALANCE_PATIENCE",
            )],
        },
        "seats::shards_move_only_between_views_that_stay_uneven",
    ),
    (
        Mutant {
            name: "a seat that was not seen yet is nobody's",
            breaks: "a-zombie-serves-nothing",
            edits: &[(
                "crates/bridge/src/pipe/members.rs",
                "seen.seats.entry(worker.into()).or_default().insert(name.as_ref().into(), watched);\n                false",
                "watched >= self.0.lease_duration",
            )],
        },
        "zombies::a_lease_at_a_seat_that_was_not_announced_is_not_taken_at_once",
    ),
];
