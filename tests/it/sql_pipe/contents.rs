//! Streams of anything but plain JSON objects: what `sql pipe` reports about them, and which
//! command or example it recommends.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::{printed, refused, run, stream, stream_of};
use crate::engines::on_each_engine;

on_each_engine!(streams_without_objects, streams_with_objects_among_others,);

const EVENT: &str = r#"{"awsRegion":"eu-west-1","eventName":"INSERT","tableName":"users","dynamodb":{"ApproximateCreationDateTime":1719347890250,"Keys":{"id":{"S":"a"}},"NewImage":{"id":{"S":"a"},"n":{"N":"5"}}}}"#;
const OF_STREAMS: &str = r#"{"eventID":"1","eventName":"REMOVE","eventSource":"aws:dynamodb","eventSourceARN":"arn:aws:dynamodb:eu-west-1:1:table/users/stream/2026","dynamodb":{"Keys":{"id":{"S":"a"}}}}"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// The end of a stream's name, its payloads, and the expected message.
type Case = (&'static str, Vec<Vec<u8>>, &'static [&'static str]);

/// Without its second half.
fn broken(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

fn streams_without_objects() {
    let object = "{\"id\": 1, \"name\": \"somebody with a longer name\"}";
    let behind = |header: &[u8], body: &[u8]| [header, body].concat();
    let glue = [&[3, 0][..], &[0xA7; 16]].concat();
    let avro = b"\x02\x06abc\x80\xff\x10";
    let text = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let flow =
        "2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK";
    let cases: [Case; 14] = [
        (
            "gzip",
            vec![broken(&gzip(object)); 3],
            &["3 of 3 records begin like gzip data, but cannot be decompressed: "],
        ),
        ("zlib", vec![broken(&zlib(object))], &["1 of 1 records begin like zlib data, but cannot be decompressed: "]),
        ("zstd", vec![b"\x28\xB5\x2F\xFD\x04\x00\xff".to_vec()], &["1 of 1 records begin like zstd data"]),
        (
            "glue",
            vec![behind(&glue, object.as_bytes()), behind(&glue, object.as_bytes()), behind(&glue, avro)],
            &[
                "2 of 3 records are JSON after an AWS Glue Schema Registry header: see \"Behind a header\" in docs/sql.md",
                "1 of 3 records have an AWS Glue Schema Registry header, followed by Avro, Protobuf or compressed data: ",
            ],
        ),
        (
            "confluent",
            vec![behind(&[0, 0, 0, 0, 7], object.as_bytes()), behind(&[0, 0, 0, 1, 7], avro)],
            &[
                "1 of 2 records are JSON after a Confluent Schema Registry header: see \"Behind a header\"",
                "1 of 2 records have a Confluent Schema Registry header, followed by Avro or Protobuf: ",
            ],
        ),
        (
            "base64",
            text(&["eyJpZCI6IDEsICJuYW1lIjogIngifQ=="]),
            &["1 of 1 records are JSON in base64: see \"In base64\""],
        ),
        (
            "numbers",
            text(&["[1, 2]", "[]", "5"]),
            &["2 of 3 records are JSON arrays: split=json", "1 of 3 records are JSON, but neither"],
        ),
        (
            "csv",
            text(&["id,name,amount", "1,\"Schmidt, Anna\",5.00\n2,Bo,6\n"]),
            &["2 of 2 records are CSV: see \"CSV\" in docs/sql.md"],
        ),
        ("tabs", text(&["1\ta\tb\n", "2\t\tc\n"]), &["2 of 2 records are fields separated by tabs: see \"Tabs\""]),
        ("spaces", text(&[flow, flow, flow]), &["3 of 3 records are fields separated by spaces: see \"Spaces\""]),
        (
            "binary",
            vec![avro.to_vec()],
            &["1 of 1 records are bytes that are not text, such as Avro, Protobuf or MessagePack: land them raw"],
        ),
        ("avro", vec![b"Obj\x01\x04\x16avro.schema".to_vec()], &["1 of 1 records are Avro files: neither"]),
        (
            "text",
            text(&["INFO started", "WARN it took longer than it should"]),
            &["2 of 2 records are plain text: land them raw"],
        ),
        ("empty", text(&[" ", "\n"]), &["2 of 2 records are empty: "]),
    ];
    for (name, payloads, expected) in cases {
        let name = format!("sql-contents-{name}");
        stream(&name, payloads);
        let said = refused(&run(&name, "sqlp_contents", &[]));
        assert!(said.starts_with("error: none of the ") && said.lines().count() == 1, "{said}");
        for sentence in expected {
            assert!(said.contains(sentence), "{name}: {sentence}\n{said}");
        }
    }
}

fn streams_with_objects_among_others() {
    stream_of("sql-contents-events", &[EVENT, OF_STREAMS, EVENT, "{\"id\": 1}", "START RequestId"]);
    let said = printed("sql-contents-events", "sqlp_contents", &[]);
    let command = "sql dynamodb --table \"users\" --stream \"sql-contents-events\"";
    assert!(
        said.contains(&format!("\n-- 3 of 5 records are change events of DynamoDB: {command} creates a table")),
        "{said}"
    );
    assert!(said.contains("\n-- 1 of 5 records are plain text: land them raw"), "{said}");
    // The decompressed payload determines what it is.
    let object = "{\"id\": 1}";
    stream("sql-contents-mixed", vec![gzip(object), gzip(object), object.into(), broken(&gzip(object))]);
    let said = printed("sql-contents-mixed", "sqlp_contents", &[]);
    assert!(said.contains("\n-- 1 of 4 records begin like gzip data, but cannot be decompressed: "), "{said}");
    assert!(!said.contains("DynamoDB") && !said.contains("plain text"), "{said}");
}
