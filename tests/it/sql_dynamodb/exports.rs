//! Exports are loaded completely, and the newest write of an item counts, wherever it came from.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{answers, captured, change, delete, drop_pipes, equals, now, printed, put_event, refused, run, send};
use crate::common::seed;
use crate::dynamodb::export::{Changed, Export, put};
use crate::dynamodb::items::{self, Item, Key, KeySchema};
use crate::dynamodb::{ministack, put_items};
use crate::engines::on_each_engine;
use crate::world::sql;

on_each_engine!(
    full_and_incremental_exports_and_the_stream_make_the_table,
    a_write_in_the_millisecond_of_the_export_is_newer,
    what_is_not_there_or_not_right_fails_and_loads_nothing_silently,
    the_time_of_a_write_may_be_written_in_several_ways,
);

const SORTED: KeySchema = &[("owner", Key::S), ("at", Key::N)];
const SECOND: i64 = 1_000_000;

fn item(id: &str, note: &str) -> Item {
    [("id".to_owned(), AttributeValue::S(id.into())), ("note".to_owned(), AttributeValue::S(note.into()))].into()
}

fn full_and_incremental_exports_and_the_stream_make_the_table() {
    let mut rng = fastrand::Rng::with_seed(seed("exports"));
    let cases = [
        ("sqld_exported", "sqld-exported", true, &[("id", Key::S)] as KeySchema),
        ("sqld_unwrapped", "sqld-unwrapped", false, SORTED),
        ("sqld_Item", "sqld-item", true, &[("Item", Key::S)]),
        ("sqld_Item_unwrapped", "sqld-item-unwrapped", false, &[("Item", Key::B)]),
    ];
    for (name, bucket, wrapped, keys) in cases {
        let table = captured(name, keys);
        ministack().create_bucket(bucket).expect("a bucket");
        let began = now();
        let full: Vec<Item> = (0..90).map(|n| items::item(&mut rng, keys, n)).collect();
        let export =
            Export { table: &table, bucket, prefix: "some/pre-fix_1=x", id: "01693685827463-2d8752fd", files: 3 };
        send(name, [put_event(&table, &full[0], began)]);
        let (at, first, second) = (now() + SECOND, now() + 2 * SECOND, now() + 3 * SECOND);
        let mut urls = vec![export.full(&full, at, wrapped)];
        // Of every three items, one is written, one is deleted, and one stays; and there are new
        // ones.
        let mut rng_of_change = rng.fork();
        let mut changed = |from: i64, offset: usize, count: u64| -> Vec<Changed> {
            let of_old = full.iter().zip(0..).skip(offset).step_by(9).map(|(old, n)| Changed {
                micros: from + 1 + n as i64,
                old: Some(old.clone()),
                new: (n % 2 == 0).then(|| items::item(&mut rng_of_change, keys, n)),
            });
            let mut all: Vec<Changed> = of_old.collect();
            let new = (0..10).map(|n| Changed {
                micros: from + n as i64,
                old: None,
                new: Some(items::item(&mut rng_of_change, keys, count + n)),
            });
            all.extend(new);
            all
        };
        let (one, two) = (changed(at, 1, 1_000), changed(first, 4, 2_000));
        let next = |id, changes: &[Changed], from, to| {
            Export { id, files: 2, ..export.clone() }.incremental(changes, from, to)
        };
        urls.push(next("01693685934212-ac809da5", &one, at, first));
        urls.push(next("01693685999999-ac809da6", &two, first, second));
        // Changes in the stream: older ones than the export, which must lose, and newer ones, which
        // must win.
        let mut truth: std::collections::BTreeMap<u64, Item> = (0..).zip(full.clone()).collect();
        let keep = |truth: &mut std::collections::BTreeMap<u64, Item>, changes: &[Changed], offset: usize, new: u64| {
            let old = full.iter().zip(0..).skip(offset).step_by(9).map(|(_, n)| n);
            for (n, change) in old.chain(new..).zip(changes) {
                match &change.new {
                    Some(item) => drop(truth.insert(n, item.clone())),
                    None => drop(truth.remove(&n)),
                }
            }
        };
        keep(&mut truth, &one, 1, 1_000);
        keep(&mut truth, &two, 4, 2_000);
        let mut events = Vec::new();
        for n in (0..90).step_by(5) {
            let stale = items::item(&mut rng, keys, n);
            // The time of the export, less its uncertainty; and long before it.
            events.push(change(&table, None, (n % 2 == 0).then_some(&stale).or(Some(&full[n as usize])), at - 2));
            if n % 2 == 1 {
                events.push(change(&table, Some(&full[n as usize]), None, began + 1));
            }
        }
        for n in (0..90).step_by(7) {
            let micros = second + n as i64;
            let new = items::item(&mut rng, keys, n);
            if n % 3 == 0 {
                events.push(change(&table, Some(&new), None, micros));
                truth.remove(&n);
            } else {
                events.push(put_event(&table, &new, micros));
                truth.insert(n, new);
            }
        }
        send(name, events);
        put_items(name, truth.values());
        // In any order.
        urls.rotate_left(1);
        let flags: Vec<&str> = urls.iter().flat_map(|url| ["--export", url]).chain(["--apply"]).collect();
        let script = printed(name, &flags);
        assert_eq!(script.matches("\nINSERT INTO ").count(), 3, "{script}");
        equals(name, &format!("default.{name}"), truth.len());
        // Again, and again only the last one: nothing changes.
        let again = printed(name, &flags);
        assert!(again.contains("-- Left as they are: ") && again.contains("statements were run"), "{again}");
        printed(name, &["--export", &urls[1], "--apply"]);
        equals(name, &format!("default.{name}"), truth.len());
        assert_eq!(sql(&format!("SELECT count() FROM {name}_errors")), "0\n");
    }
    drop_pipes(&cases.map(|(name, ..)| name));
}

