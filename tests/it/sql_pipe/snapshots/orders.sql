-- A pipe from stream "sql-orders", made from 24 of its records.
-- Exactly-once: see Guarantees in README.md.
-- Records that do not fit go to "orders_errors" instead.
-- Fields without a column are kept in rest: see the end.

CREATE TABLE `shop`.`orders`
(
    `order_id` String,
    `customer_id` Int64,
    `placed_at` DateTime64(3, 'UTC'),
    `currency` String,
    `total` Float64,
    `gift` Bool,
    `coupon` Nullable(String),
    `items` Array(Tuple(`sku` String, `quantity` Int64, `unit_price` Float64)),
    `shipping` Tuple(`method` String, `address` Tuple(`street` String, `city` String, `zip` String)),
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
CREATE TABLE `shop`.`orders_landing`
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
CREATE TABLE `shop`.`orders_errors`
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

CREATE MATERIALIZED VIEW `shop`.`orders_mv` TO `shop`.`orders` AS
SELECT
    r.`order_id` AS `order_id`,
    r.`customer_id` AS `customer_id`,
    r.`placed_at` AS `placed_at`,
    r.`currency` AS `currency`,
    r.`total` AS `total`,
    r.`gift` AS `gift`,
    r.`coupon` AS `coupon`,
    r.`items` AS `items`,
    r.`shipping` AS `shipping`,
    rest,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    WITH
        v -> replaceAll(v, '\\u0001#', '') AS unmarked
    SELECT
        JSONExtract(unmarked(_json), 'Tuple(
            `order_id` String,
            `customer_id` Int64,
            `placed_at` DateTime64(3, \'UTC\'),
            `currency` String,
            `total` Float64,
            `gift` Bool,
            `coupon` Nullable(String),
            `items` Array(Tuple(`sku` String, `quantity` Int64, `unit_price` Float64)),
            `shipping` Tuple(`method` String, `address` Tuple(`street` String, `city` String, `zip` String))
        )') AS r,
        rest,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM `shop`.`orders_landing`
    WHERE _error = ''
);

CREATE MATERIALIZED VIEW `shop`.`orders_errors_mv` TO `shop`.`orders_errors` AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _key, _timestamp, _stream, _error AS reason, _raw_message AS raw_message
FROM `shop`.`orders_landing`
WHERE _error != '';

CREATE MATERIALIZED VIEW `shop`.`orders_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`orders_landing` AS
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
        JSONExtractArrayRaw(fields['items']) AS elements_2,
        arrayMap(x -> JSONExtractKeysAndValuesRaw(x), elements_2) AS objects_3,
        CAST(JSONExtractKeysAndValuesRaw(fields['shipping']), 'Map(String, String)') AS fields_4,
        CAST(JSONExtractKeysAndValuesRaw(fields_4['address']), 'Map(String, String)') AS fields_5,
        CAST(arrayConcat(
            arrayMap(p -> (p.1, written(p.2)), arrayFilter(p -> p.1 NOT IN ('order_id', 'customer_id', 'placed_at', 'currency', 'total', 'gift', 'coupon', 'items', 'shipping'), JSONExtractKeysAndValuesRaw(_json))),
            arrayFlatten(arrayMap((x1, o1, n1) -> arrayMap(p -> (concat('items', '[', toString(n1), ']', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('sku', 'quantity', 'unit_price'), o1)), elements_2, objects_3, arrayEnumerate(elements_2))),
            arrayMap(p -> (concat('shipping', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('method', 'address'), JSONExtractKeysAndValuesRaw(fields['shipping']))),
            arrayMap(p -> (concat('shipping', '.address', '.', p.1), written(p.2)), arrayFilter(p -> p.1 NOT IN ('street', 'city', 'zip'), JSONExtractKeysAndValuesRaw(fields_4['address'])))), 'Map(String, String)') AS rest,
        arrayFilter(field -> field != '', [
            if(position(fields['order_id'], '\\u0001#') <= 2, '', 'order_id'),
            if((fields['customer_id'] IN ('', 'null') OR toString(toInt64OrZero(bare(fields['customer_id']))) = bare(fields['customer_id'])), '', 'customer_id'),
            if((fields['placed_at'] IN ('', 'null') OR match(bare(fields['placed_at']), '^((19|20|21|22)[0-9]{2})-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?Z?$|^(190[1-9]|19[1-9][0-9]|2[01][0-9]{2}|22[0-8][0-9]|229[0-8])-[01][0-9]-[0-3][0-9][T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3}0*)?([+-][0-9]{2}:[0-9]{2})?$') AND isNotNull(JSONExtract(fields['placed_at'], 'Nullable(DateTime64(3, \'UTC\'))'))), '', 'placed_at'),
            if(position(fields['currency'], '\\u0001#') <= 2, '', 'currency'),
            if((fields['total'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(fields['total']))) = bare(fields['total']) OR position(fields['total'], '\\u0001#') = 2 AND digits(unmarked(bare(fields['total']))) = digits(toString(JSONExtract(unmarked(fields['total']), 'Float64'))))), '', 'total'),
            if((fields['gift'] IN ('', 'null') OR fields['gift'] IN ('true', 'false')), '', 'gift'),
            if(position(fields['coupon'], '\\u0001#') <= 2, '', 'coupon'),
            if((fields['items'] IN ('', 'null') OR startsWith(fields['items'], '[') AND arrayAll((x1, o1) -> (x1 IN ('', 'null') OR startsWith(x1, '{') AND length(arrayDistinct(mapKeys(CAST(o1, 'Map(String, String)')))) = length(CAST(o1, 'Map(String, String)')) AND position(CAST(o1, 'Map(String, String)')['sku'], '\\u0001#') <= 2 AND (CAST(o1, 'Map(String, String)')['quantity'] IN ('', 'null') OR toString(toInt64OrZero(bare(CAST(o1, 'Map(String, String)')['quantity']))) = bare(CAST(o1, 'Map(String, String)')['quantity'])) AND (CAST(o1, 'Map(String, String)')['unit_price'] IN ('', 'null') OR (toString(toFloat64OrZero(bare(CAST(o1, 'Map(String, String)')['unit_price']))) = bare(CAST(o1, 'Map(String, String)')['unit_price']) OR position(CAST(o1, 'Map(String, String)')['unit_price'], '\\u0001#') = 2 AND digits(unmarked(bare(CAST(o1, 'Map(String, String)')['unit_price']))) = digits(toString(JSONExtract(unmarked(CAST(o1, 'Map(String, String)')['unit_price']), 'Float64')))))), elements_2, objects_3) AND (match(fields['items'], '^\\[[{]"(sku|quantity|unit_price)":[^n]') OR length(JSONExtract(if(match(fields['items'], '^\\[[{]"(sku|quantity|unit_price)":[^n]'), '', unmarked(fields['items'])), 'Array(Tuple(`sku` String, `quantity` Int64, `unit_price` Float64))')) = length(elements_2))), '', 'items'),
            if((fields['shipping'] IN ('', 'null') OR startsWith(fields['shipping'], '{') AND length(arrayDistinct(mapKeys(fields_4))) = length(fields_4) AND position(fields_4['method'], '\\u0001#') <= 2 AND (fields_4['address'] IN ('', 'null') OR startsWith(fields_4['address'], '{') AND length(arrayDistinct(mapKeys(fields_5))) = length(fields_5) AND position(fields_5['street'], '\\u0001#') <= 2 AND position(fields_5['city'], '\\u0001#') <= 2 AND position(fields_5['zip'], '\\u0001#') <= 2)), '', 'shipping')
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
        FROM url('http://localhost:PORT/v1/pipes/orders/next?stream=sql-orders&view=shop.orders_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
    )
)
WHERE (SELECT throwIf(count() < 2,
        'the views "orders_mv" and "orders_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'shop' AND name IN ('orders_mv', 'orders_errors_mv')) = 0
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_blocks_in_dependent_materialized_views = 1, short_circuit_function_evaluation = 'disable', date_time_input_format = 'best_effort', precise_float_parsing = 1;

-- Fields without a column, and how often they occurred. Run this command again to see columns for them.
-- SELECT replaceRegexpAll(arrayJoin(mapKeys(rest)), '\\[[^]]*\\]', '[]') AS field, count() FROM `shop`.`orders` GROUP BY field ORDER BY count() DESC
