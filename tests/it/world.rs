//! What the tests of this binary share: one local stack, a Kinesis client, SQL and HTTP in one
//! line, and waiting.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::Client;
use stack::{Bridge, LocalStack, kinesis_client};
use tokio::runtime::Runtime;

use crate::engines::{PerEngine, engine};
use crate::second;

/// The structure of `next` in ClickHouse, as printed in the documentation.
pub const NEXT: &str = "_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), \
                        _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String";
/// The same for `records` and `sample`.
pub const RECORDS: &str = "_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), \
                           _sequence_number String, _sub_sequence_number UInt32, _raw_message String";
/// Far longer than anything takes; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(90);

/// The bridge's program.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clickhouse-kinesis-bridge"))
}

/// The stack shared by all tests on an engine that do not break it. Each test has its own streams,
/// pipes and database.
pub fn stack() -> &'static LocalStack {
    static STACK: PerEngine<LocalStack> = PerEngine::new();
    STACK.get_or_init(|| LocalStack::start(engine()).expect("the local stack"))
}

/// Runs a future of the Kinesis client to completion.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// The runtime of the Kinesis client and of the tests' own servers.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    &RUNTIME
}

/// A client of the shared stack's Kinesis, or of the second one within [`second::on_it`].
pub fn kinesis() -> &'static Client {
    if second::is_meant() {
        return second::client();
    }
    static CLIENT: PerEngine<Client> = PerEngine::new();
    CLIENT.get_or_init(|| block_on(kinesis_client(&stack().kinesis.endpoint())))
}

/// Creates a stream in the shared Kinesis.
pub fn create_stream(name: &str, shards: i32) {
    block_on(stack::load::create_stream(kinesis(), name, shards)).expect("a stream");
}

/// Puts records, each a key and its data, in order.
pub fn put(stream: &str, records: impl IntoIterator<Item = (String, Vec<u8>)>) {
    block_on(stack::load::put_records(kinesis(), stream, records)).expect("records");
}

/// Writes `count` records with keys and data `<prefix>-<number>`.
pub fn put_numbered(stream: &str, prefix: &str, count: usize) {
    put(stream, (0..count).map(|n| (format!("{prefix}-{n}"), format!("{prefix}-{n}").into_bytes())));
}

/// A bridge on the shared stack with its state in `database`.
pub fn bridge(database: &str, flags: &[(&str, &str)]) -> Bridge {
    bridge_in(database, flags, &[])
}

/// Like [`bridge`], with variables that replace those of the stack; one with an empty value is
/// removed.
pub fn bridge_in(database: &str, flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Bridge {
    let state = format!("file:{}", stack().dir.path().join(database).display());
    let mut flags: Vec<_> = [("--clickhouse-database", database)].into_iter().chain(flags.iter().copied()).collect();
    if !engine().has_keeper() {
        flags.push(("--state", &state));
    }
    Bridge::start(binary(), &flags, &environment_with(environment)).expect("a bridge")
}

/// The environment of a bridge on the shared stack, changed.
pub fn environment_with(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut environment = stack().bridge_environment();
    if second::is_meant() {
        environment.extend(stack::aws_environment(&second::endpoint()));
    }
    environment.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    let set = changes.iter().filter(|(_, value)| !value.is_empty());
    environment.extend(set.map(|(name, value)| (name.to_string(), value.to_string())));
    environment
}

/// Runs a statement on the shared ClickHouse.
pub fn sql(statement: &str) -> String {
    stack().clickhouse.query(statement).unwrap_or_else(|error| panic!("{error}\nin\n{statement}"))
}

/// The exception of a statement.
pub fn exception(statement: &str) -> String {
    stack().clickhouse.query(statement).expect_err(statement)
}

/// The sentence that the bridge wrote, from within ClickHouse's exception.
pub fn message(exception: &str) -> &str {
    let told = exception.split_once("\"message\":\"").and_then(|(_, rest)| rest.split_once("\"}"));
    told.map_or(exception, |(message, _)| message)
}

/// A response of a bridge.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The rows of JSONEachRow.
    pub fn rows(&self) -> Vec<serde_json::Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        self.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// GET.
pub fn get(bridge: &Bridge, path: &str) -> Answer {
    answered(agent().get(format!("{}{path}", bridge.url())).call())
}

/// GET with a bearer token.
pub fn get_with_token(bridge: &Bridge, path: &str, token: &str) -> Answer {
    let request = agent().get(format!("{}{path}", bridge.url()));
    answered(request.header("Authorization", format!("Bearer {token}")).call())
}

/// GET with a `Range` header.
pub fn get_range(bridge: &Bridge, path: &str, range: &str) -> Answer {
    answered(agent().get(format!("{}{path}", bridge.url())).header("Range", range).call())
}

/// HEAD.
pub fn head(bridge: &Bridge, path: &str) -> Answer {
    answered(agent().head(format!("{}{path}", bridge.url())).call())
}

/// POST.
pub fn post(bridge: &Bridge, path: &str, body: &str) -> Answer {
    answered(agent().post(format!("{}{path}", bridge.url())).send(body))
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(DEADLINE)).http_status_as_error(false).proxy(None);
    config.build().into()
}

fn answered(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = result.expect("an answer");
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec().expect("a whole body");
    Answer { status, body }
}

/// The value of a metric, whose name includes its labels as Prometheus prints them; none while it
/// has never been set.
pub fn metric(bridge: &Bridge, name: &str) -> Option<f64> {
    let metrics = get(bridge, "/metrics").text();
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "{what} did not come within {} s", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The wall clock, in Unix ms.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as i64
}

/// The emulator keeps times in whole seconds, so what must be told apart has to be in different
/// ones.
pub fn next_second() {
    let second = now_ms() / 1_000;
    wait_until("the next second", || now_ms() / 1_000 > second);
}

/// Waits until `holds` returns true.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Creates the view `pipe_view` over the bridge's `next`, which loads keys, positions and payloads
/// into the table `pipe`. `query` is the part of the URL after `next?`.
pub fn create_pipe(bridge: &Bridge, pipe: &str, query: &str) {
    let url = format!("{}/v1/pipes/{pipe}/next?{query}", bridge.url());
    sql(&format!(
        "CREATE TABLE {pipe} (_key String, _shard_id String, _sequence_number String, _timestamp DateTime64(3, 'UTC'), _raw_message String) \
         ENGINE = MergeTree ORDER BY _key SETTINGS non_replicated_deduplication_window = 1000"
    ));
    sql(&format!(
        "CREATE MATERIALIZED VIEW {pipe}_view REFRESH AFTER 2 SECOND \
         SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 1000 \
         APPEND TO {pipe} AS SELECT _key, _shard_id, _sequence_number, _timestamp, _raw_message FROM url('{url}', 'ArrowStream', '{NEXT}') \
         ORDER BY ALL SETTINGS http_max_tries = 1, max_threads = 1"
    ));
}

/// Drops what [`create_pipe`] created.
pub fn drop_pipe(pipe: &str) {
    sql(&format!("DROP TABLE {pipe}_view"));
    sql(&format!("DROP TABLE {pipe}"));
}

/// The exception of a view's last refresh, once it has one.
pub fn refresh_exception(view: &str) -> String {
    let statement = format!("SELECT exception FROM system.view_refreshes WHERE view = '{view}' FORMAT TSVRaw");
    wait_for(&format!("an exception of {view}"), || {
        let exception = sql(&statement);
        (!exception.trim().is_empty()).then_some(exception)
    })
}
