//! Every limit of the program, with its source. Nothing else in the crate may hold a bound of its
//! own.

use std::time::Duration;

/// Longest sequence number accepted. Kinesis documents 56 digits today and "128 bits or more"; 128
/// digits is far beyond both.
pub const MAX_SEQUENCE_NUMBER_DIGITS: usize = 128;

/// Default of `max_rows`, from the interface contract. Under ClickHouse's
/// `min_insert_block_size_rows` (1,048,449), so a batch is one block.
pub const DEFAULT_MAX_ROWS: usize = 500_000;
/// Largest `max_rows`: one row under `min_insert_block_size_rows`; more would split a batch into
/// several blocks.
pub const MAX_MAX_ROWS: usize = 1_048_448;
/// Default of `max_bytes`, from the interface contract.
pub const DEFAULT_MAX_BYTES: usize = 64 << 20;
/// Largest `max_bytes`: half of ClickHouse's `min_insert_block_size_bytes` (256 MiB), since
/// flattened rows may be larger than the payload.
pub const MAX_MAX_BYTES: usize = 128 << 20;
/// Default of `linger_ms`, from the interface contract.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(1_000);
/// Default of `wait_ms`, from the interface contract.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(10_000);
/// Largest `linger_ms` and `wait_ms`: together they stay under ClickHouse's `http_receive_timeout`
/// of 30 s.
pub const MAX_WAIT: Duration = Duration::from_millis(12_000);
/// Most shards in one batch: all its lease rows are written in one Keeper request, which may have 1
/// MB.
pub const MAX_SHARDS_PER_BATCH: usize = LEASE_ROWS_PER_STATEMENT;

/// What the payloads of one Kinesis record may be together when they are decompressed; what would
/// be more stays as it is. A record has 10 MiB at most (AWS), and 1 MiB by default, and logs shrink
/// to a tenth. Six times as much, as JSON may need for it, is under what ClickHouse takes for one
/// row of JSON (100 MiB: ten times `min_chunk_bytes_for_parallel_parsing`), or one such record
/// would stop a pipe. Constant, because a replay must give the same rows everywhere.
pub const MAX_INFLATED: usize = 16 << 20;
/// How often a gzip payload's own size is reserved at once when it says that it becomes so large:
/// logs shrink to a tenth, and a payload may say anything.
pub const LIKELY_RATIO: usize = 16;
/// Bytes of rows that are unpacked at a time before the buffer is asked for room.
pub const UNPACKED_CHUNK: usize = 1 << 20;
/// Levels of objects and arrays in a payload that `split=json` takes apart. serde_json, and with it
/// the other readers of payloads here, goes as deep.
pub const MAX_JSON_DEPTH: usize = 128;
/// Log events in one CloudWatch envelope (CloudWatch Logs takes 10,000 in one PutLogEvents).
pub const MAX_LOG_EVENTS: usize = 100_000;

/// `unmarshal=dynamodb`: most characters of `_error`. With 8,192 of them, and what they quote of
/// their payloads, the column of a record batch stays under 4 MiB.
pub const UNMARSHAL_ERROR_CHARS: usize = 300;
/// `unmarshal=dynamodb`: what each buffer keeps from one event to the next, bytes. Hardly an item
/// is larger; DynamoDB allows 400 KB.
pub const UNMARSHAL_KEPT_BYTES: usize = 64 << 10;
/// When a change of a DynamoDB table can have been made, in microseconds since 1970: from 2012,
/// when DynamoDB came, to 2100. A number of seconds, milliseconds, microseconds or nanoseconds that
/// is taken for another of them lies outside.
pub const DYNAMODB_TIMES: std::ops::Range<i64> = 1_325_376_000_000_000..4_102_444_800_000_000;

/// Rows in one Arrow record batch. With 56 digits of sequence number the widest small column stays
/// under 0.5 MiB.
pub const ARROW_BATCH_ROWS: usize = 8_192;
/// Bytes of payload in one Arrow record batch. ClickHouse's reader seeks (reconnects) over unused
/// column buffers of about 4 MiB (`remote_read_min_bytes_for_seek`); 1 MiB stays well below. A
/// single larger record stands alone.
pub const ARROW_BATCH_BYTES: usize = 1 << 20;
/// Rows in one Parquet row group; with the byte bound below it bounds the writer's memory.
pub const PARQUET_GROUP_ROWS: usize = 65_536;
/// Bytes of payload in one Parquet row group.
pub const PARQUET_GROUP_BYTES: usize = 16 << 20;

