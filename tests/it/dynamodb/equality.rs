//! The proof: a table is written to continuously and exported meanwhile, and copied while the
//! bridge is killed and the stream is split and merged; in the end the copy equals the table.

use fastrand::Rng;

use super::export::Export;
use super::items::{self, Item, Key};
use super::workload::{Plan, Workload};
use super::{compare, copy, create_table, enable_streaming, ministack, put_items, scan};
use crate::common::seed;
use crate::engines::{engine, on, on_each_engine};
use crate::records::reshard::{merge, shard_id, split};
use crate::world::{create_stream, sql, wait_until};

on_each_engine!(a_copy_is_equal_after_an_export_kills_and_reshards,);

const WRITES: u64 = 50_000;
const KILLS: u64 = 6;
/// Items that are never written to again.
const OLD: u64 = 1_000;

fn a_copy_is_equal_after_an_export_kills_and_reshards() {
    let name = "equality";
    let table = create_table(name, &[("owner", Key::S), ("at", Key::N)]);
    let plan = Plan { seed: seed(name), tasks: 16, items: 250 };
    // From before the stream: only the export has them.
    let mut rng = Rng::with_seed(plan.seed);
    let first = plan.tasks * plan.items;
    let old: Vec<Item> = (first..first + OLD).map(|number| items::item(&mut rng, table.keys, number)).collect();
    put_items(name, &old);
    create_stream(name, 2);
    enable_streaming(name, name, true);
    ministack().create_bucket(name).expect("a bucket");
    let bridge = copy::bridge(name);
    let workload = Workload::start(&table, name, &plan);
    let reached = |writes: u64| wait_until(&format!("{writes} writes"), || workload.writes() >= writes);

    reached(WRITES / 5);
    let (time, items) = workload.at_rest(|time| (time, scan(name)));
    // Between the export and the pipe.
    reached(WRITES / 4);
    let export = Export { table: &table, bucket: name, prefix: "exports", id: "01700000000000-00000001", files: 5 };
    let url = export.full(&items, time, true);
    let target = "default.equality";
    copy::apply(&bridge, name, name, target, &["--export", &url]);
    let applied = workload.writes();
    // It begins in the midst of changes, and ends once it has seen every item equal: after the last
    // change, at the latest.
    let verified = std::thread::spawn({
        let engine = engine();
        move || on(engine, || copy::verify(name, target, "280s"))
    });
    for kill in 0..KILLS {
        reached(applied + (WRITES - applied.min(WRITES)) * kill / KILLS);
        bridge.restart().expect("the bridge comes back");
        match kill {
            1 => split(name, &shard_id(0)),
            3 => merge(name, &shard_id(3), &shard_id(1)),
            _ => {}
        }
    }
    reached(WRITES);
    let (writes, events) = workload.stop();
    println!("{writes} writes, {events} events, {applied} writes before the pipe, {} items exported", items.len());
    let (equal, said) = verified.join().expect("the end of the first look");
    assert!(equal, "{said}");
    println!("while changes flow: {said}");
    copy::assert_equal(name, target);
    copy::end(&bridge, &[target]);
    let exported = sql(&format!("SELECT count() FROM {target} FINAL WHERE version = {}", time - 1));
    println!("{} rows are still those of the export", exported.trim());
    assert!(exported.trim().parse::<u64>().is_ok_and(|rows| rows >= OLD), "{exported}");

    // Both find what is not equal.
    let plant = |n: u32, change: &str| {
        sql(&format!(
            "INSERT INTO {target} SELECT * REPLACE({change}, version + 1 AS version) FROM \
             (SELECT * FROM {target} FINAL ORDER BY owner, at LIMIT 1 OFFSET {n})"
        ));
    };
    plant(3, "mapConcat(rest, map('planted', '1')) AS rest");
    plant(5, "1 AS is_deleted");
    plant(7, "'nobody' AS owner");
    let (equal, said) = copy::verify(name, target, "5s");
    assert!(!equal, "{said}");
    for found in ["missing in ClickHouse: 1\n", "only in ClickHouse: 1\n", "different: 1\n", "nobody", "planted"] {
        assert!(said.contains(found), "no word of {found}: {said}");
    }
    let (equal, said) = compare(name, target);
    assert!(!equal);
    assert!(said.contains(" 1 missing, 1 extra, 1 different, 0 twice"), "{said}");
}
