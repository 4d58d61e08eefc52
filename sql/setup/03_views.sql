-- The state of pipes and streams as rows, and stateless reads by name. None of the views moves a
-- checkpoint; the tables at the end do when rows are inserted. Views that ask the bridge run as the
-- user who created them, so whoever reads them needs no privilege on URLs and cannot send the token
-- anywhere.

-- The committed position of each shard of each pipe.
CREATE OR REPLACE VIEW {database}.checkpoints AS
SELECT pipe, stream, shard_id, sequence_number, sub_sequence_number, owner, epoch, updated_at
FROM {database}.leases;

-- This server's bridge, and whether it answers; if not, this fails at once and says what to do. The
-- views below look here first: a bridge that is dead is then no matter of long waits and of an
-- exception without an address. After the | is what ClickHouse asks instead: itself. The second try
-- is for connections that an earlier bridge left behind.
CREATE OR REPLACE VIEW {database}.bridge
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT {bridge} AS address,
       throwIf(line != 'ok', concat('the bridge at ', {bridge}, {unreachable})) = 0 AS answers
FROM url({collection}, url = concat({bridge}, '/healthz|', {clickhouse}, '/ping'), format = 'LineAsString', structure = 'line String')
SETTINGS http_max_tries = 2, http_connection_timeout = 2, http_receive_timeout = 2;

-- What each pipe is doing now, as seen by this server's bridge.
CREATE OR REPLACE VIEW {database}.pipes
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/pipes'), format = 'JSONEachRow',
         structure = 'pipe String, stream String, shard_id String, owner String, epoch UInt64, state String, sequence_number String, sub_sequence_number UInt32, millis_behind_latest Nullable(Int64), offered_rows UInt64, committed_rows UInt64, failed_attempts UInt64, last_error String, last_commit_time Nullable(DateTime64(3)), mode String, warning String')
WHERE (SELECT answers FROM {database}.bridge)
SETTINGS http_max_tries = 2, http_connection_timeout = 2, http_receive_timeout = 5, date_time_input_format = 'best_effort';

-- The streams of the bridge's AWS account and region. Here and below only what comes before the
-- answer is short: Kinesis itself may take its time.
CREATE OR REPLACE VIEW {database}.streams
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams'), format = 'JSONEachRow',
         structure = 'stream String, arn String, status String, mode String, open_shards UInt32, retention_hours UInt32')
WHERE (SELECT answers FROM {database}.bridge)
SETTINGS http_max_tries = 1, http_connection_timeout = 2;

-- The shards of a stream, open and closed: SELECT * FROM kinesis.shards(stream = 'orders')
CREATE OR REPLACE VIEW {database}.shards
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}), '/shards'), format = 'JSONEachRow',
         structure = 'shard_id String, parent_shard_id String, adjacent_parent_shard_id String, starting_hash_key String, ending_hash_key String, starting_sequence_number String, ending_sequence_number String')
WHERE (SELECT answers FROM {database}.bridge)
SETTINGS http_max_tries = 1, http_connection_timeout = 2;

-- A few of the newest records: SELECT * FROM kinesis.sample(stream = 'orders')
CREATE OR REPLACE VIEW {database}.sample
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}), '/sample?format=JSONEachRow'), format = 'JSONEachRow',
         structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String')
WHERE (SELECT answers FROM {database}.bridge)
SETTINGS http_max_tries = 1, http_connection_timeout = 2, date_time_input_format = 'best_effort';

