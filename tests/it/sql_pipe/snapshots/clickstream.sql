-- A pipe from stream "sql-clickstream", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "clickstream_errors" instead.
-- Fields without a column are kept in rest: see the end.

CREATE TABLE `shop`.`clickstream`
(
    `event_id` UUID,
    `session_id` UUID,
    `user_id` Nullable(Int64),
    `event` String,
    `url` String,
    `ts` DateTime64(3, 'UTC'),
    `ip` IPv4,
    `user_agent` String,
    `viewport` Tuple(`w` Int64, `h` Int64),
    `element` Tuple(`tag` Nullable(String), `id` Nullable(String), `classes` Array(String)),
    `depth` Nullable(Float64),
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
CREATE TABLE `shop`.`clickstream_landing`
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
CREATE TABLE `shop`.`clickstream_errors`
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

CREATE MATERIALIZED VIEW `shop`.`clickstream_mv` TO `shop`.`clickstream` AS
SELECT
    r.`event_id` AS `event_id`,
    r.`session_id` AS `session_id`,
    r.`user_id` AS `user_id`,
    r.`event` AS `event`,
    r.`url` AS `url`,
    r.`ts` AS `ts`,
    r.`ip` AS `ip`,
    r.`user_agent` AS `user_agent`,
    r.`viewport` AS `viewport`,
    r.`element` AS `element`,
    r.`depth` AS `depth`,
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `event_id` UUID,
            `session_id` UUID,
            `user_id` Nullable(Int64),
            `event` String,
            `url` String,
            `ts` DateTime64(3, \'UTC\'),
            `ip` IPv4,
            `user_agent` String,
            `viewport` Tuple(`w` Int64, `h` Int64),
            `element` Tuple(`tag` Nullable(String), `id` Nullable(String), `classes` Array(String)),
            `depth` Nullable(Float64)
        )') AS r,
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`clickstream_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`clickstream_errors_mv` TO `shop`.`clickstream_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`clickstream_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`clickstream_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`clickstream_landing` AS
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
        n -> replaceRegexpAll(n, '^-?[0.]*|[.]|[0.]*(?:[eE].*)?$', '') AS digits,
        v -> replaceAll(v, '\\u0001#', '') AS unmarked,
        v -> replaceRegexpAll(v, '"\\\\u0001#([^"]*)"', '\\1') AS written,
        v -> trim(BOTH '"' FROM v) AS bare
    SELECT *,
        CAST(JSONExtractKeysAndValuesRaw(_json), 'Map(String, String)') AS fields,
        CAST(JSONExtractKeysAndValuesRaw(fields['viewport']), 'Map(String, String)') AS fields_2,
        CAST(JSONExtractKeysAndValuesRaw(fields['element']), 'Map(String, String)') AS fields_3,
        JSONExtractArrayRaw(fields_3['classes']) AS elements_4,
        CAST(arrayConcat(
            arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('event_id', 'session_id', 'user_id', 'event', 'url', 'ts', 'ip', 'user_agent', 'viewport', 'element', 'depth'), JSONExtractKeysAndValuesRaw(_json))),
            arrayMap(p -> (concat('viewport', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('w', 'h'), JSONExtractKeysAndValuesRaw(fields['viewport']))),
            arrayMap(p -> (concat('element', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('tag', 'id', 'classes'), JSONExtractKeysAndValuesRaw(fields['element'])))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if((fields['event_id'] IN ('', 'null') OR match(bare(fields['event_id']), '^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$') AND isNotNull(JSONExtract(unmarked(fields['event_id']), 'Nullable(UUID)'))), '', 'event_id'),
            if((fields['session_id'] IN ('', 'null') OR match(bare(fields['session_id']), '^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$') AND isNotNull(JSONExtract(unmarked(fields['session_id']), 'Nullable(UUID)'))), '', 'session_id'),
            if((fields['user_id'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['user_id']))) = bare(fields['user_id'])), '', 'user_id'),
            if(position(fields['event'], '\\u0001#') <= 2, '', 'event'),
            if(position(fields['url'], '\\u0001#') <= 2, '', 'url'),
            if((fields['ts'] IN ('', 'null') OR match(bare(fields['ts']), '^((19|20|21|22)[0-9]{2})-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?Z?$|^(190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-8][0-9]|229[0-8])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?([+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['ts'], 'Nullable(DateTime64(3, \'UTC\'))'))), '', 'ts'),
            if((fields['ip'] IN ('', 'null') OR toString(toIPv4OrZero(bare(fields['ip']))) = bare(fields['ip'])), '', 'ip'),
            if(position(fields['user_agent'], '\\u0001#') <= 2, '', 'user_agent'),
            if((fields['viewport'] IN ('', 'null') OR startsWith(fields['viewport'], '{') AND length(arrayDistinct(mapKeys(fields_2))) = length(fields_2) AND (fields_2['w'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields_2['w']))) = bare(fields_2['w'])) AND (fields_2['h'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields_2['h']))) = bare(fields_2['h']))), '', 'viewport'),
            if((fields['element'] IN ('', 'null') OR startsWith(fields['element'], '{') AND length(arrayDistinct(mapKeys(fields_3))) = length(fields_3) AND position(fields_3['tag'], '\\u0001#') <= 2 AND position(fields_3['id'], '\\u0001#') <= 2 AND (fields_3['classes'] IN ('', 'null') OR startsWith(fields_3['classes'], '[') AND arrayAll((x1) -> position(x1, '\\u0001#') <= 2, elements_4) AND (match(fields_3['classes'], '^\\[[^n\\]]') OR length(JSONExtract(if(match(fields_3['classes'], '^\\[[^n\\]]'), '', unmarked(fields_3['classes'])), 'Array(String)')) = length(elements_4)))), '', 'element'),
            if((fields['depth'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields['depth']))) = bare(fields['depth']) OR position(fields['depth'], '\\u0001#') = 2 AND digits(unmarked(bare(fields['depth']))) = digits(toString(JSONExtract(unmarked(fields['depth']), 'Float64'))))), '', 'depth')
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
        FROM url('http://localhost:PORT/v1/pipes/clickstream/next?stream=sql-clickstream&view=shop.clickstream_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "clickstream_mv" and "clickstream_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('clickstream_mv', 'clickstream_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort', precise_float_parsing = 1;

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`clickstream` GROUP BY field ORDER BY count() DESC
