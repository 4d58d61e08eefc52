//! Materialized views below the table that a pipe fills.

use crate::common::{is_committed, orders_sql};
use crate::engines::on_each_engine;
use crate::world::*;

on_each_engine!(what_a_failed_refresh_left_out_comes_with_the_next, a_view_added_while_a_batch_is_on_its_way_is_told);

const RECORDS: u64 = 2_000;
const WINDOW: &str = "SETTINGS non_replicated_deduplication_window = 1000";

/// The README's statements, with two views below the table, and one that throws while `armed` has a
/// row.
fn pipe_with_views(bridge: &str, name: &str, armed: &str) -> String {
    let pipe = orders_sql(bridge, name, "", WINDOW);
    let (table, view) = pipe.split_once("-- Each refresh").expect("the example");
    let views = format!(
        "CREATE TABLE {name}_a (user_id UInt64, orders UInt64) ENGINE = SummingMergeTree ORDER BY user_id {WINDOW};
         CREATE MATERIALIZED VIEW {name}_a_mv TO {name}_a AS SELECT user_id, count() AS orders FROM {name} GROUP BY user_id;
         CREATE TABLE {armed} (n UInt8) ENGINE = Memory;
         INSERT INTO {armed} VALUES (1);
         CREATE TABLE {name}_nothing (n UInt8) ENGINE = Null;
         CREATE MATERIALIZED VIEW {name}_b_mv TO {name}_nothing AS
         SELECT throwIf((SELECT count() FROM {armed}) > 0, 'a view below the table throws') AS n FROM {name};
         CREATE TABLE {name}_c (id String) ENGINE = MergeTree ORDER BY id {WINDOW};
         CREATE MATERIALIZED VIEW {name}_c_mv TO {name}_c AS SELECT id FROM {name};"
    );
    format!("{table}{views}\n-- Each refresh{view}")
}

/// The table has its rows when the views below are filled; if one of them throws, the next refresh
/// must fill the others.
fn what_a_failed_refresh_left_out_comes_with_the_next() {
    let name = "completed";
    create_stream(name, 2);
    let orders =
        (0..RECORDS).map(|n| (n.to_string(), format!("{{\"id\":\"{n}\",\"user_id\":{}}}", n % 7).into_bytes()));
    put(name, orders);
    let bridge = bridge("completed_db", &[]);
    let script =
        pipe_with_views(&bridge.url(), name, "completed_armed").replace("stream=orders", &format!("stream={name}"));
    stack().clickhouse.run_script(&script).expect("the pipe and the views");
    let rows = |table: &str| sql(&format!("SELECT count() FROM {table}")).trim().parse::<u64>().expect("a number");
    wait_until("the table's rows", || rows(name) > 0);
    let exception = refresh_exception("completed_pipe");
    assert!(exception.contains("a view below the table throws"), "{exception}");
    sql("TRUNCATE TABLE completed_armed");
    wait_until("all records", || is_committed(&bridge, name, RECORDS));
    let summed = sql("SELECT sum(orders) FROM completed_a").trim().parse::<u64>().expect("a number");
    assert_eq!((rows(name), summed, rows("completed_c")), (RECORDS, RECORDS, RECORDS));
    for table in ["_pipe", "_a_mv", "_b_mv", "_c_mv", ""] {
        sql(&format!("DROP TABLE {name}{table} SYNC"));
    }
}

/// Creates a table, and a view that fills it from another table.
fn view_of(table: &str, name: &str) {
    sql(&format!("CREATE TABLE {name} (_key String) ENGINE = MergeTree ORDER BY _key {WINDOW}"));
    sql(&format!("CREATE MATERIALIZED VIEW {name}_mv TO {name} AS SELECT _key FROM {table}"));
}

fn a_view_added_while_a_batch_is_on_its_way_is_told() {
    let name = "joined";
    create_stream(name, 1);
    let bridge = bridge("joined_db", &[]);
    create_pipe(&bridge, name, "stream=joined&view=default.joined_view&linger_ms=50&wait_ms=12000");
    put_numbered(name, "first", 10);
    wait_until("the first records", || is_committed(&bridge, name, 10));
    let warning = || get(&bridge, "/v1/pipes").rows()[0]["warning"].as_str().expect("a text").to_owned();
    let rows = |table: &str| sql(&format!("SELECT count() FROM {table}"));
    // Its pull arrived long ago.
    let waiting = "SELECT status = 'Running' AND last_refresh_time < now() - 3 FROM system.view_refreshes WHERE view = 'joined_view'";
    let running = || wait_until("a refresh that waits", || sql(waiting) == "1\n");
    assert_eq!(warning(), "");

    // A refresh is waiting for records, and has already looked up which views it feeds.
    running();
    view_of(name, "joined_a");
    put_numbered(name, "second", 20);
    wait_until("the second records", || is_committed(&bridge, name, 30));
    wait_until("a warning", || !warning().is_empty());
    let told = warning();
    for part in ["default.joined_a_mv was added below default.joined ", "(20 rows)", "shardId-000000000000 from "] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!((rows(name), rows("joined_a")), ("30\n".into(), "0\n".into()), "what the warning says is true");
    assert!(bridge.log().contains(&told));

    // The next one feeds it.
    put_numbered(name, "third", 5);
    wait_until("the third records", || is_committed(&bridge, name, 35));
    assert_eq!((rows("joined_a"), warning()), ("5\n".into(), told));

    // A view below that view's table is reported in the same way.
    running();
    view_of("joined_a", "joined_b");
    put_numbered(name, "fourth", 7);
    wait_until("a warning of the second view", || warning().contains("default.joined_b_mv was added below"));
    assert_eq!((rows("joined_a"), rows("joined_b")), ("12\n".into(), "0\n".into()));

    // A view that is added while the pipe is stopped misses nothing, as documented.
    let told = warning();
    sql("SYSTEM STOP VIEW joined_view");
    wait_until("the end of the refresh", || {
        sql("SELECT status FROM system.view_refreshes WHERE view = 'joined_view'") == "Disabled\n"
    });
    view_of(name, "joined_c");
    sql("SYSTEM START VIEW joined_view");
    put_numbered(name, "fifth", 9);
    wait_until("the fifth records", || is_committed(&bridge, name, 51));
    assert_eq!((rows("joined_c"), warning()), ("9\n".into(), told));
    for table in ["joined_a_mv", "joined_a", "joined_b_mv", "joined_b", "joined_c_mv", "joined_c"] {
        sql(&format!("DROP TABLE {table} SYNC"));
    }
    drop_pipe(name);
}
