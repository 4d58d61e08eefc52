//! A pipe at work and how it is served: `read` goes through shards, `pipe` batches and settles,
//! `http` answers.

pub mod http;
pub mod metrics;
pub mod pipe;
pub mod read;
