-- A pipe from stream "sql-payments", made from 20 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "payments_errors" instead.
-- Fields without a column are kept in rest: see the end.
-- "rate" has numbers with more digits than ClickHouse's types can hold: String.

CREATE TABLE `shop`.`payments`
(
    `payment_id` UUID,
    `amount` Float64,
    `fee` Float64,
    `rate` String,
    `wei` UInt256,
    `balance` Int256,
    `ledger_seq` UInt64,
    `iban` String,
    `booked_on` Date32,
    `settled_at` Nullable(DateTime64(3, 'UTC')),
    `memo` String,
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
CREATE TABLE `shop`.`payments_landing`
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
CREATE TABLE `shop`.`payments_errors`
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

CREATE MATERIALIZED VIEW `shop`.`payments_mv` TO `shop`.`payments` AS
SELECT
    r.`payment_id` AS `payment_id`,
    r.`amount` AS `amount`,
    r.`fee` AS `fee`,
    r.`rate` AS `rate`,
    r.`wei` AS `wei`,
    r.`balance` AS `balance`,
    r.`ledger_seq` AS `ledger_seq`,
    r.`iban` AS `iban`,
    r.`booked_on` AS `booked_on`,
    r.`settled_at` AS `settled_at`,
    r.`memo` AS `memo`,
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `payment_id` UUID,
            `amount` Float64,
            `fee` Float64,
            `rate` String,
            `wei` UInt256,
            `balance` Int256,
            `ledger_seq` UInt64,
            `iban` String,
            `booked_on` Date32,
            `settled_at` Nullable(DateTime64(3, \'UTC\')),
            `memo` String
        )') AS r,
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`payments_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`payments_errors_mv` TO `shop`.`payments_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`payments_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`payments_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`payments_landing` AS
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
        CAST(arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('payment_id', 'amount', 'fee', 'rate', 'wei', 'balance', 'ledger_seq', 'iban', 'booked_on', 'settled_at', 'memo'), JSONExtractKeysAndValuesRaw(_json))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if((fields['payment_id'] IN ('', 'null') OR match(bare(fields['payment_id']), '^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$') AND isNotNull(JSONExtract(unmarked(fields['payment_id']), 'Nullable(UUID)'))), '', 'payment_id'),
            if((fields['amount'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields['amount']))) = bare(fields['amount']) OR position(fields['amount'], '\\u0001#') = 2 AND digits(unmarked(bare(fields['amount']))) = digits(toString(JSONExtract(unmarked(fields['amount']), 'Float64'))))), '', 'amount'),
            if((fields['fee'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields['fee']))) = bare(fields['fee']) OR position(fields['fee'], '\\u0001#') = 2 AND digits(unmarked(bare(fields['fee']))) = digits(toString(JSONExtract(unmarked(fields['fee']), 'Float64'))))), '', 'fee'),
            if(position(fields['rate'], '\\u0001#') <= 2, '', 'rate'),
            if((fields['wei'] IN ('', 'null') OR toString(toUInt256OrZero(unmarked(bare(fields['wei'])))) = unmarked(bare(fields['wei']))), '', 'wei'),
            if((fields['balance'] IN ('', 'null') OR toString(toInt256OrZero(unmarked(bare(fields['balance'])))) = unmarked(bare(fields['balance']))), '', 'balance'),
            if((fields['ledger_seq'] IN ('', 'null') OR toString(toUInt64OrZero(bare(fields['ledger_seq']))) = bare(fields['ledger_seq'])), '', 'ledger_seq'),
            if(position(fields['iban'], '\\u0001#') <= 2, '', 'iban'),
            if((fields['booked_on'] IN ('', 'null') OR toString(toDate32OrZero(bare(fields['booked_on']))) = bare(fields['booked_on'])), '', 'booked_on'),
            if((fields['settled_at'] IN ('', 'null') OR match(bare(fields['settled_at']), '^((19|20|21|22)[0-9]{2})-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?Z?$|^(190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-8][0-9]|229[0-8])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?([+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['settled_at'], 'Nullable(DateTime64(3, \'UTC\'))'))), '', 'settled_at'),
            if(position(fields['memo'], '\\u0001#') <= 2, '', 'memo')
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
        FROM url('http://localhost:PORT/v1/pipes/payments/next?stream=sql-payments&view=shop.payments_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "payments_mv" and "payments_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('payments_mv', 'payments_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort', precise_float_parsing = 1;

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`payments` GROUP BY field ORDER BY count() DESC
