//! The shards of one pipe that this process reads. Each has one reader and one buffer, started and
//! stopped according to the leases.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::debug;

use super::arrivals::Arrivals;
use super::buffer::ShardBuffer;
use super::losses::Losses;
use super::reader::{Source, Start, read_shard};
use super::rows::Rows;
use domain::batch::{Batch, Limits, ShardRange, choose};
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::{DEFAULT_LINGER, MAX_SHARDS_PER_BATCH};
use domain::names::{BatchId, ShardId};
use domain::sequence::Checkpoint;
use domain::shard::readable;

/// A shard being read.
struct Running {
    buffer: Arc<ShardBuffer>,
    reader: AbortHandle,
    /// The lease's checkpoint as this process knows it; a different one in the row means that an
    /// operator moved it.
    checkpoint: Checkpoint,
    /// From when the checkpoint covers arriving records, until a record is committed; a different
    /// time in the row means that a user chose the same position again, for example after a gap.
    since_ms: Option<i64>,
    /// The lease's epoch; a different one means that another worker had the lease meanwhile.
    epoch: u64,
    /// The open batch after which reading began; if an operator gives it up, its records must be
    /// read.
    behind: Option<BatchId>,
    /// Set if the records after the position are gone; nothing is read then.
    lost: Option<Error>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reader.abort();
        self.buffer.close();
    }
}

/// All shards being read.
pub struct Shards {
    running: BTreeMap<ShardId, Running>,
    arrivals: Arc<Arrivals>,
}

impl Shards {
    /// Creates an empty set.
    pub fn new() -> Shards {
        Shards { running: BTreeMap::new(), arrivals: Arc::default() }
    }

