-- DynamoDB table "order-lines", with its changes from stream "order-lines".
-- This loads only changes. To load the items that were there before, too:
-- 1. send the changes to the stream (aws dynamodb enable-kinesis-streaming-destination), and wait until that is ACTIVE;
-- 2. export the table to S3 (aws dynamodb export-table-to-point-in-time, format DYNAMODB_JSON);
-- 3. when the export is COMPLETED, run this again with --export and the URL of its folder.
-- Made from 0 items sampled from the stream and the exports.
-- So there are only columns for the keys, and everything else is in rest. Run this again when there are changes or an export.

-- Read it with FINAL, or through the view below: of all rows of an item the one with the highest version counts.
CREATE TABLE `default`.`order_lines`
(
    `order` String,
    `line` Int64,
    rest Map(String, String) COMMENT 'attributes that the other columns do not hold exactly, as JSON',
    version Int64 COMMENT 'when the item was written, microseconds since 1970',
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (`order`, `line`)
COMMENT 'DynamoDB table arn:aws:dynamodb:us-east-1:000000000000:table/order-lines, id ID';

-- Stores nothing: changes and exports pass through it to the two views below. reason is empty for what fits.
CREATE TABLE `default`.`order_lines_landing`
(
    attributes Map(String, String),
    version Int64,
    is_deleted UInt8,
    _key String,
    _timestamp DateTime64(3),
    _stream LowCardinality(String),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32,
    _raw_message String,
    _error String,
    reason String MATERIALIZED multiIf(
        _error != '', _error,
        NOT startsWith(attributes['order'], '"'), concat('the key "order" is not a string: ', attributes['order']),
        NOT ifNull(toString(toInt64OrNull(attributes['line'])) = attributes['line'], false), concat('the key "line" does not fit Int64: ', attributes['line']),
        '')
)
ENGINE = Null;

-- What is not a change event, or has a key that does not fit, and why; kept for seven days.
CREATE TABLE `default`.`order_lines_errors`
(
    _key String,
    _timestamp DateTime64(3),
    _stream LowCardinality(String),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32,
    reason String,
    raw_message String,
    version Int64,
    is_deleted UInt8,
    failed_at DateTime DEFAULT now()
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
TTL failed_at + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `default`.`order_lines_mv` TO `default`.`order_lines` AS
SELECT
    JSONExtractString(item.attributes['order']) AS `order`,
    toInt64OrZero(item.attributes['line']) AS `line`,
    mapFilter((name, value) -> NOT multiIf(
        name IN ('order', 'line'), true,
        false), item.attributes) AS rest,
    item.version AS version,
    item.is_deleted AS is_deleted
FROM `default`.`order_lines_landing` AS item
WHERE item.reason = '';

CREATE MATERIALIZED VIEW `default`.`order_lines_errors_mv` TO `default`.`order_lines_errors` AS
SELECT _key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number, reason,
    if(_raw_message != '', _raw_message, concat('{', arrayStringConcat(
        arrayMap((name, value) -> concat(toJSONString(name), ':', value), mapKeys(attributes), mapValues(attributes)), ','), '}')) AS raw_message,
    version, is_deleted
FROM `default`.`order_lines_landing`
WHERE reason != '';

-- The current items. An attribute that had no column yet when its item arrived is read from rest. Maps and lists stay text: the type JSON
-- refuses numbers beyond 64 bits and drops nulls and empty maps. If yours have none of these, use CAST(column, 'JSON').
CREATE OR REPLACE VIEW `default`.`order_lines_final` AS
SELECT
    item.`order`,
    item.`line`,
    item.rest AS rest
FROM `default`.`order_lines` AS item FINAL;

-- A change with other keys than the target's stops the pipe before anything of it is inserted.
CREATE MATERIALIZED VIEW `default`.`order_lines_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `default`.`order_lines_landing` AS
SELECT
    _attributes AS attributes, _version AS version, _is_deleted AS is_deleted,
    _key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number, _raw_message, _error
FROM url('http://localhost:PORT/v1/pipes/lines/next?stream=order-lines&view=default.order_lines_pipe&unmarshal=dynamodb&mode=efo', 'ArrowStream',
    '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _event_name String, _event_id String, _table String, _version Int64, _is_deleted UInt8, _ttl_delete UInt8, _keys String, _new String, _old String, _attributes Map(String, String), _error String, _raw_message String, _batch String')
WHERE (SELECT throwIf(count() < 2,
        'the views "order_lines_mv" and "order_lines_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'default' AND name IN ('order_lines_mv', 'order_lines_errors_mv')) = 0
    AND _table IN ('', 'order-lines') AND (_error != '' OR _version >= CREATED)
    AND NOT throwIf(_table IN ('', 'order-lines') AND (_error != '' OR _version >= CREATED) AND _error = ''
        AND arraySort(arrayMap(name -> JSONExtractString(name), extractAll(_keys, '("(?:[^"\\\\]|\\\\.)*"):(?:"(?:[^"\\\\]|\\\\.)*"|[^",}]+)'))) != ['line', 'order'],
        'the changes of DynamoDB table "order-lines" have other key attributes than "line", "order": it was recreated with other keys; nothing is lost while this view waits; drop it and run sql dynamodb for another target')
ORDER BY _shard_id, length(_sequence_number), _sequence_number, _sub_sequence_number
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_insert_select = 'enable_even_for_bad_queries', deduplicate_blocks_in_dependent_materialized_views = 1;

-- Attributes without a column of their own. Run this command again to add columns for them.
-- SELECT arrayJoin(mapKeys(rest)) AS attribute, count() FROM `default`.`order_lines` GROUP BY attribute ORDER BY count() DESC
