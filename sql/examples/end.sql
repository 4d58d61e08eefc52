-- Ending a pipe for good: its consumer is deregistered and its checkpoints are deleted. The rows
-- that it loaded stay in the table.

DROP VIEW IF EXISTS orders_old_pipe;

-- Refused while the pipe is pulled or another live bridge holds it.
INSERT INTO kinesis.end VALUES ('orders_old');
