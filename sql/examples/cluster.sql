-- A pipe across several servers, exactly-once over all of them: run this on each server. Each one
-- pulls from its own bridge, and the bridges distribute the stream's shards among themselves.

-- What this server stores. The deduplication window drops a repeated block, whichever server sends
-- it.
CREATE TABLE orders_local (id String, user_id UInt64, price Float64, _timestamp DateTime64(3), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32)
ENGINE = MergeTree ORDER BY (user_id, _timestamp) SETTINGS non_replicated_deduplication_window = 1000;

-- All servers' tables as one: `all_servers` is defined in <remote_servers>. The partition key
-- decides which server stores a row, so every server splits a batch into the same blocks.
CREATE TABLE orders AS orders_local ENGINE = Distributed(all_servers, currentDatabase(), orders_local, cityHash64(id));

-- With distributed_foreground_insert a refresh succeeds only once every server has its rows.
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
SETTINGS http_max_tries = 1, max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1, distributed_foreground_insert = 1;
