//! The state machine of one shard of one pipe: who may read it, how far it is committed, and what
//! has been offered.
//!
//! Every transition is a pure function from a lease to the next lease, or a refusal. A `StateStore`
//! makes it durable with a compare-and-set on the row's version, for all leases of a batch or for
//! none. The invariants upheld here:
//!
//! * **offer-is-frozen**: an offered range stays until `commit` or `discard`, or until an operator
//!   moves the lease with `seek`; only a batch whose insert ClickHouse refused because of its rows
//!   is replaced, by `halve`.
//! * **halves-are-prefixes**: the replacement of an offered range starts where the range started
//!   and ends before its end; what is cut off is offered later.
//! * **commit-equals-offer**: a commit moves the checkpoint exactly to the end of the offered
//!   range.
//! * **stale-epoch-is-fenced**: a holder whose owner or epoch differs from the row's changes
//!   nothing.
//! * **checkpoint-moves-forward**: only `seek` may move a checkpoint back.

use super::error::Error;
use super::names::{BatchId, PipeName, ShardId, StreamName, WorkerId};
use super::sequence::{Checkpoint, RowPosition};
use super::shape::BatchShape;
use super::time::past;
use super::unpacking::Unpacking;

#[cfg(test)]
mod tests;

/// The right to act on a lease: who, and since which takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Worker id.
    pub owner: WorkerId,
    /// The epoch assigned by `take`; increases whenever the lease changes hands.
    pub epoch: u64,
}

/// One shard's part of a batch, as it was frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The batch, shared by all leases it spans.
    pub batch: BatchId,
    /// What else determines the bytes: the response format and how records become rows. This batch
    /// may not be served in another shape.
    pub shape: BatchShape,
    /// How many leases the batch spans, so that a settler knows whether it holds all of them.
    pub shards: u32,
    /// First row, inclusive. Rereading starts with its record, of which earlier rows were committed
    /// before.
    pub first: RowPosition,
    /// Last row, inclusive: the checkpoint after the commit.
    pub through: RowPosition,
    /// Rows in the range; a reread that finds a different number is a gap.
    pub rows: u64,
}

impl Offer {
    /// How its records become rows.
    pub fn unpacking(&self) -> Unpacking {
        self.shape.unpacking()
    }
}

/// Which stream a name refers to. Streams in other accounts and regions, or one that was deleted
/// and recreated, may have the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Amazon resource name; empty if unknown.
    pub arn: String,
    /// When it was created, Unix ms; 0 if unknown.
    pub created_ms: i64,
}

impl Identity {
    /// Whether it is certainly a different stream from `other`, in another account or region
    /// (**one-stream-per-pipe**).
    pub fn is_elsewhere(&self, other: &Identity) -> bool {
        !self.arn.is_empty() && !other.arn.is_empty() && self.arn != other.arn
    }

    /// Whether the stream has been deleted and `now` created under its name.
    pub fn was_replaced_by(&self, now: &Identity) -> bool {
        self.arn == now.arn && self.created_ms != 0 && now.created_ms != 0 && self.created_ms != now.created_ms
    }
}

/// Where the rows of a pipe go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// The view that pulls, `database.name`; empty if none has pulled yet.
    pub view: String,
    /// The table that the view inserts into, `database.name`.
    pub target: String,
}

impl Destination {
    /// Whether rows would go to two tables (**one-target-per-pipe**). Unknown values do not count.
    pub fn is_another_than(&self, other: &Destination) -> bool {
        !self.target.is_empty() && !other.target.is_empty() && self.target != other.target
    }

    /// The error for a pipe that is already pulled by `has`, a view with another table. `holder`
    /// says where, as part of the sentence.
    pub fn conflict(&self, pipe: &PipeName, has: &Destination, holder: &str) -> Error {
        Error::BadRequest(format!(
            "pipe '{pipe}' is pulled by view {}{holder} into {}, so view {} cannot pull it into {}: the rows would be split between the two \
             tables; use another pipe name, or drop one of the views",
            has.view, has.target, self.view, self.target
        ))
    }
}

/// What a reader knows when a position is written. All times are Kinesis time, Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When there was nothing left to read after the position.
    pub tip_ms: Option<i64>,
    /// When the position's record arrived; 0 if unknown.
    pub arrived_ms: i64,
    /// When the stream's shards were last listed and all had leases; 0 if unknown.
    pub listed_ms: i64,
    /// Now.
    pub now_ms: i64,
}

