-- A pipe from stream "sql-payments", made from 20 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "payments_errors" instead.
-- Some numbers have more digits than ClickHouse's JSON parser takes: they are quoted before the record is parsed.
-- "rate" has numbers with more digits than ClickHouse's types keep: String.

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
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

-- Keeps nothing: records pass through it to the two views below. _error is empty for those that fit.
CREATE TABLE `shop`.`payments_landing`
(
    _key String,
    _timestamp DateTime64(3),
    _stream LowCardinality(String),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32,
    _raw_message String,
    _error String
)
ENGINE = Null;

-- What does not fit, and why; for seven days.
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
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_json, 'Tuple(
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
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM (
        SELECT *, if(
            isValidUTF8(_raw_message) AND match(_raw_message, '[0-9][0-9.]{17}'),
            arrayStringConcat(arrayMap(
                token -> if(match(token, '^-?[0-9][0-9.]{17,}$'), concat('"', token, '"'), token),
                extractAll(_raw_message, '"(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.eE+-]*|[^"0-9-]+|[-"]'))),
            _raw_message) AS _json
        FROM `shop`.`payments_landing`
        WHERE _error = ''
    )
);

CREATE MATERIALIZED VIEW `shop`.`payments_errors_mv` TO `shop`.`payments_errors` AS
SELECT _key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number, _error AS reason, _raw_message AS raw_message
FROM `shop`.`payments_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`payments_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`payments_landing` AS
SELECT
    _key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number, _raw_message,
    multiIf(
        NOT isValidJSON(_json), 'no valid JSON, or a number beyond 64 bits',
        JSONType(_json) != 'Object', 'no JSON object',
        length(arrayDistinct(mapKeys(fields))) != length(fields), 'a field comes twice',
        if(empty(misfits), '', concat('does not fit: ', arrayStringConcat(misfits, ', ')))) AS _error
FROM (
    SELECT *, if(
            isValidUTF8(_raw_message) AND match(_raw_message, '[0-9][0-9.]{17}'),
            arrayStringConcat(arrayMap(
                token -> if(match(token, '^-?[0-9][0-9.]{17,}$'), concat('"', token, '"'), token),
                extractAll(_raw_message, '"(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.eE+-]*|[^"0-9-]+|[-"]'))),
            _raw_message) AS _json,
        CAST(JSONExtractKeysAndValuesRaw(_json), 'Map(String, String)') AS fields,
        arrayFilter(field -> field != '', [
            if((isNull(JSONExtract(fields['payment_id'], 'Nullable(String)')) OR isNotNull(JSONExtract(fields['payment_id'], 'Nullable(UUID)'))), '', 'payment_id'),
            if(ifNull(toString(JSONExtract(fields['amount'], 'Nullable(Float64)')) = JSONExtract(fields['amount'], 'Nullable(String)'), isNull(JSONExtract(fields['amount'], 'Nullable(String)'))), '', 'amount'),
            if(ifNull(toString(JSONExtract(fields['fee'], 'Nullable(Float64)')) = JSONExtract(fields['fee'], 'Nullable(String)'), isNull(JSONExtract(fields['fee'], 'Nullable(String)'))), '', 'fee'),
            if(ifNull(toString(JSONExtract(fields['wei'], 'Nullable(UInt256)')) = JSONExtract(fields['wei'], 'Nullable(String)'), isNull(JSONExtract(fields['wei'], 'Nullable(String)'))), '', 'wei'),
            if(ifNull(toString(JSONExtract(fields['balance'], 'Nullable(Int256)')) = JSONExtract(fields['balance'], 'Nullable(String)'), isNull(JSONExtract(fields['balance'], 'Nullable(String)'))), '', 'balance'),
            if(ifNull(toString(JSONExtract(fields['ledger_seq'], 'Nullable(UInt64)')) = JSONExtract(fields['ledger_seq'], 'Nullable(String)'), isNull(JSONExtract(fields['ledger_seq'], 'Nullable(String)'))), '', 'ledger_seq'),
            if(ifNull(toString(JSONExtract(fields['booked_on'], 'Nullable(Date32)')) = JSONExtract(fields['booked_on'], 'Nullable(String)'), isNull(JSONExtract(fields['booked_on'], 'Nullable(String)'))), '', 'booked_on'),
            if((isNull(JSONExtract(fields['settled_at'], 'Nullable(String)')) OR match(JSONExtract(fields['settled_at'], 'Nullable(String)'), '^((19|20|21|22)[0-9]{2})-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3})?(Z|[+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['settled_at'], 'Nullable(DateTime64(3, \'UTC\'))'))), '', 'settled_at')
        ]) AS misfits
    FROM url('http://localhost:PORT/v1/pipes/payments/next?stream=sql-payments&view=shop.payments_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
WHERE (SELECT throwIf(count() < 2,
        'the views "payments_mv" and "payments_errors_mv" must both be there (and this user must see them), or what the pipe brings is kept nowhere: make the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('payments_mv', 'payments_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort';
