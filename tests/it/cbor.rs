//! Records in CBOR, as AWS's Java SDK reads them, from two Kinesis by different authors.

use stack::kinesis_client;
use stack::load::{create_stream, put_records};

use crate::proxy::{Fault, Proxy};
use crate::second;
use crate::world::{block_on, bridge_in, get, metric, stack};

/// Any bytes, and text that JSON escapes.
fn records() -> Vec<(String, Vec<u8>)> {
    let key = |n: usize| format!("k-{n} \"caf\u{e9}\" \u{1f600}\\");
    (0..300).map(|n| (key(n), (0..n).map(|at| (at * n) as u8).collect())).collect()
}

const REFUSED: &str = "kinesis_bridge_kinesis_errors_total{call=\"GetRecords\",kind=\"cbor_refused\"}";

/// Reads a stream in CBOR and in JSON: the same bytes.
fn both_forms_bring_the_same(endpoint: &str, stream: &str) {
    let client = block_on(kinesis_client(endpoint));
    block_on(create_stream(&client, stream, 2)).expect("a stream");
    block_on(put_records(&client, stream, records())).expect("records");
    let path = format!("/v1/streams/{stream}/records?format=JSONEachRow");
    let mut read = Vec::new();
    for enabled in ["true", "false"] {
        let proxy = Proxy::start(endpoint, |_| Fault::None);
        proxy.speak_cbor();
        let environment = [("AWS_ENDPOINT_URL", &*proxy.endpoint()), ("CBOR_ENABLED", enabled)];
        let bridge = bridge_in(&stream.replace('-', "_"), &[], &environment);
        let mut rows = get(&bridge, &path).rows();
        rows.sort_by_key(|row| row["_sequence_number"].as_str().map(str::to_owned));
        assert_eq!(rows.len(), records().len());
        let (cbor, json) = (proxy.calls("GetRecords in CBOR"), proxy.calls("GetRecords"));
        assert_eq!((cbor > 0, json > 0), (enabled == "true", enabled == "false"), "{cbor} in CBOR, {json} in JSON");
        assert_eq!(metric(&bridge, REFUSED).unwrap_or(0.0), 0.0, "{}", bridge.log());
        read.push(rows);
    }
    assert_eq!(read[0], read[1]);
}

#[test]
fn the_first_kinesis_sends_the_same_in_both_forms() {
    both_forms_bring_the_same(&stack().kinesis.endpoint(), "cbor-first");
}

#[test]
fn the_second_kinesis_sends_the_same_in_both_forms() {
    both_forms_bring_the_same(&second::endpoint(), "cbor-second");
}

#[test]
fn an_endpoint_without_cbor_is_read_in_json() {
    let endpoint = stack().kinesis.endpoint();
    let client = block_on(kinesis_client(&endpoint));
    block_on(create_stream(&client, "cbor-refused", 2)).expect("a stream");
    block_on(put_records(&client, "cbor-refused", records())).expect("records");
    let proxy = Proxy::start(&endpoint, |_| Fault::None);
    let bridge = bridge_in("cbor_refused", &[], &[("AWS_ENDPOINT_URL", &*proxy.endpoint())]);
    for _ in 0..2 {
        let rows = get(&bridge, "/v1/streams/cbor-refused/records?format=JSONEachRow").rows();
        assert_eq!(rows.len(), records().len());
    }
    assert_eq!(metric(&bridge, REFUSED), Some(1.0));
    let told = bridge.log().matches("this Kinesis endpoint does not speak CBOR").count();
    assert_eq!(told, 1, "{}", bridge.log());
}
