//! The rows of a store that one process holds, and the rules of changing them: what KeeperMap does, as pure functions.

use std::collections::BTreeMap;

use crate::domain::lease::Lease;
use crate::ports::{StateError, Versioned, Worker};

/// All rows, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub leases: BTreeMap<String, Versioned<Lease>>,
    pub workers: BTreeMap<String, Worker>,
}

impl Rows {
    /// The leases of one pipe, or of all.
    pub fn leases(&self, pipe: Option<&str>) -> Vec<Versioned<Lease>> {
        self.leases.values().filter(|row| pipe.is_none_or(|pipe| row.value.pipe == pipe)).cloned().collect()
    }

    /// Adds all leases, at version 0, or none.
    pub fn create(&mut self, leases: &[Lease]) -> Result<(), StateError> {
        super::check(leases.iter())?;
        if let Some(taken) = leases.iter().find(|lease| self.leases.contains_key(&lease.key())) {
            return Err(StateError::Conflict(format!("the lease '{}' exists", taken.key())));
        }
        for lease in leases {
            self.leases.insert(lease.key(), Versioned { version: 0, value: lease.clone() });
        }
        Ok(())
    }

    /// Replaces all leases, each one version further, or none.
    pub fn update(&mut self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        super::check(leases.iter().map(|row| &row.value))?;
        if let Some(gone) = leases.iter().map(|row| row.value.key()).find(|key| !self.leases.contains_key(key)) {
            return Err(StateError::Conflict(format!("the lease '{gone}' does not exist")));
        }
        self.unchanged(leases)?;
        for row in leases {
            let next = Versioned { version: row.version + 1, value: row.value.clone() };
            self.leases.insert(row.value.key(), next);
        }
        Ok(())
    }

    /// Removes all leases that are there, or none.
    pub fn delete(&mut self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        super::check(leases.iter().map(|row| &row.value))?;
        self.unchanged(leases)?;
        for row in leases {
            self.leases.remove(&row.value.key());
        }
        Ok(())
    }

    /// Those that are there must be at their versions.
    fn unchanged(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        for row in leases {
            let key = row.value.key();
            if let Some(now) = self.leases.get(&key).filter(|now| now.version != row.version) {
                return Err(StateError::Conflict(format!(
                    "the lease '{key}' is at version {}, not {}",
                    now.version, row.version
                )));
            }
        }
        Ok(())
    }
}
