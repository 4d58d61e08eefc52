//! The running pipes: `read` goes through shards, `pipe` makes and settles batches, `http` serves
//! them.

pub mod http;
pub mod metrics;
pub mod pipe;
pub mod read;
