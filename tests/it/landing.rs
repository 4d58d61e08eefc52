//! Raw landing, as `sql/examples/raw.sql` has it: one table that a pipe fills, several made from it
//! by materialized views. Whatever fails, each record is in each of them once, whether the landing
//! table keeps its rows or is `ENGINE = Null`.

use crate::common::seed;
use crate::drill::{Drill, PARAMETERS, Plan};
use crate::engines::on_each_engine;
use crate::real::real;

on_each_engine!(
    every_table_below_a_landing_table_is_exact_under_faults,
    every_table_below_a_null_table_is_exact_under_faults,
    a_batch_that_comes_again_is_dropped_and_one_that_looks_alike_is_not,
    a_view_that_throws_fails_the_insert_and_the_next_try_completes_every_table,
    a_view_made_anew_under_its_name_knows_the_open_batch,
    batches_need_the_position_to_be_told_apart,
    records_past_the_time_to_live_still_reach_the_views,
);

/// The landing table's `ENGINE …;` as shipped.
const KEPT: &str = "ENGINE = MergeTree ORDER BY (_shard_id, _timestamp) TTL toDateTime(_timestamp) + INTERVAL 30 DAY \
                    SETTINGS non_replicated_deduplication_window = 1000;";
const NULL: &str = "ENGINE = Null;";
/// Landing tables, each with the names of its own tables.
const LANDINGS: [(&str, &str); 2] = [("kept", KEPT), ("null", NULL)];

/// One table more than shipped, of a kind that does not fit into the example.
const SUMMED: &str = "
CREATE TABLE orders_summed (status LowCardinality(String), orders UInt64)
ENGINE = SummingMergeTree ORDER BY status SETTINGS non_replicated_deduplication_window = 1000;
CREATE MATERIALIZED VIEW orders_summed_mv TO orders_summed AS
SELECT JSONExtractString(_raw_message, 'status') AS status, count() AS orders FROM orders_raw WHERE JSONHas(_raw_message, 'id') GROUP BY status;
";

/// The tables of the example and one more, with this engine for the landing table; and the pipe.
fn tables_and_pipe(engine: &str) -> (String, String) {
    let shipped = include_str!("../../sql/examples/raw.sql");
    assert!(shipped.contains(KEPT), "the landing table of the example has another engine");
    let at = shipped.find("CREATE MATERIALIZED VIEW orders_raw_pipe").expect("the pipe");
    let (tables, pipe) = shipped.split_at(at);
    (tables.replace(KEPT, engine) + SUMMED, pipe.to_owned())
}

fn drilled(bridge: &str, engine: &str) -> String {
    let (tables, pipe) = tables_and_pipe(engine);
    let view = "view=default.orders_raw_pipe";
    tables + &pipe.replace("http://localhost:9020", bridge).replace(view, &format!("{view}{PARAMETERS}"))
}

const PLAN: Plan = Plan {
    records: 80_000,
    broken: 3,
    kills: 7,
    forced_kills: 3,
    pipe: "orders_raw",
    table: "orders_by_status",
    landing: "orders_raw",
    sql: |bridge| drilled(bridge, KEPT),
};

/// Every order is in every target once, and everything else is in the errors table once.
fn check(drill: &Drill) {
    drill.report();
    let (orders, broken) = (PLAN.records, PLAN.broken_records());
    assert_eq!((drill.rows(), drill.distinct_ids()), (orders, orders));
    for (sql, expected) in [
        ("SELECT sum(orders) FROM orders_daily", orders),
        ("SELECT sum(orders) FROM orders_summed", orders),
        ("SELECT count() FROM orders_raw_errors", broken),
        ("SELECT uniqExact(_raw_message) FROM orders_raw_errors", broken),
        ("SELECT (SELECT sum(price) FROM orders_by_status) = (SELECT sum(revenue) FROM orders_daily)", 1),
    ] {
        assert_eq!(drill.number(sql), expected, "{sql}");
    }
}

fn every_table_below_a_landing_table_is_exact_under_faults() {
    let drill = Drill::run(PLAN, seed("every_table_below_a_landing_table_is_exact_under_faults"));
    check(&drill);
    let all = PLAN.records + PLAN.broken_records();
    assert_eq!(drill.number("SELECT count() FROM orders_raw"), all);
    assert_eq!(drill.number("SELECT uniqExact(_shard_id, _sequence_number) FROM orders_raw"), all);
}

fn every_table_below_a_null_table_is_exact_under_faults() {
    let plan = Plan { sql: |bridge| drilled(bridge, NULL), ..PLAN };
    let drill = Drill::run(plan, seed("every_table_below_a_null_table_is_exact_under_faults"));
    check(&drill);
    assert_eq!(drill.number("SELECT count() FROM orders_raw"), 0);
}

/// The tables of one test, on the shared ClickHouse and without a pipe.
struct Tables {
    name: String,
    kept: bool,
}

impl Tables {
    fn create(test: &str, (landing, engine): (&str, &str)) -> Tables {
        let tables = Tables { name: format!("{test}_{landing}_"), kept: engine == KEPT };
        let script = tables_and_pipe(engine).0.replace("orders_", &tables.name);
        real().clickhouse.run_script(&script).expect("the example");
        tables
    }

    /// A statement with the names of the example.
    fn run(&self, sql: &str) -> Result<String, String> {
        real().clickhouse.query(&sql.replace("orders_", &self.name))
    }