/// GetRecords: calls a second and shard (AWS: 5, shared by all polling consumers of the stream).
pub const GET_RECORDS_PER_SECOND: u32 = 5;
/// GetRecords: payload bytes a second and shard (AWS: 2 MiB).
pub const GET_RECORDS_BYTES_PER_SECOND: usize = 2 << 20;
/// Empty answers in a row after which the time between calls doubles.
pub const IDLE_POLLS: u32 = 25;
/// Longest time between calls on a quiet shard.
pub const MAX_IDLE_POLL: Duration = Duration::from_secs(1);
/// GetRecords: most records a call (AWS).
pub const GET_RECORDS_MAX_RECORDS: usize = 10_000;
/// GetRecords: most payload bytes a call (AWS).
pub const GET_RECORDS_MAX_BYTES: usize = 10 << 20;
/// Payload bytes that one call aims at: what AWS lets a shard give in a second, and small enough to
/// decode in a small memory budget.
pub const GET_RECORDS_TARGET_BYTES: usize = 2 << 20;
/// Shortest `poll_ms`: below it the client's own work dominates.
pub const MIN_POLL: Duration = Duration::from_millis(5);
/// Longest `poll_ms`.
pub const MAX_POLL: Duration = Duration::from_millis(10_000);
/// ListShards: calls between looks for new shards.
pub const SHARD_REFRESH: Duration = Duration::from_secs(30);
/// ListShards: the same while children are not listed that the end of a shard named.
pub const CHILD_REFRESH: Duration = Duration::from_secs(1);
/// ListShards: shards a page (AWS: 1,000; 10,000 at most).
pub const LIST_SHARDS_PAGE: i32 = 1_000;
/// Most shards of one stream that are listed (AWS's own limits are 20,000 for the largest regions).
pub const MAX_SHARDS_PER_STREAM: usize = 20_000;
/// Most streams that `streams` lists.
pub const MAX_STREAMS: usize = 10_000;
/// Retries with jitter: first and longest pause of a reader.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// See [`RETRY_FIRST`].
pub const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How long a bounded read waits for a Kinesis that is away, before its query fails. Under
/// ClickHouse's `http_receive_timeout` of 30 s.
pub const CURSOR_PATIENCE: Duration = Duration::from_secs(15);
/// How far `sample` looks back, in steps, until it has enough records; then to the oldest record.
/// ms.
pub const SAMPLE_LOOK_BACK_MS: [i64; 3] = [10_000, 600_000, 3_600_000];
/// Time for one Kinesis call, all SDK retries included.
pub const KINESIS_CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for one attempt of a Kinesis call.
pub const KINESIS_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Consumers that a stream may have (AWS: 20; 50 with on-demand advantage). Only said, not counted.
pub const MAX_CONSUMERS_PER_STREAM: usize = 20;
/// Longest name of a consumer (AWS).
pub const MAX_CONSUMER_NAME: usize = 128;
/// How long a pull waits for its consumer to become active before it fails and is repeated. AWS
/// takes a few seconds; the client waits 30 s.
pub const CONSUMER_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks at a consumer that is not active yet (AWS: 20 DescribeStreamConsumer
/// calls a second).
pub const CONSUMER_LOOK: Duration = Duration::from_millis(500);
/// SubscribeToShard: time until the answer begins. As for any other call; polling goes on
/// meanwhile.
pub const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// SubscribeToShard: time between two calls for one shard, and between looks whether another
/// subscription is still in the way (AWS takes over from one that is 5 s old).
pub const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);
/// Subscriptions of one pipe that are made at the same time. Each brings a first event of a size
/// that is not known before.
pub const SUBSCRIBES_AT_ONCE: usize = 16;
/// How long another subscription may be in the way before it is said: twice AWS's 5 s.
pub const TAKEOVER_PATIENCE: Duration = Duration::from_secs(10);
/// A subscription without an event for so long is stalled: AWS sends one every few seconds, also
/// without records. With what follows, reading goes on by polling well within 30 s.
pub const SUBSCRIPTION_SILENCE: Duration = Duration::from_secs(12);
/// A subscription that is not read for so long, because buffers are full, is given up: on a shared
/// connection it would be in the way of others.
pub const SUBSCRIPTION_UNREAD: Duration = Duration::from_secs(5);
/// Enhanced fan-out that failed is tried again after this pause, which doubles up to
/// [`FAN_OUT_RETRY_LONGEST`].
pub const FAN_OUT_RETRY_FIRST: Duration = Duration::from_secs(5);
/// See [`FAN_OUT_RETRY_FIRST`].
pub const FAN_OUT_RETRY_LONGEST: Duration = Duration::from_secs(300);
/// A subscription that gave events for so long was a good one: its end is no failure, and the
/// pauses begin anew. AWS's own end comes after 5 minutes.
pub const SUBSCRIPTION_WELL: Duration = Duration::from_secs(60);
/// Arrival timestamps are approximate and may be out of order: time ranges are read this much wider
/// and then filtered.
pub const TIMESTAMP_SLACK_MS: i64 = 5_000;
/// How often the lease row of an idle shard is refreshed with the time at which nothing was left to
/// read. Far below the shortest retention (24 h).
pub const CAUGHT_UP_REFRESH_MS: i64 = 3_600_000;
/// Shortest retention that a stream can have (AWS: 24 h): what arrived since is there, whatever the
/// retention is.
pub const SHORTEST_RETENTION_MS: i64 = 24 * 3_600_000;
/// How often a running pipe looks whether the retention was changed, besides before every decision
/// that it matters for. One call a pipe (AWS: 20 DescribeStreamSummary calls a second and account).
pub const RETENTION_LOOK_MS: i64 = 300_000;
/// Shards that one `records` request reads at the same time.
pub const RECORDS_SHARDS_AT_ONCE: usize = 4;
/// Bounded reads have one part in so many of `--memory` to themselves and pipes have the rest, so
/// that neither can starve the other.
pub const RECORDS_SHARE: usize = 4;
/// Largest `n` of `slice=i/n`.
pub const MAX_SLICES: u32 = 1_024;
/// Default and largest `limit` of `sample`.
pub const DEFAULT_SAMPLE: usize = 10;
/// See [`DEFAULT_SAMPLE`].
pub const MAX_SAMPLE: usize = 10_000;

