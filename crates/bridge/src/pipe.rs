//! A pipe at work: `reader` fills a `buffer` a shard, `work` makes batches of them durable through
//! `leases`, `actor` serves and settles them, `recover` reads a dead process's batch again,
//! `consumer` is as whom fan-out reads, `registry` finds the actor of a pipe, `members` tells
//! living workers from dead ones, `heartbeat` keeps this one living, `balance` shares the leases
//! out between them, `lineage` looks at the shards of the stream, `retention` at how long it keeps
//! records, `view` is what it agrees on with the view that pulls it, `seen` is what a lease is told
//! of its position, `identity` keeps one stream and one target to a pipe.

mod actor;
mod balance;
mod buffer;
mod consumer;
mod deps;
mod end;
pub mod heartbeat;
mod identity;
mod isolate;
mod leases;
mod lineage;
pub mod members;
mod open;
mod pull;
mod reader;
mod recover;
mod registry;
mod retention;
mod seen;
mod shards;
pub mod status;
mod view;
mod work;

pub use deps::Deps;
pub use identity::one_stream;
pub use pull::{Confirm, Mode, OnFailure, PullOptions, Served};
pub use registry::Pipes;
