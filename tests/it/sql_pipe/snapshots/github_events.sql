-- A pipe from stream "sql-github_events", made from 40 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.
-- "payload" has objects that differ much: JSON. A null in it is not told from a field that is not there.

CREATE TABLE `shop`.`github_events`
(
    `id` String,
    `type` String,
    `actor` Tuple(`id` Int64, `login` String, `gravatar_id` String, `url` String, `avatar_url` String),
    `repo` Tuple(`id` Int64, `name` String),
    `payload` JSON,
    `public` Bool,
    `created_at` DateTime64(3, 'UTC'),
    `org` Tuple(`id` Nullable(Int64), `login` Nullable(String)),
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`github_events_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`github_events` AS
SELECT
    r.`id` AS `id`,
    r.`type` AS `type`,
    r.`actor` AS `actor`,
    r.`repo` AS `repo`,
    r.`payload` AS `payload`,
    r.`public` AS `public`,
    r.`created_at` AS `created_at`,
    r.`org` AS `org`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `id` String,
            `type` String,
            `actor` Tuple(`id` Int64, `login` String, `gravatar_id` String, `url` String, `avatar_url` String),
            `repo` Tuple(`id` Int64, `name` String),
            `payload` JSON,
            `public` Bool,
            `created_at` DateTime64(3, \'UTC\'),
            `org` Tuple(`id` Nullable(Int64), `login` Nullable(String))
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/github_events/next?stream=sql-github_events&view=shop.github_events_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY _shard_id, toUInt256(_sequence_number), _sub_sequence_number
SETTINGS http_max_tries = 1, max_threads = 1, deduplicate_insert_select = 'enable_even_for_bad_queries', date_time_input_format = 'best_effort', input_format_try_infer_dates = 0, input_format_try_infer_datetimes = 0;
