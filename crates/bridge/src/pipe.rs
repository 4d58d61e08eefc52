//! A running pipe: `reader` fills a `buffer` per shard, `work` makes batches of them durable
//! through `leases`, `actor` serves and settles them, `recover` rereads a dead process's batch,
//! `consumer` is the registered consumer that fan-out reads through, `registry` finds the actor of
//! a pipe, `members` tells live workers from dead ones, `heartbeat` keeps this one alive, `balance`
//! distributes the leases among them, `lineage` follows the shards of the stream, `retention` how
//! long it keeps records, `view` is the protocol with the view that pulls, `seen` is what is
//! written into a lease about its position, `identity` holds a pipe to one stream and one target.

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
