//! A pipe at work.
//!
//! `registry` finds the actor of a pipe or starts it; each of several views has a seat (`seats`) and
//! an actor of its own. `actor` serves pulls and settles batches, one command after the other, with
//! `view` (what it agrees on with the view that pulls) and `work`
//! (the steps that change something durably, together with `balance`, `feed`, `isolate`, `lineage`,
//! `recover`). Each step says in `changes` what it writes, from the `rows` as last read and the
//! `open` batch, and `leases` writes it. A `reader` for each of the `shards` fills a `buffer`.
//!
//! `members` tells living workers from dead ones, `heartbeat` keeps this one alive, `consumer` is
//! what fan-out reads through, `retention` how long the stream keeps records. `seek` and `end` are
//! the commands that need no actor.

mod actor;
mod arrivals;
mod balance;
mod broadcast;
mod buffer;
mod changes;
mod consumer;
mod deps;
mod end;
mod feed;
pub mod heartbeat;
mod identity;
mod inbox;
mod isolate;
mod known;
mod leases;
mod lineage;
mod linger;
mod listing;
mod losses;
pub mod members;
mod next;
mod open;
mod pull;
mod reader;
mod recover;
mod registry;
mod retention;
mod rows;
mod seats;
mod seek;
mod seen;
mod shards;
mod sharing;
pub mod status;
mod view;
mod work;

pub use consumer::consumer_name;
pub use deps::Deps;
pub use identity::one_stream;
pub use pull::{Confirm, Mode, OnFailure, PullOptions, Served};
pub use registry::Pipes;
