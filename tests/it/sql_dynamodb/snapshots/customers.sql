-- DynamoDB table "customers", with its changes from stream "customers".
-- Made from 3 items sampled from the stream and the exports.
-- Only in rest, since no column may have such a name: "with.dot".

-- Read it with FINAL, or through the view below: of all rows of an item the one with the highest version counts.
CREATE TABLE `default`.`customers`
(
    `id` String,
    `active` Nullable(Bool),
    `address` Nullable(String) COMMENT 'JSON',
    `age` Nullable(Int64),
    `balance` Nullable(Int128),
    `history` Nullable(String) COMMENT 'JSON',
    `mixed` Nullable(String) COMMENT 'JSON',
    `name` Nullable(String),
    `pi` Nullable(String) COMMENT 'JSON',
    `price` Nullable(Float64),
    `scores` Array(Int64),
    `tags` Array(String),
    `version_attribute` Nullable(Int64),
    rest Map(String, String) COMMENT 'attributes that the other columns do not hold exactly, as JSON',
    version Int64 COMMENT 'when the item was written, microseconds since 1970',
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (`id`)
COMMENT 'DynamoDB table arn:aws:dynamodb:us-east-1:000000000000:table/customers, id ID';

-- Stores nothing: changes and exports pass through it to the two views below. reason is empty for what fits.
CREATE TABLE `default`.`customers_landing`
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
        NOT startsWith(attributes['id'], '"'), concat('the key "id" is not a string: ', attributes['id']),
        '')
)
ENGINE = Null;

-- What is not a change event, or has a key that does not fit, and why; kept for seven days.
CREATE TABLE `default`.`customers_errors`
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

CREATE MATERIALIZED VIEW `default`.`customers_mv` TO `default`.`customers` AS
SELECT
    JSONExtractString(item.attributes['id']) AS `id`,
    if(item.attributes['active'] IN ('true', 'false'), item.attributes['active'] = 'true', NULL) AS `active`,
    nullIf(item.attributes['address'], '') AS `address`,
    toInt64OrNull(item.attributes['age']) AS `age`,
    toInt128OrNull(item.attributes['balance']) AS `balance`,
    nullIf(item.attributes['history'], '') AS `history`,
    nullIf(item.attributes['mixed'], '') AS `mixed`,
    JSONExtract(item.attributes['name'], 'Nullable(String)') AS `name`,
    nullIf(item.attributes['pi'], '') AS `pi`,
    toFloat64OrNull(item.attributes['price']) AS `price`,
    arrayMap(x -> toInt64OrZero(x), if(startsWith(item.attributes['scores'], '[') AND arrayAll(x -> ifNull(toString(toInt64OrNull(x)) = x, false), splitByChar(',', substring(item.attributes['scores'], 2, length(item.attributes['scores']) - 2))), splitByChar(',', substring(item.attributes['scores'], 2, length(item.attributes['scores']) - 2)), [])) AS `scores`,
    JSONExtract(item.attributes['tags'], 'Array(String)') AS `tags`,
    toInt64OrNull(item.attributes['version']) AS `version_attribute`,
    mapFilter((name_2, value) -> NOT multiIf(
        name_2 IN ('id', 'address', 'history', 'mixed', 'pi'), true,
        name_2 IN ('active'), value IN ('true', 'false'),
        name_2 IN ('age', 'version'), ifNull(toString(toInt64OrNull(value)) = value, false),
        name_2 IN ('balance'), ifNull(toString(toInt128OrNull(value)) = value, false),
        name_2 IN ('name'), startsWith(value, '"'),
        name_2 IN ('price'), ifNull(toString(toFloat64OrNull(value)) = value, false),
        name_2 IN ('scores'), startsWith(value, '[') AND arrayAll(x -> ifNull(toString(toInt64OrNull(x)) = x, false), splitByChar(',', substring(value, 2, length(value) - 2))),
        name_2 IN ('tags'), startsWith(value, '["') AND notEmpty(JSONExtractArrayRaw(value)) AND arrayAll(x -> startsWith(x, '"'), JSONExtractArrayRaw(value)),
        false), item.attributes) AS rest,
    item.version AS version,
    item.is_deleted AS is_deleted
FROM `default`.`customers_landing` AS item
WHERE item.reason = '';

CREATE MATERIALIZED VIEW `default`.`customers_errors_mv` TO `default`.`customers_errors` AS
SELECT _key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number, reason,
    if(_raw_message != '', _raw_message, concat('{', arrayStringConcat(
        arrayMap((name, value) -> concat(toJSONString(name), ':', value), mapKeys(attributes), mapValues(attributes)), ','), '}')) AS raw_message,
    version, is_deleted
FROM `default`.`customers_landing`
WHERE reason != '';