/// `sql pipe`: records in the sample. Enough to see fields that one record in a hundred has; a
/// stream of small records gives them in one call.
pub const PIPE_SAMPLE: usize = 1_000;
/// `sql pipe`: bytes of payload that are looked at, newest first. They are part of one statement,
/// which ClickHouse parses as a whole.
pub const PIPE_SAMPLE_BYTES: usize = 8 << 20;
/// `sql pipe`: the `max_query_size` of such a statement: the sample, twice escaped (as JSON, and as
/// a literal), and the rest of it.
pub const PIPE_QUERY_BYTES: usize = 8 * PIPE_SAMPLE_BYTES;
/// `sql pipe --dry-run`: rows that are shown. More do not fit on a screen.
pub const DRY_RUN_ROWS: usize = 10;
/// `sql pipe`: most fields of an object that become a Tuple, or of a record that become columns.
/// The same as what ClickHouse's type JSON keeps as columns (`max_dynamic_paths`).
pub const MAX_TUPLE_FIELDS: usize = 1_024;
/// `sql pipe`: percent of the lines of a sample that must have the same number of delimiters to be
/// called CSV or the like. The rest may be headers, comments and what was cut off.
pub const DELIMITED_SHARE: usize = 80;
/// `sql dynamodb`: most attributes that become columns, those that most items have; the others stay
/// in `rest`. The flattening of so many still fits into ClickHouse's `max_query_size` of 256 KiB.
pub const MAX_ATTRIBUTE_COLUMNS: usize = 500;
/// `sql dynamodb`: longest name of an attribute, in bytes, that becomes a column. DynamoDB takes as
/// much for the name of a key, and 64 KB for others.
pub const MAX_COLUMN_NAME: usize = 255;
/// From here on ClickHouse's JSON parser may write a double as an integer that it refuses to read:
/// 10^18 is the last power of ten below 2^63.
pub const WIDE_FROM: f64 = 1e18;
/// The first second that DateTime64 holds, 1900-01-01.
pub const DATE_TIME64_FIRST: i64 = -2_208_988_800;
/// The first second that DateTime64 does not hold, 2300-01-01.
pub const DATE_TIME64_END: i64 = 10_413_792_000;
/// Characters of one comment in generated SQL: a suggested column with a type of many fields fits,
/// and a name of a megabyte, which a record may have, does not make a header of many.
pub const MAX_COMMENT_CHARS: usize = 8_192;
/// `sql dynamodb`: lines of an export that are looked at, and from how many of its files.
pub const EXPORT_SAMPLE_LINES: usize = 4_000;
/// See [`EXPORT_SAMPLE_LINES`].
pub const EXPORT_SAMPLE_FILES: usize = 8;
/// `sql dynamodb`: data files that one statement loads. A name has about 100 bytes, so the
/// statement stays well under `max_query_size`.
pub const EXPORT_FILES_PER_STATEMENT: usize = 500;

