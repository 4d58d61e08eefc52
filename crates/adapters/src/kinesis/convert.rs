//! Between the types of the SDK and those of the domain.

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::{ChildShard, HashKeyRange, Record, ShardIteratorType, SubscribeToShardEvent};
use aws_smithy_types::DateTime;

use super::wire::Decoded;
use domain::ports::IteratorStart;
use domain::record::{Chunk, RecordRef};
use domain::sequence::SequenceNumber;
use domain::shard::Shard;

/// A position as AWS takes it: its kind, a sequence number, a time.
pub(super) fn position(start: &IteratorStart) -> (ShardIteratorType, Option<String>, Option<DateTime>) {
    let behind = |sequence: &SequenceNumber| Some(sequence.as_str().to_owned());
    match start {
        IteratorStart::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
        IteratorStart::Latest => (ShardIteratorType::Latest, None, None),
        IteratorStart::AtTimestamp(ms) => (ShardIteratorType::AtTimestamp, None, Some(DateTime::from_millis(*ms))),
        IteratorStart::At(sequence) => (ShardIteratorType::AtSequenceNumber, behind(sequence), None),
        IteratorStart::After(sequence) => (ShardIteratorType::AfterSequenceNumber, behind(sequence), None),
    }
}

/// Records as held in memory; `None` if they are larger than a chunk may be.
fn chunk(from: Vec<Record>) -> Option<Chunk> {
    let mut records = Chunk::with_capacity(from.len(), from.iter().map(|r| r.data.as_ref().len()).sum());
    // By value: each record's own allocations are freed as soon as it is in the chunk.
    for record in from {
        let pushed = records.push(RecordRef {
            key: record.partition_key.as_deref().unwrap_or_default(),
            timestamp_ms: record.approximate_arrival_timestamp.and_then(|t| t.to_millis().ok()).unwrap_or(0),
            sequence_number: &record.sequence_number,
            sub_sequence: 0,
            payload: record.data.as_ref(),
        });
        if !pushed {
            return None;
        }
    }
    records.shrink();
    Some(records)
}

fn hash_keys(range: Option<HashKeyRange>) -> (String, String) {
    range.map_or_else(Default::default, |r| (r.starting_hash_key, r.ending_hash_key))
}

pub(super) fn shard(shard: aws_sdk_kinesis::types::Shard) -> Shard {
    let (starting_hash_key, ending_hash_key) = hash_keys(shard.hash_key_range);
    let (starting, ending) = shard
        .sequence_number_range
        .map_or_else(Default::default, |r| (r.starting_sequence_number, r.ending_sequence_number.unwrap_or_default()));
    Shard {
        id: shard.shard_id.into(),
        parent: shard.parent_shard_id.unwrap_or_default().into(),
        adjacent_parent: shard.adjacent_parent_shard_id.unwrap_or_default().into(),
        starting_hash_key,
        ending_hash_key,
        starting_sequence_number: starting,
        ending_sequence_number: ending,
    }
}

fn child(child: ChildShard) -> Shard {
    let (starting_hash_key, ending_hash_key) = hash_keys(child.hash_key_range);
    let mut parents = child.parent_shards.into_iter();
    Shard {
        id: child.shard_id.into(),
        parent: parents.next().unwrap_or_default().into(),
        adjacent_parent: parents.next().unwrap_or_default().into(),
        starting_hash_key,
        ending_hash_key,
        starting_sequence_number: String::new(),
        ending_sequence_number: String::new(),
    }
}

impl Decoded {
    /// What the SDK decoded; `None` if the records are larger than a chunk may be.
    pub(super) fn of_page(page: GetRecordsOutput) -> Option<Decoded> {
        Some(Decoded {
            records: chunk(page.records)?,
            resume: page.next_shard_iterator,
            millis_behind_latest: page.millis_behind_latest.unwrap_or(0),
            children: page.child_shards.unwrap_or_default().into_iter().map(child).collect(),
        })
    }

    /// The same for an event.
    pub(super) fn of_event(event: SubscribeToShardEvent) -> Option<Decoded> {
        Some(Decoded {
            records: chunk(event.records)?,
            resume: Some(event.continuation_sequence_number),
            millis_behind_latest: event.millis_behind_latest,
            children: event.child_shards.unwrap_or_default().into_iter().map(child).collect(),
        })
    }
}
