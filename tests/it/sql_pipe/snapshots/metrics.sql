-- A pipe from stream "sql-metrics", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.
-- "value" has 5 booleans, 9 numbers, 7 strings: each as text.
-- "meta" has 4 numbers, 7 strings, 11 objects, 8 arrays: each as text.
-- "at" has 18 numbers, 12 strings: each as text.

CREATE TABLE `shop`.`metrics`
(
    `metric` String,
    `value` Nullable(String),
    `labels` Map(String, String),
    `samples` Array(Nullable(String)),
    `meta` String,
    `at` String,
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`metrics_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`metrics` AS
SELECT
    r.`metric` AS `metric`,
    r.`value` AS `value`,
    r.`labels` AS `labels`,
    r.`samples` AS `samples`,
    r.`meta` AS `meta`,
    r.`at` AS `at`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `metric` String,
            `value` Nullable(String),
            `labels` Map(String, String),
            `samples` Array(Nullable(String)),
            `meta` String,
            `at` String
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/metrics/next?stream=sql-metrics&view=shop.metrics_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1;
