//! What Kinesis sends, decoded straight into a chunk: the SDK makes several strings and blobs of
//! each record first, which is most of the cost of reading.

mod json;

use domain::record::Chunk;
use domain::shard::Shard;

pub use json::decode as decode_json;

/// A GetRecords response, or an event of SubscribeToShard.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The records, in order.
    pub records: Chunk,
    /// The next iterator, or the sequence number to resume after; `None` at the end of a shard.
    pub resume: Option<String>,
    /// How far it is behind the tip, ms.
    pub millis_behind_latest: i64,
    /// The shards that this one was split or merged into.
    pub children: Vec<Shard>,
}