    fn ask(&self, sql: &str) -> String {
        self.run(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// Inserts like a pipe: 99 orders of a batch, and one record that is not an order. Two batches
    /// differ only in the position.
    fn insert(&self, batch: u64) -> Result<String, String> {
        self.run(&format!(
            "INSERT INTO orders_raw SELECT '' AS _key, toDateTime64(today(), 3) + number AS _timestamp, 'orders' AS _stream, 'shard' AS _shard_id, \
             leftPad(toString({batch} * 100 + number), 20, '0') AS _sequence_number, toUInt32(0) AS _sub_sequence_number, \
             if(number = 0, 'no json', concat('{{\"id\": \"', toString(number), '\", \"status\": \"paid\", \"price\": 1, \"user_id\": 7}}')) \
             AS _raw_message FROM numbers(100) ORDER BY ALL \
             SETTINGS max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1"
        ))
    }

    /// Rows or sums in the landing table, by status, by day, summed, and among the errors.
    fn counts(&self) -> [u64; 5] {
        [
            "SELECT count() FROM orders_raw",
            "SELECT count() FROM orders_by_status",
            "SELECT sum(orders) FROM orders_daily",
            "SELECT sum(orders) FROM orders_summed",
            "SELECT count() FROM orders_raw_errors",
        ]
        .map(|sql| self.ask(sql).trim().parse().expect("a number"))
    }

    /// What [`Tables::counts`] returns once each of this many batches has arrived once.
    fn exact(&self, batches: u64) -> [u64; 5] {
        let landed = if self.kept { 100 * batches } else { 0 };
        [landed, 99 * batches, 99 * batches, 99 * batches, batches]
    }
}

fn a_batch_that_comes_again_is_dropped_and_one_that_looks_alike_is_not() {
    for landing in LANDINGS {
        let tables = Tables::create("again", landing);
        for batch in [0, 0, 1, 1, 0] {
            tables.insert(batch).expect("an insert");
        }
        assert_eq!(tables.counts(), tables.exact(2), "{}", landing.0);
    }
}

fn a_view_that_throws_fails_the_insert_and_the_next_try_completes_every_table() {
    for landing in LANDINGS {
        let tables = Tables::create("throws", landing);
        tables.ask("CREATE TABLE orders_flag (armed UInt8) ENGINE = Memory");
        tables.ask("CREATE TABLE orders_bomb_sink (n UInt8) ENGINE = Null");
        tables.ask(
            "CREATE MATERIALIZED VIEW orders_bomb TO orders_bomb_sink AS \
             SELECT throwIf((SELECT count() FROM orders_flag) > 0, 'the bomb went off') AS n FROM orders_raw",
        );
        tables.ask("INSERT INTO orders_flag VALUES (1)");
        for _ in 0..3 {
            let error = tables.insert(0).expect_err("the bomb goes off");
            assert!(error.contains("the bomb went off"), "{error}");
            // The exception of a pipe's refresh names the view to be repaired.
            let named = format!("while pushing to view default.{}bomb", tables.name);
            assert!(error.contains(&named), "{error}");
        }
        tables.ask("TRUNCATE TABLE orders_flag");
        tables.insert(0).expect("an insert");
        assert_eq!(tables.counts(), tables.exact(1), "{}", landing.0);
    }
}

fn a_view_made_anew_under_its_name_knows_the_open_batch() {
    for landing in LANDINGS {
        let tables = Tables::create("anew", landing);
        tables.insert(0).expect("an insert");
        let create =
            tables.ask("SELECT create_table_query FROM system.tables WHERE name = 'orders_by_status_mv' FORMAT TSVRaw");
        tables.ask("DROP VIEW orders_by_status_mv");
        let changed = create.replace("price Decimal(18, 2))') AS r", "price Decimal(18, 1))') AS r");
        assert_ne!(changed, create);
        tables.ask(&changed);
        tables.insert(0).expect("the same batch");
        assert_eq!(tables.counts(), tables.exact(1), "{}", landing.0);
        tables.insert(1).expect("another batch");
        assert_eq!(tables.counts(), tables.exact(2), "{}", landing.0);
    }
}

fn batches_need_the_position_to_be_told_apart() {
    for landing in LANDINGS {
        let tables = Tables::create("position", landing);
        let insert = || {
            tables.ask(
                "INSERT INTO orders_raw (_timestamp, _raw_message) SELECT toDateTime64(today(), 3), '{\"id\": \"1\"}' ORDER BY ALL \
                 SETTINGS max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1",
            )
        };
        insert();
        insert();
        assert_eq!(tables.ask("SELECT count() FROM orders_by_status"), "1\n", "{}", landing.0);
    }
}

fn records_past_the_time_to_live_still_reach_the_views() {
    let tables = Tables::create("late", LANDINGS[0]);
    for _ in 0..2 {
        tables.ask(
            "INSERT INTO orders_raw (_timestamp, _raw_message) SELECT toDateTime64(today(), 3) - INTERVAL 40 DAY, '{\"id\": \"1\"}' ORDER BY ALL \
             SETTINGS max_threads = 1, deduplicate_blocks_in_dependent_materialized_views = 1",
        );
    }
    assert_eq!(tables.counts(), [0, 1, 1, 1, 0]);
}
