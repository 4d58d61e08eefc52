//! Records that are not JSON, in the formats that AWS and others document, and the result of the
//! examples in docs/sql.md: every value, and every line that does not fit.

use aws_sdk_kinesis::Client;
use stack::LocalStack;

use crate::world::wait_until;

/// AWS's own examples of the default format, one without data, and lines in other formats.
const FLOW_LOGS: [&str; 6] = [
    "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK",
    "2 123456789010 eni-1235b8ca123456789 2001:db8:1234:a100:8d6e:3477:df66:f105 2001:db8:1234:a102:3304:8879:34cf:4071 34892 22 6 54 8855 1477913708 1477913820 ACCEPT OK\n2 123456789010 eni-1235b8ca123456789 - - - - - - - 1431280876 1431280934 - NODATA\n",
    "2 123456789010 eni-1235b8ca123456789 172.31.9.69 172.31.9.12 49761 70000 6 20 4249 1418530010 1418530070 REJECT OK",
    "3 123456789010 eni-1235b8ca123456789 172.31.9.69 172.31.9.12 49761 3389 6 20 4249 1418530010 1418530070 REJECT OK",
    "2 123456789010 eni-1235b8ca123456789 172.31.9.69",
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status",
];
const FLOW_ROWS: &str = "172.31.16.139\t172.31.16.21\t20641\t22\t6\t20\t4249\t2014-12-14 04:06:50\t2014-12-14 04:07:50\tACCEPT\tOK\n\
                         2001:db8:1234:a100:8d6e:3477:df66:f105\t2001:db8:1234:a102:3304:8879:34cf:4071\t34892\t22\t6\t54\t8855\t\
                         2016-10-31 11:35:08\t2016-10-31 11:37:00\tACCEPT\tOK\n\
                         \\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t2015-05-10 18:01:16\t2015-05-10 18:02:14\t\\N\tNODATA\n";

/// With the line break that CloudFront writes. A viewer that disconnected has the status 000.
const CDN: [&str; 4] = [
    "1620926393.123\t192.0.2.183\t0.002\t200\t1045\tGET\thttps\twww.example.com\t/images/cat.jpg?mobile=true\t62\tDFW3\tSOX4xwn4XV6Q4rgb7XiVGOHms_BGlTAC4KyHmureZmBNrjGdRLiNIQ==\t0.082\tMozilla/5.0%20(Windows%20NT%2010.0)\n",
    "1620926394\t2001:db8:85a3::8a2e:370:7334\t0.001\t000\t0\tHEAD\thttp\td111111abcdef8.cloudfront.net\t/\t0\tFRA2\tabc==\t0.001\t-\n",
    "1620926395.5\t192.0.2.183\t-\t200\t1045\tGET\thttps\twww.example.com\t/\t62\tDFW3\tabc==\t0.082\t-\n",
    "1620926395.5\t192.0.2.183\n",
];
const CDN_ROWS: &str = "2021-05-13 17:19:53.123\t::ffff:192.0.2.183\t0.002\t200\t1045\tGET\thttps\twww.example.com\t/images/cat.jpg?mobile=true\t62\tDFW3\t\
                        SOX4xwn4XV6Q4rgb7XiVGOHms_BGlTAC4KyHmureZmBNrjGdRLiNIQ==\t0.082\tMozilla/5.0 (Windows NT 10.0)\n\
                        2021-05-13 17:19:54.000\t2001:db8:85a3::8a2e:370:7334\t0.001\t0\t0\tHEAD\thttp\td111111abcdef8.cloudfront.net\t/\t0\tFRA2\tabc==\t0.001\t-\n";

const PAYMENTS: [&str; 5] = [
    "17,\"Schmidt, Anna\",\"she said \"\"hi\"\"\",12.50,2026-11-21T10:00:00Z\r\n18,Bo,,-3,2026-11-21 10:00:01.5\r\n",
    "19,Cy,,1.005,2026-11-21T10:00:00Z",
    "x20,Di,,1.00,2026-11-21T10:00:00Z",
    "21,Ed,,1.00,soon",
    "22,Flo,1.00,2026-11-21T10:00:00Z",
];
const PAYMENT_ROWS: &str =
    "17\tSchmidt, Anna\tshe said \"hi\"\t12.5\t2026-11-21 10:00:00.000\n18\tBo\t\t-3\t2026-11-21 10:00:01.500\n";

/// Writes the records of all examples.
pub async fn put(client: &Client) {
    let glue = |body: &[u8]| [&[3, 0][..], &(0x10..0x20).collect::<Vec<u8>>(), body].concat();
    let confluent = |body: &[u8]| [&[0, 0, 0, 1, 2][..], body].concat();
    let registered = vec![
        glue(b"{\"id\": 1}"),
        confluent(b"{\"id\": 2}"),
        b"{\"id\": 3}".to_vec(),
        glue(b"\x02\x06abc"),
        b"text".to_vec(),
    ];
    let encoded = ["eyJpZCI6IDF9", "eyJpZCI6IDJ9\n", "not base64!", "eyJpZCI6"];
    let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    for (stream, payloads) in [
        ("flow-logs", bytes(&FLOW_LOGS)),
        ("cdn-requests", bytes(&CDN)),
        ("payments-csv", bytes(&PAYMENTS)),
        ("registered", registered),
        ("encoded", bytes(&encoded)),
    ] {
        stack::load::create_stream(client, stream, 1).await.expect("a stream");
        let records = payloads.into_iter().map(|payload| ("key".to_owned(), payload));
        stack::load::put_records(client, stream, records).await.expect("records");
    }
}

/// Every value of what fits is there, and so is every line that does not fit.
pub fn arrived(stack: &LocalStack) {
    let holds = |sql: &str, expected: &str| {
        let ask = || stack.clickhouse.query(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        wait_until(&format!("{expected:?} from {sql}, and not {:?}", ask()), || ask() == expected);
    };
    let position = "_timestamp, _shard_id, _sequence_number, _sub_sequence_number, unparsed";
    for (table, but, rows) in [
        ("flow_logs", ", account_id, interface_id", FLOW_ROWS),
        ("cdn_requests", "", CDN_ROWS),
        ("payments_csv", "", PAYMENT_ROWS),
    ] {
        holds(&format!("SELECT * EXCEPT ({position}{but}) FROM {table} WHERE unparsed = '' ORDER BY ALL"), rows);
    }
    holds(
        "SELECT DISTINCT account_id, interface_id FROM flow_logs WHERE unparsed = ''",
        "123456789010\teni-1235b8ca123456789\n",
    );
    let unparsed = |table: &str, lines: &[&str]| {
        let lines: String = lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect();
        let order = "toUInt256(_sequence_number), _sub_sequence_number";
        holds(&format!("SELECT unparsed FROM {table} WHERE unparsed != '' ORDER BY {order} FORMAT TSVRaw"), &lines);
    };
    unparsed("flow_logs", &FLOW_LOGS[2..]);
    unparsed("cdn_requests", &CDN[2..]);
    unparsed("payments_csv", &PAYMENTS[1..]);
    unparsed("encoded", &["not base64!", "eyJpZCI6"]);
    holds("SELECT id FROM encoded WHERE unparsed = '' ORDER BY id", "1\n2\n");
    holds(
        "SELECT schema, id FROM registered WHERE unparsed = '' ORDER BY id",
        "101112131415161718191a1b1c1d1e1f\t1\n258\t2\n\t3\n",
    );
    holds(
        "SELECT hex(unparsed) FROM registered WHERE unparsed != '' ORDER BY 1",
        "0300101112131415161718191A1B1C1D1E1F0206616263\n74657874\n",
    );
}
