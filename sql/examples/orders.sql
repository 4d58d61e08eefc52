-- A pipe: orders from the stream `orders` into a table, exactly once.

-- The deduplication window drops a batch that is served again after a failure.
CREATE TABLE orders (id String, user_id UInt64, price Float64, _timestamp DateTime64(3), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32)
ENGINE = MergeTree ORDER BY (user_id, _timestamp) SETTINGS non_replicated_deduplication_window = 1000;

-- Each refresh pulls a batch as soon as there are records; the bridge starts the next one when the
-- batch is committed. A failing refresh is retried after pauses of up to 5 s. ORDER BY ALL and one
-- thread turn a batch into the same block each time, which deduplication needs. ORDER BY ALL sorts
-- by the columns in order: a batch is already sorted by the first three, so this costs little. With
-- deduplicate_blocks_in_dependent_materialized_views a repeated batch completes the tables of views
-- below `orders`, too.
CREATE MATERIALIZED VIEW orders_pipe REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO orders AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _timestamp, r.id AS id, r.user_id AS user_id, r.price AS price
FROM (
    SELECT JSONExtract(_raw_message, 'Tuple(id String, user_id UInt64, price Float64)') AS r, _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:9020/v1/pipes/orders/next?stream=orders&view=default.orders_pipe', 'ArrowStream',
             '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1;
