//! Who reads a shard when bridges join, leave, die or pause, and what happens to the open batch.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Fleet, LEASE, LEASE_FLAG};
use crate::common::bridge_binary;
use crate::engines::on_each_engine;
use crate::world::{Answer, get, post, wait_for, wait_until};

on_each_engine!(
    one_that_joins_gets_its_share_from_one_that_lives,
    one_that_leaves_is_followed_before_it_could_expire,
    one_that_is_killed_is_followed_when_its_lease_has_expired,
    one_that_stood_still_for_long_neither_serves_nor_commits,
    the_open_batch_of_one_that_was_killed_comes_first_and_byte_for_byte,
    a_second_process_with_the_same_worker_id_is_refused,
    a_position_can_be_moved_through_any_server_while_others_read,
    a_move_takes_an_open_batch_apart,
);

const SHARDS: i32 = 4;
const KEYS: u64 = 40;

impl Fleet {
    /// Writes the next `rounds` records of each key.
    fn put_rounds(&self, from: u64, rounds: u64) {
        let round = |n: u64| (0..KEYS).map(move |key| (format!("key-{key}"), n));
        self.put((from..from + rounds).flat_map(round));
    }

    /// Waits until all rounds so far are stored once and committed.
    fn wait_for_rounds(&self, rounds: u64) {
        wait_until(&format!("{rounds} rounds: {}", self.report()), || {
            self.rows().is_some_and(|rows| rows >= rounds * KEYS)
                && self.leases("offered_batch").iter().all(|row| row[0].is_empty())
        });
        assert_eq!(self.rows(), Some(rounds * KEYS), "{}", self.report());
        assert_eq!(self.sum(&format!("SELECT uniqExact(k, n) FROM {}_local", self.pipe)), Some(rounds * KEYS));
    }

    /// Waits until each of these workers owns this many open shards.
    fn wait_for_shares(&self, shares: &[usize]) {
        wait_until(&format!("the shares {shares:?}: {}", self.report()), || {
            shares.iter().enumerate().all(|(worker, share)| self.owned(worker).len() == *share)
        });
    }

    fn epochs(&self) -> Vec<u64> {
        self.leases("epoch").iter().map(|row| row[0].parse().expect("a number")).collect()
    }

    /// A pull with explicit acknowledgement. If the bridge answers 503, it is asked again.
    fn offered(&self, worker: usize) -> Answer {
        let pipe = self.pipe;
        let path = format!(
            "/v1/pipes/{pipe}/next?stream={pipe}&ack=explicit&format=JSONEachRow&linger_ms=200&wait_ms=500&poll_ms=20"
        );
        wait_for("an answer that is no 503", || {
            Some(get(&self.bridges[worker].bridge, &path)).filter(|answer| answer.status != 503)
        })
    }

    /// The first batch with rows.
    fn batch(&self, worker: usize) -> (Vec<u8>, Vec<Value>) {
        wait_for("a batch", || {
            let answer = self.offered(worker);
            let rows = answer.rows();
            (!rows.is_empty()).then_some((answer.body, rows))
        })
    }

    fn acknowledge(&self, worker: usize, row: &Value) -> Answer {
        let body = format!("{{\"batch\": {}}}", row["_batch"]);
        wait_for("an answer to the acknowledgement", || {
            let answer = post(&self.bridges[worker].bridge, &format!("/v1/pipes/{}/ack", self.pipe), &body);
            (answer.status != 503).then_some(answer)
        })
    }
}

