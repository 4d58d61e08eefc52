-- Raw landing: every record unchanged in one table, and other tables filled from it by materialized
-- views. Records that cannot be used are kept, too.

-- Kept for 30 days. With ENGINE = Null instead, only what the views derive from it is kept.
CREATE TABLE orders_raw (_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String)
ENGINE = MergeTree ORDER BY (_shard_id, _timestamp) TTL toDateTime(_timestamp) + INTERVAL 30 DAY SETTINGS non_replicated_deduplication_window = 1000;

-- Each table that a view writes to needs a deduplication window of its own.
CREATE TABLE orders_by_status (status LowCardinality(String), id String, price Decimal(18, 2), _timestamp DateTime64(3), _shard_id LowCardinality(String), _sequence_number String)
ENGINE = MergeTree ORDER BY (status, _timestamp) SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW orders_by_status_mv TO orders_by_status AS
SELECT r.status AS status, r.id AS id, r.price AS price, _timestamp, _shard_id, _sequence_number
FROM (SELECT *, JSONExtract(_raw_message, 'Tuple(status String, id String, price Decimal(18, 2))') AS r FROM orders_raw WHERE JSONHas(_raw_message, 'id'));

-- Sums are exact, too: each batch is added exactly once.
CREATE TABLE orders_daily (day Date, orders SimpleAggregateFunction(sum, UInt64), revenue SimpleAggregateFunction(sum, Decimal(38, 2)), users AggregateFunction(uniqExact, UInt64))
ENGINE = AggregatingMergeTree ORDER BY day SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW orders_daily_mv TO orders_daily AS
SELECT toDate(_timestamp) AS day, count() AS orders, sum(r.price) AS revenue, uniqExactState(r.user_id) AS users
FROM (SELECT _timestamp, JSONExtract(_raw_message, 'Tuple(user_id UInt64, price Decimal(18, 2))') AS r FROM orders_raw WHERE JSONHas(_raw_message, 'id'))
GROUP BY day;

-- The records that the views above leave out.
CREATE TABLE orders_raw_errors (_timestamp DateTime64(3), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String)
ENGINE = MergeTree ORDER BY _timestamp TTL toDateTime(_timestamp) + INTERVAL 7 DAY SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW orders_raw_errors_mv TO orders_raw_errors AS
SELECT _timestamp, _shard_id, _sequence_number, _sub_sequence_number, _raw_message FROM orders_raw WHERE NOT JSONHas(_raw_message, 'id');

-- With deduplicate_blocks_in_dependent_materialized_views a batch that is served again is dropped
-- from all of these tables.
CREATE MATERIALIZED VIEW orders_raw_pipe REFRESH AFTER 2 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO orders_raw AS
SELECT _shard_id, _sequence_number, _sub_sequence_number, _timestamp, _key, _stream, _raw_message
FROM url('http://localhost:9020/v1/pipes/orders_raw/next?stream=orders&view=default.orders_raw_pipe', 'ArrowStream',
         '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1;
