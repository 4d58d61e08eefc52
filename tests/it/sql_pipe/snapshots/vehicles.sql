-- A pipe from stream "sql-vehicles", made from 25 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.

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

CREATE MATERIALIZED VIEW `shop`.`vehicles_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`vehicles` AS
SELECT
    r.`vin` AS `vin`,
    r.`recorded_at` AS `recorded_at`,
    r.`speed_kmh` AS `speed_kmh`,
    r.`heading` AS `heading`,
    r.`position` AS `position`,
    r.`track` AS `track`,
    r.`fence` AS `fence`,
    r.`faults` AS `faults`,
    r.`trip` AS `trip`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
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
    FROM url('http://localhost:PORT/v1/pipes/vehicles/next?stream=sql-vehicles&view=shop.vehicles_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, date_time_input_format = 'best_effort';
