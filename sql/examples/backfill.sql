-- A backfill: one time range, read in eight parallel parts. It keeps no state, so it can be
-- repeated: rows of the same record replace each other in a ReplacingMergeTree.

CREATE TABLE orders_history (id String, user_id UInt64, price Float64, _timestamp DateTime64(3), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32)
ENGINE = ReplacingMergeTree ORDER BY (_shard_id, _sequence_number, _sub_sequence_number);

-- {0..7} expands to eight URLs, each for the shards whose number modulo 8 is that digit.
INSERT INTO orders_history
SELECT r.id, r.user_id, r.price, _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT *, JSONExtract(_raw_message, 'Tuple(id String, user_id UInt64, price Float64)') AS r
    FROM url('http://localhost:9020/v1/streams/orders/records?from=2026-11-21T00:00:00.000Z&to=2026-11-22T00:00:00.000Z&slice={0..7}%2F8', 'ArrowStream',
             '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String')
);

SELECT count(), min(_timestamp), max(_timestamp) FROM orders_history FINAL;
