-- A pipe from stream "sql-app_logs", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.
-- The field "trace.id" becomes the column "trace_id".

CREATE TABLE `shop`.`app_logs`
(
    `@timestamp` DateTime64(3, 'UTC'),
    `level` String,
    `logger` String,
    `message` String,
    `thread` String,
    `duration_ms` Nullable(Int64),
    `trace_id` Nullable(String),
    `exception` Tuple(`class` Nullable(String), `message` Nullable(String), `stack` Array(String)),
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`app_logs_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`app_logs` AS
SELECT
    tupleElement(r, '@timestamp') AS `@timestamp`,
    r.`level` AS `level`,
    r.`logger` AS `logger`,
    r.`message` AS `message`,
    r.`thread` AS `thread`,
    r.`duration_ms` AS `duration_ms`,
    tupleElement(r, 'trace.id') AS `trace_id`,
    r.`exception` AS `exception`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `@timestamp` DateTime64(3, \'UTC\'),
            `level` String,
            `logger` String,
            `message` String,
            `thread` String,
            `duration_ms` Nullable(Int64),
            `trace.id` Nullable(String),
            `exception` Tuple(`class` Nullable(String), `message` Nullable(String), `stack` Array(String))
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/app_logs/next?stream=sql-app_logs&view=shop.app_logs_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, date_time_input_format = 'best_effort';
