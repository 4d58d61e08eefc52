//! Test code shared by several crates. Of the code under test it knows only `domain`.

#![allow(missing_docs)]

pub mod aggregate;
pub mod contract;
mod memory;
pub mod tree;

pub use memory::MemoryStore;
