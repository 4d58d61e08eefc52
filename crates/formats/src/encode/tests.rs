use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMillisecondType, UInt32Type};
use arrow_ipc::reader::StreamReader;
use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use domain::batch::ShardRange;
use domain::limits::{ARROW_BATCH_BYTES, ARROW_BATCH_ROWS, PARQUET_GROUP_BYTES, PARQUET_GROUP_ROWS};
use domain::record::{Chunk, Slice};
use domain::shard::Shard;

/// A record with its shard, owned, to compare with the decoded output.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    shard: String,
    key: String,
    timestamp_ms: i64,
    sequence: String,
    sub: u32,
    payload: Vec<u8>,
}

fn plain(shard: &str, n: usize, payload: Vec<u8>) -> Plain {
    let sequence = format!("4966{n:052}");
    Plain { shard: shard.into(), key: format!("k{n}"), timestamp_ms: 1_795_255_200_000, sequence, sub: 0, payload }
}

/// A batch of these records, ordered by shard; each shard's records are put into chunks and slices
/// that end at the given places.
fn batch_of(records: &[Plain], cuts: &[usize]) -> Batch {
    let mut ranges: Vec<ShardRange> = Vec::new();
    for run in records.chunk_by(|a, b| a.shard == b.shard) {
        let mut slices = Vec::new();
        let mut rest = run;
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            let mut chunk = Chunk::default();
            for r in now {
                let (key, sequence_number, payload) = (&*r.key, &*r.sequence, &*r.payload);
                let (timestamp_ms, sub_sequence) = (r.timestamp_ms, r.sub);
                assert!(chunk.push(RecordRef { key, timestamp_ms, sequence_number, sub_sequence, payload }));
            }
            let (front, back) = Slice::whole(Arc::new(chunk)).split_at(cut / 2);
            slices.extend([front, back]);
        }
        ranges.push(ShardRange { shard_id: run[0].shard.as_str().into(), slices });
    }
    Batch { id: "00112233445566ff".into(), stream: "orders".into(), ranges }
}

fn pieces(batch: &Batch, form: impl Into<Form>) -> Vec<Bytes> {
    encode_batch(batch, form).unwrap().map(Result::unwrap).collect()
}

fn bytes(batch: &Batch, form: impl Into<Form>) -> Vec<u8> {
    pieces(batch, form).concat()
}

fn rows_of(rows: &RecordBatch) -> Vec<Plain> {
    let text = |name: &str, i: usize| rows.column_by_name(name).unwrap().as_string::<i32>().value(i).to_owned();
    let word = |name: &str, i: usize| {
        let column = rows.column_by_name(name).unwrap().as_dictionary::<Int32Type>();
        column.values().as_string::<i32>().value(column.keys().value(i) as usize).to_owned()
    };
    let times = rows.column_by_name("_timestamp").unwrap().as_primitive::<TimestampMillisecondType>();
    let subs = rows.column_by_name("_sub_sequence_number").unwrap().as_primitive::<UInt32Type>();
    let payloads = rows.column_by_name("_raw_message").unwrap().as_binary::<i32>();
    let row = |i| {
        assert_eq!(word("_stream", i), "orders");
        if rows.column_by_name("_batch").is_some() {
            assert_eq!(text("_batch", i), "00112233445566ff");
        }
        Plain {
            shard: word("_shard_id", i),
            key: text("_key", i),
            timestamp_ms: times.value(i),
            sequence: text("_sequence_number", i),
            sub: subs.value(i),
            payload: payloads.value(i).to_vec(),
        }
    };
    (0..rows.num_rows()).map(row).collect()
}

fn arrow_batches(bytes: &[u8]) -> Vec<RecordBatch> {
    StreamReader::try_new(bytes, None).unwrap().map(Result::unwrap).collect()
}

fn record() -> impl Strategy<Value = Plain> {
    let payload = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => (0..3usize, any::<u8>()).prop_map(|(n, byte)| vec![byte; n * 100_000]),
    ];
    (0..3u8, ".{0,12}", -9_000_000_000i64..9_000_000_000_000, "[0-9]{1,56}", any::<u32>(), payload).prop_map(
        |(shard, key, timestamp_ms, sequence, sub, payload)| Plain {
            shard: format!("shardId-{shard:012}"),
            key,
            timestamp_ms,
            sequence,
            sub,
            payload,
        },
    )
}

