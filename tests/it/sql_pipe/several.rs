//! `--views`: several views pull one pipe into one table, each with shards of its own.

use std::time::Duration;

use super::{DEADLINE, bridge, printed, put, run_script, wait_for_rows};
use crate::common::wait_until;
use crate::engines::on_each_engine;
use crate::world::{self, sql};

on_each_engine!(several_views_share_the_shards_of_a_pipe, a_view_into_another_table_is_refused_and_the_first_goes_on,);

/// The owners of a pipe's shards, and how many each has, by name. A shard may have none for a
/// moment.
fn owners(pipe: &str) -> Vec<(String, usize)> {
    let rows = world::get(bridge(), "/v1/pipes").rows();
    let mut owners: Vec<(String, usize)> = Vec::new();
    let of_pipe = rows.iter().filter(|row| row["pipe"] == pipe).filter_map(|row| row["owner"].as_str());
    let of_pipe = of_pipe.filter(|owner| !owner.is_empty());
    for owner in of_pipe {
        match owners.iter_mut().find(|(known, _)| known == owner) {
            Some((_, shards)) => *shards += 1,
            None => owners.push((owner.into(), 1)),
        }
    }
    owners.sort();
    owners
}

fn wait_for_owners(pipe: &str, shards: &[usize]) -> Vec<String> {
    let shared = || owners(pipe).iter().map(|(_, shards)| *shards).collect::<Vec<_>>() == shards;
    wait_until(DEADLINE, shared, || format!("{:?}\n{}", owners(pipe), bridge().log_tail()));
    owners(pipe).into_iter().map(|(owner, _)| owner).collect()
}

fn several_views_share_the_shards_of_a_pipe() {
    world::create_stream("sql-several", 6);
    put("sql-several", (0..600).map(|n| format!("{{\"n\":{n}}}").into_bytes()));
    run_script(&printed("sql-several", "sqlp_several", &["--views=3"]));
    wait_for_rows("sqlp_several", 600);
    let names = wait_for_owners("sqlp_several", &[2, 2, 2]);
    assert_eq!(names[1..], [format!("{}/2", names[0]), format!("{}/3", names[0])]);
    put("sql-several", (600..1_200).map(|n| format!("{{\"n\":{n}}}").into_bytes()));
    wait_for_rows("sqlp_several", 1_200);
    // One worker, whichever view has its leases.
    let rows = world::get(bridge(), "/v1/workers").rows();
    let worker = rows.iter().find(|row| row["worker_id"] == *names[0]).expect("the worker");
    assert!(worker["leases"].as_u64() >= Some(6) && worker["alive"] == 1, "{worker}");
    // A view that is dropped leaves its shards to the others.
    sql("DROP TABLE sqlp_several_pipe_2");
    wait_for_owners("sqlp_several", &[3, 3]);
    put("sql-several", (1_200..1_800).map(|n| format!("{{\"n\":{n}}}").into_bytes()));
    wait_for_rows("sqlp_several", 1_800);
    assert_eq!(sql("SELECT uniqExact(n), min(n), max(n) FROM sqlp_several"), "1800\t0\t1799\n");
    for view in ["sqlp_several_pipe", "sqlp_several_pipe_3"] {
        sql(&format!("DROP TABLE {view}"));
    }
}

fn a_view_into_another_table_is_refused_and_the_first_goes_on() {
    world::create_stream("sql-two-tables", 4);
    put("sql-two-tables", (0..100).map(|n| format!("{{\"n\":{n}}}").into_bytes()));
    let first = printed("sql-two-tables", "sqlp_one_table", &["--no-errors", "--pipe=two_tables"]);
    run_script(&first);
    wait_for_rows("sqlp_one_table", 100);
    run_script(&first.replace("sqlp_one_table", "sqlp_other_table"));
    let exception = || sql("SELECT exception FROM system.view_refreshes WHERE view = 'sqlp_other_table_pipe'");
    wait_until(DEADLINE, || !exception().trim().is_empty(), exception);
    for part in ["sqlp_one_table_pipe into ", "sqlp_other_table_pipe cannot pull it into "] {
        assert!(exception().contains(part), "{part}: {}", exception());
    }
    put("sql-two-tables", (100..200).map(|n| format!("{{\"n\":{n}}}").into_bytes()));
    wait_for_rows("sqlp_one_table", 200);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(sql("SELECT count() FROM sqlp_other_table"), "0\n");
    for view in ["sqlp_one_table_pipe", "sqlp_other_table_pipe"] {
        sql(&format!("DROP TABLE {view}"));
    }
}
