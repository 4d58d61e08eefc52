-- A pipe from stream "sql-iot_sensors", made from 25 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "iot_sensors_errors" instead.
-- Fields without a column are not kept.

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

-- Stores nothing: records pass through it to the two views below. _error is empty for those that fit;
-- _json is the record, with numbers quoted that ClickHouse would change.
CREATE TABLE `shop`.`iot_sensors_landing`
(
    _key String,
    _timestamp DateTime64(3),
    _stream LowCardinality(String),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32,
    _raw_message String,
    _json String,
    _error String
)
ENGINE = Null;

-- What does not fit, and why; kept for seven days.
CREATE TABLE `shop`.`iot_sensors_errors`
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

CREATE MATERIALIZED VIEW `shop`.`iot_sensors_mv` TO `shop`.`iot_sensors` AS
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
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
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
    FROM `shop`.`iot_sensors_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`iot_sensors_errors_mv` TO `shop`.`iot_sensors_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`iot_sensors_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`iot_sensors_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`iot_sensors_landing` AS
SELECT
    _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _raw_message, _json,
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
        v -> trim(BOTH '"' FROM v) AS bare
    SELECT *,
        CAST(JSONExtractKeysAndValuesRaw(_json), 'Map(String, String)') AS fields,
        JSONExtractArrayRaw(fields['readings']) AS elements_2,
        CAST(JSONExtractKeysAndValuesRaw(fields['location']), 'Map(String, String)') AS fields_3,
        arrayFilter(field -> field != '', [
            if(position(fields['deviceId'], '\\u0001#') <= 2, '', 'deviceId'),
            if((fields['time'] IN ('', 'null') OR match(bare(fields['time']), '^((19|20|21|22)[0-9]{2})-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?Z?$|^(190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-8][0-9]|229[0-8])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?([+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['time'], 'Nullable(DateTime64(3, \'UTC\'))'))), '', 'time'),
            if((fields['epoch'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['epoch']))) = bare(fields['epoch'])), '', 'epoch'),
            if((fields['temperature'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields['temperature']))) = bare(fields['temperature']) OR position(fields['temperature'], '\\u0001#') = 2 AND digits(unmarked(bare(fields['temperature']))) = digits(toString(JSONExtract(unmarked(fields['temperature']), 'Float64'))))), '', 'temperature'),
            if((fields['humidity'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields['humidity']))) = bare(fields['humidity']) OR position(fields['humidity'], '\\u0001#') = 2 AND digits(unmarked(bare(fields['humidity']))) = digits(toString(JSONExtract(unmarked(fields['humidity']), 'Float64'))))), '', 'humidity'),
            if((fields['battery'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields['battery']))) = bare(fields['battery']) OR position(fields['battery'], '\\u0001#') = 2 AND digits(unmarked(bare(fields['battery']))) = digits(toString(JSONExtract(unmarked(fields['battery']), 'Float64'))))), '', 'battery'),
            if((fields['ok'] IN ('', 'null') OR fields['ok'] IN ('true', 'false')), '', 'ok'),
            if(position(fields['firmware'], '\\u0001#') <= 2, '', 'firmware'),
            if((fields['readings'] IN ('', 'null') OR startsWith(fields['readings'], '[') AND arrayAll((x1) -> (x1 IN ('', 'null') OR (toString(toFloat64OrZero(bare(x1))) = bare(x1) OR position(x1, '\\u0001#') = 2 AND digits(unmarked(bare(x1))) = digits(toString(JSONExtract(unmarked(x1), 'Float64'))))), elements_2) AND (match(fields['readings'], '^\\[[^n\\]]') OR length(JSONExtract(if(match(fields['readings'], '^\\[[^n\\]]'), '', unmarked(fields['readings'])), 'Array(Float64)')) = length(elements_2))), '', 'readings'),
            if((fields['location'] IN ('', 'null') OR startsWith(fields['location'], '{') AND length(arrayDistinct(mapKeys(fields_3))) = length(fields_3) AND (fields_3['lat'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields_3['lat']))) = bare(fields_3['lat']) OR position(fields_3['lat'], '\\u0001#') = 2 AND digits(unmarked(bare(fields_3['lat']))) = digits(toString(JSONExtract(unmarked(fields_3['lat']), 'Float64'))))) AND (fields_3['lon'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields_3['lon']))) = bare(fields_3['lon']) OR position(fields_3['lon'], '\\u0001#') = 2 AND digits(unmarked(bare(fields_3['lon']))) = digits(toString(JSONExtract(unmarked(fields_3['lon']), 'Float64')))))), '', 'location')
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
        FROM url('http://localhost:PORT/v1/pipes/iot_sensors/next?stream=sql-iot_sensors&view=shop.iot_sensors_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "iot_sensors_mv" and "iot_sensors_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('iot_sensors_mv', 'iot_sensors_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort', precise_float_parsing = 1;