-- The records of a time range:
--   SELECT * FROM kinesis.records(stream = 'orders', from = '2026-11-21 10:00:00', to = '')
-- An empty from is the oldest record, an empty to is now. Times are UTC.
CREATE OR REPLACE VIEW {database}.records
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT *
FROM url({collection}, url = concat({bridge}, '/v1/streams/', encodeURLComponent({stream:String}),
                                      '/records?from=', encodeURLComponent({from:String}), '&to=', encodeURLComponent({to:String})), format = 'ArrowStream',
         structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String')
WHERE (SELECT answers FROM {database}.bridge)
SETTINGS http_max_tries = 1, http_connection_timeout = 2;

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

-- ClickHouse's side of each pipe: the view that pulls it, found by the URL in its SELECT. It asks no
-- bridge. An exception of the network names no address, so the one in the URL is added.
CREATE OR REPLACE VIEW {database}.refreshes AS
SELECT decodeURLComponent(extract(definition, '/v1/pipes/([^/?]+)/next')) AS pipe, database, view, status, retry, last_success_time, next_refresh_time,
       if(said LIKE '%Poco::Exception%', concat('the bridge at ', extract(definition, '(https?://[^/\' ]+)/v1/pipes/'), {unreachable}, ' (', said, ')'), said) AS exception,
       decodeURLComponent(extract(definition, '/v1/pipes/[^/?]+/next[?](?:[^\' ]*&)?view=([^&\' ]*)')) AS confirmed_by
FROM (SELECT database, view, status, retry, last_success_time, next_refresh_time, splitByString(', Stack trace', exception)[1] AS said FROM system.view_refreshes) AS refreshes
INNER JOIN (SELECT database, name AS view, create_table_query AS definition FROM system.tables WHERE create_table_query LIKE '%/v1/pipes/%/next%') AS tables USING (database, view);

-- What the bridge knows to be wrong, or what is wrong with the bridge: it is asked for its pipes,
-- then whether it is there at all, and at last ClickHouse itself answers, so this never fails
-- because the bridge is dead. A row for each shard and error.
CREATE OR REPLACE VIEW {database}.problems
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT JSONExtractString(line, 'pipe') AS pipe, if(line IN ('ok', 'Ok.'), {bridge}, JSONExtractString(line, 'shard_id')) AS place, problem.1 AS state, problem.2 AS error
FROM url({collection}, url = concat({bridge}, '/v1/pipes|', {bridge}, '/healthz|', {clickhouse}, '/ping'), format = 'LineAsString', structure = 'line String')
ARRAY JOIN multiIf(
    line = 'Ok.', [('unreachable', concat('the bridge at ', {bridge}, {unreachable}))],
    line = 'ok', [('refusing', concat('the bridge at ', {bridge}, {refusing}))],
    [(JSONExtractString(line, 'state'), JSONExtractString(line, 'last_error')), ('warning', JSONExtractString(line, 'warning'))]) AS problem
WHERE problem.2 != '' OR problem.1 = 'gap'
SETTINGS http_max_tries = 2, http_connection_timeout = 2, http_receive_timeout = 2;

-- What is wrong now: a row for each error of a pipe, with the shards that have it, for each warning
-- about rows that may be missing below a pipe's table, for a bridge that does not answer, for each
-- view of a pipe whose last refresh failed, and for each view whose URL names another view, so that
-- the bridge cannot tell the two apart. Names in backquotes are not compared.
CREATE OR REPLACE VIEW {database}.errors AS
SELECT pipe, arrayStringConcat(arraySort(groupArray(place)), ', ') AS place, state, error
FROM {database}.problems
GROUP BY pipe, state, error
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
-- An empty shard_id means all shards. The table contains the token itself, which ClickHouse shows to
-- nobody: if it used the named collection, the collection could not be recreated.
CREATE OR REPLACE TABLE {database}.seek (pipe String, shard_id String DEFAULT '', position String, sub_sequence_number Nullable(UInt32))
ENGINE = URL(concat({bridge}, '/v1/seek'), 'JSONEachRow'{headers});

-- Ends pipes for good, once their views are dropped: INSERT INTO kinesis.end VALUES ('orders')
CREATE OR REPLACE TABLE {database}.end (pipe String)
ENGINE = URL(concat({bridge}, '/v1/end'), 'JSONEachRow'{headers});
