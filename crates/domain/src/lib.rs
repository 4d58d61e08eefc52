//! Decisions, and nothing else: no async, no clock, no IO, no SDK types.
//!
//! `sequence` orders positions, `record` holds what was read, `lease` is the state machine of one
//! shard of one pipe (checkpoint and offered range), `plan` shares the leases of a pipe out between
//! workers, `lineage` what a look at the shards means, `batch` chooses what one pull serves,
//! `isolate` finds the rows of a batch that cannot be inserted, `range` what a bounded read takes,
//! `moment` what users call a time, `unpacking` how a record becomes rows; `time` is what a written
//! time is worth, `retention` what a stream keeps, `start` where a pipe begins; `incarnation`
//! orders the processes that had one worker id; `finding` is what a look at something found.

pub mod batch;
pub mod error;
pub mod finding;
pub mod incarnation;
pub mod isolate;
pub mod lease;
pub mod limits;
pub mod lineage;
pub mod moment;
pub mod plan;
pub mod ports;
pub mod range;
pub mod record;
pub mod retention;
pub mod rows;
pub mod secret;
pub mod sequence;
pub mod shard;
pub mod start;
#[cfg(test)]
mod tests;
pub mod time;
pub mod unpacking;
