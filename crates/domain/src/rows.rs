//! The rows of an in-process store, and the rules for changing them: KeeperMap's semantics as pure
//! functions.

use std::collections::{BTreeMap, HashSet};

use crate::lease::Lease;
use crate::limits::LEASE_ROWS_PER_STATEMENT;
use crate::names::{PipeName, WorkerId};
use crate::ports::{StateError, Versioned, Worker};

/// All rows, by key.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The leases, by their key.
    pub leases: BTreeMap<String, Versioned<Lease>>,
    /// The workers, by their name.
    pub workers: BTreeMap<WorkerId, Worker>,
}

impl Rows {
    /// The leases of one pipe, or of all.
    pub fn leases(&self, pipe: Option<&PipeName>) -> Vec<Versioned<Lease>> {
        self.leases.values().filter(|row| pipe.is_none_or(|pipe| row.value.pipe == *pipe)).cloned().collect()
    }

    /// Adds all leases, at version 0, or none.
    pub fn create(&mut self, leases: &[Lease]) -> Result<(), StateError> {
        check(leases.iter())?;
        if let Some(taken) = leases.iter().find(|lease| self.leases.contains_key(&lease.key())) {
            return Err(StateError::Conflict(format!("the lease '{}' already exists", taken.key())));
        }
        for lease in leases {
            self.leases.insert(lease.key(), Versioned { version: 0, value: lease.clone() });
        }
        Ok(())
    }

    /// Replaces all leases, incrementing each version, or none.
    pub fn update(&mut self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        check(leases.iter().map(|row| &row.value))?;
        if let Some(gone) = leases.iter().map(|row| row.value.key()).find(|key| !self.leases.contains_key(key)) {
            return Err(StateError::Conflict(format!("the lease '{gone}' does not exist")));
        }
        self.unchanged(leases)?;
        for row in leases {
            // Only whether it is the same matters, so the largest is followed by the smallest.
            let next = Versioned { version: row.version.wrapping_add(1), value: row.value.clone() };
            self.leases.insert(row.value.key(), next);
        }
        Ok(())
    }

    /// Removes all leases that exist, or none.
    pub fn delete(&mut self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        check(leases.iter().map(|row| &row.value))?;
        self.unchanged(leases)?;
        for row in leases {
            self.leases.remove(&row.value.key());
        }
        Ok(())
    }

    /// Those that exist must be at their versions.
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

/// Refuses what no store accepts: more rows than one request may have, or the same row twice.
pub fn check<'a>(leases: impl ExactSizeIterator<Item = &'a Lease>) -> Result<(), StateError> {
    let count = leases.len();
    if count > LEASE_ROWS_PER_STATEMENT {
        return Err(StateError::Misconfigured(format!(
            "{count} leases in one write are more than {LEASE_ROWS_PER_STATEMENT}: write them in parts"
        )));
    }
    let mut seen = HashSet::with_capacity(count);
    for lease in leases {
        if !seen.insert(lease.key()) {
            return Err(StateError::Misconfigured(format!("the lease '{}' appears twice in one write", lease.key())));
        }
    }
    Ok(())
}
