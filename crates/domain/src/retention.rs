//! What a stream keeps, as far as is known (**retention-is-followed**).

use crate::limits::RETENTION_LOOK_MS;

#[cfg(test)]
mod tests;

/// A stream's retention when last checked, and what had expired before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The retention, ms.
    pub retention_ms: i64,
    /// When it was checked, Kinesis time, Unix ms.
    seen_ms: i64,
    /// Anything that arrived up to this time, Unix ms, may be gone for good: raising the retention
    /// does not bring it back.
    gone_ms: i64,
}

impl Kept {
    /// The first check.
    pub fn new(retention_ms: i64, now_ms: i64) -> Kept {
        Kept { retention_ms, seen_ms: now_ms, gone_ms: now_ms - retention_ms }
    }

    /// Another check. When the retention changed in between is unknown, so the shorter one counts;
    /// but after a long time without checks, only for as long as the regular interval between them.
    pub fn then(self, retention_ms: i64, now_ms: i64) -> Kept {
        let held_until = now_ms.min(self.seen_ms + RETENTION_LOOK_MS);
        let gone_ms = self.gone_ms.max(held_until - self.retention_ms).max(now_ms - retention_ms);
        Kept { retention_ms, seen_ms: now_ms, gone_ms }
    }

    /// Whether something that arrived after `whole_ms` may have expired by now.
    pub fn may_have_lost(&self, whole_ms: i64, now_ms: i64) -> bool {
        whole_ms <= self.gone_ms.max(now_ms - self.retention_ms)
    }
}
