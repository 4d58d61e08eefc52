//! Reads an offered range again, record for record: what a crash between the insert and the commit leaves to do.

use std::sync::Arc;
use std::time::Duration;

use super::reader::Source;
use crate::domain::error::Error;
use crate::domain::lease::Offer;
use crate::domain::record::Slice;
use crate::ports::IteratorStart;
use crate::read::cursor::{Cursor, Pace};

/// The records of `offer`, exactly: first and last record and their number must be what was frozen, or it is a `Gap`.
pub async fn read_again(source: &Source, shard_id: &str, offer: &Offer) -> Result<Vec<Slice>, Error> {
    let start = IteratorStart::At(offer.first.clone());
    let mut cursor = Cursor::new(source.kinesis.clone(), &source.stream, shard_id, start);
    let mut pace = Pace::new(Duration::from_millis(source.poll.get()));
    let mut slices: Vec<Slice> = Vec::new();
    let mut left = offer.rows;
    while left > 0 {
        let limit = cursor.limit().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut page = match cursor.patient_page(limit, &mut pace).await {
            Ok(page) => page,
            Err(Error::BadRequest(why) | Error::NotFound(why)) => return Err(lost(source, shard_id, offer, &why)),
            Err(other) => return Err(other),
        };
        if page.records.is_empty() {
            if page.millis_behind_latest == 0 || page.next.is_none() {
                return Err(lost(source, shard_id, offer, "its records are gone"));
            }
            continue;
        }
        if slices.is_empty() && page.records.get(0).sequence_number != offer.first.as_str() {
            return Err(lost(source, shard_id, offer, "its first record is gone"));
        }
        // Held without waiting: this batch stood in the budget before the crash, and nothing else of the pipe goes on until it is settled.
        page.records.hold(source.budget.hold(page.records.memory()));
        left -= page.records.len().min(limit) as u64;
        slices.push(Slice::whole(Arc::new(page.records)));
    }
    let through = slices.last().and_then(Slice::last).map(|r| r.sequence_number);
    match through == Some(offer.through.as_str()) {
        true => Ok(slices),
        false => Err(lost(source, shard_id, offer, "its last record is another one")),
    }
}

fn lost(source: &Source, shard_id: &str, offer: &Offer, why: &str) -> Error {
    Error::Gap(format!(
        "stream '{}', shard {shard_id}: batch {} ({}..{}) was offered, may be in ClickHouse or not, and cannot be read again: {why}; \
         POST a position to /v1/pipes/<pipe>/seek to go on",
        source.stream, offer.batch, offer.first, offer.through
    ))
}
