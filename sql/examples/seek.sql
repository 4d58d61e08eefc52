-- Moving a pipe: an empty shard_id, which is the default, means all shards. Stop the view first, so
-- that no batch is in flight.

SYSTEM STOP VIEW orders_pipe;

-- A position is trim_horizon, latest, a time in UTC, or a sequence number of that shard.
INSERT INTO kinesis.seek (pipe, position) VALUES ('orders', '2026-11-21 10:00:00');

SYSTEM START VIEW orders_pipe;