/// Shortest `--lease-duration`: several heartbeats of a few milliseconds each must fit into it.
pub const MIN_LEASE_DURATION: Duration = Duration::from_millis(100);
/// Longest `--lease-duration`: for so long nobody reads the shards of a worker that died.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(3_600);
/// Heartbeats in one lease duration: two lost ones in a row kill nobody, and a dead worker is
/// followed within 1.4 lease durations.
pub const BEATS_PER_LEASE: u32 = 5;
/// Heartbeats are at least one part in so many of a lease duration apart, also when something has
/// to be told soon.
pub const SHORTEST_BEAT_SHARE: u32 = 50;
/// A process that finds a row with its worker id watches it for one part in so many of the lease
/// duration, 2.5 heartbeats, before it takes the id over.
pub const ADMISSION_SHARE: u32 = 2;
/// How often the sharing out of leases is thought over when nothing is known to have changed.
pub const BALANCE_EVERY: Duration = Duration::from_secs(1);
/// Workers that pull one pipe may differ by one part in so many of their average load before leases
/// move: what moves is read again.
pub const BALANCE_TOLERANCE: u64 = 5;
/// What a shard weighs without any records, bytes a second: asking for them costs, too.
pub const LEASE_BASE_WEIGHT: u64 = 16 << 10;
/// Time over which a shard's rate is averaged for sharing leases out, ms.
pub const RATE_WINDOW_MS: i64 = 60_000;
/// Smallest `--memory`: one GetRecords answer of 10 MiB and its decoded form must fit.
pub const MIN_MEMORY: usize = 32 << 20;

/// After this time without a pull a pipe's readers stop and its buffers are dropped.
pub const PIPE_IDLE_BUFFERS: Duration = Duration::from_secs(60);
/// After this time without a pull a pipe gives its leases back.
pub const PIPE_IDLE_LEASES: Duration = Duration::from_secs(300);
/// How long a new pull waits for the answer about the previous batch before that batch is served
/// again. Releases before 26.7 do not answer WAIT VIEW once the next refresh has begun, which
/// happens only when somebody else starts it: then this is what a record waits longer.
pub const SETTLE_GRACE: Duration = Duration::from_millis(500);
/// A view whose schedule starts its next refresh within this time is started at once: `REFRESH
/// AFTER 2 SECOND` is what pipes say, and ClickHouse's times are whole seconds, rounded either way.
/// A user who wants larger pauses says so in the schedule.
pub const REFRESH_DUE_SECONDS: u32 = 3;
/// How long a pipe tries to start a refresh; after it the schedule of a view that says `AFTER 2
/// SECOND` has done so.
pub const REFRESH_START: Duration = Duration::from_secs(2);
/// First pause before looking whether a refresh has begun; each is twice the one before.
pub const REFRESH_LOOK: Duration = Duration::from_millis(5);
/// WAIT VIEW statements of one pipe that may be under way.
pub const MAX_OUTSTANDING_WAITS: usize = 8;
/// How often a pipe without work looks whether it is needed.
pub const IDLE_TICK: Duration = Duration::from_secs(1);
/// A pipe that is to end must not be pulled for so long: a view that fails comes back after 5 s at
/// most (`refresh_retry_max_backoff_ms`).
pub const END_QUIET: Duration = Duration::from_secs(6);
/// How often it is looked whether a pipe that is to end is still pulled.
pub const END_LOOK: Duration = Duration::from_millis(200);
/// How often a write is tried again after a conflict that turned out to be harmless.
pub const CONFLICT_RETRIES: usize = 5;
/// How often a commit is tried again when people change the rows under it.
pub const COMMIT_RETRIES: usize = 5;
/// Attempts in a row that must fail because of the rows of a batch before `on_failure=isolate`
/// looks for them: what passes by itself has passed by then.
pub const ISOLATE_AFTER_ATTEMPTS: u32 = 3;
/// Behind a bad row, one row is tried, then so many times more each time that goes well: bad rows
/// come together.
pub const ISOLATE_GROWTH: usize = 4;
/// Rows that one pipe may have in `kinesis.quarantine`. More are hardly exceptions, and Keeper
/// holds them in memory.
pub const QUARANTINE_ROWS: u64 = 10_000;
/// Largest payload that is kept in `kinesis.quarantine`: a row must fit into one Keeper request of
/// 1 MB, with room to spare.
pub const QUARANTINE_PAYLOAD: usize = 256 << 10;
/// Payload bytes that one pipe may have in `kinesis.quarantine`, because Keeper holds them in
/// memory; further rows are kept without payload.
pub const QUARANTINE_BYTES: u64 = 64 << 20;
/// Most pipes that one bridge runs.
pub const MAX_PIPES: usize = 1_000;
/// Pulls of one pipe that may queue behind the one being served.
pub const MAX_QUEUED_PULLS: usize = 16;

