-- The state of pipes and streams as rows, and stateless reads by name. None of the views moves a
-- checkpoint; the tables at the end do when rows are inserted.

-- The committed position of each shard of each pipe.
CREATE OR REPLACE VIEW {database}.checkpoints AS
SELECT pipe, stream, shard_id, sequence_number, sub_sequence_number, owner, epoch, updated_at
FROM {database}.leases;

-- What each pipe is doing now, as seen by this server's bridge.
CREATE OR REPLACE VIEW {database}.pipes AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/pipes'), format = 'JSONEachRow',
         structure = 'pipe String, stream String, shard_id String, owner String, epoch UInt64, state String, sequence_number String, sub_sequence_number UInt32, millis_behind_latest Nullable(Int64), offered_rows UInt64, committed_rows UInt64, failed_attempts UInt64, last_error String, last_commit_time Nullable(DateTime64(3)), mode String, warning String')
SETTINGS date_time_input_format = 'best_effort';

-- The streams of the bridge's AWS account and region.
CREATE OR REPLACE VIEW {database}.streams AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams'), format = 'JSONEachRow',
         structure = 'stream String, arn String, status String, mode String, open_shards UInt32, retention_hours UInt32');

-- The shards of a stream, open and closed: SELECT * FROM kinesis.shards(stream = 'orders')
CREATE OR REPLACE VIEW {database}.shards AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}), '/shards'), format = 'JSONEachRow',
         structure = 'shard_id String, parent_shard_id String, adjacent_parent_shard_id String, starting_hash_key String, ending_hash_key String, starting_sequence_number String, ending_sequence_number String');

-- A few of the newest records: SELECT * FROM kinesis.sample(stream = 'orders')
CREATE OR REPLACE VIEW {database}.sample AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}), '/sample?format=JSONEachRow'), format = 'JSONEachRow',
         structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String')
SETTINGS date_time_input_format = 'best_effort';

-- The records of a time range:
--   SELECT * FROM kinesis.records(stream = 'orders', from = '2026-11-21 10:00:00', to = '')
-- An empty from is the oldest record, an empty to is now. Times are UTC.
CREATE OR REPLACE VIEW {database}.records AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}),
                                      '/records?from=', encodeURLComponent({from:String}), '&to=', encodeURLComponent({to:String})), format = 'ArrowStream',
         structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String');

-- A row for each pipe: its lag, and the states of its shards.
CREATE OR REPLACE VIEW {database}.lag AS
SELECT pipe, any(stream) AS stream, count() AS shards, countIf(state = 'reading') AS reading, countIf(state = 'waiting_for_parent') AS waiting,
       countIf(state = 'finished') AS finished, countIf(state = 'gap') AS gaps, countIf(state = 'unowned') AS unowned,
       max(millis_behind_latest) AS max_millis_behind, sum(offered_rows) AS open_rows, max(last_commit_time) AS last_commit
FROM {database}.pipes
GROUP BY pipe;

-- A row for each pipe: its throughput.
CREATE OR REPLACE VIEW {database}.throughput AS
SELECT pipe, any(stream) AS stream, sum(bytes_per_second) AS bytes_a_second, sum(committed_rows) AS rows_in_all, max(last_commit_time) AS last_commit
FROM {database}.leases
GROUP BY pipe;

-- ClickHouse's side of each pipe: the view that pulls it, found by the URL in its SELECT.
CREATE OR REPLACE VIEW {database}.refreshes AS
SELECT decodeURLComponent(extract(definition, '/v1/pipes/([^/?]+)/next')) AS pipe, database, view, status, retry, last_success_time, next_refresh_time,
       splitByString(', Stack trace', exception)[1] AS exception,
       decodeURLComponent(extract(definition, '/v1/pipes/[^/?]+/next[?](?:[^\' ]*&)?view=([^&\' ]*)')) AS confirmed_by
FROM system.view_refreshes
INNER JOIN (SELECT database, name AS view, create_table_query AS definition FROM system.tables WHERE create_table_query LIKE '%/v1/pipes/%/next%') AS tables USING (database, view);

-- What is wrong now: a row for each error of a pipe, with the shards that have it, for each warning
-- about rows that may be missing below a pipe's table, for each view of a pipe whose last refresh
-- failed, and for each view whose URL names another view, so that the bridge cannot tell the two
-- apart. Names in backquotes are not compared.
CREATE OR REPLACE VIEW {database}.errors AS
SELECT pipe, arrayStringConcat(arraySort(groupArray(shard_id)), ', ') AS place, problem.1 AS state, problem.2 AS error
FROM (SELECT pipe, shard_id, arrayJoin([(state, last_error), ('warning', warning)]) AS problem FROM {database}.pipes)
WHERE problem.2 != '' OR problem.1 = 'gap'
GROUP BY pipe, problem
UNION ALL
SELECT pipe, concat(database, '.', view), toString(status), exception
FROM {database}.refreshes
WHERE exception != ''
UNION ALL
SELECT pipe, concat(database, '.', view), toString(status),
       concat('its URL has view=', confirmed_by, ', so the bridge cannot tell the two apart and refuses both while both refresh: write view=', database, '.', view)
FROM {database}.refreshes
WHERE match(confirmed_by, '^[a-zA-Z0-9_]+[.][a-zA-Z0-9_]+$') AND confirmed_by != concat(database, '.', view);

-- Moves pipes: INSERT INTO kinesis.seek (pipe, position) VALUES ('orders', '2026-11-21 10:00:00').
-- An empty shard_id means all shards. The table contains the token itself: if it used the named
-- collection, the collection could not be recreated.
CREATE OR REPLACE TABLE {database}.seek (pipe String, shard_id String DEFAULT '', position String, sub_sequence_number Nullable(UInt32))
ENGINE = URL(concat({bridge}, '/v1/seek'), 'JSONEachRow'{headers});

-- Ends pipes for good, once their views are dropped: INSERT INTO kinesis.end VALUES ('orders')
CREATE OR REPLACE TABLE {database}.end (pipe String)
ENGINE = URL(concat({bridge}, '/v1/end'), 'JSONEachRow'{headers});
