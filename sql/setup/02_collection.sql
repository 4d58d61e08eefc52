-- Where the bridge listens, and its token if it has one: with url(kinesis_bridge, …), no query and
-- no view contains the secret. Named collections are global to the server, so each database of
-- state tables has its own: <database>_bridge. Format and structure are those of
-- /v1/pipes/{pipe}/next, so a pipe needs only
--   FROM url(kinesis_bridge, url = '…/v1/pipes/orders/next?stream=orders&view=default.orders_pipe')
-- Whoever uses it in a query or a pipe needs NAMED COLLECTION ON kinesis_bridge, READ ON URL and
-- CREATE TEMPORARY TABLE ON *.*

CREATE NAMED COLLECTION IF NOT EXISTS {collection} AS
    url = {bridge},
    format = 'ArrowStream',
    structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String'{token};

-- One that exists is changed and not recreated: views that refresh meanwhile would not find it.
ALTER NAMED COLLECTION {collection} SET
    url = {bridge},
    format = 'ArrowStream',
    structure = '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String'{token};
