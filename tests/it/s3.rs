//! Records to S3: ClickHouse writes them as Parquet, and what is read back equals the stream.

use stack::MiniStack;

use crate::world::{RECORDS, bridge, create_stream, exception, put, sql};

const SHARDS: i32 = 4;
/// A page of GetRecords has at most 10,000 records, so each shard has several.
const COUNT: u32 = 100_000;

/// Rows, distinct positions, first and last time, and a digest of all columns, which does not
/// depend on their order.
fn digest(table: &str) -> String {
    sql(&format!(
        "SELECT count(), uniqExact(_shard_id, _sequence_number, _sub_sequence_number), min(_timestamp), max(_timestamp), \
         groupBitXor(cityHash64(_key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number, _raw_message)) FROM {table}"
    ))
}

#[test]
fn a_range_of_many_pages_goes_to_s3_as_parquet_and_comes_back() {
    let s3 = MiniStack::start().expect("an S3");
    let bucket = s3.create_bucket("orders").expect("a bucket");
    create_stream("to_s3", SHARDS);
    // Text, and bytes that are not text.
    put("to_s3", (0..COUNT).map(|n| (format!("key-{n}"), [&n.to_be_bytes()[..], "Zürich".as_bytes()].concat())));
    let bridge = bridge("to_s3", &[]);
    let records =
        |query: &str| format!("url('{}/v1/streams/to_s3/records?{query}', 'ArrowStream', '{RECORDS}')", bridge.url());
    let in_stream = digest(&records(""));
    assert!(in_stream.starts_with(&format!("{COUNT}\t{COUNT}\t")), "{in_stream}");

    let file = |name: &str| format!("s3('{bucket}/{name}.parquet', 'Parquet')");
    sql(&format!("INSERT INTO FUNCTION {} SELECT * FROM {}", file("whole"), records("")));
    assert_eq!(digest(&file("whole")), in_stream);

    sql(&format!("INSERT INTO FUNCTION {} SELECT * FROM {}", file("sliced"), records("slice={0..3}%2F4")));
    assert_eq!(digest(&file("sliced")), in_stream);

    let of_shards = file("shards/{_partition_id}");
    sql(&format!(
        "INSERT INTO FUNCTION {of_shards} PARTITION BY _shard_id SELECT * FROM {}",
        records("slice={0..3}%2F4")
    ));
    assert_eq!(digest(&file("shards/*")), in_stream);
    let files = sql(&format!("SELECT uniqExact(_path), uniqExact(_path, _shard_id) FROM {}", file("shards/*")));
    assert_eq!(files, format!("{SHARDS}\t{SHARDS}\n"));

    // A statement that fails near its end leaves no file, and a repeated one overwrites the earlier
    // file.
    let failing =
        format!("SELECT *, throwIf(_key = 'key-{}', 'near the end') AS thrown FROM {}", COUNT - 1, records(""));
    let error = exception(&format!("INSERT INTO FUNCTION {} {failing}", file("failed")));
    assert!(error.contains("near the end"), "{error}");
    assert_eq!(sql(&format!("SELECT count() FROM s3('{bucket}/fail*', 'One')")), "0\n");
    let again = format!("INSERT INTO FUNCTION {} SELECT * FROM {}", file("whole"), records(""));
    let error = exception(&again);
    assert!(error.contains("s3_truncate_on_insert"), "{error}");
    sql(&format!("{again} SETTINGS s3_truncate_on_insert = 1"));
    assert_eq!(digest(&file("whole")), in_stream);
}
