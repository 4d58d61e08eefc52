//! Every limit of the program, and where it comes from. No other code may define a bound of its
//! own.

mod http;

use std::time::Duration;

pub use http::*;

/// Longest sequence number accepted. Kinesis documents 56 digits today and "128 bits or more"; 128
/// digits is far beyond both.
pub const MAX_SEQUENCE_NUMBER_DIGITS: usize = 128;

/// Default of `max_rows`, from the interface contract. Below ClickHouse's
/// `min_insert_block_size_rows` (1,048,449), so a batch is one block.
pub const DEFAULT_MAX_ROWS: usize = 500_000;
/// Largest `max_rows`: one row below `min_insert_block_size_rows`; more would split a batch into
/// several blocks.
pub const MAX_MAX_ROWS: usize = 1_048_448;
/// Default of `max_bytes`, from the interface contract.
pub const DEFAULT_MAX_BYTES: usize = 64 << 20;
/// Largest `max_bytes`: half of ClickHouse's `min_insert_block_size_bytes` (256 MiB), since
/// flattened rows may be larger than the payload.
pub const MAX_MAX_BYTES: usize = 128 << 20;
/// The longest that a batch fills once it has a record if `linger_ms` is not given; from the
/// interface contract.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(1_000);
/// Time between two batches if `linger_ms` is not given: ClickHouse gets four parts a second, and a
/// query sees a record within a quarter of a second.
pub const BATCH_EVERY: Duration = Duration::from_millis(250);
/// The same with fan-out, which is chosen and paid for to be faster.
pub const PUSHED_BATCH_EVERY: Duration = Duration::from_millis(80);
/// Most shards of a pipe that are asked at the same time.
pub const ROUND_SHARDS: usize = 32;
/// Default of `wait_ms`, from the interface contract.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(10_000);
/// Largest `linger_ms` and `wait_ms`: together they stay under ClickHouse's `http_receive_timeout`
/// of 30 s.
pub const MAX_WAIT: Duration = Duration::from_millis(12_000);
/// Most shards in one batch: all its lease rows are written in one Keeper request, which is limited
/// to 1 MB.
pub const MAX_SHARDS_PER_BATCH: usize = LEASE_ROWS_PER_STATEMENT;

/// Largest total size of one Kinesis record's payloads once decompressed; anything beyond stays
/// compressed. A record has at most 10 MiB (AWS), 1 MiB by default, and logs compress about ten to
/// one. Six times this size, which JSON escaping may need, is still below what ClickHouse accepts
/// for one row of JSON (100 MiB: ten times `min_chunk_bytes_for_parallel_parsing`); otherwise one
/// such record would stop a pipe. Constant, because a replay must give the same rows everywhere.
pub const MAX_INFLATED: usize = 16 << 20;
/// The most memory reserved at once for a gzip payload, as a multiple of its compressed size: logs
/// compress about ten to one, and the size a payload declares may be false.
pub const LIKELY_RATIO: usize = 16;
/// Bytes of rows unpacked at a time before the buffer is asked for room.
pub const UNPACKED_CHUNK: usize = 1 << 20;
/// Maximum nesting of objects and arrays in a payload that `split=json` splits. The same depth as
/// serde_json and the other payload parsers here.
pub const MAX_JSON_DEPTH: usize = 128;
/// Log events in one CloudWatch envelope (CloudWatch Logs accepts 10,000 per PutLogEvents).
pub const MAX_LOG_EVENTS: usize = 100_000;

/// `unmarshal=dynamodb`: most characters in `_error`. With 8,192 rows of them, and the payload
/// excerpts they quote, the column of a record batch stays under 4 MiB.
pub const UNMARSHAL_ERROR_CHARS: usize = 300;
/// `unmarshal=dynamodb`: bytes that each buffer keeps from one event to the next. Few items are
/// larger; DynamoDB allows 400 KB.
pub const UNMARSHAL_KEPT_BYTES: usize = 64 << 10;
/// When a change to a DynamoDB table can have been made, in microseconds since 1970: from 2012,
/// when DynamoDB was launched, to 2100. A timestamp read in the wrong unit (seconds, milliseconds,
/// microseconds, nanoseconds) falls outside.
pub const DYNAMODB_TIMES: std::ops::Range<i64> = 1_325_376_000_000_000..4_102_444_800_000_000;

