-- A pipe from stream "sql-metrics", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "metrics_errors" instead.
-- Fields without a column are kept in rest: see the end.
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
    rest Map(String, String) COMMENT 'fields without a column of their own, as JSON',
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

-- Stores nothing: records pass through it to the two views below. _error is empty for those that fit;
-- _json is the record, with numbers quoted that ClickHouse would change.
CREATE TABLE `shop`.`metrics_landing`
(
    _key String,
    _timestamp DateTime64(3),
    _stream LowCardinality(String),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32,
    _raw_message String,
    _json String,
    rest Map(String, String),
    _error String
)
ENGINE = Null;

-- What does not fit, and why; kept for seven days.
CREATE TABLE `shop`.`metrics_errors`
(
    _key String,
    _timestamp DateTime64(3),
    _stream LowCardinality(String),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32,
    reason String,
    raw_message String,
    failed_at DateTime DEFAULT now()
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
TTL failed_at + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`metrics_mv` TO `shop`.`metrics` AS
SELECT
    r.`metric` AS `metric`,
    r.`value` AS `value`,
    r.`labels` AS `labels`,
    r.`samples` AS `samples`,
    x AS `meta`,
    r.`at` AS `at`,
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked,
        v -> replaceRegexpAll(v, '"\\\\u0001#([^"]*)"', '\\1') AS written
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `metric` String,
            `value` Nullable(String),
            `labels` Map(String, String),
            `samples` Array(Nullable(String)),
            `at` String
        )') AS r,
        if(match(JSONExtractRaw(_json, 'meta'), '^[{[]'), written(JSONExtractRaw(_json, 'meta')), JSONExtract(unmarked(_json), 'meta', 'String')) AS x,
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`metrics_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`metrics_errors_mv` TO `shop`.`metrics_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`metrics_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`metrics_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`metrics_landing` AS
SELECT
    _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _raw_message, _json, rest,
    multiIf(
        position(_raw_message, '\\u0001#') > 0, 'a string has \\u0001#, which marks numbers here',
        NOT isValidJSON(if(empty(fields), _json, '{}')), 'no valid JSON',
        JSONType(if(empty(fields), _json, '{}')) != 'Object', 'no JSON object',
        NOT (length(arrayDistinct(mapKeys(fields))) = length(fields)), 'a field comes twice',
        if(empty(misfits), '', concat('does not fit: ', arrayStringConcat(misfits, ', ')))) AS _error
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked,
        v -> replaceRegexpAll(v, '"\\\\u0001#([^"]*)"', '\\1') AS written
    SELECT *,
        CAST(JSONExtractKeysAndValuesRaw(_json), 'Map(String, String)') AS fields,
        CAST(JSONExtractKeysAndValuesRaw(fields['labels']), 'Map(String, String)') AS fields_2,
        JSONExtractArrayRaw(fields['samples']) AS elements_3,
        CAST(arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('metric', 'value', 'labels', 'samples', 'meta', 'at'), JSONExtractKeysAndValuesRaw(_json))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if(position(fields['metric'], '\\u0001#') <= 2, '', 'metric'),
            if(position(fields['value'], '\\u0001#') <= 2, '', 'value'),
            if((fields['labels'] IN ('', 'null') OR startsWith(fields['labels'], '{') AND length(arrayDistinct(mapKeys(fields_2))) = length(fields_2) AND arrayAll(x1 -> position(x1, '\\u0001#') <= 2, mapValues(fields_2)) AND (match(fields['labels'], '^\\{"[^"\\\\]*":[^n\\]]') OR length(JSONExtract(if(match(fields['labels'], '^\\{"[^"\\\\]*":[^n\\]]'), '', unmarked(fields['labels'])), 'Map(String, String)')) = length(fields_2))), '', 'labels'),
            if((fields['samples'] IN ('', 'null') OR startsWith(fields['samples'], '[') AND arrayAll((x1) -> position(x1, '\\u0001#') <= 2, elements_3)), '', 'samples'),
            if(position(fields['at'], '\\u0001#') <= 2, '', 'at')
        ]) AS misfits
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
            if(empty(_numbers), _raw_message, JSONExtractRaw(if(_wide, arrayStringConcat(_tokens), if(empty(_numbers), '', _raw_message)))) AS _json
        FROM url('http://localhost:PORT/v1/pipes/metrics/next?stream=sql-metrics&view=shop.metrics_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "metrics_mv" and "metrics_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('metrics_mv', 'metrics_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable';

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`metrics` GROUP BY field ORDER BY count() DESC
