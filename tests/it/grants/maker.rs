//! The grants of a user who creates pipes that run as a user of their own, and the grants of that
//! user.

use stack::Engine;

use super::{PASSWORD, printed, privileges};
use crate::definer::{STATE, run};
use crate::engines::on;
use crate::sql_pipe::{refused, stream_of, succeeded, wait_for_rows};
use crate::world::sql;

#[test]
fn whoever_makes_pipes_needs_each_grant() {
    on(Engine::V25_8, || {
        stream_of("grants-maker", &[r#"{"id": 1}"#]);
        // The named collection of these tests' bridge.
        let here = |grant: String| grant.replace("kinesis_bridge", &format!("{STATE}_bridge"));
        let grants: Vec<String> = printed("docs/deploy.md", "GRANT SELECT, INSERT").into_iter().map(here).collect();
        sql(&format!("CREATE USER pipe_maker IDENTIFIED BY '{PASSWORD}'"));
        grants.iter().for_each(|grant| drop(sql(grant)));
        let flags = [
            "--clickhouse-user",
            "pipe_maker",
            "--clickhouse-password",
            PASSWORD,
            "--definer",
            "orders_pipe",
            "--apply",
        ];
        let apply = || run("grants-maker", "grants_maker", &flags);
        let again = || {
            for suffix in ["_pipe", "_mv", "_errors_mv", "_landing", "_errors", ""] {
                sql(&format!("DROP TABLE IF EXISTS grants_maker{suffix} SYNC"));
            }
            sql("DROP USER IF EXISTS orders_pipe");
        };
        for (privilege, grant) in grants.iter().flat_map(|grant| {
            let all = privileges(std::slice::from_ref(grant), "pipe_maker");
            all.into_iter().map(move |privilege| (privilege, grant))
        }) {
            sql(&format!("REVOKE {privilege} FROM pipe_maker"));
            let output = apply();
            assert!(!output.status.success(), "{privilege} is not needed");
            let said = refused(&output);
            let (what, on) = privilege.split_once(" ON ").expect("a privilege");
            let on = on.trim_end_matches(".*");
            assert!(
                said.starts_with("error: ClickHouse user ") && said.contains(what) && said.contains(on),
                "{privilege}: {said}"
            );
            again();
            sql(grant);
        }
        succeeded(apply());
        wait_for_rows("grants_maker", 1);
        sql("DROP TABLE grants_maker_pipe SYNC");
    });
}

/// The section of docs/deploy.md about handwritten SQL, for an existing pipe.
#[test]
fn a_pipe_written_by_hand_gets_a_user() {
    on(Engine::V25_8, || {
        let name = "grants_by_hand";
        crate::world::create_stream(name, 1);
        crate::world::put_numbered(name, "a", 3);
        let bridge = crate::world::bridge("grants_by_hand_state", &[]);
        crate::world::create_pipe(&bridge, name, &format!("stream={name}&view=default.{name}_view"));
        wait_for_rows(name, 3);
        for statement in printed("docs/deploy.md", "CREATE USER IF NOT EXISTS orders_pipe") {
            let statement = statement.replace("MODIFY DEFINER = orders_pipe", "MODIFY DEFINER = by_hand");
            let statement = statement.replace("default.orders_pipe", &format!("default.{name}_view"));
            let statement = statement.replace("default.orders", &format!("default.{name}"));
            sql(&statement.replace("EXISTS orders_pipe", "EXISTS by_hand").replace("TO orders_pipe", "TO by_hand"));
        }
        crate::world::put_numbered(name, "b", 3);
        wait_for_rows(name, 6);
        crate::world::put_numbered(name, "c", 3);
        wait_for_rows(name, 9);
        let definer = format!(
            "SELECT countIf(create_table_query LIKE '% DEFINER = by_hand SQL SECURITY DEFINER %') FROM system.tables WHERE name = '{name}_view'"
        );
        assert_eq!(sql(&definer), "1\n");
        crate::world::drop_pipe(name);
    });
}
