//! What a stream keeps, as far as it is known (**retention-is-followed**).

use crate::limits::RETENTION_LOOK_MS;

#[cfg(test)]
mod tests;

/// The retention of a stream at the last look, and what was gone before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The retention, ms.
    pub retention_ms: i64,
    /// When it was looked at, Kinesis' time, Unix ms.
    seen_ms: i64,
    /// What arrived until then, Unix ms, may be gone for good: raising the retention does not bring
    /// it back.
    gone_ms: i64,
}

impl Kept {
    /// The first look.
    pub fn new(retention_ms: i64, now_ms: i64) -> Kept {
        Kept { retention_ms, seen_ms: now_ms, gone_ms: now_ms - retention_ms }
    }

    /// Another look. When the retention changed in between is not known, so the shorter one counts;
    /// but where nobody looked for long, only so far as somebody would have.
    pub fn then(self, retention_ms: i64, now_ms: i64) -> Kept {
        let held_until = now_ms.min(self.seen_ms + RETENTION_LOOK_MS);
        let gone_ms = self.gone_ms.max(held_until - self.retention_ms).max(now_ms - retention_ms);
        Kept { retention_ms, seen_ms: now_ms, gone_ms }
    }

    /// Whether something that arrived after `whole_ms` may have left the retention by now.
    pub fn may_have_lost(&self, whole_ms: i64, now_ms: i64) -> bool {
        whole_ms <= self.gone_ms.max(now_ms - self.retention_ms)
    }
}