-- The current items. An attribute that had no column yet when its item arrived is read from rest. Maps and lists stay text: the type JSON
-- refuses numbers beyond 64 bits and drops nulls and empty maps. If yours have none of these, use CAST(column, 'JSON').
CREATE OR REPLACE VIEW `default`.`customers_final` AS
SELECT
    item.`id`,
    ifNull(item.`active`, if(item.rest['active'] IN ('true', 'false'), item.rest['active'] = 'true', NULL)) AS `active`,
    ifNull(item.`address`, nullIf(item.rest['address'], '')) AS `address`,
    ifNull(item.`age`, toInt64OrNull(item.rest['age'])) AS `age`,
    ifNull(item.`balance`, toInt128OrNull(item.rest['balance'])) AS `balance`,
    ifNull(item.`history`, nullIf(item.rest['history'], '')) AS `history`,
    ifNull(item.`mixed`, nullIf(item.rest['mixed'], '')) AS `mixed`,
    ifNull(item.`name`, JSONExtract(item.rest['name'], 'Nullable(String)')) AS `name`,
    ifNull(item.`pi`, nullIf(item.rest['pi'], '')) AS `pi`,
    ifNull(item.`price`, toFloat64OrNull(item.rest['price'])) AS `price`,
    if(empty(item.`scores`), arrayMap(x -> toInt64OrZero(x), if(startsWith(item.rest['scores'], '[') AND arrayAll(x -> ifNull(toString(toInt64OrNull(x)) = x, false), splitByChar(',', substring(item.rest['scores'], 2, length(item.rest['scores']) - 2))), splitByChar(',', substring(item.rest['scores'], 2, length(item.rest['scores']) - 2)), [])), item.`scores`) AS `scores`,
    if(empty(item.`tags`), JSONExtract(item.rest['tags'], 'Array(String)'), item.`tags`) AS `tags`,
    ifNull(item.`version_attribute`, toInt64OrNull(item.rest['version'])) AS `version_attribute`,
    item.rest AS rest
FROM `default`.`customers` AS item FINAL;

-- A change with other keys than the target's stops the pipe before anything of it is inserted.
CREATE MATERIALIZED VIEW `default`.`customers_pipe` REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `default`.`customers_landing` AS
SELECT
    _attributes AS attributes, _version AS version, _is_deleted AS is_deleted,
    _key, _timestamp, _stream, _shard_id, _sequence_number, _sub_sequence_number, _raw_message, _error
FROM url('http://localhost:PORT/v1/pipes/customers/next?stream=customers&view=default.customers_pipe&unmarshal=dynamodb', 'ArrowStream',
    '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _event_name String, _event_id String, _table String, _version Int64, _is_deleted UInt8, _ttl_delete UInt8, _keys String, _new String, _old String, _attributes Map(String, String), _error String, _raw_message String, _batch String')
WHERE (SELECT throwIf(count() < 2,
        'the views "customers_mv" and "customers_errors_mv" must both exist (and this user must see them), or the records of the pipe would be stored nowhere: create the missing one again; nothing is lost meanwhile')
        FROM system.tables WHERE database = 'default' AND name IN ('customers_mv', 'customers_errors_mv')) = 0
    AND _table IN ('', 'customers') AND (_error != '' OR _version >= CREATED)
    AND NOT throwIf(_table IN ('', 'customers') AND (_error != '' OR _version >= CREATED) AND _error = ''
        AND arraySort(arrayMap(name -> JSONExtractString(name), extractAll(_keys, '("(?:[^"\\\\]|\\\\.)*"):(?:"(?:[^"\\\\]|\\\\.)*"|[^",}]+)'))) != ['id'],
        'the changes of DynamoDB table "customers" have other key attributes than "id": it was recreated with other keys; nothing is lost while this view waits; drop it and run sql dynamodb for another target')
ORDER BY _shard_id, length(_sequence_number), _sequence_number, _sub_sequence_number
SETTINGS http_max_tries = 1, max_threads = 1, insert_deduplicate = 1, insert_deduplication_token = '', limit = 0, offset = 0, sort_overflow_mode = 'throw', deduplicate_insert_select = 'enable_even_for_bad_queries', deduplicate_blocks_in_dependent_materialized_views = 1;

-- Loads the full export of TIME, 2 items. It may be run again: of all rows of an item the one with the highest version counts.
-- ClickHouse reads the files with its own credentials for S3 (environment, role, <s3> in its configuration); there are none in this statement.
INSERT INTO `default`.`customers_landing` (attributes, version, is_deleted)
SELECT attributes, VERSION AS version, 0 AS is_deleted
FROM (
    SELECT
        if(JSONLength(line) = 1 AND JSONHas(line, 'Item', 'id'), JSONExtractRaw(line, 'Item'), line) AS item,
        CAST(arrayMap(attribute -> (attribute.1, dynamodbToJSON(attribute.2)), JSONExtractKeysAndValuesRaw(item)), 'Map(String, String)') AS attributes
    FROM s3('http://127.0.0.1:S3/sqld-customers/{exports/AWSDynamoDB/01693685827463-2d8752fd/data/0000016936858274632d8752fd.json.gz,exports/AWSDynamoDB/01693685827463-2d8752fd/data/0001016936858274632d8752fd.json.gz,exports/AWSDynamoDB/01693685827463-2d8752fd/data/0002016936858274632d8752fd.json.gz,exports/AWSDynamoDB/01693685827463-2d8752fd/data/0003016936858274632d8752fd.json.gz}', 'LineAsString', 'line String')
)
WHERE NOT throwIf(NOT mapContains(attributes, 'id'), 'a line of the export has no key attribute "id": is this an export of DynamoDB table "customers"?')
    AND NOT throwIf(has(mapValues(attributes), ''), 'a line of an export of DynamoDB table "customers" has an attribute without a DynamoDB type')
SETTINGS s3_ignore_file_doesnt_exist = 0, use_hive_partitioning = 0;

-- Attributes without a column of their own. Run this command again to add columns for them.
-- SELECT arrayJoin(mapKeys(rest)) AS attribute, count() FROM `default`.`customers` GROUP BY attribute ORDER BY count() DESC
