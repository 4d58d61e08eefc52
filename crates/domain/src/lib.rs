//! Pure decisions: no async, no clock, no I/O, no SDK types.
//!
//! `sequence` orders positions; `record` holds what was read; `lease` is the state machine of one
//! shard of one pipe (checkpoint and offered range); `shape` is what determines a batch's bytes
//! besides its records; `columns` lists what a row of records has; `plan` distributes a pipe's
//! leases among workers; `lineage` interprets a shard listing; `batch` chooses what one pull
//! serves; `isolate` finds the rows of a batch that cannot be inserted; `range` defines bounded
//! reads; `moment` parses times as users write them; `unpacking` describes how a record becomes
//! rows; `time` validates times that were written down, `kinesis_time` is that of Kinesis'
//! responses; `retention` tracks what a stream keeps; `start` says where a pipe begins; `arn` takes
//! Amazon's names apart; `incarnation` orders the processes that shared one worker id; `interface`
//! lists the paths and parameters of the HTTP interface; `names` are those of pipes, streams,
//! shards, workers and batches; `seat` is the place of one of several views that pull a pipe;
//! `finding` is the result of a check.

pub mod arn;
pub mod batch;
pub mod columns;
pub mod error;
pub mod finding;
pub mod incarnation;
pub mod interface;
pub mod isolate;
pub mod kinesis_time;
pub mod lease;
pub mod limits;
pub mod lineage;
pub mod moment;
pub mod names;
pub mod plan;
pub mod ports;
pub mod range;
pub mod record;
pub mod retention;
pub mod rows;
pub mod seat;
pub mod secret;
pub mod sequence;
pub mod shape;
pub mod shard;
pub mod start;
#[cfg(test)]
mod tests;
pub mod time;
pub mod unpacking;
