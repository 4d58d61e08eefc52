//! Tests of what the other tests take for granted.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use stack::MiniStack;

use super::events::marshalled;
use super::export::{Changed, Export};
use super::items::{self, Item, Key, KeySchema};
use super::workload::{Plan, Workload};
use super::{client, create_table, delete_table, enable_streaming, ministack, put_items, scan, stream_arn};
use crate::common::seed;
use crate::world::{block_on, bridge, create_stream, get, sql, wait_until};

const SCHEMAS: [(&str, KeySchema); 4] = [
    ("kit_s", &[("id", Key::S)]),
    ("kit_n", &[("id", Key::N)]),
    ("kit_b", &[("id", Key::B)]),
    ("kit_sorted", &[("owner", Key::S), ("at", Key::N)]),
];

/// One text per item, however its numbers are written.
fn sorted<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<String> {
    let normal =
        |item: &Item| marshalled(&item.iter().map(|(name, value)| (name.clone(), items::normal(value))).collect());
    let mut texts: Vec<String> = items.into_iter().map(normal).collect();
    texts.sort();
    texts
}

#[test]
fn random_items_come_back_from_a_table_as_they_were() {
    let mut rng = fastrand::Rng::with_seed(seed("kit"));
    for (name, keys) in SCHEMAS {
        create_table(name, keys);
        let items: Vec<Item> = (0..200).map(|n| items::item(&mut rng, keys, n)).collect();
        put_items(name, &items);
        let (scanned, written) = (sorted(&scan(name)), sorted(&items));
        assert_eq!(scanned.len(), written.len(), "{name}");
        for (scanned, written) in scanned.iter().zip(&written) {
            assert_eq!(scanned, written, "{name}");
        }
        delete_table(name);
    }
}

#[test]
fn a_table_names_the_stream_that_takes_its_changes() {
    create_table("kit_streaming", &[("id", Key::S)]);
    create_stream("kit_streaming", 1);
    enable_streaming("kit_streaming", "kit_streaming", true);
    let described = client().describe_kinesis_streaming_destination().table_name("kit_streaming").send();
    let destinations = block_on(described).expect("a description").kinesis_data_stream_destinations.unwrap_or_default();
    assert_eq!(destinations.len(), 1);
    assert_eq!(destinations[0].stream_arn.as_deref(), Some(&*stream_arn("kit_streaming")));
    assert_eq!(destinations[0].destination_status.as_ref().map(|s| s.as_str()), Some("ACTIVE"));
    assert_eq!(
        destinations[0].approximate_creation_date_time_precision.as_ref().map(|p| p.as_str()),
        Some("MICROSECOND")
    );
}