fn one_that_joins_gets_its_share_from_one_that_lives() {
    let mut fleet = Fleet::start("take_join", 2, SHARDS);
    let first = fleet.add_bridge(0);
    fleet.create_view(first, "&linger_ms=50&poll_ms=50");
    fleet.put_rounds(0, 20);
    fleet.wait_for_shares(&[4]);
    // Its leases cannot expire, since it keeps sending heartbeats: it has to hand them over.
    let second = fleet.add_bridge(1);
    fleet.create_view(second, "&linger_ms=50&poll_ms=50");
    fleet.put_rounds(20, 20);
    fleet.wait_for_shares(&[2, 2]);
    fleet.put_rounds(40, 20);
    fleet.wait_for_rounds(60);
    // A worker that is not pulled has no share.
    fleet.add_bridge(1);
    fleet.put_rounds(60, 20);
    fleet.wait_for_rounds(80);
    assert_eq!((fleet.owned(0).len(), fleet.owned(1).len(), fleet.owned(2).len()), (2, 2, 0));
}

fn one_that_leaves_is_followed_before_it_could_expire() {
    let mut fleet = Fleet::start("take_leave", 2, SHARDS);
    let lease = Duration::from_secs(60);
    for server in 0..2 {
        let worker = fleet.add_bridge_with(server, ("--lease-duration", "60s"));
        fleet.create_view(worker, "&linger_ms=50&poll_ms=50");
    }
    fleet.put_rounds(0, 20);
    fleet.wait_for_shares(&[2, 2]);
    let asked = Instant::now();
    assert_eq!(fleet.bridges[0].bridge.stop(), Ok(0));
    fleet.put_rounds(20, 20);
    fleet.wait_for_shares(&[0, 4]);
    // Not a measurement: later than this it could have been expiry.
    assert!(asked.elapsed() < lease / 3 * 2, "followed after {:?}", asked.elapsed());
    fleet.wait_for_rounds(40);
}

fn one_that_is_killed_is_followed_when_its_lease_has_expired() {
    let mut fleet = Fleet::start("take_kill", 2, SHARDS);
    for server in 0..2 {
        let worker = fleet.add_bridge(server);
        fleet.create_view(worker, "&linger_ms=50&poll_ms=50");
    }
    fleet.put_rounds(0, 20);
    fleet.wait_for_shares(&[2, 2]);
    fleet.bridges[0].bridge.kill();
    let killed = Instant::now();
    fleet.put_rounds(20, 20);
    fleet.wait_for_shares(&[0, 4]);
    // Its last heartbeat may have been a third of the lease duration before its end.
    assert!(killed.elapsed() >= LEASE / 2, "followed after {:?}, while its lease held", killed.elapsed());
    fleet.wait_for_rounds(40);
    fleet.bridges[0].bridge.start_again().expect("the bridge comes back");
    fleet.put_rounds(40, 20);
    fleet.wait_for_shares(&[2, 2]);
    fleet.wait_for_rounds(60);
}

fn one_that_stood_still_for_long_neither_serves_nor_commits() {
    let mut fleet = Fleet::start("take_stop", 2, SHARDS);
    for server in 0..2 {
        let worker = fleet.add_bridge(server);
        fleet.create_view(worker, "&linger_ms=50&poll_ms=50");
    }
    fleet.put_rounds(0, 20);
    fleet.wait_for_shares(&[2, 2]);
    let (before, shards) = (fleet.epochs(), fleet.owned(0));
    fleet.bridges[0].bridge.sigstop();
    fleet.put_rounds(20, 20);
    fleet.wait_for_shares(&[0, 4]);
    fleet.wait_for_rounds(40);
    let rows = fleet.leases("shard_id, epoch");
    let higher = rows.iter().zip(&before).filter(|(row, before)| row[1].parse::<u64>().expect("a number") > **before);
    let taken: Vec<String> = higher.map(|(row, _)| row[0].clone()).collect();
    assert_eq!(taken, shards, "each shard that was followed has a new epoch");
    let committed = fleet.leases("sequence_number, committed_rows");
    fleet.bridges[0].bridge.sigcont();
    // What it has in memory is from before, and nothing new was written: whatever it does now must
    // change nothing.
    fleet.wait_for_shares(&[2, 2]);
    assert_eq!(fleet.leases("sequence_number, committed_rows"), committed);
    assert_eq!(fleet.rows(), Some(40 * KEYS));
    fleet.put_rounds(40, 20);
    fleet.wait_for_rounds(60);
}

