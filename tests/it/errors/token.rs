//! The bearer token: requests without it are refused with a reason, requests with it succeed, and
//! nobody else ever sees it.

use super::command_line::token_file;
use crate::world::{bridge_in, create_stream, exception, get, message, put_numbered, sql, wait_until};

#[test]
fn the_token_opens_the_door_and_is_told_nowhere() {
    const TOKEN: &str = "token-that-nobody-may-see";
    create_stream("err-token", 1);
    put_numbered("err-token", "a", 7);
    let (_file, path) = token_file(TOKEN);
    let flags = [("--token-file", path.as_str()), ("--log-level", "trace")];
    let bridge = bridge_in("err_token", &flags, &[("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", "")]);
    let records = format!("{}/v1/streams/err-token/records", bridge.url());
    let select = |headers: &str| {
        format!(
            "SELECT count(_key) FROM url('{records}', 'ArrowStream', '_key String'{headers}) SETTINGS http_max_tries = 1, max_threads = 1"
        )
    };
    let sentence = "this bridge requires a bearer token: pass headers('Authorization' = 'Bearer …') to url(), or use the named collection";
    for headers in
        ["", ", headers('Authorization' = 'token-that-nobody-may-see')", ", headers('Authorization' = 'Basic dTpw')"]
    {
        assert_eq!(message(&exception(&select(headers))), sentence, "{headers}");
    }
    let another = message(&exception(&select(", headers('Authorization' = 'Bearer wrong')"))).to_owned();
    for part in ["not this bridge's", "--token-file", "sql setup"] {
        assert!(another.contains(part), "{part}: {another}");
    }
    assert_eq!(sql(&select(&format!(", headers('Authorization' = 'Bearer {TOKEN}')"))), "7\n");
    sql(&format!(
        "CREATE NAMED COLLECTION err_token AS url = '{records}', format = 'ArrowStream', headers.header.name = 'Authorization', \
         headers.header.value = 'Bearer {TOKEN}'"
    ));
    assert_eq!(sql("SELECT count(_key) FROM url(err_token, structure = '_key String')"), "7\n");
    for path in ["/v1/streams", "/v1/pipes", "/v1/workers", "/metrics", "/nowhere"] {
        let answer = get(&bridge, path);
        assert_eq!((answer.status, answer.text().contains(TOKEN)), (401, false), "{path}");
    }
    assert_eq!(get(&bridge, "/healthz").status, 200);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let log = bridge.log();
    assert!(log.contains("unauthorized"), "it logs at all: {log}");
    assert!(!log.contains(TOKEN), "the token is in the log");
}