/// One row of `kinesis.leases`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Name of the pipe.
    pub pipe: PipeName,
    /// Name of the stream.
    pub stream: StreamName,
    /// Which stream of that name.
    pub identity: Identity,
    /// Shard id.
    pub shard_id: ShardId,
    /// The shards this one was split or merged from; they must be committed to their end first.
    pub parents: Vec<ShardId>,
    /// Where its rows last went.
    pub destination: Destination,
    /// Worker that holds the lease; empty if nobody does.
    pub owner: WorkerId,
    /// Fencing number.
    pub epoch: u64,
    /// The committed position.
    pub checkpoint: Checkpoint,
    /// How the checkpoint's record was unpacked: the rest of that record continues the same way.
    /// `None` before the first commit and after an operator chose the position: then the options of
    /// the pull apply.
    pub unpacking: Option<Unpacking>,
    /// The first row offered since the pipe's start or the last seek: a backfill has to end before
    /// it.
    pub began: Option<RowPosition>,
    /// What has been offered but not settled.
    pub offer: Option<Offer>,
    /// Rows committed so far.
    pub committed_rows: u64,
    /// Rate of committed payload, key and sequence number bytes: the shard's weight when leases are
    /// distributed.
    pub bytes_per_second: u64,
    /// Unix ms of the last commit; 0 if none.
    pub last_commit_ms: i64,
    /// Kinesis time, Unix ms, from which the position covers everything that arrives: when the
    /// lease was created, or the last seek. For a child shard, a time when a parent was still open.
    /// Once a record is committed it only matters to the shard's children, and is moved forward:
    /// children of an earlier reshard already have leases. 0 if unknown; it then counts from when a
    /// holder records it.
    pub since_ms: i64,
    /// Kinesis time, Unix ms, when there was nothing left to read after the checkpoint; 0 if never.
    /// Distinguishes an idle shard from a gap.
    pub caught_up_ms: i64,
    /// When the checkpoint's record arrived, Unix ms; 0 if unknown.
    pub arrived_ms: i64,
    /// Unix ms of the last change, on the local clock of whoever made it: for users to read; no
    /// decision depends on it alone.
    pub updated_ms: i64,
}

impl Lease {
    /// A lease that nobody holds yet. `now_ms` is the time of writing; the caller sets `since_ms`
    /// if it knows it.
    pub fn new(
        pipe: &PipeName,
        stream: &StreamName,
        shard_id: &ShardId,
        parents: Vec<ShardId>,
        start: Checkpoint,
        now_ms: i64,
    ) -> Lease {
        Lease {
            pipe: pipe.clone(),
            stream: stream.clone(),
            identity: Identity::default(),
            shard_id: shard_id.clone(),
            parents,
            destination: Destination::default(),
            owner: WorkerId::default(),
            epoch: 0,
            checkpoint: start,
            unpacking: None,
            began: None,
            offer: None,
            committed_rows: 0,
            bytes_per_second: 0,
            last_commit_ms: 0,
            since_ms: 0,
            caught_up_ms: 0,
            arrived_ms: 0,
            updated_ms: now_ms,
        }
    }

    /// Everything that arrived after this time, Unix ms, lies ahead of the position, or of the open
    /// offer; 0 if no such time is known. `now_ms` is Kinesis time (**unread-within-retention**).
    ///
    /// A position after a record is only as trustworthy as that record, which may have been written
    /// by hand: the proof is that the record still exists, or that there was nothing left to read a
    /// while ago.
    pub fn whole_ms(&self, now_ms: i64) -> i64 {
        let caught_up_ms = past(self.caught_up_ms, now_ms);
        match (&self.offer, &self.checkpoint) {
            (Some(_), _) | (None, Checkpoint::After(..)) => caught_up_ms,
            (None, Checkpoint::TrimHorizon) => caught_up_ms.max(self.began_ms(now_ms)),
            (None, Checkpoint::AtTimestamp(ms)) => caught_up_ms.max(self.began_ms(now_ms)).max(past(*ms, now_ms)),
            (None, Checkpoint::ShardEnd) => now_ms,
        }
    }

    fn began_ms(&self, now_ms: i64) -> i64 {
        // Unknown: it starts now, and whoever holds the lease records that.
        if self.since_ms == 0 { now_ms } else { past(self.since_ms, now_ms) }
    }

    /// When its shard was known to be open, Unix ms: its children's records all arrived later. 0 if
    /// no such time is known.
    pub fn open_ms(&self, now_ms: i64) -> i64 {
        [self.since_ms, self.caught_up_ms, self.arrived_ms].map(|ms| past(ms, now_ms)).into_iter().max().unwrap_or(0)
    }

    /// Records since when its position covers what arrives, if that is unknown.
    pub fn begin(&self, holder: &Holder, since_ms: i64, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        Ok(Lease { since_ms, updated_ms: now_ms, ..self.clone() })
    }

    /// The key of the row: `<pipe>/<shard id>`. Pipe names contain no slash.
    pub fn key(&self) -> String {
        format!("{}/{}", self.pipe, self.shard_id)
    }

