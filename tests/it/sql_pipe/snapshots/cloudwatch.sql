-- A pipe from stream "sql-cloudwatch", made from 10 of its records.
-- Records are envelopes of CloudWatch Logs: split=cloudwatch makes a row of each log event.
-- 3 of 10 messages are JSON objects: --message makes columns of their fields.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.

CREATE TABLE `shop`.`cloudwatch`
(
    `owner` String,
    `logGroup` String,
    `logStream` String,
    `id` String,
    `timestamp` Int64,
    `message` String,
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`cloudwatch_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`cloudwatch` AS
SELECT
    r.`owner` AS `owner`,
    r.`logGroup` AS `logGroup`,
    r.`logStream` AS `logStream`,
    r.`id` AS `id`,
    r.`timestamp` AS `timestamp`,
    r.`message` AS `message`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `owner` String,
            `logGroup` String,
            `logStream` String,
            `id` String,
            `timestamp` Int64,
            `message` String
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/cloudwatch/next?stream=sql-cloudwatch&view=shop.cloudwatch_pipe&split=cloudwatch', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1;
