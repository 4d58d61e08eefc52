-- A pipe from stream "sql-user_profiles", made from 25 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "user_profiles_errors" instead.
-- Fields without a column are kept in rest: see the end.
-- "nothing" has only nulls in the sample: String.

CREATE TABLE `shop`.`user_profiles`
(
    `user_id` UUID,
    `name` String,
    `email` Nullable(String),
    `born` Date32,
    `tags` Array(Nullable(String)),
    `scores` Map(String, Nullable(Int64)),
    `preferences` Tuple(`theme` String, `newsletter` Nullable(Bool), `limits` Tuple(`daily` Int64, `weekly` Nullable(String))),
    `devices` Array(Tuple(`os` String, `push_token` Nullable(String))),
    `nothing` Nullable(String),
    `address` Tuple(`city` Nullable(String), `geo` Tuple(`lat` Nullable(Float64), `lon` Nullable(Float64))),
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
CREATE TABLE `shop`.`user_profiles_landing`
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
CREATE TABLE `shop`.`user_profiles_errors`
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

CREATE MATERIALIZED VIEW `shop`.`user_profiles_mv` TO `shop`.`user_profiles` AS
SELECT
    r.`user_id` AS `user_id`,
    r.`name` AS `name`,
    r.`email` AS `email`,
    r.`born` AS `born`,
    r.`tags` AS `tags`,
    r.`scores` AS `scores`,
    r.`preferences` AS `preferences`,
    r.`devices` AS `devices`,
    r.`nothing` AS `nothing`,
    r.`address` AS `address`,
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `user_id` UUID,
            `name` String,
            `email` Nullable(String),
            `born` Date32,
            `tags` Array(Nullable(String)),
            `scores` Map(String, Nullable(Int64)),
            `preferences` Tuple(`theme` String, `newsletter` Nullable(Bool), `limits` Tuple(`daily` Int64, `weekly` Nullable(String))),
            `devices` Array(Tuple(`os` String, `push_token` Nullable(String))),
            `nothing` Nullable(String),
            `address` Tuple(`city` Nullable(String), `geo` Tuple(`lat` Nullable(Float64), `lon` Nullable(Float64)))
        )') AS r,
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`user_profiles_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`user_profiles_errors_mv` TO `shop`.`user_profiles_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`user_profiles_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`user_profiles_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`user_profiles_landing` AS
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
        JSONExtractArrayRaw(fields['tags']) AS elements_2,
        CAST(JSONExtractKeysAndValuesRaw(fields['scores']), 'Map(String, String)') AS fields_3,
        CAST(JSONExtractKeysAndValuesRaw(fields['preferences']), 'Map(String, String)') AS fields_4,
        CAST(JSONExtractKeysAndValuesRaw(fields_4['limits']), 'Map(String, String)') AS fields_5,
        JSONExtractArrayRaw(fields['devices']) AS elements_6,
        arrayMap(x -> JSONExtractKeysAndValuesRaw(x), elements_6) AS objects_7,
        CAST(JSONExtractKeysAndValuesRaw(fields['address']), 'Map(String, String)') AS fields_8,
        CAST(JSONExtractKeysAndValuesRaw(fields_8['geo']), 'Map(String, String)') AS fields_9,
        CAST(arrayConcat(
            arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('user_id', 'name', 'email', 'born', 'tags', 'scores', 'preferences', 'devices', 'nothing', 'address'), JSONExtractKeysAndValuesRaw(_json))),
            arrayMap(p -> (concat('preferences', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('theme', 'newsletter', 'limits'), JSONExtractKeysAndValuesRaw(fields['preferences']))),
            arrayMap(p -> (concat('preferences', '.limits', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('daily', 'weekly'), JSONExtractKeysAndValuesRaw(fields_4['limits']))),
            arrayFlatten(arrayMap((x1, o1, n1) -> arrayMap(p -> (concat('devices', '[', toString(n1), ']', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('os', 'push_token'), o1)), elements_6, objects_7, arrayEnumerate(elements_6))),
            arrayMap(p -> (concat('address', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('city', 'geo'), JSONExtractKeysAndValuesRaw(fields['address']))),
            arrayMap(p -> (concat('address', '.geo', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('lat', 'lon'), JSONExtractKeysAndValuesRaw(fields_8['geo'])))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if((fields['user_id'] IN ('', 'null') OR match(bare(fields['user_id']), '^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$') AND isNotNull(JSONExtract(unmarked(fields['user_id']), 'Nullable(UUID)'))), '', 'user_id'),
            if(position(fields['name'], '\\u0001#') <= 2, '', 'name'),
            if(position(fields['email'], '\\u0001#') <= 2, '', 'email'),
            if((fields['born'] IN ('', 'null') OR toString(toDate32OrZero(bare(fields['born']))) = bare(fields['born'])), '', 'born'),
            if((fields['tags'] IN ('', 'null') OR startsWith(fields['tags'], '[') AND arrayAll((x1) -> position(x1, '\\u0001#') <= 2, elements_2)), '', 'tags'),
            if((fields['scores'] IN ('', 'null') OR startsWith(fields['scores'], '{') AND length(arrayDistinct(mapKeys(fields_3))) = length(fields_3) AND arrayAll(x1 -> (x1 IN ('', 'null') OR toString(toInt64OrZero(bare(x1))) = bare(x1)), mapValues(fields_3))), '', 'scores'),
            if((fields['preferences'] IN ('', 'null') OR startsWith(fields['preferences'], '{') AND length(arrayDistinct(mapKeys(fields_4))) = length(fields_4) AND position(fields_4['theme'], '\\u0001#') <= 2 AND (fields_4['newsletter'] IN ('', 'null') OR fields_4['newsletter'] IN ('true', 'false')) AND (fields_4['limits'] IN ('', 'null') OR startsWith(fields_4['limits'], '{') AND length(arrayDistinct(mapKeys(fields_5))) = length(fields_5) AND (fields_5['daily'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields_5['daily']))) = bare(fields_5['daily'])) AND position(fields_5['weekly'], '\\u0001#') <= 2)), '', 'preferences'),
            if((fields['devices'] IN ('', 'null') OR startsWith(fields['devices'], '[') AND arrayAll((x1, o1) -> (x1 IN ('', 'null') OR startsWith(x1, '{') AND length(arrayDistinct(mapKeys(CAST(o1, 'Map(String, String)')))) = length(CAST(o1, 'Map(String, String)')) AND position(CAST(o1, 'Map(String, String)')['os'], '\\u0001#') <= 2 AND position(CAST(o1, 'Map(String, String)')['push_token'], '\\u0001#') <= 2), elements_6, objects_7) AND (match(fields['devices'], '^\\[[{]"(os|push_token)":[^n]') OR length(JSONExtract(if(match(fields['devices'], '^\\[[{]"(os|push_token)":[^n]'), '', unmarked(fields['devices'])), 'Array(Tuple(`os` String, `push_token` Nullable(String)))')) = length(elements_6))), '', 'devices'),
            if(position(fields['nothing'], '\\u0001#') <= 2, '', 'nothing'),
            if((fields['address'] IN ('', 'null') OR startsWith(fields['address'], '{') AND length(arrayDistinct(mapKeys(fields_8))) = length(fields_8) AND position(fields_8['city'], '\\u0001#') <= 2 AND (fields_8['geo'] IN ('', 'null') OR startsWith(fields_8['geo'], '{') AND length(arrayDistinct(mapKeys(fields_9))) = length(fields_9) AND (fields_9['lat'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields_9['lat']))) = bare(fields_9['lat']) OR position(fields_9['lat'], '\\u0001#') = 2 AND digits(unmarked(bare(fields_9['lat']))) = digits(toString(JSONExtract(unmarked(fields_9['lat']), 'Float64'))))) AND (fields_9['lon'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields_9['lon']))) = bare(fields_9['lon']) OR position(fields_9['lon'], '\\u0001#') = 2 AND digits(unmarked(bare(fields_9['lon']))) = digits(toString(JSONExtract(unmarked(fields_9['lon']), 'Float64'))))))), '', 'address')
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
        FROM url('http://localhost:PORT/v1/pipes/user_profiles/next?stream=sql-user_profiles&view=shop.user_profiles_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "user_profiles_mv" and "user_profiles_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('user_profiles_mv', 'user_profiles_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort', precise_float_parsing = 1;

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`user_profiles` GROUP BY field ORDER BY count() DESC