    /// The batch this lease is part of, if one is offered.
    pub fn batch(&self) -> Option<&BatchId> {
        self.offer.as_ref().map(|offer| &offer.batch)
    }

    /// Whether all records of the shard are committed.
    pub fn finished(&self) -> bool {
        self.checkpoint == Checkpoint::ShardEnd
    }

    /// Hands the lease to `owner`; the new epoch fences the previous holder. Whether that is right
    /// (nobody holds it, the holder is dead, it is our own from before a restart) is for the caller
    /// to decide. Whether an epoch is the same is all that matters, so the last one, which only a
    /// hand can have written, is followed by the first.
    pub fn take(&self, owner: &WorkerId, now_ms: i64) -> Lease {
        Lease { owner: owner.clone(), epoch: self.epoch.wrapping_add(1), updated_ms: now_ms, ..self.clone() }
    }

    /// Records which stream it belongs to, if the row does not say so yet: it was written by hand
    /// or by an earlier version.
    pub fn adopted_by(mut self, stream: &Identity) -> Lease {
        if self.identity.arn.is_empty() {
            self.identity = stream.clone();
        } else if self.identity.arn == stream.arn && self.identity.created_ms == 0 {
            self.identity.created_ms = stream.created_ms;
        }
        self
    }

    /// Records where its rows go from now on. An open offer stays open: all of it goes there,
    /// wherever it went before.
    pub fn feed(&self, holder: &Holder, to: &Destination, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        Ok(Lease { destination: to.clone(), updated_ms: now_ms, ..self.clone() })
    }

    /// Records which shards it was made from. Refused if any of it was read without regard to them.
    pub fn descend_from(&self, holder: &Holder, parents: Vec<ShardId>, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        match self.checkpoint == Checkpoint::TrimHorizon && self.offer.is_none() {
            true => Ok(Lease { parents, updated_ms: now_ms, ..self.clone() }),
            false => Err(self.broken(&format!("its parents changed to {} after reading began", joined(&parents)))),
        }
    }

    /// The same lease, written once more: anyone who decided to take it before will find another
    /// version.
    pub fn touch(&self, holder: &Holder, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        Ok(Lease { updated_ms: now_ms, ..self.clone() })
    }

    /// Gives the lease back. An open offer stays for the next owner to settle.
    pub fn release(&self, holder: &Holder, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        Ok(Lease { owner: WorkerId::default(), updated_ms: now_ms, ..self.clone() })
    }

    /// Freezes a range. Refused while another one is open, or if it would not move forward.
    pub fn offer(&self, holder: &Holder, offer: Offer, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        if let Some(open) = &self.offer {
            return Err(self.broken(&format!("batch {} is offered while {} is open", offer.batch, open.batch)));
        }
        let (first, through) = (&offer.first.sequence, &offer.through.sequence);
        let range = format!("a range {first}..{through} does not follow {}", self.checkpoint);
        let began = self.began.clone().or_else(|| Some(offer.first.clone()));
        let offered = Lease { offer: Some(offer), began, updated_ms: now_ms, ..self.clone() };
        if offered.offer_follows() { Ok(offered) } else { Err(self.broken(&range)) }
    }

    /// Replaces the offer of a batch whose insert ClickHouse refused because of its rows with an
    /// offer of its first rows, under another batch id; `None` means the new batch has no rows of
    /// this shard (**halves-are-prefixes**). The caller must know that ClickHouse reported so. The
    /// checkpoint stays.
    pub fn halve(&self, holder: &Holder, batch: &BatchId, first: Option<Offer>, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        let Some(open) = self.offer.as_ref().filter(|open| open.batch == *batch && self.offer_follows()) else {
            return Err(self.broken(&format!("batch {batch} is halved, but it is not the open one")));
        };
        let is_prefix = |half: &Offer| {
            half.batch != open.batch
                && half.shape == open.shape
                && half.first == open.first
                && half.through <= open.through
                && half.first.sequence <= half.through.sequence
                && (1..=open.rows).contains(&half.rows)
                && half.shards <= open.shards
        };
        match first.as_ref().filter(|half| !is_prefix(half)) {
            Some(half) => Err(self.broken(&format!("batch {} is not the beginning of batch {batch}", half.batch))),
            None => Ok(Lease { offer: first, updated_ms: now_ms, ..self.clone() }),
        }
    }

