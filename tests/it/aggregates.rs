//! KPL aggregates from third-party writers, on real components. The expected rows are computed from
//! the writers' input.

mod drill;
mod positions;
pub mod writers;

use serde_json::Value;
use stack::Bridge;

use self::writers::{UserRecord, Writer};
use crate::read::pull_all;
use crate::records::reshard::{shard_id, split};
use crate::world::{RECORDS, block_on, bridge, create_stream, get, kinesis, put, sql};

/// An expected row: key, number within its Kinesis record, payload.
type Given = (String, u32, Vec<u8>);

/// A Kinesis record, and the rows expected from it.
struct Put {
    key: String,
    payload: Vec<u8>,
    rows: Vec<Given>,
}

impl Put {
    /// One that is not an aggregate.
    fn plain(key: &str, payload: impl Into<Vec<u8>>) -> Put {
        let payload = payload.into();
        Put { key: key.into(), rows: vec![(key.into(), 0, payload.clone())], payload }
    }

    /// An aggregate as built by a writer.
    fn aggregate(key: &str, records: &[UserRecord], payload: Vec<u8>) -> Put {
        let rows = records.iter().zip(0..).map(|(r, sub)| (r.key.clone(), sub, r.data.clone())).collect();
        Put { key: key.into(), payload, rows }
    }
}

/// Aggregates of these user records, by each writer in turn, each under the key of its first
/// record.
fn aggregated(all: &[Vec<UserRecord>]) -> Vec<Put> {
    let written = Writer::ALL.map(|writer| writer.write(all));
    let put = |n: usize| Put::aggregate(&all[n][0].key, &all[n], written[n % Writer::ALL.len()][n].clone());
    (0..all.len()).map(put).collect()
}

fn put_all(stream: &str, records: &[Put]) {
    put(stream, records.iter().map(|r| (r.key.clone(), r.payload.clone())));
}

fn expected(records: &[Put]) -> Vec<Given> {
    records.iter().flat_map(|r| r.rows.iter().cloned()).collect()
}

/// The same for rows that a bridge returned.
fn given(rows: &[Value]) -> Vec<Given> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name} of {row}")).to_owned();
    let sub = |row: &Value| row["_sub_sequence_number"].as_u64().expect("a number") as u32;
    rows.iter().map(|row| (text(row, "_key"), sub(row), text(row, "_raw_message").into_bytes())).collect()
}

/// The result of a query that selects `hex(_key), _sub_sequence_number, hex(_raw_message)`.
fn selected(answer: &str) -> Vec<Given> {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    };
    let row = |line: &str| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let key = String::from_utf8(bytes(next())).expect("a key");
        (key, next().parse().expect("a number"), bytes(next()))
    };
    answer.lines().map(row).collect()
}

/// Everything that `records` returns, in the order of the stream's only shard.
fn read(bridge: &Bridge, stream: &str, format: &str) -> Vec<Given> {
    selected(&sql(&format!(
        "SELECT hex(_key), _sub_sequence_number, hex(_raw_message) \
         FROM url('{}/v1/streams/{stream}/records?format={format}', '{format}', '{RECORDS}') \
         ORDER BY toUInt256(_sequence_number), _sub_sequence_number",
        bridge.url()
    )))
}

