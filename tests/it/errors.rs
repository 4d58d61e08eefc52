//! Mistakes that users make, and the one clear message that each of them produces where the user
//! looks: in the exception of a query, in `system.view_refreshes`, or on stderr.

mod aws;
mod clickhouse;
pub mod command_line;
mod credentials;
mod token;

use stack::Bridge;

use crate::engines::on_each_engine;
use crate::world::{
    bridge, create_pipe, create_stream, drop_pipe, exception, get, message, put_numbered, refresh_exception, sql,
    wait_for, wait_until,
};

on_each_engine!(
    queries_tell_their_mistakes,
    pipes_tell_their_mistakes_in_the_exception_of_their_view,
    positions_and_acknowledgements_tell_their_mistakes,
);

/// The exception of a SELECT over `url()` must end with this message.
fn assert_told(bridge: &Bridge, path: &str, sentence: &str) {
    let url = format!("{}{path}", bridge.url());
    let ask = format!("SELECT * FROM url('{url}', 'JSONEachRow', 'a String') SETTINGS http_max_tries = 1");
    // 25.8 also reuses a connection to a bridge that was killed meanwhile.
    let exception = wait_for("a living connection", || {
        let exception = exception(&ask);
        (!exception.contains("No message received")).then_some(exception)
    });
    assert_eq!(message(&exception), sentence, "{path}");
}

fn queries_tell_their_mistakes() {
    create_stream("err-query", 1);
    let bridge = bridge("err_query", &[]);
    let table = [
        (
            "/v1/streams/absent/records",
            "stream 'absent' in region us-east-1 does not exist: check the name, the region (AWS_REGION) and the account (ListShards: Stream \
             absent under account 000000000000 not found.)",
        ),
        (
            "/v1/streams/absent/sample",
            "stream 'absent' in region us-east-1 does not exist: check the name, the region (AWS_REGION) and the account (ListShards: Stream \
             absent under account 000000000000 not found.)",
        ),
        ("/v1/stream", "there is no path '/v1/stream'; the nearest is /v1/streams"),
        (
            "/v1/streams/no%20name/records",
            "the stream 'no name' is not a valid name: it must have 1 to 128 letters, digits, '_', '.' or '-'",
        ),
        ("/v1/pipes/p/seek", "/v1/pipes/{pipe}/seek takes POST, not 'GET'"),
        ("/v1/streams?limit=5", "'limit' is not a parameter of /v1/streams; the nearest is format"),
        (
            "/v1/streams/err-query/records?form=2026-11-21",
            "'form' is not a parameter of /v1/streams/{stream}/records; the nearest is from",
        ),
        (
            "/v1/streams/err-query/records?from=yesterday",
            "from='yesterday' is refused: it must be a time such as 2026-11-21T10:00:00.000Z, 2026-11-21 10:00:00 (UTC), Unix seconds (10 digits) or \
             milliseconds (13 digits), now, or a time ago such as -90s, -30m, -1h, -7d, or with shard= a sequence number",
        ),
        (
            "/v1/streams/err-query/records?from=2026-11-21T11:00:00Z&to=2026-11-21T10:00:00Z",
            "from is later than to: swap them, or leave to empty to read until now",
        ),
        (
            "/v1/streams/err-query/records?from=49668899999999999999999999999999999999999999999999999999",
            "from='49668899999999999999999999999999999999999999999999999999' is a sequence number, which is meaningful only within one shard: add shard=",
        ),
        (
            "/v1/streams/err-query/records?shard=shardId-000000000007",
            "stream 'err-query' has no shard 'shardId-000000000007': /v1/streams/err-query/shards lists them",
        ),
        (
            "/v1/streams/err-query/records?slice=8%2F8",
            "slice='8/8' is refused: write i/n with i from 0 to n-1 and n from 1 to 1024, such as slice=0/8",
        ),
        (
            "/v1/streams/err-query/records?format=CSV",
            "format='CSV' is refused: it must be ArrowStream, JSONEachRow or Parquet",
        ),
        (
            "/v1/streams/err-query/sample?format=Parquet",
            "format=Parquet is for /v1/streams/{stream}/records only; /v1/streams/{stream}/sample gives ArrowStream or JSONEachRow",
        ),
        (
            "/v1/streams/err-query/sample?limit=1000000",
            "limit='1000000' is refused: it must be a whole number from 1 to 10000",
        ),
    ];
    for (path, sentence) in table {
        assert_told(&bridge, path, sentence);
    }
}

