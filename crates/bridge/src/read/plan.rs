//! What a bounded read will read: which shards, from where, until where.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::cursor::{Cursor, Pace};
use super::records::{Range, Reading, Span};
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::RECORDS_SHARDS_AT_ONCE;
use domain::names::{ShardId, StreamName};
use domain::ports::IteratorStart;
use domain::range::Until;
use domain::sequence::{Checkpoint, RowPosition};
use domain::shard::Shard;

/// What is read of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The shard.
    pub shard: Shard,
    /// Arrival time, in Unix ms, and sequence number of the first record in the range; none if
    /// there is no record now.
    pub first: Option<(i64, String)>,
    /// Where reading ends, besides the range's own end.
    pub until: Option<Until>,
}

impl Reading {
    /// What `range` reads of each shard. With the leases of a pipe, reading ends, shard by shard,
    /// exactly where the pipe started or was last moved by a seek; a shard that the pipe reads from
    /// its oldest record, or does not know yet, is left to it entirely.
    pub async fn spans(&self, range: &Range, pipe: Option<&[Lease]>) -> Result<Vec<Span>, Error> {
        let shards = self.shards(range).await?;
        let spans = stream::iter(shards).map(async |shard| {
            let Some(leases) = pipe else { return Ok(Some(Span { shard, until: None })) };
            let Some(lease) = leases.iter().find(|l| l.shard_id == shard.id) else { return Ok(None) };
            let until = match (&lease.began, &lease.checkpoint) {
                (Some(first), _) => Some(Until::Row(first.clone())),
                (None, Checkpoint::TrimHorizon) => return Ok(None),
                (None, Checkpoint::AtTimestamp(ms)) => Some(self.beginning_at(&range.stream, &shard.id, *ms).await?),
                (None, Checkpoint::After(row)) => {
                    Some(Until::Row(RowPosition { sub: row.sub.saturating_add(1), ..row.clone() }))
                }
                // The pipe found nothing in it after its start.
                (None, Checkpoint::ShardEnd) => None,
            };
            Ok::<_, Error>(Some(Span { shard, until }))
        });
        let spans: Vec<Option<Span>> = spans.buffered(RECORDS_SHARDS_AT_ONCE).try_collect().await?;
        Ok(spans.into_iter().flatten().collect())
    }

    /// The first record for a pipe that starts at a time and has read nothing yet: looked up in the
    /// same way.
    async fn beginning_at(&self, stream: &StreamName, shard_id: &ShardId, ms: i64) -> Result<Until, Error> {
        let mut cursor = Cursor::new(self.kinesis.clone(), stream, shard_id, IteratorStart::AtTimestamp(ms));
        let mut pace = Pace::polite();
        loop {
            let limit = cursor.limit();
            let _memory = self.budget.reserve(cursor.expected_memory(limit).min(self.budget.limit() / 4)).await;
            let page = cursor.patient_page(limit, &mut pace).await?;
            // To the second, like the pipe's reader.
            let second = ms - ms.rem_euclid(1_000);
            if let Some(first) = page.records.records().find(|r| r.timestamp_ms >= second) {
                return Ok(Until::Row(RowPosition { sub: 0, ..first.position()? }));
            }
            if page.is_last(limit) {
                return Ok(Until::Time(ms));
            }
        }
    }

    /// The plan of `range`: the same shards and ends as reading it, and the first record of each
    /// shard.
    pub async fn plan(&self, range: &Range, pipe: Option<&[Lease]>) -> Result<Vec<Planned>, Error> {
        let spans = self.spans(range, pipe).await?;
        let began_ms = self.now_ms();
        let range = Arc::new(range.clone());
        let planned = stream::iter(spans).map(|span| {
            let range = range.clone();
            async move {
                let (sender, mut found) = mpsc::channel(1);
                let first = async {
                    let first = found.recv().await.transpose();
                    // Reading stops when nobody is receiving.
                    found.close();
                    while found.recv().await.is_some() {}
                    first
                };
                let read = async {
                    let read = self.shard(&range, 0, &span, began_ms, &sender).await;
                    drop(sender);
                    read
                };
                let (read, first) = tokio::join!(read, first);
                let first = first?;
                if first.is_none() {
                    read?;
                }
                let first = first.and_then(|(_, chunk)| {
                    let record = (!chunk.is_empty()).then(|| chunk.get(0))?;
                    Some((record.timestamp_ms, record.sequence_number.to_owned()))
                });
                Ok::<_, Error>(Planned { shard: span.shard, first, until: span.until })
            }
        });
        planned.buffered(RECORDS_SHARDS_AT_ONCE).try_collect().await
    }
}
