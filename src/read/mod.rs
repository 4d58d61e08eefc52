//! Reading shards: `cursor` goes through one shard page by page, `records` is a bounded read of many, `budget` bounds the memory of all.

pub mod budget;
pub mod cursor;
pub mod records;
