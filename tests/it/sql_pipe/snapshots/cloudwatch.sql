-- A pipe from stream "sql-cloudwatch", made from 10 rows of its records.
-- Records are envelopes of CloudWatch Logs: split=cloudwatch makes a row of each log event.
-- 3 of 10 messages are JSON objects: --message turns their fields into columns.
-- Exactly-once: see Guarantees in README.md.
-- A record that is not a JSON object, or a value that does not fit its column, is inserted as NULL or default values.
-- Without --no-errors, such records go to a table of their own.
-- Fields without a column are kept in rest: see the end.

CREATE TABLE `shop`.`cloudwatch`
(
    `owner` String,
    `logGroup` String,
    `logStream` String,
    `id` String,
    `timestamp` Int64,
    `message` String,
    rest Map(String, String) COMMENT 'fields without a column of their own, as JSON',
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`cloudwatch_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`cloudwatch` AS
SELECT
    _shard_id, _sequence_number, _sub_sequence_number,
    r.`owner` AS `owner`,
    r.`logGroup` AS `logGroup`,
    r.`logStream` AS `logStream`,
    r.`id` AS `id`,
    r.`timestamp` AS `timestamp`,
    r.`message` AS `message`,
    rest,
    _timestamp
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked,
        v -> replaceRegexpAll(v, '"\\\\u0001#([^"]*)"', '\\1') AS written
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `owner` String,
            `logGroup` String,
            `logStream` String,
            `id` String,
            `timestamp` Int64,
            `message` String
        )') AS r,
        CAST(arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('owner', 'logGroup', 'logStream', 'id', 'timestamp', 'message'), JSONExtractKeysAndValuesRaw(_json))), 'Map(String, String)') AS rest,
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
        FROM url('http://localhost:PORT/v1/pipes/cloudwatch/next?stream=sql-cloudwatch&view=shop.cloudwatch_pipe&split=cloudwatch', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1;

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`cloudwatch` GROUP BY field ORDER BY count() DESC