/// HTTP: most connections at a time.
pub const MAX_CONNECTIONS: usize = 1_024;
/// HTTP: bytes of the request line and the headers together.
pub const MAX_HEADER_BYTES: usize = 64 << 10;
/// HTTP: number of headers.
pub const MAX_HEADERS: usize = 64;
/// HTTP: bytes of a request body (`seek`, `ack`).
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// HTTP: time for a client to send its headers.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP: time for a client to send its body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP: time in which a client must take the next piece of an answer, or the connection is closed.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(300);
/// HTTP: the same for a bounded read while another one waits for the memory that it holds.
/// ClickHouse takes seconds where a query is heavy.
pub const STALLED_READ: Duration = Duration::from_secs(10);
/// HTTP: how often a sender that waits looks whether it is in somebody's way.
pub const SENDER_LOOK: Duration = Duration::from_millis(500);
/// HTTP: how long accepting rests when a connection could not be accepted (out of file descriptors,
/// usually), so that others can close.
pub const ACCEPT_REST: Duration = Duration::from_millis(50);
/// HTTP: pieces of a body that wait for the socket.
pub const BODY_QUEUE: usize = 4;
/// Longest pipe, stream and worker name (Kinesis: 128 characters for a stream).
pub const MAX_NAME: usize = 128;

/// ClickHouse: time for a statement on the state tables.
pub const CLICKHOUSE_TIMEOUT: Duration = Duration::from_secs(15);
/// ClickHouse: time for a statement of `sql pipe` and the like. 25.8 took 8 s to analyse a pipe
/// into 48 columns of all types, on two busy cores; a whole sample or the files of an export are
/// read, too.
pub const CLICKHOUSE_SQL_TIMEOUT: Duration = Duration::from_mins(2);
/// ClickHouse: time to open a connection.
pub const CLICKHOUSE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// ClickHouse: how long an idle connection is kept; servers before 23.x close theirs after 3 s
/// (`keep_alive_timeout`).
pub const CLICKHOUSE_POOL_IDLE: Duration = Duration::from_millis(2_500);
/// ClickHouse: characters of an exception that are kept; the rest is mostly the statement.
pub const CLICKHOUSE_ERROR_CHARS: usize = 500;
/// Bytes of all rows and paths in one Keeper request, which may have 1,048,575 (`jute.maxbuffer`).
pub const KEEPER_REQUEST_BYTES: usize = 900_000;
/// The format of `leases.json` with `--state file:DIR`, as its header says; the only one so far.
pub const STATE_FILE_FORMAT: u32 = 1;
/// Views of one pipe whose definitions are remembered.
pub const KNOWN_VIEWS: usize = 16;
/// How long the definition of a view holds, as long as no view is created or dropped: `ALTER TABLE
/// … MODIFY QUERY` changes one, and shows nowhere else. With 2,400 tables ClickHouse takes 5 ms to
/// tell it.
pub const DEFINITION_HOLDS: Duration = Duration::from_secs(10);
/// Views below a pipe's table, above which none is looked at.
pub const VIEWS_BELOW: usize = 1_000;
/// How long after the end of a refresh the views that were there then are those from which the next
/// one began: the bridge starts it at once.
pub const VIEWS_BELOW_HOLD: Duration = Duration::from_secs(1);
/// Shards that a warning names.
pub const SHARDS_IN_A_WARNING: usize = 8;
/// How long a pipe shows a warning about what is in ClickHouse already.
pub const WARNING_HOLDS: Duration = Duration::from_secs(24 * 3600);
/// Lease rows in one statement, so that a Keeper request stays under 1 MB: with names of the usual
/// length a row has less than 1,000 bytes, with the longest ones less than 1,800.
pub const LEASE_ROWS_PER_STATEMENT: usize = 500;
/// SIGTERM: time in which everything ends, from the interface contract.
pub const SHUTDOWN: Duration = Duration::from_secs(10);
/// SIGTERM: what is left of [`SHUTDOWN`] for the process to end when all of it was used.
pub const SHUTDOWN_MARGIN: Duration = Duration::from_secs(1);