/// Rows in one Arrow record batch. With 56 digits of sequence number the widest small column stays
/// under 0.5 MiB.
pub const ARROW_BATCH_ROWS: usize = 8_192;
/// Bytes of payload in one Arrow record batch. ClickHouse's reader seeks (reconnects) over unused
/// column buffers of about 4 MiB (`remote_read_min_bytes_for_seek`); 1 MiB stays well below. A
/// single larger record gets a batch of its own.
pub const ARROW_BATCH_BYTES: usize = 1 << 20;
/// Rows in one Parquet row group; together with the byte limit below it bounds the writer's memory.
pub const PARQUET_GROUP_ROWS: usize = 65_536;
/// Bytes of payload in one Parquet row group.
pub const PARQUET_GROUP_BYTES: usize = 16 << 20;

/// GetRecords: calls per second and shard (AWS: 5, shared by all polling consumers of the stream).
pub const GET_RECORDS_PER_SECOND: u32 = 5;
/// GetRecords: payload bytes per second and shard (AWS: 2 MiB).
pub const GET_RECORDS_BYTES_PER_SECOND: usize = 2 << 20;
/// Consecutive empty responses after which the time between calls doubles.
pub const IDLE_POLLS: u32 = 25;
/// Longest time between calls on an idle shard.
pub const MAX_IDLE_POLL: Duration = Duration::from_secs(1);
/// GetRecords: most records per call (AWS).
pub const GET_RECORDS_MAX_RECORDS: usize = 10_000;
/// GetRecords: most payload bytes per call (AWS).
pub const GET_RECORDS_MAX_BYTES: usize = 10 << 20;
/// Payload bytes that one call aims for: what AWS lets a shard deliver per second, and small enough
/// to decode in a small memory budget.
pub const GET_RECORDS_TARGET_BYTES: usize = 2 << 20;
/// Bytes of a response for each record in it, before its size is known: a payload of some 60 bytes
/// in base64, and about 180 bytes around it. Only for the first allocation.
pub const BODY_BYTES_PER_RECORD: usize = 256;
/// Nesting of what is passed over in a response in CBOR; AWS's have three levels.
pub const CBOR_DEPTH: usize = 16;
/// Times in CBOR below this are seconds, others milliseconds: as seconds it is the year 5138, as
/// milliseconds 1973. AWS sends milliseconds, some emulators the seconds of RFC 8949.
pub const CBOR_FIRST_MS: f64 = 1e11;
/// Time without a pull after which the next one has quiet shards asked at once. Inserts that take a
/// while must not make them busy.
pub const PULLS_RESTED: Duration = Duration::from_secs(10);
/// `poll_ms` when not given, and the pace of bounded reads: as often as AWS lets a shard be read.
pub const DEFAULT_POLL: Duration = Duration::from_millis(1_000 / GET_RECORDS_PER_SECOND as u64);
/// Shortest `poll_ms`: below it the client's own work dominates.
pub const MIN_POLL: Duration = Duration::from_millis(5);
/// Longest `poll_ms`.
pub const MAX_POLL: Duration = Duration::from_millis(10_000);
/// How often a pipe looks at each of its shards while it waits for records: for marks of idle ones,
/// and whether it is time for what happens at longer intervals. The shortest of these is a second.
pub const CHORES_EVERY: Duration = Duration::from_secs(1);
/// ListShards: time between checks for new shards.
pub const SHARD_REFRESH: Duration = Duration::from_secs(30);
/// ListShards: the same while children named at the end of a shard are not listed yet.
pub const CHILD_REFRESH: Duration = Duration::from_secs(1);
/// ListShards: shards per page (AWS: 1,000; 10,000 at most).
pub const LIST_SHARDS_PAGE: i32 = 1_000;
/// Most shards of one stream that are listed (AWS's own limits are 20,000 for the largest regions).
pub const MAX_SHARDS_PER_STREAM: usize = 20_000;
/// Most streams that `streams` lists.
pub const MAX_STREAMS: usize = 10_000;
/// Retries with jitter: a reader's first pause. The longest is [`RETRY_LONGEST`].
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// See [`RETRY_FIRST`].
pub const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How long a bounded read waits for Kinesis to come back before its query fails. Below
/// ClickHouse's `http_receive_timeout` of 30 s.
pub const CURSOR_PATIENCE: Duration = Duration::from_secs(15);
/// How far back `sample` looks, in steps, until it has enough records; after that, to the oldest
/// record. ms.
pub const SAMPLE_LOOK_BACK_MS: [i64; 3] = [10_000, 600_000, 3_600_000];
/// GetRecords: records of the first call on a shard, before their size is known. With records of
/// 10 KB that is the target below; a response is never larger than AWS's 10 MiB.
pub const GET_RECORDS_FIRST_RECORDS: usize = 250;
/// GetRecords: a response that takes longer is followed by a call for fewer records.
pub const SLOW_RESPONSE: Duration = Duration::from_secs(2);
/// GetRecords: timeout of one call, as long as its response keeps coming. A record of 10 MiB needs a
/// link of 2 Mbit/s then. Well within the five minutes for which an iterator can be used.
pub const GET_RECORDS_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of one Kinesis call, including all SDK retries.
pub const KINESIS_CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection to Kinesis may take: the SDK's default.
pub const KINESIS_CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);
/// Timeout of one attempt of a Kinesis call.
pub const KINESIS_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Obtaining credentials (STS, SSO, the container's or instance's role): timeout, all attempts
/// included. Below that of the call that waits for them, whose error would hide the cause.
pub const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(12);
/// See [`CREDENTIALS_TIMEOUT`]: timeout of one attempt.
pub const CREDENTIALS_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Credentials that are refused, or that are not there, are looked for again at most this often.
pub const CREDENTIALS_RENEWAL: Duration = Duration::from_secs(3);
/// A clock that is wrong by more than this is why a signature is refused (AWS accepts 5 minutes).
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(240);
/// Bytes that a message quotes of an answer that is not AWS's.
pub const QUOTED_ANSWER: usize = 200;
/// Consumers that a stream may have (AWS: 20; 50 with on-demand advantage). Only used in messages,
/// not enforced.
pub const MAX_CONSUMERS_PER_STREAM: usize = 20;
/// Longest consumer name (AWS).
pub const MAX_CONSUMER_NAME: usize = 128;
/// How long a pull waits for its consumer to become active before it fails and is retried. AWS
/// takes a few seconds; the client waits 30 s.
pub const CONSUMER_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two checks of a consumer that is not active yet (AWS: 20 DescribeStreamConsumer
/// calls per second).
pub const CONSUMER_LOOK: Duration = Duration::from_millis(500);
/// SubscribeToShard: time until the response starts. Same as for any other call; polling continues
/// meanwhile.
pub const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// SubscribeToShard: time between two calls for one shard, and between checks whether another
/// subscription still blocks it (AWS lets a new call take over one that is 5 s old).
pub const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);
/// Subscriptions of one pipe opened concurrently. Each delivers a first event of unknown size.
pub const SUBSCRIBES_AT_ONCE: usize = 16;
/// How long another subscription may block this one before it is reported: twice AWS's 5 s.
pub const TAKEOVER_PATIENCE: Duration = Duration::from_secs(10);
/// A subscription without an event for this long is stalled: AWS sends one every few seconds, even
/// without records. Including what follows, reading continues by polling well within 30 s.
pub const SUBSCRIPTION_SILENCE: Duration = Duration::from_secs(12);
/// A subscription not read for this long, because buffers are full, is given up: on a shared
/// connection it would block others.
pub const SUBSCRIPTION_UNREAD: Duration = Duration::from_secs(5);
/// First pause before retrying enhanced fan-out after a failure; doubles up to
/// [`FAN_OUT_RETRY_LONGEST`].
pub const FAN_OUT_RETRY_FIRST: Duration = Duration::from_secs(5);
/// See [`FAN_OUT_RETRY_FIRST`].
pub const FAN_OUT_RETRY_LONGEST: Duration = Duration::from_secs(300);
/// A subscription that delivered events for this long is healthy: its end is not a failure, and the
/// back-off is reset. AWS itself ends subscriptions after 5 minutes.
pub const SUBSCRIPTION_WELL: Duration = Duration::from_secs(60);
/// Arrival timestamps are approximate and may be out of order: time ranges are read with this much
/// margin and then filtered.
pub const TIMESTAMP_SLACK_MS: i64 = 5_000;
/// How often an idle shard's lease row is updated with the time when there was nothing left to
/// read. Far below the shortest retention (24 h).
pub const CAUGHT_UP_REFRESH_MS: i64 = 3_600_000;
/// Shortest retention a stream can have (AWS: 24 h): anything that arrived since then still exists,
/// whatever the retention is.
pub const SHORTEST_RETENTION_MS: i64 = 24 * 3_600_000;
/// How often a running pipe checks whether the retention was changed, in addition to before every
/// decision that depends on it. One call per pipe (AWS: 20 DescribeStreamSummary calls per second
/// and account).
pub const RETENTION_LOOK_MS: i64 = 300_000;
/// Shards that one `records` request reads concurrently.
pub const RECORDS_SHARDS_AT_ONCE: usize = 4;
/// Bounded reads get 1/N of `--memory` to themselves and pipes get the rest, so that neither can
/// starve the other.
pub const RECORDS_SHARE: usize = 4;
/// Largest `n` of `slice=i/n`.
pub const MAX_SLICES: u32 = 1_024;
/// Default and largest `limit` of `sample`.
pub const DEFAULT_SAMPLE: usize = 10;
/// See [`DEFAULT_SAMPLE`].
pub const MAX_SAMPLE: usize = 10_000;

