//! The state stores: leases and workers, where every write is a compare-and-set over all rows it names.
//!
//! * `keeper_map`: tables in ClickHouse, shared by all bridges of a cluster (the default).
//! * `file`: a directory, for one bridge without Keeper.
//! * `memory`: for tests.
//!
//! `quarantine` is the table of rows that cannot be inserted, whichever of them is used.
//!
//! `columns` is the one mapping between a lease and its row; `rows` holds the rules that the two local stores share.
//! All three pass one suite, `tests/it/state_contract.rs`.

mod columns;
mod file;
mod keeper_map;
mod memory;
mod quarantine;
mod rows;
mod statement;
mod verdict;

pub use file::FileStore;
pub use keeper_map::KeeperMapStore;
pub use memory::MemoryStore;
pub use quarantine::QuarantineTable;

use std::collections::HashSet;

use crate::domain::lease::Lease;
use crate::limits::LEASE_ROWS_PER_STATEMENT;
use crate::ports::StateError;

/// Refuses what no store takes: more rows than one request may have, and one row twice.
fn check<'a>(leases: impl ExactSizeIterator<Item = &'a Lease>) -> Result<(), StateError> {
    let count = leases.len();
    if count > LEASE_ROWS_PER_STATEMENT {
        return Err(StateError::Misconfigured(format!(
            "{count} leases in one write are more than {LEASE_ROWS_PER_STATEMENT}: write them in parts"
        )));
    }
    let mut seen = HashSet::with_capacity(count);
    for lease in leases {
        if !seen.insert(lease.key()) {
            return Err(StateError::Misconfigured(format!("the lease '{}' is twice in one write", lease.key())));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../tests/it/state_contract.rs"]
mod contract;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_store_keeps_the_contract() {
        contract::state_store_contract(async || MemoryStore::new()).await;
    }

    #[tokio::test]
    async fn the_file_store_keeps_the_contract() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let mut stores = 0;
        contract::state_store_contract(async || {
            stores += 1;
            FileStore::open(&parent.path().join(stores.to_string())).expect("a new directory")
        })
        .await;
    }
}
