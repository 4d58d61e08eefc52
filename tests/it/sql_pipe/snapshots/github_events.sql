-- A pipe from stream "sql-github_events", made from 40 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "github_events_errors" instead.
-- Fields without a column are kept in rest: see the end.
-- "payload" has objects that differ a lot: JSON. A null in it cannot be told from a missing field.

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
CREATE TABLE `shop`.`github_events_landing`
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
CREATE TABLE `shop`.`github_events_errors`
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

CREATE MATERIALIZED VIEW `shop`.`github_events_mv` TO `shop`.`github_events` AS
SELECT
    r.`id` AS `id`,
    r.`type` AS `type`,
    r.`actor` AS `actor`,
    r.`repo` AS `repo`,
    CAST(r.`payload`, 'JSON') AS `payload`,
    r.`public` AS `public`,
    r.`created_at` AS `created_at`,
    r.`org` AS `org`,
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `id` String,
            `type` String,
            `actor` Tuple(`id` Int64, `login` String, `gravatar_id` String, `url` String, `avatar_url` String),
            `repo` Tuple(`id` Int64, `name` String),
            `payload` JSON(max_dynamic_types=0),
            `public` Bool,
            `created_at` DateTime64(3, \'UTC\'),
            `org` Tuple(`id` Nullable(Int64), `login` Nullable(String))
        )') AS r,
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`github_events_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`github_events_errors_mv` TO `shop`.`github_events_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`github_events_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`github_events_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`github_events_landing` AS
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
        v -> replaceRegexpAll(v, '"\\\\u0001#([^"]*)"', '\\1') AS written,
        v -> trim(BOTH '"' FROM v) AS bare
    SELECT *,
        CAST(JSONExtractKeysAndValuesRaw(_json), 'Map(String, String)') AS fields,
        CAST(JSONExtractKeysAndValuesRaw(fields['actor']), 'Map(String, String)') AS fields_2,
        CAST(JSONExtractKeysAndValuesRaw(fields['repo']), 'Map(String, String)') AS fields_3,
        CAST(JSONExtractKeysAndValuesRaw(fields['org']), 'Map(String, String)') AS fields_4,
        CAST(arrayConcat(
            arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('id', 'type', 'actor', 'repo', 'payload', 'public', 'created_at', 'org'), JSONExtractKeysAndValuesRaw(_json))),
            arrayMap(p -> (concat('actor', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('id', 'login', 'gravatar_id', 'url', 'avatar_url'), JSONExtractKeysAndValuesRaw(fields['actor']))),
            arrayMap(p -> (concat('repo', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('id', 'name'), JSONExtractKeysAndValuesRaw(fields['repo']))),
            arrayMap(p -> (concat('org', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('id', 'login'), JSONExtractKeysAndValuesRaw(fields['org'])))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if(position(fields['id'], '\\u0001#') <= 2, '', 'id'),
            if(position(fields['type'], '\\u0001#') <= 2, '', 'type'),
            if((fields['actor'] IN ('', 'null') OR startsWith(fields['actor'], '{') AND length(arrayDistinct(mapKeys(fields_2))) = length(fields_2) AND (fields_2['id'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields_2['id']))) = bare(fields_2['id'])) AND position(fields_2['login'], '\\u0001#') <= 2 AND position(fields_2['gravatar_id'], '\\u0001#') <= 2 AND position(fields_2['url'], '\\u0001#') <= 2 AND position(fields_2['avatar_url'], '\\u0001#') <= 2), '', 'actor'),
            if((fields['repo'] IN ('', 'null') OR startsWith(fields['repo'], '{') AND length(arrayDistinct(mapKeys(fields_3))) = length(fields_3) AND (fields_3['id'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields_3['id']))) = bare(fields_3['id'])) AND position(fields_3['name'], '\\u0001#') <= 2), '', 'repo'),
            if((fields['payload'] IN ('', 'null') OR startsWith(fields['payload'], '{') AND position(fields['payload'], '\\u0001#') = 0 AND arraySort(arrayFilter(t -> NOT endsWith(t, '":null'), extractAll(fields['payload'], '"(?:[^"\\\\]|\\\\.)*"(?::null)?|[0-9.eE+-]+|true|false|null|[{}\\[\\]]'))) = arraySort(arrayFilter(t -> NOT endsWith(t, '":null'), extractAll(ifNull(JSONExtractRaw(toJSONString(JSONExtract(fields['payload'], 'JSON(max_dynamic_types=0)'))), ''), '"(?:[^"\\\\]|\\\\.)*"(?::null)?|[0-9.eE+-]+|true|false|null|[{}\\[\\]]'))) AND NOT arrayExists(n -> match(n, '^-?[0-9]{16,}$') AND toString(toFloat64OrZero(n)) != n, extractAll(fields['payload'], '"(?:[^"\\\\]|\\\\.)*"|[\\[,](-?[0-9.eE+-]+)'))), '', 'payload'),
            if((fields['public'] IN ('', 'null') OR fields['public'] IN ('true', 'false')), '', 'public'),
            if((fields['created_at'] IN ('', 'null') OR match(bare(fields['created_at']), '^((19|20|21|22)[0-9]{2})-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?Z?$|^(190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-8][0-9]|229[0-8])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?([+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['created_at'], 'Nullable(DateTime64(3, \'UTC\'))'))), '', 'created_at'),
            if((fields['org'] IN ('', 'null') OR startsWith(fields['org'], '{') AND length(arrayDistinct(mapKeys(fields_4))) = length(fields_4) AND (fields_4['id'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields_4['id']))) = bare(fields_4['id'])) AND position(fields_4['login'], '\\u0001#') <= 2), '', 'org')
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
        FROM url('http://localhost:PORT/v1/pipes/github_events/next?stream=sql-github_events&view=shop.github_events_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "github_events_mv" and "github_events_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('github_events_mv', 'github_events_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort', input_format_try_infer_dates = 0, input_format_try_infer_datetimes = 0, output_format_json_quote_64bit_integers = 0;

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`github_events` GROUP BY field ORDER BY count() DESC