/// `sql pipe`: records in the sample. Enough to see fields that one record in a hundred has; with
/// small records, one call returns them.
pub const PIPE_SAMPLE: usize = 1_000;
/// `sql pipe`: payload bytes to analyse, newest first. They are part of one statement, which
/// ClickHouse parses as a whole.
pub const PIPE_SAMPLE_BYTES: usize = 8 << 20;
/// `sql pipe`: the `max_query_size` of such a statement: the sample, escaped twice (as JSON, and as
/// a literal), plus the rest of the statement.
pub const PIPE_QUERY_BYTES: usize = 8 * PIPE_SAMPLE_BYTES;
/// `sql pipe --dry-run`: rows shown. More do not fit on a screen.
pub const DRY_RUN_ROWS: usize = 10;
/// `sql pipe`: most fields of an object that become a Tuple, or of a record that become columns.
/// The same number that ClickHouse's JSON type stores as columns (`max_dynamic_paths`).
pub const MAX_TUPLE_FIELDS: usize = 1_024;
/// `sql pipe`: percentage of a sample's lines that must have the same number of delimiters to count
/// as CSV or similar. The rest may be headers, comments and truncated lines.
pub const DELIMITED_SHARE: usize = 80;
/// `sql dynamodb`: most attributes that become columns, chosen by how many items have them; the
/// others stay in `rest`. Flattening this many still fits into ClickHouse's `max_query_size` of 256
/// KiB.
pub const MAX_ATTRIBUTE_COLUMNS: usize = 500;
/// `sql dynamodb`: longest attribute name, in bytes, that becomes a column. DynamoDB allows this
/// for key names, and 64 KB for others.
pub const MAX_COLUMN_NAME: usize = 255;
/// From here on ClickHouse's JSON parser may write a double as an integer that it then refuses to
/// read: 10^18 is the last power of ten below 2^63.
pub const WIDE_FROM: f64 = 1e18;
/// The first second that DateTime64 can represent, 1900-01-01.
pub const DATE_TIME64_FIRST: i64 = -2_208_988_800;
/// The first second that DateTime64 can no longer represent, 2300-01-01.
pub const DATE_TIME64_END: i64 = 10_413_792_000;
/// Characters of one comment in generated SQL: enough for a suggested column with a type of many
/// fields, while a field name of a megabyte, which a record may have, cannot blow up the header.
pub const MAX_COMMENT_CHARS: usize = 8_192;
/// `sql dynamodb`: lines of an export to analyse. [`EXPORT_SAMPLE_FILES`] limits the files they
/// come from.
pub const EXPORT_SAMPLE_LINES: usize = 4_000;
/// See [`EXPORT_SAMPLE_LINES`].
pub const EXPORT_SAMPLE_FILES: usize = 8;
/// `sql dynamodb`: data files loaded per statement. A name has about 100 bytes, so the statement
/// stays well under `max_query_size`.
pub const EXPORT_FILES_PER_STATEMENT: usize = 500;

