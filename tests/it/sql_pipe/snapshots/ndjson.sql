-- A pipe from stream "sql-ndjson", made from 18 of its records.
-- A record holds several lines: split=lines makes a row of each.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.

CREATE TABLE `shop`.`ndjson`
(
    `seq` Int64,
    `host` String,
    `msg` String,
    `code` Int64,
    `ms` Float64,
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`ndjson_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`ndjson` AS
SELECT
    r.`seq` AS `seq`,
    r.`host` AS `host`,
    r.`msg` AS `msg`,
    r.`code` AS `code`,
    r.`ms` AS `ms`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `seq` Int64,
            `host` String,
            `msg` String,
            `code` Int64,
            `ms` Float64
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/ndjson/next?stream=sql-ndjson&view=shop.ndjson_pipe&split=lines', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1;