fn a_write_in_the_millisecond_of_the_export_is_newer() {
    let table = captured("sqld_tie", &[("id", Key::S)]);
    ministack().create_bucket("sqld-tie").expect("a bucket");
    send("sqld_tie", [put_event(&table, &item("before", "x"), now())]);
    let at = now() + SECOND;
    let (old, new) = (item("a", "exported"), item("a", "written"));
    let export = Export { table: &table, bucket: "sqld-tie", prefix: "", id: "01693685827463-2d8752fd", files: 1 };
    let url = export.full([&old, &item("before", "x")], at, true);
    put_items("sqld_tie", [&new, &item("before", "x")]);
    printed("sqld_tie", &["--export", &url, "--apply"]);
    send("sqld_tie", [put_event(&table, &new, at)]);
    equals("sqld_tie", "default.sqld_tie", 2);
    // Of two with the same version the later one counts: a delete and the item again, in one batch
    // or in two.
    send("sqld_tie", [change(&table, Some(&new), None, at + 1), put_event(&table, &old, at + 1)]);
    put_items("sqld_tie", [&old]);
    equals("sqld_tie", "default.sqld_tie", 2);
    delete(&table, &old);
    send("sqld_tie", [change(&table, Some(&old), None, at + 1)]);
    equals("sqld_tie", "default.sqld_tie", 1);
    sql("DROP TABLE sqld_tie_pipe");
}

