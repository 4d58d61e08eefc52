-- JSON into typed columns: nested objects, arrays, maps, tuples, Variant and JSON, next to the
-- virtual columns of Kinesis.

CREATE TABLE orders_typed (
    id String,
    price Decimal(18, 2),
    status Enum8('created' = 1, 'paid' = 2, 'shipped' = 3, 'delivered' = 4),
    note Nullable(String),
    items Array(Tuple(sku String, quantity UInt16)),
    first_item Map(String, String),
    extra Variant(Int64, String),
    document JSON(user_id UInt64, SKIP note),
    _key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32
)
ENGINE = MergeTree ORDER BY (_timestamp, id) SETTINGS non_replicated_deduplication_window = 1000;

-- Sorting by Variant and JSON columns has to be allowed explicitly. Their order does not matter, as
-- long as it is the same each time.
CREATE MATERIALIZED VIEW orders_typed_pipe REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO orders_typed AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _timestamp,
       r.id AS id, r.price AS price, r.status AS status, r.note AS note, r.items AS items,
       JSONExtract(_raw_message, 'items', 1, 'Map(String, String)') AS first_item,
       JSONExtract(_raw_message, 'user_id', 'Variant(Int64, String)') AS extra,
       _raw_message::JSON(user_id UInt64, SKIP note) AS document,
       _key, _stream
FROM (
    SELECT *, JSONExtract(_raw_message, 'Tuple(id String, price Decimal(18, 2), status String, note Nullable(String), items Array(Tuple(sku String, quantity UInt16)))') AS r
    FROM url('http://localhost:9020/v1/pipes/orders_typed/next?stream=orders&view=default.orders_typed_pipe', 'ArrowStream',
             '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1, allow_suspicious_types_in_order_by = 1;
