-- A pipe from stream "sql-network_flow", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.

CREATE TABLE `shop`.`network_flow`
(
    `flow_id` UInt64,
    `start` DateTime64(9, 'UTC'),
    `src_ip` IPv4,
    `dst_ip` String,
    `gateway` IPv6,
    `src_port` Int64,
    `dst_port` Int64,
    `protocol` Int64,
    `bytes` Int64,
    `packets` Int64,
    `tcp_flags` Array(String),
    `action` String,
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`network_flow_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`network_flow` AS
SELECT
    r.`flow_id` AS `flow_id`,
    r.`start` AS `start`,
    r.`src_ip` AS `src_ip`,
    r.`dst_ip` AS `dst_ip`,
    r.`gateway` AS `gateway`,
    r.`src_port` AS `src_port`,
    r.`dst_port` AS `dst_port`,
    r.`protocol` AS `protocol`,
    r.`bytes` AS `bytes`,
    r.`packets` AS `packets`,
    r.`tcp_flags` AS `tcp_flags`,
    r.`action` AS `action`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `flow_id` UInt64,
            `start` DateTime64(9, \'UTC\'),
            `src_ip` IPv4,
            `dst_ip` String,
            `gateway` IPv6,
            `src_port` Int64,
            `dst_port` Int64,
            `protocol` Int64,
            `bytes` Int64,
            `packets` Int64,
            `tcp_flags` Array(String),
            `action` String
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/network_flow/next?stream=sql-network_flow&view=shop.network_flow_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, date_time_input_format = 'best_effort';
