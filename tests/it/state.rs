//! The KeeperMap store on a real ClickHouse and a real ZooKeeper.

use std::sync::atomic::{AtomicUsize, Ordering};

use bridge::clickhouse::ClickHouse;
use bridge::state::KeeperMapStore;

use crate::state_contract::state_store_contract;

fn clickhouse() -> ClickHouse {
    ClickHouse::new("http://127.0.0.1:18123", "default", "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeper_map_keeps_the_contract() {
    let stores = AtomicUsize::new(0);
    state_store_contract(async || {
        let database = format!("c_{}_{}", std::process::id(), stores.fetch_add(1, Ordering::Relaxed));
        let store = KeeperMapStore::new(clickhouse(), &database);
        store.setup().await.expect("setup");
        store
    })
    .await;
}