#[test]
fn the_manifest_of_an_export_names_all_its_items() {
    let mut rng = fastrand::Rng::with_seed(seed("kit"));
    let keys: KeySchema = &[("id", Key::S)];
    let table = create_table("kit_export", keys);
    let bucket = "kit-export";
    MiniStack::create_bucket(ministack(), bucket).expect("a bucket");
    let items: Vec<Item> = (0..1_000).map(|n| items::item(&mut rng, keys, n)).collect();
    let export = Export { table: &table, bucket, prefix: "some/prefix", id: "01693685827463-2d8752fd", files: 3 };
    let full = export.full(&items, 1_700_000_000_000_000, true);
    let changes = [Changed { micros: 1_700_000_000_000_001, old: Some(items[0].clone()), new: None }];
    let next = Export { id: "01693685934212-ac809da5", files: 1, ..export };
    let incremental = next.incremental(&changes, 1_700_000_000_000_000, 1_700_000_900_000_000);

    let manifest = |url: &str| {
        let fields = "tableId, itemCount, outputFormat, exportTime, exportToTime, manifestFilesS3Key";
        let summary = sql(&format!(
            "SELECT {fields} FROM s3('{url}/manifest-summary.json', 'JSONEachRow', 'tableId String, itemCount UInt64, \
                                    outputFormat String, exportTime String, exportToTime String, manifestFilesS3Key String')"
        ));
        let files = sql(&format!(
            "SELECT dataFileS3Key FROM s3('{url}/manifest-files.json', 'JSONEachRow', 'dataFileS3Key String') ORDER BY ALL"
        ));
        (summary, files.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let endpoint = ministack().endpoint();
    let lines = |files: &[String]| {
        let files = files.iter().map(|file| {
            let text = sql(&format!(
                "SELECT line FROM s3('{endpoint}/{bucket}/{file}', 'LineAsString', 'line String') FORMAT TSVRaw"
            ));
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        files.collect::<Vec<_>>()
    };
    let (summary, files) = manifest(&full);
    let folder = "some/prefix/AWSDynamoDB";
    assert_eq!(
        summary,
        format!(
            "{}\t1000\tDYNAMODB_JSON\t2023-11-14T22:13:20.000Z\t\t{folder}/{}/manifest-files.json\n",
            table.id, export.id
        )
    );
    assert!(files.iter().all(|file| file.starts_with(&format!("{folder}/{}/data/", export.id))), "{files:?}");
    let read = lines(&files);
    assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [334, 333, 333, 0, 0]);
    let mut read = read.concat();
    read.sort();
    let mut expected: Vec<String> = items.iter().map(|item| format!("{{\"Item\":{}}}", marshalled(item))).collect();
    expected.sort();
    assert_eq!(read, expected);

    let (summary, files) = manifest(&incremental);
    assert_eq!(
        summary,
        format!(
            "{}\t1\tDYNAMODB_JSON\t\t2023-11-14T22:28:20.000Z\t{folder}/{}/manifest-files.json\n",
            table.id, next.id
        )
    );
    assert!(files.iter().all(|file| file.starts_with(&format!("{folder}/data/"))), "{files:?}");
    let read = lines(&files).concat();
    let keys = marshalled(&items::key(keys, 0));
    let old = marshalled(&items[0]);
    assert_eq!(
        read,
        [format!(
            r#"{{"Metadata":{{"WriteTimestampMicros":{{"N":"1700000000000001"}}}},"Keys":{keys},"OldImage":{old}}}"#
        )]
    );
}

/// The newest event of each item gives the item's state, for all calls, and in whatever order the
/// events arrive.
#[test]
fn the_events_of_a_workload_tell_the_table() {
    let seed = seed("kit workload");
    for (name, keys) in [SCHEMAS[0], SCHEMAS[3]] {
        let name = format!("{name}_workload");
        let table = create_table(&name, keys);
        create_stream(&name, 2);
        let workload = Workload::start(&table, &name, &Plan { seed, tasks: 8, items: 60 });
        wait_until("5,000 writes", || workload.writes() >= 5_000);
        let (began, half) = workload.at_rest(|time| (time, sorted(&scan(&name))));
        wait_until("10,000 writes", || workload.writes() >= 10_000);
        let (writes, events) = workload.stop();

        let bridge = bridge("kit_workload", &[]);
        let records = get(&bridge, &format!("/v1/streams/{name}/records?format=JSONEachRow")).rows();
        assert_eq!(records.len() as u64, events);
        let mut newest: BTreeMap<String, (i64, Option<String>)> = BTreeMap::new();
        let mut before: BTreeMap<String, (i64, Option<String>)> = BTreeMap::new();
        let mut versions = BTreeSet::new();
        for record in records {
            let event: Value =
                serde_json::from_str(record["_raw_message"].as_str().expect("a text")).expect("an event");
            let change = &event["dynamodb"];
            let version = change["ApproximateCreationDateTime"].as_i64().expect("a time");
            versions.insert(version);
            let image = change.get("NewImage").map(|image| image.to_string());
            assert_eq!(event["eventName"] == "REMOVE", image.is_none());
            for (map, until) in [(&mut newest, i64::MAX), (&mut before, began)] {
                let seen = map.entry(change["Keys"].to_string()).or_insert((0, None));
                if version < until && version >= seen.0 {
                    *seen = (version, image.clone());
                }
            }
        }
        println!("{writes} writes, {} changes, {events} events", versions.len());
        assert!(versions.len() < events as usize, "no event came twice");
        let told = |map: BTreeMap<String, (i64, Option<String>)>| {
            sorted(&map.into_values().filter_map(|(_, image)| Some(unmarshalled(&image?))).collect::<Vec<_>>())
        };
        assert!(told(newest) == sorted(&scan(&name)), "the events tell another table");
        assert!(told(before) == half, "the events tell another table at rest");
    }
}

fn unmarshalled(image: &str) -> Item {
    let image: Value = serde_json::from_str(image).expect("an image");
    image.as_object().expect("an image").iter().map(|(name, value)| (name.clone(), typed(value))).collect()
}

fn typed(value: &Value) -> AttributeValue {
    let (code, held) = value.as_object().and_then(|value| value.iter().next()).expect("a typed value");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let blob = |value: &Value| Blob::new(aws_smithy_types::base64::decode(text(value)).expect("base64"));
    let all = || held.as_array().expect("an array").iter();
    match &**code {
        "S" => AttributeValue::S(text(held)),
        "N" => AttributeValue::N(text(held)),
        "B" => AttributeValue::B(blob(held)),
        "BOOL" => AttributeValue::Bool(held.as_bool().expect("a bool")),
        "NULL" => AttributeValue::Null(true),
        "SS" => AttributeValue::Ss(all().map(text).collect()),
        "NS" => AttributeValue::Ns(all().map(text).collect()),
        "BS" => AttributeValue::Bs(all().map(blob).collect()),
        "L" => AttributeValue::L(all().map(typed).collect()),
        "M" => AttributeValue::M(held.as_object().expect("a map").iter().map(|(k, v)| (k.clone(), typed(v))).collect()),
        other => panic!("no type of DynamoDB: {other}"),
    }
}

#[test]
fn a_number_has_one_canonical_text() {
    for (same, canonical) in [
        (&["0", "-0", "0.00", "0E+5"][..], "0"),
        (&["1.5", "1.50", "15E-1", "0.15e1"], "15E-1"),
        (&["-100", "-1E+2", "-1.00E2", "-100.0"], "-1E2"),
        (&["12345678901234567890123456789012345678"], "12345678901234567890123456789012345678E0"),
    ] {
        for number in same {
            assert_eq!(items::canonical(number), canonical, "{number}");
        }
    }
}
