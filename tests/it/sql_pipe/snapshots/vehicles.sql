-- A pipe from stream "sql-vehicles", made from 25 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is not a JSON object, or a value that does not fit its column, is inserted as NULL or default values.
-- Without --no-errors, such records go to a table of their own.
-- Fields without a column are not kept.

CREATE TABLE `shop`.`vehicles`
(
    `vin` String,
    `recorded_at` DateTime64(3, 'UTC'),
    `speed_kmh` Float64,
    `heading` Int64,
    `position` Array(Float64),
    `track` Array(Array(Float64)),
    `fence` Tuple(`type` String, `coordinates` Array(Array(Array(Float64)))),
    `faults` Array(Tuple(`code` String, `since` DateTime64(3, 'UTC'), `frames` Array(Array(Int64)))),
    `trip` Tuple(`id` UUID, `legs` Array(Tuple(`from` String, `to` String, `stops` Array(Tuple(`n` Int64, `at` Array(Float64)))))),
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`vehicles_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`vehicles` AS
SELECT
    _shard_id, _sequence_number, _sub_sequence_number,
    r.`vin` AS `vin`,
    r.`recorded_at` AS `recorded_at`,
    r.`speed_kmh` AS `speed_kmh`,
    r.`heading` AS `heading`,
    r.`position` AS `position`,
    r.`track` AS `track`,
    r.`fence` AS `fence`,
    r.`faults` AS `faults`,
    r.`trip` AS `trip`,
    _timestamp
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `vin` String,
            `recorded_at` DateTime64(3, \'UTC\'),
            `speed_kmh` Float64,
            `heading` Int64,
            `position` Array(Float64),
            `track` Array(Array(Float64)),
            `fence` Tuple(`type` String, `coordinates` Array(Array(Array(Float64)))),
            `faults` Array(Tuple(`code` String, `since` DateTime64(3, \'UTC\'), `frames` Array(Array(Int64)))),
            `trip` Tuple(`id` UUID, `legs` Array(Tuple(`from` String, `to` String, `stops` Array(Tuple(`n` Int64, `at` Array(Float64))))))
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM (
        WITH
            n -> replaceRegexpAll(n, '^-?[0.]*|[.]|[0.]*(?:[eE].*)?$', '') AS digits,
            n -> digits(n) = digits(toString(toFloat64OrZero(n))) AS is_exact,
            n -> if(match(n, '[.eE]'), NOT is_exact(n) OR abs(toFloat64OrZero(n)) >= 1e18,
                length(n) > 18 AND toString(toInt64OrZero(n)) != n AND toString(toUInt64OrZero(n)) != n) AS is_wide
        SELECT *,
            extractAll(_raw_message, '[:,\\[\\s](-?(?:[0-9][0-9.]{16,}(?:[eE][+-]?[0-9]+)?|[0-9.]+[eE][+-]?[0-9]+|[0-9]+[.]0+\\b))') AS _numbers,
            isValidUTF8(_raw_message) AND arrayExists(n -> is_wide(n), _numbers) AS _wide,
            arrayMap(token -> if(match(token, '^-?[0-9]') AND is_wide(token), concat('"\\u0001#', token, '"'), token),
                extractAll(if(_wide, _raw_message, ''), '"(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.eE+-]*|[^"0-9-]+|[-"]')) AS _tokens,
            if(empty(_numbers), _raw_message, if(_wide, arrayStringConcat(_tokens), if(empty(_numbers), '', _raw_message))) AS _json
        FROM url('http://localhost:PORT/v1/pipes/vehicles/next?stream=sql-vehicles&view=shop.vehicles_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, date_time_input_format = 'best_effort', precise_float_parsing = 1;
