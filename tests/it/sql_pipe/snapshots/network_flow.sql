-- A pipe from stream "sql-network_flow", made from 30 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "network_flow_errors" instead.
-- Fields without a column are kept in rest: see the end.

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
CREATE TABLE `shop`.`network_flow_landing`
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
CREATE TABLE `shop`.`network_flow_errors`
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

CREATE MATERIALIZED VIEW `shop`.`network_flow_mv` TO `shop`.`network_flow` AS
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
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
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
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`network_flow_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`network_flow_errors_mv` TO `shop`.`network_flow_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`network_flow_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`network_flow_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`network_flow_landing` AS
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
        JSONExtractArrayRaw(fields['tcp_flags']) AS elements_2,
        CAST(arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('flow_id', 'start', 'src_ip', 'dst_ip', 'gateway', 'src_port', 'dst_port', 'protocol', 'bytes', 'packets', 'tcp_flags', 'action'), JSONExtractKeysAndValuesRaw(_json))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if((fields['flow_id'] IN ('', 'null') OR toString(toUInt64OrZero(bare(fields['flow_id']))) = bare(fields['flow_id'])), '', 'flow_id'),
            if((fields['start'] IN ('', 'null') OR match(bare(fields['start']), '^((19|20|21)[0-9]{2}|22[0-5][0-9])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9}0*)?Z?$|^(190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-5][0-9])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9}0*)?([+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['start'], 'Nullable(DateTime64(9, \'UTC\'))'))), '', 'start'),
            if((fields['src_ip'] IN ('', 'null') OR toString(toIPv4OrZero(bare(fields['src_ip']))) = bare(fields['src_ip'])), '', 'src_ip'),
            if(position(fields['dst_ip'], '\\u0001#') <= 2, '', 'dst_ip'),
            if((fields['gateway'] IN ('', 'null') OR isNotNull(JSONExtract(unmarked(fields['gateway']), 'Nullable(IPv6)'))), '', 'gateway'),
            if((fields['src_port'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['src_port']))) = bare(fields['src_port'])), '', 'src_port'),
            if((fields['dst_port'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['dst_port']))) = bare(fields['dst_port'])), '', 'dst_port'),
            if((fields['protocol'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['protocol']))) = bare(fields['protocol'])), '', 'protocol'),
            if((fields['bytes'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['bytes']))) = bare(fields['bytes'])), '', 'bytes'),
            if((fields['packets'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['packets']))) = bare(fields['packets'])), '', 'packets'),
            if((fields['tcp_flags'] IN ('', 'null') OR startsWith(fields['tcp_flags'], '[') AND arrayAll((x1) -> position(x1, '\\u0001#') <= 2, elements_2) AND (match(fields['tcp_flags'], '^\\[[^n\\]]') OR length(JSONExtract(if(match(fields['tcp_flags'], '^\\[[^n\\]]'), '', unmarked(fields['tcp_flags'])), 'Array(String)')) = length(elements_2))), '', 'tcp_flags'),
            if(position(fields['action'], '\\u0001#') <= 2, '', 'action')
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
        FROM url('http://localhost:PORT/v1/pipes/network_flow/next?stream=sql-network_flow&view=shop.network_flow_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "network_flow_mv" and "network_flow_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('network_flow_mv', 'network_flow_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort';

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`network_flow` GROUP BY field ORDER BY count() DESC