/// Shortest `--lease-duration`: several heartbeats of a few milliseconds each must fit into it.
pub const MIN_LEASE_DURATION: Duration = Duration::from_millis(100);
/// Longest `--lease-duration`: for this long, nobody reads the shards of a worker that died.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(3_600);
/// Heartbeats per lease duration: losing two in a row expires nobody, and a dead worker is replaced
/// within 1.4 lease durations.
pub const BEATS_PER_LEASE: u32 = 5;
/// Heartbeats are at least 1/N of a lease duration apart, even when there is something urgent to
/// publish.
pub const SHORTEST_BEAT_SHARE: u32 = 50;
/// A process that finds a row with its worker id watches it for 1/N of the lease duration, 2.5
/// heartbeats, before it takes the id over.
pub const ADMISSION_SHARE: u32 = 2;
/// A seat that a worker no longer announces is forgotten after N lease durations; after one, its
/// leases are nobody's.
pub const SEATS_REMEMBERED: u32 = 10;
/// How often the distribution of leases is reconsidered if nothing is known to have changed.
pub const BALANCE_EVERY: Duration = Duration::from_secs(1);
/// The load of workers that pull one pipe may differ by 1/N of their average before leases move:
/// records of a moved lease are read again.
pub const BALANCE_TOLERANCE: u64 = 5;
/// How long the loads must have differed by more than that, unless workers have come or left: half
/// of [`RATE_WINDOW_MS`], in which one batch that others are about to commit, too, loses its weight.
pub const BALANCE_PATIENCE: Duration = Duration::from_secs(30);
/// Weight of a shard without any records, in bytes per second: polling it has a cost, too.
pub const LEASE_BASE_WEIGHT: u64 = 16 << 10;
/// Time over which a shard's rate is averaged when leases are distributed, ms.
pub const RATE_WINDOW_MS: i64 = 60_000;
/// Smallest `--memory`: one GetRecords response of 10 MiB and its decoded form must fit.
pub const MIN_MEMORY: usize = 32 << 20;

