-- Moving a pipe: an empty shard_id means all shards. Stop the view first, so that no batch is on its way.

SYSTEM STOP VIEW orders_pipe;

-- A position is trim_horizon, latest, a time in UTC, or a sequence number of that shard.
INSERT INTO FUNCTION url('http://localhost:9020/v1/pipes/orders/seek', 'JSONEachRow', 'shard_id String, position String')
VALUES ('', '2026-11-21 10:00:00');

SYSTEM START VIEW orders_pipe;