/// `dynamodb verify`: most segments of a scan; each has a connection (AWS: 1,000,000).
pub const MAX_SCAN_SEGMENTS: u32 = 256;
/// `dynamodb verify`: most read capacity units a second, 25 times what AWS gives a table by default
/// (40,000).
pub const MAX_VERIFY_RCU: u32 = 1_000_000;
/// `dynamodb verify`: shortest `--timeout`: an item must be seen unchanged over some seconds.
pub const MIN_VERIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// `dynamodb verify`: longest `--timeout`.
pub const MAX_VERIFY_TIMEOUT: Duration = Duration::from_secs(86_400);
/// `dynamodb verify`: an item must have been the same in DynamoDB for one part in so many of
/// `--timeout`, or what differs may just be on its way.
pub const VERIFY_SETTLED_SHARE: u32 = 3;
/// `dynamodb verify`: a round lasts no longer than one part in so many of what is left of
/// `--timeout`, so that there is another one.
pub const VERIFY_ROUND_SHARE: u32 = 2;
/// `dynamodb verify`: first pause between two rounds; it doubles up to [`VERIFY_PAUSE_LONGEST`].
pub const VERIFY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// See [`VERIFY_PAUSE_FIRST`].
pub const VERIFY_PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// `dynamodb verify`: time between two signs of life.
pub const VERIFY_PROGRESS: Duration = Duration::from_secs(10);
/// `dynamodb verify`: a request that waits for its read capacity units looks so often whether
/// others needed less than was thought.
pub const VERIFY_PACE_LOOK: Duration = Duration::from_millis(50);
/// `dynamodb verify`: longest time in which an answer of ClickHouse says nothing. FINAL may read
/// for long before the first row.
pub const VERIFY_SILENCE: Duration = Duration::from_secs(300);
/// `dynamodb verify`: the `max_query_size` of a statement with the keys of [`BATCH_GET_ITEMS`]
/// items in up to three spellings, of 3 KiB each (AWS: 2,048 and 1,024 bytes), in base64 and
/// escaped.
pub const VERIFY_QUERY_BYTES: usize = 8 << 20;
/// `dynamodb verify`: memory of an item in the first pass beside its key, which `--memory` bounds:
/// a hash table's slot of 24 bytes that is one half empty after it grew, and what an allocation
/// costs.
pub const VERIFY_ITEM_BYTES: usize = 80;
/// `dynamodb verify`: memory of an item that is looked at again beside its key: its history, and
/// what is shown of it.
pub const VERIFY_CANDIDATE_BYTES: usize = 1 << 10;
/// `dynamodb verify`: attributes of a different item that are shown, and characters of each value.
pub const VERIFY_SHOWN_ATTRIBUTES: usize = 10;
/// See [`VERIFY_SHOWN_ATTRIBUTES`].
pub const VERIFY_SHOWN_CHARS: usize = 100;
/// Scan: read capacity units of a page of 1 MiB, eventually consistent (AWS).
pub const SCAN_PAGE_UNITS: f64 = 128.0;
/// BatchGetItem: most keys (AWS).
pub const BATCH_GET_ITEMS: usize = 100;
/// Bytes of an item that one read capacity unit pays for; two units' worth where a read may be
/// eventually consistent (AWS).
pub const READ_UNIT_BYTES: usize = 4 << 10;
/// Scan and BatchGetItem: attempts of a call, since a table may throttle for long.
pub const TABLE_READ_ATTEMPTS: u32 = 10;
/// Scan and BatchGetItem: time for a call, all attempts included.
pub const TABLE_READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Fewer threads in ClickHouse's background schedule pool are worth a word: each view that waits
/// for records keeps one. A server of its own has 512, one embedded in a library 2.
pub const SCHEDULE_POOL_THREADS: u64 = 16;
