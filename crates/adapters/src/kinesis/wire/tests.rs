//! What decoding costs in memory, however many records there are.

use aws_sdk_kinesis::config::ConfigBag;
use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsOutput};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::ser_de::DeserializeResponse;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use super::super::pages::protocol;
use super::super::sdk::Sdk;
use super::*;

const PAYLOAD: [u8; 200] = [b'x'; 200];
/// The page, the chunk's three columns and their shrinking, the iterator.
const ALLOCATIONS: u64 = 16;

fn sequence(n: usize) -> String {
    format!("4966{n:052}")
}

/// A response with this many records.
fn in_json(records: usize) -> Vec<u8> {
    let data = base64_simd::STANDARD.encode_to_string(PAYLOAD);
    let record = |n| {
        format!(
            r#"{{"SequenceNumber":"{}","ApproximateArrivalTimestamp":1719347890.5,"Data":"{data}","PartitionKey":"k{n}"}}"#,
            sequence(n)
        )
    };
    let records: Vec<String> = (0..records).map(record).collect();
    format!(r#"{{"Records":[{}],"NextShardIterator":"AAA","MillisBehindLatest":0}}"#, records.join(",")).into_bytes()
}

/// The same in CBOR.
fn in_cbor(records: usize) -> Vec<u8> {
    let mut body = b"\xbf\x67Records\x9f".to_vec();
    for n in 0..records {
        body.extend_from_slice(b"\xa3\x6eSequenceNumber\x78\x38");
        body.extend_from_slice(sequence(n).as_bytes());
        body.extend_from_slice(
            b"\x78\x1bApproximateArrivalTimestamp\xc1\x1b\x00\x00\x01\x90\x00\x00\x00\x00\x64Data\x58\xc8",
        );
        body.extend_from_slice(&PAYLOAD);
    }
    body.extend_from_slice(b"\xff\x71NextShardIterator\x63AAA\xff");
    body
}

/// As the SDK decodes it: what records that ours cannot decode go through.
fn by_the_sdk(body: &[u8]) -> Option<Decoded> {
    let (sdk, bag) = (Sdk::of(&GetRecords::new()), ConfigBag::of_layers(vec![protocol()]));
    let response = HttpResponse::new(StatusCode::try_from(200).ok()?, SdkBody::from(body));
    let output = sdk.deserializer().ok()?.deserialize_nonstreaming_with_config(&response, &bag).ok()?;
    Decoded::of_page(output.downcast::<GetRecordsOutput>().ok()?)
}

#[test]
fn a_page_takes_a_few_allocations_whatever_its_length() {
    type Decode = fn(&[u8]) -> Option<Decoded>;
    type Page = fn(usize) -> Vec<u8>;
    let forms: [(&str, Decode, Page); 3] =
        [("JSON by the SDK", by_the_sdk, in_json), ("JSON", decode_json, in_json), ("CBOR", decode_cbor, in_cbor)];
    for (form, decode, page) in forms {
        for records in [100, 10_000] {
            let (body, mut decoded) = (page(records), None);
            let used = allocation_counter::measure(|| decoded = decode(&body));
            let chunk = decoded.expect("a page").records;
            assert_eq!(chunk.len(), records);
            let payload = (records * PAYLOAD.len()) as f64;
            println!(
                "{form}, {records} records: {:.4} allocations a record, {:.2} bytes allocated and {:.2} kept for each of the payload",
                used.count_total as f64 / records as f64,
                used.bytes_total as f64 / payload,
                used.bytes_current as f64 / payload
            );
            // The SDK has several for each record, which proves that they are counted.
            assert_eq!(
                used.count_total <= ALLOCATIONS,
                form != "JSON by the SDK",
                "{form}: {} allocations for {records} records",
                used.count_total
            );
        }
    }
}
