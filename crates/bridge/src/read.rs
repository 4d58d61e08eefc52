//! Reading shards: `cursor` goes through one shard page by page, `records` is a bounded read of
//! many, `plan` determines what that will read, `budget` limits the memory of all.

pub mod budget;
pub mod cursor;
pub mod plan;
pub mod records;
