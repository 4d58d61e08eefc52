-- Rows that a pipe with on_failure=isolate could not insert, with everything that is needed to
-- insert them later. Delete them here once they are inserted.
CREATE TABLE IF NOT EXISTS {database}.quarantine
(
    key String COMMENT '<pipe>/<shard_id>/<sequence_number>/<sub_sequence_number>',
    pipe String,
    _stream String,
    _shard_id String,
    _sequence_number String,
    _sub_sequence_number UInt32,
    _key String,
    _timestamp DateTime64(3, 'UTC'),
    _raw_message String COMMENT 'the payload; empty where raw_message_bytes is not: too large to be kept, still in Kinesis until its retention ends',
    raw_message_bytes UInt64 COMMENT 'bytes of the payload',
    view String COMMENT 'the view that could not insert it',
    error String COMMENT 'what ClickHouse said',
    quarantined_at DateTime64(3, 'UTC')
)
ENGINE = {quarantine_engine};
