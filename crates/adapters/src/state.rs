//! The state stores: leases and workers, where every write is a compare-and-set on all rows it
//! names.
//!
//! * `keeper_map`: tables in ClickHouse, shared by all bridges of a cluster (the default).
//! * `file`: a directory, for one bridge without Keeper.
//!
//! `quarantine` is the table of rows that cannot be inserted, with either store.
//!
//! `columns` is the only mapping between a lease and its row. Every store passes the suite in
//! `testkit::contract`.

mod columns;
mod file;
mod keeper_map;
mod quarantine;
mod statement;
mod verdict;

pub use file::FileStore;
pub use keeper_map::KeeperMapStore;
pub use quarantine::QuarantineTable;

#[cfg(test)]
mod tests {
    use testkit::contract::state_store_contract;

    use super::FileStore;

    #[tokio::test]
    async fn the_file_store_keeps_the_contract() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let mut stores = 0;
        state_store_contract(async || {
            stores += 1;
            FileStore::open(&parent.path().join(stores.to_string())).expect("a new directory")
        })
        .await;
    }
}