fn records() -> impl Strategy<Value = Vec<Plain>> {
    proptest::collection::vec(record(), 0..60).prop_map(|mut records| {
        records.sort_by(|a, b| a.shard.cmp(&b.shard));
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arrow_gives_the_records_back(records in records()) {
        let read: Vec<Plain> =
            arrow_batches(&bytes(&batch_of(&records, &[]), Format::ArrowStream)).iter().flat_map(rows_of).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn parquet_gives_the_records_back(records in records()) {
        let file = Bytes::from(bytes(&batch_of(&records, &[]), Format::Parquet));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let read: Vec<Plain> = reader.flat_map(|rows| rows_of(&rows.unwrap())).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn json_gives_the_records_back(records in records()) {
        let text = bytes(&batch_of(&records, &[]), Format::JsonEachRow);
        prop_assert_eq!(text.last().copied(), (!records.is_empty()).then_some(b'\n'));
        let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
        prop_assert_eq!(lines.len(), records.len());
        for (line, record) in lines.into_iter().zip(&records) {
            // Bytes that are not UTF-8 pass through, so both sides lose the same when converted to
            // text.
            let row: serde_json::Value = serde_json::from_str(&String::from_utf8_lossy(line)).unwrap();
            let time = DateTime::from_timestamp_millis(record.timestamp_ms).unwrap();
            prop_assert_eq!(&row["_key"], &record.key);
            prop_assert_eq!(&row["_timestamp"], &time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
            prop_assert_eq!(&row["_stream"], "orders");
            prop_assert_eq!(&row["_shard_id"], &record.shard);
            prop_assert_eq!(&row["_sequence_number"], &record.sequence);
            prop_assert_eq!(&row["_sub_sequence_number"], record.sub);
            prop_assert_eq!(&row["_raw_message"], &*String::from_utf8_lossy(&record.payload));
            prop_assert_eq!(&row["_batch"], "00112233445566ff");
        }
    }

    #[test]
    fn same_batch_same_bytes(records in records(), cuts in proptest::collection::vec(0..20usize, 0..8)) {
        let (whole, cut) = (batch_of(&records, &[]), batch_of(&records, &cuts));
        let events = Format::ALL.into_iter().filter_map(|format| Form::new(format, Payload::DynamoDb));
        for form in Format::ALL.into_iter().map(Form::from).chain(events) {
            let expected = bytes(&whole, form);
            prop_assert_eq!(&bytes(&cut, form), &expected, "{}", form);
            prop_assert_eq!(encoded_len(&cut, form).unwrap(), expected.len() as u64);
        }
    }
}

#[test]
fn the_tail_is_what_ends_the_body() {
    let batch = batch_of(&[plain("s", 1, b"{}".to_vec()), plain("s", 2, b"{}".to_vec())], &[]);
    let tail = |batch: &Batch, format| pieces(batch, format).pop().unwrap();
    let empty = batch_of(&[], &[]);
    for batch in [&batch, &empty] {
        assert_eq!(&tail(batch, Format::ArrowStream)[..], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert!(tail(batch, Format::Parquet).ends_with(b"PAR1"));
    }
    assert_eq!(&tail(&batch, Format::JsonEachRow)[..], b"\n");
    assert_eq!(&tail(&empty, Format::JsonEachRow)[..], b"");
    assert_eq!(pieces(&empty, Format::JsonEachRow).len(), 1);
}

#[test]
fn an_empty_batch_has_its_columns() {
    let empty = batch_of(&[], &[]);
    let stream = bytes(&empty, Format::ArrowStream);
    let reader = StreamReader::try_new(&stream[..], None).unwrap();
    let names = |schema: &arrow_schema::Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    let expected = [
        "_key",
        "_timestamp",
        "_stream",
        "_shard_id",
        "_sequence_number",
        "_sub_sequence_number",
        "_raw_message",
        "_batch",
    ];
    assert_eq!(names(&reader.schema()), expected);
    assert_eq!(reader.count(), 0);
    let columns = Columns { batch: None, ..Columns::of(&empty) };
    let (rest, tail) = Encoder::new(Format::ArrowStream, &columns).unwrap().finish().unwrap();
    let stream: Vec<u8> = rest.into_iter().chain([tail]).flatten().collect();
    assert_eq!(names(&StreamReader::try_new(&stream[..], None).unwrap().schema()), expected[..7]);
    let file = Bytes::from(bytes(&empty, Format::Parquet));
    assert_eq!(ParquetRecordBatchReaderBuilder::try_new(file).unwrap().metadata().num_row_groups(), 0);
}

#[test]
fn record_batches_stay_small() {
    let payload = |n: usize| vec![b'x'; if n < 20_000 { 20 } else { 200 }];
    let mut records: Vec<Plain> =
        (0..40_000).map(|n| plain(if n < 12_345 { "a" } else { "b" }, n, payload(n))).collect();
    records[30_000].payload = vec![b'y'; 10 << 20];
    records[35_000].payload = vec![b'z'; 100_000];
    let batch = batch_of(&records, &[7, 10_000]);
    let read = arrow_batches(&bytes(&batch, Format::ArrowStream));
    for rows in &read {
        let payload = rows.column_by_name("_raw_message").unwrap().as_binary::<i32>();
        assert!(rows.num_rows() <= ARROW_BATCH_ROWS);
        assert!(payload.value_data().len() <= ARROW_BATCH_BYTES || rows.num_rows() == 1);
    }
    assert_eq!(read[0].num_rows(), ARROW_BATCH_ROWS);
    // A record batch spans shards, and no stream is cut more finely than necessary.
    let shards = |rows: &RecordBatch| rows_of(rows).into_iter().map(|r| r.shard).collect::<Vec<_>>();
    assert!(read.iter().any(|rows| shards(rows).first() != shards(rows).last()));
    assert!(read.len() <= 12, "{}", read.len());
    assert_eq!(read.iter().flat_map(rows_of).collect::<Vec<_>>(), records);
    for piece in pieces(&batch, Format::ArrowStream) {
        assert!(piece.len() <= ARROW_BATCH_BYTES + (1 << 20) || piece.len() == 10 << 20);
    }
}

#[test]
fn long_keys_are_bounded_too() {
    let mut records: Vec<Plain> = (0..3_000).map(|n| plain("a", n, Vec::new())).collect();
    records.iter_mut().for_each(|r| r.key = "é".repeat(512));
    for rows in arrow_batches(&bytes(&batch_of(&records, &[]), Format::ArrowStream)) {
        let keys = rows.column_by_name("_key").unwrap().as_string::<i32>();
        assert!(keys.value_data().len() <= ARROW_BATCH_BYTES);
    }
}

#[test]
fn row_groups_stay_small() {
    let records: Vec<Plain> =
        (0..70_000).map(|n| plain("a", n, vec![b'x'; if n < 60_000 { 2 } else { 4_000 }])).collect();
    let file = Bytes::from(bytes(&batch_of(&records, &[]), Format::Parquet));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let groups = reader.metadata().row_groups().to_vec();
    assert!(groups.len() > 2);
    for group in groups {
        assert!(group.num_rows() as usize <= PARQUET_GROUP_ROWS);
        assert!(group.total_byte_size() as usize <= 2 * PARQUET_GROUP_BYTES);
    }
}

#[test]
fn an_encoder_refuses_a_shard_it_does_not_know() {
    let columns = Columns { batch: None, stream: "orders".into(), shards: vec!["a".into()] };
    let record = RecordRef { key: "", timestamp_ms: 0, sequence_number: "1", sub_sequence: 0, payload: b"" };
    for format in Format::ALL {
        let mut encoder = Encoder::new(format, &columns).unwrap();
        let outcome = encoder.push(record, 1).and_then(|()| encoder.finish().map(|_| ()));
        assert!(matches!(outcome, Err(Error::Internal(_))), "{}", format.name());
    }
}

#[test]
fn formats_have_their_names() {
    for format in Format::ALL {
        assert_eq!(Format::parse(format.name()), Some(format));
    }
    assert_eq!(Format::parse("jsoneachrow"), None);
}

fn pipe_row() -> PipeRow {
    PipeRow {
        pipe: "orders".into(),
        state: "reading".into(),
        epoch: u64::MAX,
        millis_behind_latest: Some(-1),
        last_error: "line\n\"quoted\"".into(),
        last_commit_time: Some(1_795_255_200_123),
        ..PipeRow::default()
    }
}

#[test]
fn metadata_rows_are_json_lines() {
    let rows = [pipe_row(), PipeRow::default()];
    let text = String::from_utf8(encode_rows(&rows, Format::JsonEachRow).unwrap().to_vec()).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["epoch"], u64::MAX);
    assert_eq!(lines[0]["millis_behind_latest"], -1);
    assert_eq!(lines[0]["last_error"], "line\n\"quoted\"");
    assert_eq!(lines[0]["last_commit_time"], "2026-11-21T10:00:00.123Z");
    assert_eq!(lines[1].get("last_commit_time"), None);
    let alive = WorkerRow { worker_id: "w".into(), alive: true, leases: 3, ..WorkerRow::default() };
    assert_eq!(
        encode_rows(&[alive], Format::JsonEachRow).unwrap(),
        "{\"worker_id\":\"w\",\"address\":\"\",\"version\":\"\",\"leases\":3,\"alive\":1}\n"
    );
    assert_eq!(encode_rows::<WorkerRow>(&[], Format::JsonEachRow).unwrap(), "");
}

#[test]
fn metadata_rows_are_arrow_streams_of_one_schema() {
    let schema = |rows: &[PipeRow]| {
        let stream = encode_rows(rows, Format::ArrowStream).unwrap();
        StreamReader::try_new(&stream[..], None).unwrap().schema()
    };
    assert_eq!(schema(&[]), schema(&[pipe_row()]));
    assert_eq!(schema(&[]), schema(&[PipeRow::default()]));
    let shard = Shard {
        id: "shardId-000000000001".into(),
        parent: "shardId-000000000000".into(),
        adjacent_parent: "".into(),
        starting_hash_key: "0".into(),
        ending_hash_key: "340282366920938463463374607431768211455".into(),
        starting_sequence_number: "1".into(),
        ending_sequence_number: String::new(),
    };
    let stream = encode_rows(&[shard], Format::ArrowStream).unwrap();
    let rows = &arrow_batches(&stream)[0];
    assert_eq!(rows.num_columns(), 7);
    assert_eq!(rows.column_by_name("ending_hash_key").unwrap().as_string::<i32>().value(0).len(), 39);
    assert!(matches!(encode_rows(&[pipe_row()], Format::Parquet), Err(Error::Internal(_))));
}

#[test]
fn streams_are_numbered_in_whole_numbers() {
    let stream = StreamRow {
        name: "orders".into(),
        arn: "arn:aws:kinesis:eu-west-1:1:stream/orders".into(),
        created_ms: 0,
        status: "ACTIVE".into(),
        mode: "ON_DEMAND".into(),
        open_shards: 4,
        retention_hours: 24,
    };
    let row: serde_json::Value = serde_json::from_slice(&encode_rows(&[stream], Format::JsonEachRow).unwrap()).unwrap();
    assert_eq!((&row["stream"], &row["open_shards"]), (&"orders".into(), &4.into()));
}

/// What Arrow needs to describe a stream, and then each piece.
const ALLOCATIONS: usize = 400;
const ALLOCATIONS_PER_PIECE: usize = 100;

#[test]
fn a_batch_takes_a_few_allocations_for_each_piece_whatever_its_rows() {
    for format in [Format::ArrowStream, Format::JsonEachRow] {
        for rows in [100, 10_000] {
            let records: Vec<Plain> = (0..rows).map(|n| plain("shardId-000000000000", n, vec![b'x'; 200])).collect();
            let (batch, mut encoded) = (batch_of(&records, &[]), Vec::new());
            let used = allocation_counter::measure(|| encoded = pieces(&batch, format));
            let payload = (200 * rows) as f64;
            println!(
                "{}, {rows} rows, {} pieces: {:.4} allocations a row, {:.2} bytes allocated for each of the payload",
                format.name(),
                encoded.len(),
                used.count_total as f64 / rows as f64,
                used.bytes_total as f64 / payload
            );
            assert!(
                used.count_total as usize <= ALLOCATIONS + ALLOCATIONS_PER_PIECE * encoded.len(),
                "{} allocations",
                used.count_total
            );
        }
    }
}
