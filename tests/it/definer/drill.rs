//! Exactly-once under faults, with a view that runs as a user of its own.

use stack::Engine;

use crate::common::{orders_sql, seed};
use crate::drill::{Drill, PARAMETERS, Plan};
use crate::engines::on;

const PLAN: Plan = Plan {
    records: 60_000,
    broken: 0,
    kills: 5,
    forced_kills: 2,
    pipe: "drill",
    table: "drill",
    landing: "drill",
    sql: |bridge| {
        let window = "SETTINGS non_replicated_deduplication_window = 1000";
        // SELECT is for the view that the drill adds below the table.
        let user = "CREATE USER drill_pipe IDENTIFIED WITH no_authentication HOST NONE;\n\
                    GRANT SELECT, INSERT ON drill, READ ON URL, CREATE TEMPORARY TABLE ON *.* TO drill_pipe;\n";
        let tables = orders_sql(bridge, "drill", PARAMETERS, window);
        let definer = "APPEND TO drill DEFINER = drill_pipe SQL SECURITY DEFINER AS";
        format!("{user}{}", tables.replace("APPEND TO drill AS", definer))
    },
};

#[test]
fn exactly_once_as_a_definer() {
    on(Engine::V25_8, || {
        let drill = Drill::run(PLAN, seed("exactly_once_as_a_definer"));
        drill.report();
        assert_eq!((drill.rows(), drill.distinct_ids()), (PLAN.records, PLAN.records));
        let definer = "SELECT count() FROM system.tables WHERE create_table_query LIKE '%APPEND TO%DEFINER = drill_pipe SQL SECURITY DEFINER%'";
        assert_eq!(drill.number(definer), 1);
    });
}
