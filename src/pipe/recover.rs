//! Reads an offered range again, record for record: what a crash between the insert and the commit leaves to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::reader::{Source, records_limit};
use crate::domain::error::Error;
use crate::domain::lease::Offer;
use crate::domain::record::{Slice, sequence_of};
use crate::limits::{GET_RECORDS_MAX_RECORDS, RETRY_FIRST, RETRY_LONGEST};
use crate::ports::{IteratorStart, KinesisError};

/// The records of `offer`, exactly: first and last record and their number must be what was frozen, or it is a `Gap`.
pub async fn read_again(source: &Source, shard_id: &str, offer: &Offer) -> Result<Vec<Slice>, Error> {
    let mut slices = Vec::new();
    let mut rows = 0;
    let mut position = IteratorStart::At(offer.first.clone());
    let (mut iterator, mut average) = (None, 0);
    let mut pause = RETRY_FIRST;
    while rows < offer.rows {
        let page = match page(source, shard_id, &position, iterator.take(), average, offer.rows - rows).await {
            Ok(page) => page,
            Err(KinesisError::IteratorExpired) => continue,
            Err(KinesisError::Throttled(_)) => {
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
                continue;
            }
            Err(KinesisError::Other(Error::BadRequest(why) | Error::NotFound(why))) => {
                return Err(lost(source, shard_id, offer, &why));
            }
            Err(KinesisError::Other(other)) => return Err(other),
        };
        if let Some(last) = page.records.len().checked_sub(1).map(|i| page.records.get(i)) {
            if rows == 0 && page.records.get(0).sequence_number != offer.first.as_str() {
                return Err(lost(source, shard_id, offer, "its first record is gone"));
            }
            position = IteratorStart::After(sequence_of(last)?);
            average = page.records.memory() / page.records.len();
            let (wanted, _) = Slice::whole(Arc::new(page.records)).split_at((offer.rows - rows) as usize);
            rows += wanted.len() as u64;
            slices.push(wanted);
        } else if page.millis_behind_latest == 0 || page.next.is_none() {
            return Err(lost(source, shard_id, offer, "its records are gone"));
        }
        iterator = page.next;
    }
    let through = slices.last().and_then(Slice::last).map(|r| r.sequence_number);
    match through == Some(offer.through.as_str()) {
        true => Ok(slices),
        false => Err(lost(source, shard_id, offer, "its last record is another one")),
    }
}

async fn page(
    source: &Source,
    shard_id: &str,
    position: &IteratorStart,
    iterator: Option<String>,
    average: usize,
    left: u64,
) -> Result<crate::ports::Page, KinesisError> {
    let iterator = match iterator {
        Some(iterator) => {
            sleep(Duration::from_millis(source.poll.get())).await;
            iterator
        }
        None => source.kinesis.iterator(&source.stream, shard_id, position).await?,
    };
    let limit = records_limit(average).min(left.try_into().unwrap_or(GET_RECORDS_MAX_RECORDS));
    let mut page = source.kinesis.records(&source.stream, shard_id, &iterator, limit).await?;
    // Held without waiting: this batch stood in the budget before the crash, and nothing else of the pipe goes on until it is settled.
    page.records.hold(source.budget.hold(page.records.memory()));
    Ok(page)
}

fn lost(source: &Source, shard_id: &str, offer: &Offer, why: &str) -> Error {
    Error::Gap(format!(
        "stream '{}', shard {shard_id}: batch {} ({}..{}) was offered, may be in ClickHouse or not, and cannot be read again: {why}; \
         POST a position to /v1/pipes/{{pipe}}/seek to go on",
        source.stream, offer.batch, offer.first, offer.through
    ))
}
