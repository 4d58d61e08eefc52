-- A pipe from stream "sql-clickstream", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.

CREATE TABLE `shop`.`clickstream`
(
    `event_id` UUID,
    `session_id` UUID,
    `user_id` Nullable(Int64),
    `event` String,
    `url` String,
    `ts` DateTime64(3, 'UTC'),
    `ip` IPv4,
    `user_agent` String,
    `viewport` Tuple(`w` Int64, `h` Int64),
    `element` Tuple(`tag` Nullable(String), `id` Nullable(String), `classes` Array(String)),
    `depth` Nullable(Float64),
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`clickstream_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`clickstream` AS
SELECT
    r.`event_id` AS `event_id`,
    r.`session_id` AS `session_id`,
    r.`user_id` AS `user_id`,
    r.`event` AS `event`,
    r.`url` AS `url`,
    r.`ts` AS `ts`,
    r.`ip` AS `ip`,
    r.`user_agent` AS `user_agent`,
    r.`viewport` AS `viewport`,
    r.`element` AS `element`,
    r.`depth` AS `depth`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `event_id` UUID,
            `session_id` UUID,
            `user_id` Nullable(Int64),
            `event` String,
            `url` String,
            `ts` DateTime64(3, \'UTC\'),
            `ip` IPv4,
            `user_agent` String,
            `viewport` Tuple(`w` Int64, `h` Int64),
            `element` Tuple(`tag` Nullable(String), `id` Nullable(String), `classes` Array(String)),
            `depth` Nullable(Float64)
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/clickstream/next?stream=sql-clickstream&view=shop.clickstream_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, date_time_input_format = 'best_effort';
