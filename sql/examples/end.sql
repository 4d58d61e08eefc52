-- Ending a pipe for good: its consumer is deregistered, its checkpoints are deleted. What it has brought stays in the table.

DROP VIEW IF EXISTS orders_old_pipe;

-- The row names the pipe once more, as a confirmation. Refused while the pipe is pulled or another living bridge holds it.
INSERT INTO FUNCTION url('http://localhost:9020/v1/pipes/orders_old/end', 'JSONEachRow', 'pipe String')
VALUES ('orders_old');
