//! A pipe at work: `reader` fills a `buffer` a shard, `work` makes batches of them durable through `leases`, `actor` serves and
//! settles them, `recover` reads a dead process's batch again, `consumer` is as whom fan-out reads, `registry` finds the actor of
//! a pipe, `members` tells living workers from dead ones, `heartbeat` keeps this one living, `balance` shares the leases out
//! between them, `lineage` looks at the shards of the stream.

mod actor;
mod balance;
mod buffer;
mod consumer;
mod end;
pub mod heartbeat;
mod leases;
mod lineage;
pub mod members;
#[cfg(test)]
mod model;
mod pull;
mod reader;
mod recover;
mod registry;
mod shards;
pub mod status;
mod work;

pub use pull::{Confirm, Mode, PullOptions, Served};
pub use registry::{Deps, Pipes};
pub use work::another_stream;
