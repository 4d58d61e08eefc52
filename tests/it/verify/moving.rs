//! Changes in flight are not differences.

use std::collections::VecDeque;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue::{N, S};

use super::{command, equal, layout, unequal};
use crate::dynamodb::items::{Item, Key, KeySchema};
use crate::dynamodb::{create_table, put_items};
use crate::world::{sql, wait_until};

const KEYS: KeySchema = &[("id", Key::S)];

fn item(id: &str, n: u64) -> Item {
    [("id".to_owned(), S(id.into())), ("age".to_owned(), N(n.to_string()))].into()
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_micros()).expect("not so soon")
}

fn create(name: &str) {
    create_table(name, KEYS);
    layout::create(name, KEYS);
    // Versions stay until they are merged.
    sql(&format!("SYSTEM STOP MERGES {name}"));
}

fn start(name: &str, timeout: &str) -> Child {
    let mut command = command(&[], name, &["--rcu", "100000", "--timeout", timeout]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a start")
}

/// Waits until it has queried ClickHouse this often for items by their keys.
fn wait_for_looks(name: &str, looks: usize) {
    wait_until("looks at the items that differ", || {
        sql("SYSTEM FLUSH LOGS query_log");
        let asked = format!(
            "SELECT count() FROM system.query_log WHERE type = 'QueryFinish' AND query LIKE '%FROM `default`.`{name}` FINAL WHERE (`id`) IN%' \
             AND query NOT LIKE '%query_log%'"
        );
        sql(&asked).trim().parse::<usize>().expect("a count") >= looks
    });
}

#[test]
fn what_arrives_late_is_equal() {
    let name = "verify_late";
    create(name);
    let old = item("changed", 1);
    put_items(name, &[item("there", 1), item("changed", 2), item("new", 3)]);
    layout::insert(name, &[layout::row(&item("there", 1), 1), layout::row(&old, 1), layout::row(&item("gone", 1), 1)]);
    let verify = start(name, "80s");
    wait_for_looks(name, 2);
    layout::insert(name, &[layout::row(&item("changed", 2), 2)]);
    wait_for_looks(name, 3);
    layout::insert(name, &[layout::row(&item("new", 3), 2)]);
    layout::delete(name, &[("id".to_owned(), S("gone".into()))].into(), 2);
    let said = equal(&verify.wait_with_output().expect("an end"));
    assert!(said.starts_with("3 items in DynamoDB table 'verify_late', 3 in "), "{said}");
    assert!(said.contains("\n4 items compared, 3 of them rechecked in "), "{said}");
}

/// How many changes ClickHouse lags: far more than happen between a read in DynamoDB and one in
/// ClickHouse.
const BEHIND: usize = 30;

/// ClickHouse never has what DynamoDB has. Its older versions show that what was read before has
/// arrived.
#[test]
fn what_changes_all_the_time_is_equal() {
    let name = "verify_hot";
    create(name);
    put_items(name, &[item("hot", 0)]);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut on_their_way = VecDeque::new();
            for n in 1.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let item = item("hot", n);
                put_items(name, std::slice::from_ref(&item));
                on_their_way.push_back(layout::row(&item, now()));
                if on_their_way.len() > BEHIND {
                    layout::insert(name, on_their_way.pop_front().as_slice());
                }
            }
        });
        let output = start(name, "60s").wait_with_output().expect("an end");
        ended.store(true, Ordering::Relaxed);
        equal(&output);
    });
}

#[test]
fn what_changes_in_dynamodb_only_is_not_proved_to_be_equal() {
    let name = "verify_undecided";
    create(name);
    put_items(name, &[item("hot", 0), item("still", 0)]);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                put_items(name, &[item("hot", n)]);
            }
        });
        let output = start(name, "6s").wait_with_output().expect("an end");
        ended.store(true, Ordering::Relaxed);
        assert_eq!(
            unequal(&output),
            "missing in ClickHouse: 1\n  {\"id\":\"still\"}\nundecided: 1: changed in DynamoDB between all checks, so they are not proved equal\n  {\"id\":\"hot\"} (missing in ClickHouse)\n`default`.`verify_undecided` is empty\n"
        );
    });
}
