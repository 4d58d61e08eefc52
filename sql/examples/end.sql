-- Ending a pipe for good: its consumer is deregistered, its checkpoints are deleted. What it has brought stays in the table.

DROP VIEW IF EXISTS orders_old_pipe;

-- Refused while the pipe is pulled or another living bridge holds it.
INSERT INTO kinesis.end VALUES ('orders_old');