    /// Moves the checkpoint to the end of the offered range, which ClickHouse has confirmed. `seen`
    /// is what the reader knows about it.
    pub fn commit(&self, holder: &Holder, batch: &BatchId, seen: Seen, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        let offer = match &self.offer {
            Some(offer) if offer.batch == *batch => offer,
            Some(other) => {
                return Err(self.broken(&format!("batch {batch} is committed while {} is open", other.batch)));
            }
            None => return Err(self.broken(&format!("batch {batch} is committed, but was never offered"))),
        };
        if !self.offer_follows() {
            return Err(
                self.broken(&format!("batch {batch} ends at {}, before {}", offer.through.sequence, self.checkpoint))
            );
        }
        Ok(Lease {
            checkpoint: Checkpoint::After(offer.through.clone()),
            unpacking: Some(self.unpacking_behind(offer)),
            committed_rows: self.committed_rows.saturating_add(offer.rows),
            last_commit_ms: now_ms,
            since_ms: past(self.since_ms, seen.now_ms).max(seen.listed_ms),
            caught_up_ms: self.caught_up_at(seen),
            arrived_ms: seen.arrived_ms,
            updated_ms: now_ms,
            offer: None,
            ..self.clone()
        })
    }

    /// How the last record of an offer was unpacked: if the offer lies within one record that was
    /// started before, the same way as then.
    pub fn unpacking_behind(&self, offer: &Offer) -> Unpacking {
        match self.unpacking {
            Some(begun) if offer.first.sub > 0 && offer.first.sequence == offer.through.sequence => begun,
            _ => offer.unpacking(),
        }
    }

    /// Records that the shard is closed and committed to its end. Refused while a range is open.
    pub fn finish(&self, holder: &Holder, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        match &self.offer {
            Some(open) => Err(self.broken(&format!("the shard is finished while batch {} is open", open.batch))),
            None => Ok(Lease { checkpoint: Checkpoint::ShardEnd, updated_ms: now_ms, ..self.clone() }),
        }
    }

    /// Records that there was nothing to read after the checkpoint at `seen.tip_ms`.
    pub fn caught_up(&self, holder: &Holder, seen: Seen, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        Ok(Lease { caught_up_ms: self.caught_up_at(seen), updated_ms: now_ms, ..self.clone() })
    }

    /// The later of the two times; a time in the future, written by a wrong clock, is dropped.
    fn caught_up_at(&self, seen: Seen) -> i64 {
        past(self.caught_up_ms, seen.now_ms).max(seen.tip_ms.unwrap_or(0))
    }

    /// Moves the checkpoint where a user wants it and drops the open offer: a batch in flight finds
    /// no offer to commit. From `since_ms` on, Kinesis time, the new position covers what arrives.
    pub fn seek(&self, to: Checkpoint, since_ms: i64, now_ms: i64) -> Lease {
        Lease {
            checkpoint: to,
            unpacking: None,
            began: None,
            offer: None,
            since_ms,
            caught_up_ms: 0,
            arrived_ms: 0,
            updated_ms: now_ms,
            ..self.clone()
        }
    }

    /// Drops the open offer and keeps the checkpoint, because an operator gave up the batch: its
    /// records will be part of a later one.
    pub fn give_up(&self, now_ms: i64) -> Lease {
        Lease { offer: None, updated_ms: now_ms, ..self.clone() }
    }

    /// The same, by the holder, after it found that an operator broke up the batch.
    pub fn discard(&self, holder: &Holder, now_ms: i64) -> Result<Lease, Error> {
        self.held_by(holder)?;
        Ok(self.give_up(now_ms))
    }

    /// Whether the open offer, if any, lies after the checkpoint. Only a manual edit can change
    /// that.
    pub fn offer_follows(&self) -> bool {
        let after = |offer: &Offer| Checkpoint::After(offer.through.clone());
        let begins = |offer: &Offer| match &self.checkpoint {
            // A range may start within the record where the last one ended.
            Checkpoint::After(committed) => offer.first > *committed,
            _ => true,
        };
        self.offer
            .as_ref()
            .is_none_or(|o| self.checkpoint.precedes(&after(o)) && begins(o) && o.first.sequence <= o.through.sequence)
    }

    fn held_by(&self, holder: &Holder) -> Result<(), Error> {
        if self.owner == holder.owner && self.epoch == holder.epoch {
            return Ok(());
        }
        let now = if self.owner.is_empty() { "nobody" } else { &*self.owner };
        Err(Error::Fenced(format!(
            "shard {} of pipe '{}' is held by {now} (epoch {}), no longer by {} (epoch {})",
            self.shard_id, self.pipe, self.epoch, holder.owner, holder.epoch
        )))
    }

    fn broken(&self, what: &str) -> Error {
        Error::Internal(format!("pipe '{}', shard {}: {what}", self.pipe, self.shard_id))
    }
}

fn joined(shards: &[ShardId]) -> String {
    shards.iter().map(|id| &**id).collect::<Vec<_>>().join(", ")
}