/// Time without a pull after which a pipe's readers stop and its buffers are dropped.
pub const PIPE_IDLE_BUFFERS: Duration = Duration::from_secs(60);
/// Time without a pull after which a pipe releases its leases.
pub const PIPE_IDLE_LEASES: Duration = Duration::from_secs(300);
/// How long a new pull waits for the outcome of the previous batch before that batch is served
/// again. Releases before 26.7 do not answer WAIT VIEW once the next refresh has begun, which
/// happens only if something else starts it: a record then waits this much longer.
pub const SETTLE_GRACE: Duration = Duration::from_millis(500);
/// How long the state in which a view was found is relied on, from before it was asked for: several
/// times what that takes, and less than any pause of a schedule. A batch whose records were there
/// before the pull need not wait for it twice.
pub const VIEW_STATE_HOLDS: Duration = Duration::from_millis(50);
/// A view whose schedule starts its next refresh within this time is started immediately: pipes
/// usually say `REFRESH AFTER 2 SECOND`, and ClickHouse's times are whole seconds, rounded either
/// way. Users who want longer pauses say so in the schedule.
pub const REFRESH_DUE_SECONDS: u32 = 3;
/// How long a pipe tries to start a refresh; by then the schedule of a view with `AFTER 2 SECOND`
/// has started it.
pub const REFRESH_START: Duration = Duration::from_secs(2);
/// First pause before checking whether a refresh has begun; each further pause is twice as long.
pub const REFRESH_LOOK: Duration = Duration::from_millis(5);
/// Statements about leases that one bridge has in flight. Hundreds of pipes that wake at the same
/// time make ClickHouse run out of file descriptors (seen with 300) and delay the heartbeat, which
/// does not count here.
pub const LEASE_STATEMENTS: usize = 64;
/// Outstanding WAIT VIEW statements of one pipe.
pub const MAX_OUTSTANDING_WAITS: usize = 8;
/// How often an idle pipe checks whether it is still needed, while something may change that.
pub const IDLE_TICK: Duration = Duration::from_secs(1);
/// A pipe being ended must not be pulled for this long: a failing view comes back after 5 s at most
/// (`refresh_retry_max_backoff_ms`).
pub const END_QUIET: Duration = Duration::from_secs(6);
/// How often to check whether a pipe being ended is still pulled.
pub const END_LOOK: Duration = Duration::from_millis(200);
/// How often a write is retried after a conflict that turned out to be harmless.
pub const CONFLICT_RETRIES: usize = 5;
/// How often a commit is retried while someone edits its rows.
pub const COMMIT_RETRIES: usize = 5;
/// Consecutive attempts that must fail because of a batch's rows before `on_failure=isolate`
/// searches for them: transient failures have passed by then.
pub const ISOLATE_AFTER_ATTEMPTS: u32 = 3;
/// After a bad row, one row is tried; each success multiplies the number by this: bad rows come in
/// clusters.
pub const ISOLATE_GROWTH: usize = 4;
/// Rows that one pipe may have in `kinesis.quarantine`. More than this is not an exception any
/// more, and Keeper holds them in memory.
pub const QUARANTINE_ROWS: u64 = 10_000;
/// Largest payload kept in `kinesis.quarantine`: a row must fit into one Keeper request of 1 MB,
/// with room to spare.
pub const QUARANTINE_PAYLOAD: usize = 256 << 10;
/// Payload bytes that one pipe may have in `kinesis.quarantine`, because Keeper holds them in
/// memory; further rows are kept without their payload.
pub const QUARANTINE_BYTES: u64 = 64 << 20;
/// Most pipes that one bridge runs.
pub const MAX_PIPES: usize = 1_000;
/// Most views that pull one pipe at one bridge. Each inserts with one thread, and the largest
/// servers have about as many cores.
pub const MAX_VIEWS_PER_PIPE: usize = 64;
/// Pulls of one view that may queue while another is served.
pub const MAX_QUEUED_PULLS: usize = 16;

