-- The state of the world as rows, and stateless reads by name. None of them moves a checkpoint.

-- How far each shard of each pipe is committed.
CREATE OR REPLACE VIEW {database}.checkpoints AS
SELECT pipe, stream, shard_id, sequence_number, sub_sequence_number, owner, epoch, updated_at
FROM {database}.leases;

-- What each pipe is doing now, as this server's bridge sees it.
CREATE OR REPLACE VIEW {database}.pipes AS
SELECT *
FROM url(kinesis_bridge, url = concat({bridge}, '/v1/pipes'), format = 'JSONEachRow',
         structure = 'pipe String, stream String, shard_id String, owner String, epoch UInt64, state String, sequence_number String, sub_sequence_number UInt32, millis_behind_latest Nullable(Int64), offered_rows UInt64, committed_rows UInt64, failed_attempts UInt64, last_error String, last_commit_time Nullable(DateTime64(3)), mode String');

-- The streams of the bridge's AWS account and region.
CREATE OR REPLACE VIEW {database}.streams AS
SELECT *
FROM url(kinesis_bridge, url = concat({bridge}, '/v1/streams'), format = 'JSONEachRow',
         structure = 'stream String, arn String, status String, mode String, open_shards UInt32, retention_hours UInt32');

-- The shards of a stream, open and closed: SELECT * FROM kinesis.shards(stream = 'orders')
CREATE OR REPLACE VIEW {database}.shards AS
SELECT *
FROM url(kinesis_bridge, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}), '/shards'), format = 'JSONEachRow',
         structure = 'shard_id String, parent_shard_id String, adjacent_parent_shard_id String, starting_hash_key String, ending_hash_key String, starting_sequence_number String, ending_sequence_number String');

-- A few of the newest records: SELECT * FROM kinesis.sample(stream = 'orders')
CREATE OR REPLACE VIEW {database}.sample AS
SELECT *
FROM url(kinesis_bridge, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}), '/sample?format=JSONEachRow'), format = 'JSONEachRow',
         structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String');

-- The records of a time range: SELECT * FROM kinesis.records(stream = 'orders', from = '2026-11-21 10:00:00', to = '')
-- An empty from is the oldest record, an empty to is now. Times are UTC.
CREATE OR REPLACE VIEW {database}.records AS
SELECT *
FROM url(kinesis_bridge, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}),
                                      '/records?from=', encodeURLComponent({from:String}), '&to=', encodeURLComponent({to:String})), format = 'ArrowStream',
         structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String');