fn what_is_not_there_or_not_right_fails_and_loads_nothing_silently() {
    let table = captured("sqld_broken", &[("id", Key::S)]);
    let bucket = "sqld-broken";
    ministack().create_bucket(bucket).expect("a bucket");
    send("sqld_broken", [put_event(&table, &item("before", "x"), now())]);
    let at = now() + SECOND;
    let export = |id| Export { table: &table, bucket, prefix: "p", id, files: 2 };
    let items = [item("a", "1"), item("b", "2")];
    let url = |id| export(id).full(&items, at, true);
    printed("sqld_broken", &["--apply"]);
    // A file named in the manifest is missing.
    let gone = url("01-gone");
    let manifest = |id: &str, files: &[&str]| {
        let lines: String = files
            .iter()
            .map(|file| format!("{{\"itemCount\":1,\"dataFileS3Key\":\"p/AWSDynamoDB/{id}/data/{file}\"}}\n"))
            .collect();
        put(bucket, &format!("p/AWSDynamoDB/{id}/manifest-files.json"), lines.as_bytes());
    };
    manifest("01-gone", &["000001gone.json.gz", "missing.json.gz"]);
    let said = refused(&run("sqld_broken", &["--export", &gone, "--apply"]));
    assert!(said.contains("404") && said.contains("missing.json.gz"), "{said}");
    // A line with something else.
    let other = url("02-other");
    put(bucket, "p/AWSDynamoDB/02-other/data/other.json", b"{\"Item\":{\"key\":{\"S\":\"x\"}}}\n");
    manifest("02-other", &["other.json"]);
    let said = refused(&run("sqld_broken", &["--export", &other, "--apply"]));
    let sentence =
        "a line of the export has no key attribute \"id\": is this an export of DynamoDB table \"sqld_broken\"?";
    assert!(said.contains(sentence), "{said}");
    let odd = url("03-odd");
    put(bucket, "p/AWSDynamoDB/03-odd/data/odd.json", b"{\"Item\":{\"id\":{\"S\":\"x\"},\"odd\":{\"X\":1}}}\n");
    manifest("03-odd", &["odd.json"]);
    let said = refused(&run("sqld_broken", &["--export", &odd, "--apply"]));
    assert!(said.contains("has an attribute without a DynamoDB type"), "{said}");
    let timeless = export("04-timeless").incremental(&[], at, at + SECOND);
    put(bucket, "p/AWSDynamoDB/data/timeless.json", b"{\"Metadata\":{},\"Keys\":{\"id\":{\"S\":\"x\"}}}\n");
    put(
        bucket,
        "p/AWSDynamoDB/04-timeless/manifest-files.json",
        b"{\"itemCount\":1,\"dataFileS3Key\":\"p/AWSDynamoDB/data/timeless.json\"}\n",
    );
    let said = refused(&run("sqld_broken", &["--export", &timeless, "--apply"]));
    assert!(said.contains("does not say when it was written"), "{said}");
    for (id, time) in [("05-seconds", at / 1_000_000), ("05-millis", at / 1_000), ("05-nanos", at * 1_000)] {
        let unit = export(id).incremental(&[], at, at + SECOND);
        let keys = "{\"id\":{\"S\":\"x\"}}";
        let line = format!(
            "{{\"Metadata\":{{\"WriteTimestampMicros\":{{\"N\":\"{time}\"}}}},\"Keys\":{keys},\"NewImage\":{keys}}}\n"
        );
        put(bucket, &format!("p/AWSDynamoDB/data/{id}.json"), line.as_bytes());
        let manifest = format!("{{\"itemCount\":1,\"dataFileS3Key\":\"p/AWSDynamoDB/data/{id}.json\"}}\n");
        put(bucket, &format!("p/AWSDynamoDB/{id}/manifest-files.json"), manifest.as_bytes());
        let said = refused(&run("sqld_broken", &["--export", &unit, "--apply"]));
        assert!(said.contains("has a WriteTimestampMicros outside 2012 to 2100"), "{said}");
    }
    // What was read before the failure may be there, and is correct.
    answers("SELECT countIf(id = 'before'), countIf(id IN ('x', '')) FROM sqld_broken", "1\t0\n");
    sql("DROP TABLE sqld_broken_pipe");
}

fn the_time_of_a_write_may_be_written_in_several_ways() {
    let table = captured("sqld_times", &[("id", Key::S)]);
    let bucket = "sqld-times";
    ministack().create_bucket(bucket).expect("a bucket");
    send("sqld_times", [put_event(&table, &item("before", "x"), now())]);
    printed("sqld_times", &["--apply"]);
    let at = now() + SECOND;
    let export = Export { table: &table, bucket, prefix: "p", id: "01-times", files: 1 };
    let url = export.incremental(&[], at, at + SECOND);
    let times = [format!("{{\"N\":\"{at}\"}}"), format!("\"{}\"", at + 1), format!("{}", at + 2)];
    let line = |(id, time): (usize, &String)| {
        let keys = format!("{{\"id\":{{\"S\":\"{id}\"}}}}");
        format!("{{\"Metadata\":{{\"WriteTimestampMicros\":{time}}},\"Keys\":{keys},\"NewImage\":{keys}}}\n")
    };
    let lines: String = times.iter().enumerate().map(line).collect();
    put(bucket, "p/AWSDynamoDB/data/times.json", lines.as_bytes());
    let manifest = b"{\"itemCount\":3,\"dataFileS3Key\":\"p/AWSDynamoDB/data/times.json\"}\n";
    put(bucket, "p/AWSDynamoDB/01-times/manifest-files.json", manifest);
    printed("sqld_times", &["--export", &url, "--apply"]);
    let expected = format!("0\t{at}\n1\t{}\n2\t{}\n", at + 1, at + 2);
    answers("SELECT id, version FROM sqld_times FINAL WHERE id != 'before' ORDER BY id", &expected);
    sql("DROP TABLE sqld_times_pipe");
}