    /// Totals over all buffers; signals new records.
    pub fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }

    /// Stops readers whose lease is gone, was held by another worker, is finished or was moved, and
    /// starts those that may read now (**parents-before-children**). Lost shards get no reader;
    /// their buffer reports the loss.
    pub fn follow(&mut self, rows: &Rows, source: &Source, losses: &Losses) {
        let all: HashMap<ShardId, &Lease> = rows.all().map(|l| (l.shard_id.clone(), l)).collect();
        self.running.retain(|id, running| {
            let open = |l: &Lease| running.behind.is_none() || running.behind.as_ref() == l.batch();
            let moved = |l: &Lease| l.checkpoint != running.checkpoint || since_ms(l) != running.since_ms;
            let same = |l: &Lease| l.epoch == running.epoch && !moved(l) && open(l);
            let lost = |l: &Lease| losses.of(l) == running.lost.as_ref();
            let reads = |l: &Lease| running.lost.is_some() || !l.finished() && readable(l, &all);
            rows.get(id).is_some_and(|l| rows.holds(l) && same(l) && lost(l) && reads(l))
        });
        let now_ms = source.now_ms();
        for lease in rows.held() {
            let lost = losses.of(lease);
            let begins = lost.is_some() || !lease.finished() && readable(lease, &all);
            if !begins || self.running.contains_key(&lease.shard_id) {
                continue;
            }
            // With an open offer, reading begins after it: `recover` reads the offer itself.
            let (after, unpacking, arrived_ms) = match &lease.offer {
                Some(offer) => {
                    let through = Checkpoint::After(offer.through.clone());
                    (through, Some(lease.unpacking_behind(offer)), 0)
                }
                None => (lease.checkpoint.clone(), lease.unpacking, lease.arrived_ms),
            };
            let at = Start { pipe: lease.pipe.clone(), after, unpacking, whole_ms: lease.whole_ms(now_ms), arrived_ms };
            let buffer = Arc::new(ShardBuffer::new(&lease.shard_id, self.arrivals.clone()));
            let task = match lost {
                Some(gap) => {
                    buffer.note(|p| p.error = Some(gap.clone()));
                    tokio::spawn(std::future::ready(()))
                }
                None => {
                    debug!(
                        stream = source.stream.as_str(),
                        shard = lease.shard_id.as_str(),
                        "reading from {}",
                        at.after
                    );
                    tokio::spawn(read_shard(source.clone(), buffer.clone(), at))
                }
            };
            let (reader, checkpoint, epoch) = (task.abort_handle(), lease.checkpoint.clone(), lease.epoch);
            let behind = lease.batch().cloned();
            let since_ms = since_ms(lease);
            let running = Running { buffer, reader, checkpoint, since_ms, epoch, behind, lost: lost.cloned() };
            self.running.insert(lease.shard_id.clone(), running);
        }
    }

    /// Stops all readers and drops their buffers.
    pub fn clear(&mut self) {
        self.running.clear();
    }

    /// Notes a checkpoint that this process committed.
    pub fn committed(&mut self, shard_id: &ShardId, checkpoint: &Checkpoint) {
        if let Some(running) = self.running.get_mut(shard_id) {
            running.checkpoint = checkpoint.clone();
            running.since_ms = None;
            running.behind = None;
        }
    }

    /// The buffers, ordered by shard id.
    pub fn buffers(&self) -> impl Iterator<Item = &Arc<ShardBuffer>> {
        self.running.values().map(|r| &r.buffer)
    }

    /// One shard's buffer.
    pub fn buffer(&self, shard_id: &ShardId) -> Option<&Arc<ShardBuffer>> {
        self.running.get(shard_id).map(|r| &r.buffer)
    }

    /// When the oldest buffered record arrived; none if nothing is buffered.
    pub fn since(&self) -> Option<Instant> {
        self.arrivals.since(|| self.buffers().filter_map(|b| b.since()).min())
    }

    /// Whether waiting longer would not make the batch larger.
    pub fn full(&self, limits: Limits, source: &Source) -> bool {
        let (sums, cap) = (self.arrivals.sums(), source.shard_cap.get() as usize);
        sums.rows >= limits.max_rows
            || sums.bytes >= limits.max_bytes
            || source.budget.used() > source.budget.limit() / 4 * 3
            // Stops at the first buffer with room.
            || self.buffers().all(|buffer| buffer.bytes() >= cap || buffer.ended())
    }

    /// Whether reading has just begun, or is so far behind, that a batch had better fill. Stops at
    /// the first shard that is.
    pub fn behind(&self) -> bool {
        self.buffers().any(|buffer| buffer.is_behind(DEFAULT_LINGER.as_millis() as i64))
    }

    /// Takes the next batch's records out of the buffers, ordered by shard id.
    pub fn freeze(&self, limits: Limits) -> Vec<ShardRange> {
        let buffers: Vec<&Arc<ShardBuffer>> = self.buffers().filter(|b| b.since().is_some()).collect();
        let buffers = longest_waiting(buffers);
        let counts = choose(&buffers.iter().map(|b| b.peek()).collect::<Vec<_>>(), limits);
        let chosen = buffers.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        chosen.map(|(buffer, count)| taken(buffer, count)).collect()
    }

    /// Takes the given number of records of each shard; the buffers must have them.
    pub fn cut(&self, counts: &BTreeMap<ShardId, usize>) -> Vec<ShardRange> {
        counts.iter().filter_map(|(id, count)| Some(taken(self.buffer(id)?, *count))).collect()
    }

    /// Notes that `half` has replaced `whole`, and buffers the rest again.
    pub fn put_back(&mut self, whole: &str, half: &Batch, rest: Vec<ShardRange>) {
        for (id, running) in self.running.iter_mut().filter(|(_, r)| r.behind.as_deref() == Some(whole)) {
            running.behind = half.ranges.iter().any(|range| range.shard_id == *id).then(|| half.id.clone());
        }
        for range in rest {
            // A reader that starts later starts after what is offered then.
            if let Some(running) = self.running.get(&range.shard_id).filter(|r| r.lost.is_none()) {
                running.buffer.put_back(range.slices);
            }
        }
    }
}

/// As many buffers as one batch may span, preferring those whose records have waited longest,
/// ordered by shard id.
fn longest_waiting(mut buffers: Vec<&Arc<ShardBuffer>>) -> Vec<&Arc<ShardBuffer>> {
    if buffers.len() > MAX_SHARDS_PER_BATCH {
        buffers.sort_by_key(|b| b.since());
        buffers.truncate(MAX_SHARDS_PER_BATCH);
        buffers.sort_by(|a, b| a.shard_id.cmp(&b.shard_id));
    }
    buffers
}

fn since_ms(lease: &Lease) -> Option<i64> {
    (!matches!(lease.checkpoint, Checkpoint::After(..))).then_some(lease.since_ms)
}

/// The first records of a buffer.
fn taken(buffer: &ShardBuffer, count: usize) -> ShardRange {
    ShardRange { shard_id: buffer.shard_id.clone(), slices: buffer.take(count) }
}
