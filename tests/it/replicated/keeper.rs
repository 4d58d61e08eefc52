//! Servers that start while Keeper is away: their tables cannot be initialized, and reading goes on
//! by itself once Keeper is back.

use stack::load::put_orders;

use super::DEADLINE;
use super::layout::{Layout, World};
use crate::common::wait_until;
use crate::world::block_on;

const RECORDS: u64 = 500;
const SHARDS: i32 = 4;

fn servers_start_before_keeper(layout: Layout) {
    let world = World::start(layout, SHARDS);
    let put = |from| block_on(put_orders(&world.client, "orders", from, RECORDS)).expect("records");
    let wait = |what: &str, ready: &mut dyn FnMut() -> bool| {
        wait_until(DEADLINE, ready, || format!("{what} did not come\n{}", world.report()));
    };
    put(0);
    wait("the first records", &mut || world.is_complete(RECORDS));

    let servers = &world.cluster.servers;
    servers.iter().for_each(|server| server.kill());
    world.cluster.zookeeper.kill();
    servers.iter().for_each(|server| server.start_again().expect("a server without Keeper"));
    let failed = "SELECT count() FROM system.view_refreshes WHERE exception LIKE '%NOT_INITIALIZED%'";
    for server in servers {
        wait("a refresh into a table that is not initialized", &mut || {
            server.query(failed).is_ok_and(|n| n.trim() != "0")
        });
    }

    put(RECORDS);
    world.cluster.zookeeper.start_again().expect("ZooKeeper");
    wait("all records", &mut || world.is_complete(2 * RECORDS));
    world.check(2 * RECORDS);
}

#[test]
fn a_replicated_database_goes_on_when_keeper_is_back() {
    servers_start_before_keeper(Layout::Database);
}

#[test]
fn views_on_a_cluster_go_on_when_keeper_is_back() {
    servers_start_before_keeper(Layout::OnCluster);
}
