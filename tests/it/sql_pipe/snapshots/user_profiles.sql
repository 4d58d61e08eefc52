-- A pipe from stream "sql-user_profiles", made from 25 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.
-- "nothing" has only nulls in the sample: String.

CREATE TABLE `shop`.`user_profiles`
(
    `user_id` UUID,
    `name` String,
    `email` Nullable(String),
    `born` Date32,
    `tags` Array(Nullable(String)),
    `scores` Map(String, Nullable(Int64)),
    `preferences` Tuple(`theme` String, `newsletter` Nullable(Bool), `limits` Tuple(`daily` Int64, `weekly` Nullable(String))),
    `devices` Array(Tuple(`os` String, `push_token` Nullable(String))),
    `nothing` Nullable(String),
    `address` Tuple(`city` Nullable(String), `geo` Tuple(`lat` Nullable(Float64), `lon` Nullable(Float64))),
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`user_profiles_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`user_profiles` AS
SELECT
    r.`user_id` AS `user_id`,
    r.`name` AS `name`,
    r.`email` AS `email`,
    r.`born` AS `born`,
    r.`tags` AS `tags`,
    r.`scores` AS `scores`,
    r.`preferences` AS `preferences`,
    r.`devices` AS `devices`,
    r.`nothing` AS `nothing`,
    r.`address` AS `address`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `user_id` UUID,
            `name` String,
            `email` Nullable(String),
            `born` Date32,
            `tags` Array(Nullable(String)),
            `scores` Map(String, Nullable(Int64)),
            `preferences` Tuple(`theme` String, `newsletter` Nullable(Bool), `limits` Tuple(`daily` Int64, `weekly` Nullable(String))),
            `devices` Array(Tuple(`os` String, `push_token` Nullable(String))),
            `nothing` Nullable(String),
            `address` Tuple(`city` Nullable(String), `geo` Tuple(`lat` Nullable(Float64), `lon` Nullable(Float64)))
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/user_profiles/next?stream=sql-user_profiles&view=shop.user_profiles_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, date_time_input_format = 'best_effort';