/// Longest pipe, stream and worker name (Kinesis: 128 characters for a stream).
pub const MAX_NAME: usize = 128;

/// ClickHouse: timeout of a statement on the state tables.
pub const CLICKHOUSE_TIMEOUT: Duration = Duration::from_secs(15);
/// ClickHouse: timeout of a statement of `sql pipe` and similar commands. 25.8 took 8 s to analyse
/// a pipe into 48 columns of all types, on two busy cores; a whole sample or the files of an export
/// are read as well.
pub const CLICKHOUSE_SQL_TIMEOUT: Duration = Duration::from_mins(2);
/// ClickHouse: timeout for opening a connection.
pub const CLICKHOUSE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// ClickHouse: how long an idle connection is kept; servers before 23.x close theirs after 3 s
/// (`keep_alive_timeout`).
pub const CLICKHOUSE_POOL_IDLE: Duration = Duration::from_millis(2_500);
/// ClickHouse: characters of an exception that are kept; the rest is mostly the statement.
pub const CLICKHOUSE_ERROR_CHARS: usize = 500;
/// Bytes of all rows and paths in one Keeper request, which is limited to 1,048,575
/// (`jute.maxbuffer`).
pub const KEEPER_REQUEST_BYTES: usize = 900_000;
/// The format version of `leases.json` with `--state file:DIR`, stored in its header; the only one
/// so far.
pub const STATE_FILE_FORMAT: u32 = 1;
/// Views of one pipe whose definitions are cached.
pub const KNOWN_VIEWS: usize = 16;
/// How long a view's definition is cached while no view is created or dropped: `ALTER TABLE …
/// MODIFY QUERY` changes one without any other trace. With 2,400 tables ClickHouse takes 5 ms to
/// return it.
pub const DEFINITION_HOLDS: Duration = Duration::from_secs(10);
/// Views below a pipe's table; if there are more, none is checked.
pub const VIEWS_BELOW: usize = 1_000;
/// How long after the end of a refresh the views found then still count as those the next refresh
/// started with: the bridge starts it immediately.
pub const VIEWS_BELOW_HOLD: Duration = Duration::from_secs(1);
/// Shards named in a warning.
pub const SHARDS_IN_A_WARNING: usize = 8;
/// How long a pipe shows a warning about data that is already in ClickHouse.
pub const WARNING_HOLDS: Duration = Duration::from_secs(24 * 3600);
/// Lease rows in one statement, so that a Keeper request stays under 1 MB: a row takes less than
/// 1,000 bytes with names of the usual length, less than 1,800 with the longest.
pub const LEASE_ROWS_PER_STATEMENT: usize = 500;
/// SIGTERM: time within which everything ends, from the interface contract.
pub const SHUTDOWN: Duration = Duration::from_secs(10);
/// SIGTERM: the part of [`SHUTDOWN`] reserved for the process to exit when all the rest was used.
pub const SHUTDOWN_MARGIN: Duration = Duration::from_secs(1);

