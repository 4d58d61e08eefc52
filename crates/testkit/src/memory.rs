//! An in-memory store, for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use domain::lease::Lease;
use domain::names::PipeName;
use domain::ports::{StateError, StateStore, Versioned, Worker};
use domain::rows::Rows;

/// Rows in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: Mutex<Rows>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Looks at the rows without copying them.
    pub fn look<T>(&self, look: impl FnOnce(&Rows) -> T) -> T {
        look(&self.rows())
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // Every change is checked before the first row is touched, so a panic elsewhere leaves
        // nothing half done.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn leases(&self, pipe: Option<&PipeName>) -> Result<Vec<Versioned<Lease>>, StateError> {
        Ok(self.rows().leases(pipe))
    }

    async fn create(&self, leases: &[Lease]) -> Result<(), StateError> {
        self.rows().create(leases)
    }

    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.rows().update(leases)
    }

    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        self.rows().delete(leases)
    }

    async fn workers(&self) -> Result<Vec<Worker>, StateError> {
        Ok(self.rows().workers.values().cloned().collect())
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError> {
        self.rows().workers.insert(worker.worker_id.clone(), worker.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_store_keeps_the_contract() {
        crate::contract::state_store_contract(async || MemoryStore::new()).await;
    }
}
