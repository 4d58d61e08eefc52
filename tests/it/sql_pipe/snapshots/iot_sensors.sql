-- A pipe from stream "sql-iot_sensors", made from 25 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.

CREATE TABLE `shop`.`iot_sensors`
(
    `deviceId` String,
    `time` DateTime64(3, 'UTC'),
    `epoch` Int64,
    `temperature` Float64,
    `humidity` Float64,
    `battery` Float64,
    `ok` Bool,
    `firmware` String,
    `readings` Array(Float64),
    `location` Tuple(`lat` Float64, `lon` Float64),
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`iot_sensors_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`iot_sensors` AS
SELECT
    r.`deviceId` AS `deviceId`,
    r.`time` AS `time`,
    r.`epoch` AS `epoch`,
    r.`temperature` AS `temperature`,
    r.`humidity` AS `humidity`,
    r.`battery` AS `battery`,
    r.`ok` AS `ok`,
    r.`firmware` AS `firmware`,
    r.`readings` AS `readings`,
    r.`location` AS `location`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `deviceId` String,
            `time` DateTime64(3, \'UTC\'),
            `epoch` Int64,
            `temperature` Float64,
            `humidity` Float64,
            `battery` Float64,
            `ok` Bool,
            `firmware` String,
            `readings` Array(Float64),
            `location` Tuple(`lat` Float64, `lon` Float64)
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/iot_sensors/next?stream=sql-iot_sensors&view=shop.iot_sensors_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, date_time_input_format = 'best_effort';
