-- A pipe from stream "sql-app_logs", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "app_logs_errors" instead.
-- Fields without a column are kept in rest: see the end.
-- The field "trace.id" becomes the column "trace_id".

CREATE TABLE `shop`.`app_logs`
(
    `@timestamp` DateTime64(3, 'UTC'),
    `level` String,
    `logger` String,
    `message` String,
    `thread` String,
    `duration_ms` Nullable(Int64),
    `trace_id` Nullable(String),
    `exception` Tuple(`class` Nullable(String), `message` Nullable(String), `stack` Array(String)),
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
CREATE TABLE `shop`.`app_logs_landing`
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
CREATE TABLE `shop`.`app_logs_errors`
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

CREATE MATERIALIZED VIEW `shop`.`app_logs_mv` TO `shop`.`app_logs` AS
SELECT
    tupleElement(r, '@timestamp') AS `@timestamp`,
    r.`level` AS `level`,
    r.`logger` AS `logger`,
    r.`message` AS `message`,
    r.`thread` AS `thread`,
    r.`duration_ms` AS `duration_ms`,
    tupleElement(r, 'trace.id') AS `trace_id`,
    r.`exception` AS `exception`,
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `@timestamp` DateTime64(3, \'UTC\'),
            `level` String,
            `logger` String,
            `message` String,
            `thread` String,
            `duration_ms` Nullable(Int64),
            `trace.id` Nullable(String),
            `exception` Tuple(`class` Nullable(String), `message` Nullable(String), `stack` Array(String))
        )') AS r,
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`app_logs_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`app_logs_errors_mv` TO `shop`.`app_logs_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`app_logs_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`app_logs_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`app_logs_landing` AS
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
        v -> replaceRegexpAll(v, '"\\\\u0001#([^"]*)"', '\\1') AS written,
        v -> trim(BOTH '"' FROM v) AS bare
    SELECT *,
        CAST(JSONExtractKeysAndValuesRaw(_json), 'Map(String, String)') AS fields,
        CAST(JSONExtractKeysAndValuesRaw(fields['exception']), 'Map(String, String)') AS fields_2,
        JSONExtractArrayRaw(fields_2['stack']) AS elements_3,
        CAST(arrayConcat(
            arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('@timestamp', 'level', 'logger', 'message', 'thread', 'duration_ms', 'trace.id', 'exception'), JSONExtractKeysAndValuesRaw(_json))),
            arrayMap(p -> (concat('exception', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('class', 'message', 'stack'), JSONExtractKeysAndValuesRaw(fields['exception'])))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if((fields['@timestamp'] IN ('', 'null') OR match(bare(fields['@timestamp']), '^((19|20|21|22)[0-9]{2})-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?Z?$|^(190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-8][0-9]|229[0-8])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?([+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['@timestamp'], 'Nullable(DateTime64(3, \'UTC\'))'))), '', '@timestamp'),
            if(position(fields['level'], '\\u0001#') <= 2, '', 'level'),
            if(position(fields['logger'], '\\u0001#') <= 2, '', 'logger'),
            if(position(fields['message'], '\\u0001#') <= 2, '', 'message'),
            if(position(fields['thread'], '\\u0001#') <= 2, '', 'thread'),
            if((fields['duration_ms'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['duration_ms']))) = bare(fields['duration_ms'])), '', 'duration_ms'),
            if(position(fields['trace.id'], '\\u0001#') <= 2, '', 'trace.id'),
            if((fields['exception'] IN ('', 'null') OR startsWith(fields['exception'], '{') AND length(arrayDistinct(mapKeys(fields_2))) = length(fields_2) AND position(fields_2['class'], '\\u0001#') <= 2 AND position(fields_2['message'], '\\u0001#') <= 2 AND (fields_2['stack'] IN ('', 'null') OR startsWith(fields_2['stack'], '[') AND arrayAll((x1) -> position(x1, '\\u0001#') <= 2, elements_3) AND (match(fields_2['stack'], '^\\[[^n\\]]') OR length(JSONExtract(if(match(fields_2['stack'], '^\\[[^n\\]]'), '', unmarked(fields_2['stack'])), 'Array(String)')) = length(elements_3)))), '', 'exception')
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
        FROM url('http://localhost:PORT/v1/pipes/app_logs/next?stream=sql-app_logs&view=shop.app_logs_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "app_logs_mv" and "app_logs_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('app_logs_mv', 'app_logs_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort';

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`app_logs` GROUP BY field ORDER BY count() DESC
