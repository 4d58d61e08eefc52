-- A pipe without a view, for dbt, cron or manual use: the reader acknowledges each batch itself.

CREATE TABLE orders_by_hand (id String, _sequence_number String, _batch String, _loaded DateTime64(6) DEFAULT now64(6))
ENGINE = MergeTree ORDER BY id;

-- Until it is acknowledged, the same batch is served again.
INSERT INTO orders_by_hand (id, _sequence_number, _batch)
SELECT JSONExtractString(_raw_message, 'id'), _sequence_number, _batch
FROM url('http://localhost:9020/v1/pipes/orders_by_hand/next?stream=orders&ack=explicit', 'ArrowStream',
         '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String');

-- The checkpoint moves now.
INSERT INTO FUNCTION url('http://localhost:9020/v1/pipes/orders_by_hand/ack', 'JSONEachRow', 'batch String')
SELECT _batch FROM orders_by_hand ORDER BY _loaded DESC LIMIT 1;
