//! What Kinesis sends, decoded straight into a chunk: the SDK makes several strings and blobs of
//! each record first, which is most of the cost of reading.

pub mod cbor;
mod json;
#[cfg(test)]
mod tests;

use serde::Deserialize;

use domain::record::Chunk;
use domain::shard::Shard;

pub use cbor::decode as decode_cbor;
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

/// A shard that another was split or merged into.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Child {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: HashKeys,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HashKeys {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl From<Child> for Shard {
    fn from(child: Child) -> Shard {
        let mut parents = child.parent_shards.into_iter();
        Shard {
            id: child.shard_id.into(),
            parent: parents.next().unwrap_or_default().into(),
            adjacent_parent: parents.next().unwrap_or_default().into(),
            starting_hash_key: child.hash_key_range.starting_hash_key,
            ending_hash_key: child.hash_key_range.ending_hash_key,
            starting_sequence_number: String::new(),
            ending_sequence_number: String::new(),
        }
    }
}

/// Sets what is not set yet.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}