/// `dynamodb verify`: most segments of a scan; each has its own connection (AWS: 1,000,000).
pub const MAX_SCAN_SEGMENTS: u32 = 256;
/// `dynamodb verify`: most read capacity units per second, 25 times AWS's default for a table
/// (40,000).
pub const MAX_VERIFY_RCU: u32 = 1_000_000;
/// `dynamodb verify`: shortest `--timeout`: an item must be seen unchanged for some seconds.
pub const MIN_VERIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// `dynamodb verify`: longest `--timeout`.
pub const MAX_VERIFY_TIMEOUT: Duration = Duration::from_secs(86_400);
/// `dynamodb verify`: an item must have been unchanged in DynamoDB for 1/N of `--timeout`;
/// otherwise a difference may just be in flight.
pub const VERIFY_SETTLED_SHARE: u32 = 3;
/// `dynamodb verify`: a round takes at most 1/N of what is left of `--timeout`, so that there is
/// time for another.
pub const VERIFY_ROUND_SHARE: u32 = 2;
/// `dynamodb verify`: first pause between two rounds; it doubles up to [`VERIFY_PAUSE_LONGEST`].
pub const VERIFY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// See [`VERIFY_PAUSE_FIRST`].
pub const VERIFY_PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// `dynamodb verify`: time between two progress messages.
pub const VERIFY_PROGRESS: Duration = Duration::from_secs(10);
/// `dynamodb verify`: how often a request that waits for read capacity units checks whether others
/// needed fewer than estimated.
pub const VERIFY_PACE_LOOK: Duration = Duration::from_millis(50);
/// `dynamodb verify`: longest silence in a response of ClickHouse. FINAL may read for a long time
/// before the first row.
pub const VERIFY_SILENCE: Duration = Duration::from_secs(300);
/// `dynamodb verify`: the `max_query_size` of a statement with the keys of [`BATCH_GET_ITEMS`]
/// items in up to three spellings, of 3 KiB each (AWS: 2,048 and 1,024 bytes), in base64 and
/// escaped.
pub const VERIFY_QUERY_BYTES: usize = 8 << 20;
/// `dynamodb verify`: memory per item in the first pass in addition to its key, which `--memory`
/// bounds: a hash table slot of 24 bytes, in a table that is half empty after growing, plus the
/// allocation overhead.
pub const VERIFY_ITEM_BYTES: usize = 80;
/// `dynamodb verify`: memory per rechecked item in addition to its key: its history, and what is
/// shown of it.
pub const VERIFY_CANDIDATE_BYTES: usize = 1 << 10;
/// `dynamodb verify`: attributes shown of a differing item. [`VERIFY_SHOWN_CHARS`] limits each
/// value.
pub const VERIFY_SHOWN_ATTRIBUTES: usize = 10;
/// See [`VERIFY_SHOWN_ATTRIBUTES`].
pub const VERIFY_SHOWN_CHARS: usize = 100;
/// Scan: read capacity units of a 1 MiB page, eventually consistent (AWS).
pub const SCAN_PAGE_UNITS: f64 = 128.0;
/// BatchGetItem: most keys (AWS).
pub const BATCH_GET_ITEMS: usize = 100;
/// Bytes of an item covered by one read capacity unit; twice as many if the read may be eventually
/// consistent (AWS).
pub const READ_UNIT_BYTES: usize = 4 << 10;
/// Scan and BatchGetItem: attempts per call, since a table may throttle for a long time.
pub const TABLE_READ_ATTEMPTS: u32 = 10;
/// Scan and BatchGetItem: timeout of a call, all attempts included.
pub const TABLE_READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Fewer threads than this in ClickHouse's background schedule pool are worth a note: each view
/// that waits for records occupies one. A standalone server has 512, one embedded in a library 2.
pub const SCHEDULE_POOL_THREADS: u64 = 16;
/// `check`: how long a running bridge has for an answer, which it has in memory.
pub const BRIDGE_ANSWERS: Duration = Duration::from_secs(5);
/// `check`: most bytes of such an answer: [`MAX_SHARDS_PER_STREAM`] rows of `/v1/pipes`, each with
/// an error of [`CLICKHOUSE_ERROR_CHARS`] and as much again.
pub const BRIDGE_ANSWER_BYTES: usize = 2 * MAX_SHARDS_PER_STREAM * CLICKHOUSE_ERROR_CHARS;
/// `check`: by how much clocks may differ without a word. The date of a response has whole seconds.
pub const CLOCK_DIFFERS_MS: i64 = 10_000;
/// By how much the machine's clock may be wrong before AWS refuses what it signs.
pub const CLOCK_REFUSED_MS: i64 = 5 * 60_000;
