-- A pipe from stream "sql-orders", made from 24 of its records.
-- Exactly-once: see Guarantees in README.md.
-- A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.
-- With --errors such records are kept apart.

CREATE TABLE `shop`.`orders`
(
    `order_id` String,
    `customer_id` Int64,
    `placed_at` DateTime64(3, 'UTC'),
    `currency` String,
    `total` Float64,
    `gift` Bool,
    `coupon` Nullable(String),
    `items` Array(Tuple(`sku` String, `quantity` Int64, `unit_price` Float64)),
    `shipping` Tuple(`method` String, `address` Tuple(`street` String, `city` String, `zip` String)),
    _timestamp DateTime64(3),
    _shard_id LowCardinality(String),
    _sequence_number String,
    _sub_sequence_number UInt32
)
ENGINE = MergeTree
ORDER BY (_timestamp, _shard_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW `shop`.`orders_pipe` REFRESH AFTER 0 SECOND
SETTINGS refresh_retries = -1, refresh_retry_initial_backoff_ms = 100, refresh_retry_max_backoff_ms = 5000
APPEND TO `shop`.`orders` AS
SELECT
    r.`order_id` AS `order_id`,
    r.`customer_id` AS `customer_id`,
    r.`placed_at` AS `placed_at`,
    r.`currency` AS `currency`,
    r.`total` AS `total`,
    r.`gift` AS `gift`,
    r.`coupon` AS `coupon`,
    r.`items` AS `items`,
    r.`shipping` AS `shipping`,
    _timestamp, _shard_id, _sequence_number, _sub_sequence_number
FROM (
    SELECT
        JSONExtract(_raw_message, 'Tuple(
            `order_id` String,
            `customer_id` Int64,
            `placed_at` DateTime64(3, \'UTC\'),
            `currency` String,
            `total` Float64,
            `gift` Bool,
            `coupon` Nullable(String),
            `items` Array(Tuple(`sku` String, `quantity` Int64, `unit_price` Float64)),
            `shipping` Tuple(`method` String, `address` Tuple(`street` String, `city` String, `zip` String))
        )') AS r,
        _timestamp, _shard_id, _sequence_number, _sub_sequence_number
    FROM url('http://localhost:PORT/v1/pipes/orders/next?stream=sql-orders&view=shop.orders_pipe', 'ArrowStream',
        '_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String')
)
ORDER BY ALL
SETTINGS http_max_tries = 1, max_threads = 1, date_time_input_format = 'best_effort';