fn the_open_batch_of_one_that_was_killed_comes_first_and_byte_for_byte() {
    let mut fleet = Fleet::start("take_batch", 2, SHARDS);
    for server in 0..2 {
        fleet.add_bridge(server);
    }
    fleet.put_rounds(0, 20);
    let (bytes, rows) = fleet.batch(0);
    fleet.bridges[0].bridge.kill();
    // Records that have to wait.
    fleet.put_rounds(20, 20);
    let (again, _) = fleet.batch(1);
    assert!(again == bytes, "{} bytes came again as {}", bytes.len(), again.len());
    let offered = fleet.leases("offered_through, sequence_number");
    assert!(offered.iter().all(|row| row[1] == "TRIM_HORIZON"), "{offered:?}");
    assert_eq!(fleet.acknowledge(1, &rows[0]).status, 200);
    let committed = fleet.leases("offered_through, sequence_number");
    for (before, after) in offered.iter().zip(&committed) {
        assert!(before[0] == after[1] || before[0].is_empty() && after[1] == "TRIM_HORIZON", "{before:?} {after:?}");
    }
    // And only then what was written later.
    let mut seen = rows;
    wait_until("the rest", || {
        let (_, rows) = fleet.batch(1);
        assert_eq!(fleet.acknowledge(1, &rows[0]).status, 200);
        seen.extend(rows);
        seen.len() as u64 >= 40 * KEYS
    });
    let mut distinct: Vec<String> = seen.iter().map(|row| format!("{}/{}", row["_key"], row["_raw_message"])).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!((seen.len() as u64, distinct.len() as u64), (40 * KEYS, 40 * KEYS));
}

fn a_second_process_with_the_same_worker_id_is_refused() {
    let mut fleet = Fleet::start("take_name", 2, SHARDS);
    let first = fleet.add_bridge(0);
    fleet.create_view(first, "&linger_ms=50&poll_ms=50");
    fleet.put_rounds(0, 20);
    fleet.wait_for_rounds(20);
    let flags = [LEASE_FLAG, ("--worker-id", "worker_0")];
    let second = fleet.cluster.start_bridge(bridge_binary(), 1, &flags).expect("it listens before it knows");
    wait_until("the end of the second", || !second.is_running());
    let log = second.log();
    let said = log.lines().find(|line| line.contains("worker id 'worker_0' is used"));
    let said = said.unwrap_or_else(|| panic!("no sentence that names the id:\n{log}"));
    assert!(said.contains("--worker-id"), "{said}");
    assert!(fleet.bridges[first].bridge.is_running());
    fleet.put_rounds(20, 20);
    fleet.wait_for_rounds(40);
    fleet.wait_for_shares(&[4]);
}

fn a_position_can_be_moved_through_any_server_while_others_read() {
    let mut fleet = Fleet::start("take_seek", 2, SHARDS);
    for server in 0..2 {
        let worker = fleet.add_bridge(server);
        fleet.create_view(worker, "&linger_ms=50&poll_ms=50");
    }
    fleet.put_rounds(0, 20);
    fleet.wait_for_shares(&[2, 2]);
    fleet.wait_for_rounds(20);
    let rows_of = |shard: &str| {
        fleet.sum(&format!("SELECT uniqExact(k, n) FROM take_seek_local WHERE _shard_id = '{shard}'")).expect("a count")
    };
    let committed = |shard: &str| {
        let rows = fleet.leases("shard_id, committed_rows, offered_batch");
        let row = rows.iter().find(|row| row[0] == shard).expect("the shard");
        row[1].parse::<u64>().ok().filter(|_| row[2].is_empty())
    };

    // Through the bridge that does not read the shard.
    let shard = fleet.owned(1)[0].clone();
    let rows = rows_of(&shard);
    let url = format!("{}/v1/pipes/take_seek/seek", fleet.bridges[0].bridge.url());
    let seek = format!(
        "INSERT INTO FUNCTION url('{url}', 'JSONEachRow', 'shard_id String, position String') VALUES ('{shard}', 'trim_horizon')"
    );
    fleet.cluster.servers[0].query(&seek).expect("a seek");
    wait_until("the shard read again", || committed(&shard) == Some(2 * rows));

    // And with SQL, through the server whose bridge does not read the shard.
    let shard = fleet.owned(0)[0].clone();
    let rows = rows_of(&shard);
    let update = format!(
        "ALTER TABLE kinesis.leases UPDATE sequence_number = 'TRIM_HORIZON', sub_sequence_number = 0 WHERE key = 'take_seek/{shard}'"
    );
    let before = committed(&shard).expect("nothing open");
    fleet.cluster.servers[1].query(&update).expect("an update");
    fleet.put_rounds(20, 5);
    let more = || rows_of(&shard);
    wait_until("the shard read again", || {
        committed(&shard).is_some_and(|all| all > before + rows && all == before + more())
    });
    // Nothing is missing, and each record is in its place.
    assert_eq!(fleet.sum("SELECT uniqExact(k, n) FROM take_seek_local"), Some(25 * KEYS));
}