fn pipes_tell_their_mistakes_in_the_exception_of_their_view() {
    create_stream("err-pipe", 1);
    create_stream("err-pipe-other", 1);
    put_numbered("err-pipe", "a", 3);
    let bridge = bridge("err_pipe", &[]);
    create_pipe(&bridge, "err_good", "stream=err-pipe&view=default.err_good_view&linger_ms=0&wait_ms=100");
    wait_until("the good pipe's rows", || sql("SELECT count() FROM err_good") == "3\n");
    sql("CREATE TABLE err_idle (n UInt64) ENGINE = MergeTree ORDER BY n");
    sql("CREATE MATERIALIZED VIEW err_idle_view REFRESH EVERY 1 YEAR APPEND TO err_idle AS SELECT 1 AS n");
    // The pipe, its URL parameters, and the message.
    let table = [
        (
            "err_absent",
            "stream=absent&view=default.err_absent_view",
            "stream 'absent' in region us-east-1 does not exist: check the name, the region (AWS_REGION) and the account \
             (DescribeStreamSummary: Stream absent under account 000000000000 not found.)",
        ),
        (
            "err_missing",
            "stream=err-pipe&view=default.nowhere",
            "there is no refreshable view 'default.nowhere' that the bridge's user may see: view= must name the refreshable materialized view that \
             pulls pipe 'err_missing', and the user needs SYSTEM VIEWS on it (if its CREATE fails with this error, give url() the structure as its third argument)",
        ),
        (
            "err_table",
            "stream=err-pipe&view=default.err_table",
            "there is no refreshable view 'default.err_table' that the bridge's user may see: view= must name the refreshable materialized view that \
             pulls pipe 'err_table', and the user needs SYSTEM VIEWS on it (if its CREATE fails with this error, give url() the structure as its third argument)",
        ),
        (
            "err_other",
            "stream=err-pipe&view=default.err_idle_view",
            "view 'default.err_idle_view' is not refreshing now (status Scheduled), so this pull of pipe 'err_other' does not come from it: view= must name the view that pulls; to read by hand, use /v1/streams/…/records or ack=explicit",
        ),
        (
            "err_unqualified",
            "stream=err-pipe&view=err_unqualified_view",
            "view='err_unqualified_view' is refused: qualify it with its database, as in view=default.orders_pipe",
        ),
        (
            "err_start",
            "stream=err-pipe&view=default.err_start_view&start=beginning",
            "start='beginning' is refused: it must be trim_horizon, latest or a time such as 2026-11-21T10:00:00.000Z, 2026-11-21 10:00:00 (UTC), \
             Unix seconds (10 digits) or milliseconds (13 digits), now, or a time ago such as -90s, -30m, -1h, -7d",
        ),
        (
            "err_parameter",
            "stream=err-pipe&viev=default.err_parameter_view",
            "'viev' is not a parameter of /v1/pipes/{pipe}/next; the nearest is view",
        ),
        (
            "err_mode",
            "stream=err-pipe&view=default.err_mode_view&mode=push",
            "mode='push' is refused: it must be polling or efo",
        ),
        (
            "err_stream",
            "view=default.err_stream_view",
            "stream is required: the name of the Kinesis stream that the pipe reads",
        ),
        (
            "err_confirm",
            "stream=err-pipe",
            "either view or ack is required: view=<database>.<view> names the refreshable view that pulls, ack=explicit is for readers that \
             call ack",
        ),
        (
            "err_rows",
            "stream=err-pipe&view=default.err_rows_view&max_rows=2000000",
            "max_rows='2000000' is refused: it must be a whole number from 1 to 1048448",
        ),
    ];
    for (pipe, query, _) in table {
        create_pipe(&bridge, pipe, query);
    }
    for (pipe, _, sentence) in table {
        assert_eq!(message(&refresh_exception(&format!("{pipe}_view"))), sentence, "{pipe}");
        drop_pipe(pipe);
    }
    // A second stream under the name of the good pipe.
    assert_told(
        &bridge,
        "/v1/pipes/err_good/next?stream=err-pipe-other&ack=explicit",
        "pipe 'err_good' reads stream 'err-pipe', not 'err-pipe-other': a pipe belongs to one stream, so use another pipe name",
    );
    sql("SYSTEM STOP VIEW err_good_view");
    bridge.restart().expect("a restart");
    // Now only the lease rows know it.
    assert_told(
        &bridge,
        "/v1/pipes/err_good/next?stream=err-pipe-other&ack=explicit",
        "pipe 'err_good' reads stream 'err-pipe', not 'err-pipe-other': a pipe belongs to one stream, so use another pipe name",
    );
    drop_pipe("err_good");
    sql("DROP TABLE err_idle_view");
}

fn positions_and_acknowledgements_tell_their_mistakes() {
    create_stream("err-post", 1);
    let bridge = bridge("err_post", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let pull = "/v1/pipes/err_posted/next?stream=err-post&ack=explicit&wait_ms=0&format=JSONEachRow";
    assert_eq!(get(&bridge, pull).status, 200);
    let table = [
        (
            "nope/seek",
            "shard_id String, position String",
            "('', 'latest')",
            "there is no pipe 'nope': the first pull of its view creates it",
        ),
        (
            "err_posted/seek",
            "shard_id String, position String",
            "('', 'oldest')",
            "row 1 of the body is refused: the position 'oldest' must be trim_horizon, latest, a time such as 2026-11-21T10:00:00.000Z, 2026-11-21 \
             10:00:00 (UTC), Unix seconds (10 digits) or milliseconds (13 digits), now, or a time ago such as -90s, -30m, -1h, -7d, or a sequence number",
        ),
        (
            "err_posted/seek",
            "shard_id String, position String",
            "('', '49668899999999999999999999999999999999999999999999999999')",
            "row 1 of the body is refused: the position is a sequence number, which is meaningful only within one shard: name the shard in shard_id",
        ),
        (
            "err_posted/seek",
            "shard_id String, position String",
            "('shardId-000000000007', 'latest')",
            "pipe 'err_posted' has no shard 'shardId-000000000007'",
        ),
        (
            "err_posted/ack",
            "batch String",
            "('0123456789abcdef')",
            "batch '0123456789abcdef' is not the open batch of pipe 'err_posted': it was acknowledged before, or never served",
        ),
        (
            "err_posted/ack",
            "batch String",
            "('the last one')",
            "row 1 of the body is refused: the batch 'the last one' must be the 16 hexadecimal digits of _batch",
        ),
    ];
    for (path, structure, row, sentence) in table {
        let url = format!("{}/v1/pipes/{path}", bridge.url());
        let insert = format!(
            "INSERT INTO FUNCTION url('{url}', 'JSONEachRow', '{structure}') SETTINGS http_max_tries = 1 VALUES {row}"
        );
        assert_eq!(message(&exception(&insert)), sentence, "{path} {row}");
    }
}
