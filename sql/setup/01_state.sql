-- State of the bridge: which worker reads which shard, and how far. To move a pipe, prefer POST
-- /v1/pipes/{pipe}/seek. It also works to UPDATE sequence_number and sub_sequence_number here, with
-- since and caught_up_at set to 0: the bridge notices. The tables need <keeper_map_path_prefix> and
-- a Keeper in the server's configuration.

CREATE DATABASE IF NOT EXISTS {database};

-- A row for each shard of each pipe.
CREATE TABLE IF NOT EXISTS {database}.leases
(
    key String COMMENT '<pipe>/<shard_id>',
    pipe String,
    stream String,
    stream_arn String COMMENT 'which stream it is, with account and region; empty: the next bridge that takes the lease writes it',
    stream_created_at DateTime64(3, 'UTC') COMMENT 'when that stream was created; a later one of its name is another one',
    shard_id String,
    parents Array(String) COMMENT 'shards that this one was split or merged from; they are committed to their end first',
    view String COMMENT 'the view that pulled last; empty: none yet, or a reader that acknowledges by itself',
    target String COMMENT 'the table that this view writes to; a pipe feeds one',
    owner String COMMENT 'worker_id; empty: nobody',
    epoch UInt64 COMMENT 'grows with every change of hands and fences the worker before',
    sequence_number String COMMENT 'the committed position: a sequence number, TRIM_HORIZON, AT_TIMESTAMP:<unix ms> or SHARD_END',
    sub_sequence_number UInt32 COMMENT 'the committed row within its Kinesis record',
    unpacking String COMMENT 'how the record of the position was taken apart; empty: as the pull asks for',
    began_sequence_number String COMMENT 'the first row since the start or the last seek; empty: none yet',
    began_sub_sequence_number UInt32,
    offered_batch String COMMENT 'served and not yet confirmed; empty: nothing. The columns offered_* fix its bytes',
    offered_shape String,
    offered_shards UInt32 COMMENT 'leases that the batch spans',
    offered_first String COMMENT 'first record, inclusive',
    offered_first_sub UInt32,
    offered_through String COMMENT 'last record, inclusive: the position after the commit',
    offered_through_sub UInt32,
    offered_rows UInt64,
    committed_rows UInt64,
    bytes_per_second UInt64 COMMENT 'what the shard weighs when leases are shared out between bridges',
    last_commit_time DateTime64(3, 'UTC') COMMENT '1970-01-01: never',
    since DateTime64(3, 'UTC') COMMENT 'the position stands for what arrived since; 1970-01-01: for what arrives from when a bridge sees that',
    caught_up_at DateTime64(3, 'UTC') COMMENT 'nothing was left to read at this time; 1970-01-01: never',
    arrived_at DateTime64(3, 'UTC') COMMENT 'when the record of the position arrived; 1970-01-01: not known',
    updated_at DateTime64(3, 'UTC')
)
ENGINE = KeeperMap({leases_path}) PRIMARY KEY key;

-- A row for each bridge. A worker whose heartbeat stops is dead, and others take its leases.
CREATE TABLE IF NOT EXISTS {database}.workers
(
    worker_id String,
    incarnation String COMMENT '<how many processes had this id>-<the process>; without the latter it has ended',
    address String COMMENT 'where its HTTP interface listens',
    version String,
    heartbeat UInt64,
    pipes Map(String, UInt64) COMMENT 'the pipes that it runs, each with a counter that grows when others should look at the leases again',
    updated_at DateTime64(3, 'UTC')
)
ENGINE = KeeperMap({workers_path}) PRIMARY KEY worker_id;