fn a_move_takes_an_open_batch_apart() {
    let mut fleet = Fleet::start("take_open", 2, SHARDS);
    for server in 0..2 {
        fleet.add_bridge(server);
    }
    fleet.put_rounds(0, 20);
    let (_, rows) = fleet.batch(0);
    let shard = rows[0]["_shard_id"].as_str().expect("a shard").to_owned();
    let position = |shard: &str| {
        let rows = fleet.leases("shard_id, sequence_number");
        rows.into_iter().find(|row| row[0] == shard).map(|row| row[1].clone()).expect("the shard")
    };
    let first_of_shard = |rows: &[Value]| {
        let first = rows.iter().find(|row| row["_shard_id"] == *shard);
        first.map(|row| row["_sequence_number"].clone())
    };
    // Through the other bridge: the whole batch is dropped. Its acknowledgement, which the bridge
    // that served it may still accept, moves nothing.
    let url = format!("{}/v1/pipes/take_open/seek", fleet.bridges[1].bridge.url());
    let seek = format!(
        "INSERT INTO FUNCTION url('{url}', 'JSONEachRow', 'shard_id String, position String') VALUES ('{shard}', 'trim_horizon')"
    );
    fleet.cluster.servers[1].query(&seek).expect("a seek");
    assert!(fleet.leases("offered_batch").iter().all(|row| row[0].is_empty()));
    fleet.acknowledge(0, &rows[0]);
    assert!(fleet.leases("sequence_number").iter().all(|row| row[0] == "TRIM_HORIZON"), "{}", fleet.report());
    let (_, again) = fleet.batch(0);
    assert_eq!(first_of_shard(&again), first_of_shard(&rows));
    assert_eq!(fleet.acknowledge(0, &again[0]).status, 200);

    // With SQL, through the other server: the acknowledgement commits the other shards, and leaves
    // this one where the operator moved it.
    fleet.put_rounds(20, 20);
    let (_, open) = fleet.batch(0);
    let others: Vec<&str> = open.iter().filter_map(|row| row["_shard_id"].as_str()).filter(|id| *id != shard).collect();
    let before: Vec<String> = others.iter().map(|id| position(id)).collect();
    let update = format!(
        "ALTER TABLE kinesis.leases UPDATE sequence_number = 'TRIM_HORIZON', sub_sequence_number = 0 WHERE key = 'take_open/{shard}'"
    );
    fleet.cluster.servers[1].query(&update).expect("an update");
    assert_eq!(fleet.acknowledge(0, &open[0]).status, 200);
    assert_eq!(position(&shard), "TRIM_HORIZON");
    assert!(others.iter().zip(&before).all(|(id, before)| position(id) != *before), "{}", fleet.report());
    let (_, rows) = fleet.batch(0);
    assert_eq!(first_of_shard(&rows), first_of_shard(&again));
}
