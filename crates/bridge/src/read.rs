//! Reading shards: `cursor` goes through one shard page by page, `records` is a bounded read of
//! many, `plan` tells what it is going to read, `budget` bounds the memory of all.

pub mod budget;
pub mod cursor;
pub mod plan;
pub mod records;
