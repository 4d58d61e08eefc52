-- Looking into streams. Needs the views from `clickhouse-kinesis-bridge sql setup`; nothing here
-- moves a checkpoint.

SELECT stream, status, open_shards, retention_hours FROM kinesis.streams;

SELECT shard_id, parent_shard_id FROM kinesis.shards(stream = 'orders');

-- The newest records, now.
SELECT _timestamp, _key, _raw_message FROM kinesis.sample(stream = 'orders');

-- The last hour, one row per minute. Times are UTC; an empty `from` is the oldest record, an empty
-- `to` is now.
SELECT toStartOfMinute(_timestamp) AS minute, count() AS records, sum(JSONExtractFloat(_raw_message, 'price')) AS revenue
FROM kinesis.records(stream = 'orders', from = toString(now('UTC') - 3600), to = '')
GROUP BY minute ORDER BY minute;

-- One shard, through the named collection. For one key's records, read all shards and filter.
SELECT _sequence_number, _raw_message
FROM url(kinesis_bridge, url = 'http://localhost:9020/v1/streams/orders/records?shard=shardId-000000000000&limit=10', format = 'ArrowStream',
         structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String');

-- The position and the lag of each pipe.
SELECT pipe, shard_id, state, millis_behind_latest, committed_rows, last_error FROM kinesis.pipes;

SELECT pipe, shard_id, sequence_number, owner, updated_at FROM kinesis.checkpoints ORDER BY pipe, shard_id;