#[test]
fn every_reader_gives_every_user_record() {
    create_stream("agg-read", 1);
    let number = |n: usize| UserRecord::new(format!("key-{}", n % 7), format!("{{\"n\": {n}}}"));
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<UserRecord> = (0..300)
        .map(|n| UserRecord::new(format!("ключ-{n}"), (0..n).map(|_| random.u8(..)).collect::<Vec<_>>()))
        .collect();
    let hashed =
        |n: u128| UserRecord { hash_key: Some((n << 100).to_string()), ..UserRecord::new("one", format!("{n}")) };
    let all = [
        (0..1_000).map(number).collect::<Vec<_>>(),
        noise.clone(),
        (0..20).map(hashed).collect(),
        vec![
            UserRecord::new("empty", ""),
            UserRecord::new("k".repeat(256), vec![0; 70_000]),
            UserRecord::new("nul", "\0"),
        ],
    ];
    let mut records = vec![Put::plain("before", "plain")];
    // Each of them from each writer.
    for put in all.iter().flat_map(|records| aggregated(&[records.clone(), records.clone()])) {
        records.push(put);
        records.push(Put::plain("between", vec![0xF3, 0x89, 0x9A]));
    }
    // One writer keeps keys in a table that puts integers first, and so assigns other keys to the
    // records. Its bytes say so, and the bridge follows them.
    let integers: Vec<UserRecord> = ["10", "2", "1"].map(|key| UserRecord::new(key, format!("of {key}"))).into();
    let python = Writer::Python.write(std::slice::from_ref(&integers)).remove(0);
    records.push(Put::aggregate("integers", &integers, python));
    let node = Writer::Node.write(std::slice::from_ref(&integers)).remove(0);
    let permuted: Vec<_> = ["1", "2", "10"].into_iter().zip(&integers).collect();
    let permuted: Vec<_> = permuted.into_iter().map(|(key, r)| UserRecord::new(key, r.data.clone())).collect();
    records.push(Put::aggregate("integers", &permuted, node));
    put_all("agg-read", &records);

    let bridge = bridge("agg_read", &[]);
    for format in ["ArrowStream", "JSONEachRow", "Parquet"] {
        assert!(read(&bridge, "agg-read", format) == expected(&records), "other rows in {format}");
    }
    // The newest rows are those of the last records.
    let newest = get(&bridge, "/v1/streams/agg-read/sample?limit=5&format=JSONEachRow").rows();
    let all = expected(&records);
    assert_eq!(given(&newest), all[all.len() - 5..]);
}

#[test]
fn a_broken_aggregate_is_the_record_that_it_is() {
    create_stream("agg-broken", 1);
    let seed = crate::common::seed("a_broken_aggregate_is_the_record_that_it_is");
    let mut random = fastrand::Rng::with_seed(seed);
    let records: Vec<UserRecord> =
        (0..6).map(|n| UserRecord::new(format!("key-{n}"), format!("of a broken one {n}"))).collect();
    let mut all = Vec::new();
    for whole in Writer::ALL.map(|writer| writer.write(std::slice::from_ref(&records)).remove(0)) {
        let mut broken = vec![whole[..random.usize(4..whole.len())].to_vec(), [&whole[..], b"x"].concat()];
        // A flipped bit anywhere, including the magic number, the lengths and the digest.
        for at in [0, 3, 4, 5, whole.len() - 1].into_iter().chain([whole.len(); 20]) {
            let at = if at == whole.len() { random.usize(..at) } else { at };
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << random.u8(..8);
            broken.push(flipped);
        }
        all.extend(broken.into_iter().map(|payload| Put::plain("whole", payload)));
        all.push(Put::aggregate("whole", &records, whole));
    }
    put_all("agg-broken", &all);
    let bridge = bridge("agg_broken", &[]);
    assert_eq!(read(&bridge, "agg-broken", "ArrowStream"), expected(&all));
}

/// After a split, a writer that has not noticed it also writes aggregates whose records belong to
/// the other shard.
#[test]
fn user_records_of_another_shard_are_kept() {
    create_stream("agg-split", 1);
    let half = u128::MAX / 2 + 1;
    let records: Vec<UserRecord> = (0..40)
        .map(|n| {
            let hash_key = if n % 2 == 0 { n } else { half + n };
            UserRecord { hash_key: Some(hash_key.to_string()), ..UserRecord::new(format!("key-{n}"), format!("{n}")) }
        })
        .collect();
    let before = aggregated(&[records.clone(), records.clone()]);
    put_all("agg-split", &before);
    split("agg-split", &shard_id(0));
    let mut sent = expected(&before);
    for hash_key in [0, half] {
        for put in aggregated(&[records.clone(), records.clone()]) {
            sent.extend(put.rows);
            let call = kinesis().put_record().stream_name("agg-split").partition_key(put.key);
            let data = aws_sdk_kinesis::primitives::Blob::new(put.payload);
            block_on(call.explicit_hash_key(hash_key.to_string()).data(data).send()).expect("a record");
        }
    }
    sent.sort();
    let bridge = bridge("agg_split", &[]);
    let mut read = read(&bridge, "agg-split", "ArrowStream");
    read.sort();
    assert!(read == sent, "records");
    let rows = pull_all(&bridge, "agg_split", "stream=agg-split&max_rows=13", sent.len());
    let mut pulled = given(&rows);
    pulled.sort();
    assert!(pulled == sent, "a pipe");
    let shards: std::collections::BTreeSet<&str> = rows.iter().filter_map(|row| row["_shard_id"].as_str()).collect();
    assert_eq!(shards.into_iter().collect::<Vec<_>>(), [0, 1, 2].map(shard_id));
}
