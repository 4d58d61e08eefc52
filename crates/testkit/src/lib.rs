//! What several crates' tests share. It knows nothing of the code it tests but `domain`.

#![allow(missing_docs)]

pub mod aggregate;
pub mod contract;
mod memory;
pub mod tree;

pub use memory::MemoryStore;
