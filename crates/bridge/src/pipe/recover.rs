//! Rereads an offered range, row for row, after a crash between the insert and the commit.

use std::sync::Arc;

use super::reader::Source;
use crate::read::cursor::{Cursor, Pace};
use domain::error::{Error, go_on};
use domain::lease::{Lease, Offer};
use domain::ports::IteratorStart;
use domain::record::{RecordRef, Slice};
use domain::sequence::compare_digits;
use formats::unpack::{Rules, Unpacker};

/// Exactly the rows of `offer`: the first and last row and the number of rows must be as frozen,
/// otherwise it is a `Gap`.
pub async fn read_again(source: &Source, lease: &Lease, offer: &Offer) -> Result<Vec<Slice>, Error> {
    let lost = |why: &str| lost(lease, offer, why);
    let start = IteratorStart::At(offer.first.sequence.clone());
    let mut cursor = Cursor::new(source.kinesis.clone(), &source.stream, &lease.shard_id, start);
    let mut pace = Pace::new(source.calls.poll());
    let (from, through) = (&offer.first, &offer.through);
    let committed = |r: &RecordRef<'_>| r.sequence_number == from.sequence.as_str() && r.sub_sequence < from.sub;
    let begun = (from.sub > 0).then(|| (from.sequence.clone(), lease.unpacking.unwrap_or(offer.unpacking())));
    let rules = Rules { unpacking: offer.unpacking(), begun };
    let mut slices: Vec<Slice> = Vec::new();
    let (mut left, mut seen) = (usize::try_from(offer.rows).unwrap_or(usize::MAX), false);
    while left > 0 {
        let limit = cursor.limit().min(left);
        let page = match cursor.patient_page(limit, &mut pace).await {
            Ok(page) => page,
            Err(Error::BadRequest(why) | Error::NotFound(why)) => return Err(lost(&why)),
            Err(other) => return Err(other),
        };
        let Some(first) = (!page.records.is_empty()).then(|| page.records.get(0)) else {
            if page.millis_behind_latest == 0 || page.next.is_none() {
                return Err(lost("its records are gone"));
            }
            continue;
        };
        if !seen && first.sequence_number != from.sequence.as_str() {
            return Err(lost("its first record is gone"));
        }
        if compare_digits(first.sequence_number, through.sequence.as_str()).is_gt() {
            return Err(lost("its records now give fewer rows"));
        }
        seen = true;
        let mut unpacker = Unpacker::new(page.records, 0, rules.clone());
        while left > 0
            && let Some(mut rows) = unpacker.next_chunk()
        {
            // Held without waiting: this batch was in the budget before the crash, and the pipe
            // does nothing else until it is settled.
            rows.hold(source.budget.hold(rows.memory()));
            let rows = Slice::whole(Arc::new(rows));
            let (_, rows) = rows.split_at(rows.records().take_while(committed).count());
            let (rows, _) = rows.split_at(left);
            left -= rows.len();
            slices.push(rows);
        }
    }
    match slices.iter().rev().find_map(Slice::last) {
        Some(last) if last.is_at(through) => Ok(slices),
        _ => Err(lost("its last row is a different one")),
    }
}

fn lost(lease: &Lease, offer: &Offer, why: &str) -> Error {
    Error::Gap(format!(
        "stream '{}', shard {}: batch {} ({}..{}) was offered, may or may not be in ClickHouse, and cannot be read again: {why}; {}",
        lease.stream,
        lease.shard_id,
        offer.batch,
        offer.first.sequence,
        offer.through.sequence,
        go_on(&lease.pipe)
    ))
}
