//! The deduplication window passed before the batch was repeated: its records are there twice, as
//! documented.

use super::{Cut, Fleet, Orphan, PIPE};

const RECORDS: u64 = 400;
/// Keeper is searched each second for blocks that are too many or too old.
const CLEANING: &str = "cleanup_delay_period = 1, max_cleanup_delay_period = 1, \
                        cleanup_delay_period_random_add = 0, cleanup_thread_preferred_points_per_iteration = 0";

impl Fleet {
    /// The blocks in the table's window.
    fn window(&self) -> Vec<String> {
        let path = format!("SELECT concat(zookeeper_path, '/blocks') FROM system.replicas WHERE table = '{PIPE}'");
        let blocks = self.server(1).query(&format!("SELECT name FROM system.zookeeper WHERE path = ({path})"));
        blocks.expect("the window").lines().map(str::to_owned).collect()
    }

    /// Another writer fills the table until the window has none of these blocks; returns how many
    /// rows it wrote.
    fn write_until_forgotten(&self, blocks: &[String]) -> u64 {
        assert!(!blocks.is_empty(), "the window holds nothing");
        let mut others = 0;
        self.wait_until("the end of the window", || {
            let insert = format!("INSERT INTO {PIPE} VALUES ('other', {others}, '', 'other {others}', '')");
            self.server(1).query(&insert).expect("a block");
            others += 1;
            self.window().iter().all(|block| !blocks.contains(block))
        });
        others
    }

    /// The second server gets the batch again, and its records are there twice.
    fn has_it_twice(&self, orphan: &Orphan, others: u64) {
        self.create_view(1);
        self.wait_for_takeover(RECORDS);
        let (rows, records) = (RECORDS + orphan.rows + others, RECORDS + others);
        assert_eq!(self.counts(1), [Some(rows), Some(records), Some(records)], "{}", self.report());
        assert_eq!(self.rows(1, &format!("_batch = '{}'", orphan.batch)), Some(2 * orphan.rows), "{}", self.report());
    }
}

/// A block's age is relative to the newest block of the table, so there must be writes.
#[test]
fn a_batch_that_comes_again_after_the_windows_time_is_there_twice() {
    let mut fleet = Fleet::start(&format!("SETTINGS replicated_deduplication_window_seconds = 1, {CLEANING}"));
    let orphan = fleet.orphan(&Cut::AnswerIsLost, false, true, RECORDS);
    let others = fleet.write_until_forgotten(&fleet.window());
    fleet.has_it_twice(&orphan, others);
}

#[test]
fn a_batch_that_comes_again_after_as_many_blocks_as_the_window_holds_is_there_twice() {
    let mut fleet = Fleet::start(&format!("SETTINGS replicated_deduplication_window = 2, {CLEANING}"));
    let orphan = fleet.orphan(&Cut::AnswerIsLost, false, true, RECORDS);
    let others = fleet.write_until_forgotten(&fleet.window());
    fleet.has_it_twice(&orphan, others);
}
