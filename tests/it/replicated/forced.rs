//! A server wrote a batch and died with its bridge before the commit, and stays down: the bridge
//! next to another server takes over the shards and serves the same batch, and each record is there
//! once.

use super::{Cut, Fleet, Orphan, PIPE};

const RECORDS: u64 = 400;

/// Runs the case until everything is committed without the first server.
fn settled_by_the_other(cut: Cut, fetched: bool) -> (Fleet, Orphan) {
    let mut fleet = Fleet::start("");
    let orphan = fleet.orphan(&cut, true, fetched, RECORDS);
    fleet.wait_for_takeover(RECORDS);
    let served = format!("batch=\"{}\"", orphan.batch);
    assert!(fleet.bridges[1].log().contains(&served), "another batch was served\n{}", fleet.report());
    assert!(!fleet.server(0).is_running(), "the first server came back");
    (fleet, orphan)
}

impl Fleet {
    /// The second server has dropped the batch and has every record once, also once the first one
    /// is back.
    fn has_all_once(&self, orphan: &Orphan) {
        assert!(self.dropped(1) > orphan.dropped, "nothing was dropped\n{}", self.report());
        assert_eq!(self.counts(1), [Some(RECORDS); 3], "{}", self.report());
        let batch = format!("_batch = '{}'", orphan.batch);
        assert_eq!(self.rows(1, &batch), Some(orphan.rows), "{}", self.report());
        self.is_whole_again();
    }

    /// The dead ones come back: both servers have every record once.
    fn is_whole_again(&self) {
        self.server(1).query(&format!("SYSTEM START FETCHES {PIPE}")).expect("fetches");
        self.server(0).start_again().expect("the server comes back");
        self.bridges[0].start_again().expect("the bridge comes back");
        for server in 0..2 {
            let has_all = || self.rows(server, "1").is_some_and(|rows| rows >= RECORDS);
            self.wait_until("a replica with all records", has_all);
            let sync = self.server(server).query(&format!("SYSTEM SYNC REPLICA {PIPE}"));
            assert_eq!((sync, self.counts(server)), (Ok(String::new()), [Some(RECORDS); 3]), "{}", self.report());
        }
    }
}

#[test]
fn a_batch_whose_refresh_failed_is_dropped_by_the_replica_that_gets_it_again() {
    let (fleet, orphan) = settled_by_the_other(Cut::RefreshFails, true);
    fleet.has_all_once(&orphan);
}

#[test]
fn a_batch_whose_server_died_before_the_commit_is_dropped_by_the_replica_that_gets_it_again() {
    let (fleet, orphan) = settled_by_the_other(Cut::AnswerIsLost, true);
    fleet.has_all_once(&orphan);
}

/// Keeper knows the block, so it is dropped, although no live server has its part: it comes from
/// the dead one when that is back.
#[test]
fn a_batch_that_only_the_dead_server_had_is_there_when_that_server_is_back() {
    let (fleet, orphan) = settled_by_the_other(Cut::AnswerIsLost, false);
    assert_eq!(fleet.rows(1, "1"), Some(RECORDS - orphan.rows), "{}", fleet.report());
    fleet.is_whole_again();
}
