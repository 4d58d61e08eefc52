//! The bugs that the simulation must find.

/// A bug, as replacements in the bridge's sources.
pub struct Mutant {
    /// What it is called.
    pub name: &'static str,
    /// The invariant (see ARCHITECTURE.md) that it breaks.
    pub breaks: &'static str,
    /// File, text that occurs there exactly once, and its replacement.
    pub edits: &'static [(&'static str, &'static str, &'static str)],
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "no fencing",
        breaks: "stale-epoch-is-fenced",
        edits: &[
            (
                "crates/domain/src/lease.rs",
                "if self.owner == holder.owner && self.epoch == holder.epoch {",
                "if self.owner == holder.owner {",
            ),
            (
                "crates/bridge/src/pipe/rows.rs",
                "lease.owner == self.worker && self.taken.get(&lease.shard_id) == Some(&lease.epoch)",
                "lease.owner == self.worker",
            ),
        ],
    },
    Mutant {
        name: "an unknown end of a refresh commits",
        breaks: "only-a-refresh-confirms",
        edits: &[(
            "crates/bridge/src/pipe/actor/settle.rs",
            "RefreshOutcome::Succeeded\n                if [&",
            "RefreshOutcome::Succeeded | RefreshOutcome::Unknown(_)\n                if [&",
        )],
    },
    Mutant {
        name: "a cancelled refresh commits",
        breaks: "only-a-refresh-confirms",
        edits: &[(
            "crates/bridge/src/pipe/view.rs",
            "Ok(Some(state)) if !state.exception.is_empty() =>",
            "Ok(Some(state)) if state.uuid.is_empty() =>",
        )],
    },
    Mutant {
        name: "the word of a server that restarted since commits",
        breaks: "only-a-refresh-confirms",
        edits: &[("crates/bridge/src/pipe/view.rs", "if !state.succeeded =>", "if state.uuid.is_empty() =>")],
    },
    Mutant {
        name: "a batch that was read in part is committed",
        breaks: "held-back-end",
        edits: &[(
            "crates/bridge/src/pipe/actor/settle.rs",
            "[&confirmation.delivered, &open.latest].iter().all(|d| d.load(Ordering::Acquire))",
            "[&confirmation.delivered, &open.latest].len() == 2",
        )],
    },
    Mutant {
        name: "a pull confirms the batch that it is given",
        breaks: "get-moves-no-checkpoint",
        edits: &[(
            "crates/bridge/src/pipe/actor.rs",
            "let number = open.give(delivered.clone());",
            "let number = open.give(delivered.clone()); open.confirmed = true;",
        )],
    },
    Mutant {
        name: "a child is read before its parent is",
        breaks: "parents-before-children",
        edits: &[(
            "crates/domain/src/shard.rs",
            "all.get(parent).is_none_or(|p| p.finished())",
            "all.get(parent).is_none_or(|p| p.epoch > 0)",
        )],
    },
    Mutant {
        name: "a child begins at the latest record",
        breaks: "children-from-trim-horizon",
        edits: &[(
            "crates/domain/src/lineage.rs",
            "(false, false) => Checkpoint::TrimHorizon,",
            "(false, false) => Checkpoint::AtTimestamp(subject.now_ms),",
        )],
    },
    Mutant {
        name: "the rest of a record is skipped",
        breaks: "exact-to-the-row",
        edits: &[(
            "crates/bridge/src/pipe/reader.rs",
            "Checkpoint::After(row) => (Some(row), None),",
            "Checkpoint::After(row) => (Some(RowPosition { sub: u32::MAX, ..row }), None),",
        )],
    },
    Mutant {
        name: "a record that was begun is recovered from its first row",
        breaks: "exact-to-the-row",
        edits: &[(
            "crates/bridge/src/pipe/recover.rs",
            "&& r.sub_sequence < from.sub;",
            "&& r.sub_sequence < from.sub.min(1);",
        )],
    },
    Mutant {
        name: "an item behind an array is no row",
        breaks: "exact-to-the-row",
        edits: &[(
            "crates/formats/src/unpack/items.rs",
            "(Place::Outside, None) => return Ok(None),",
            "(Place::Outside, None | Some(b'{')) => return Ok(None),",
        )],
    },
    Mutant {
        name: "the place among the items of an array is forgotten",
        breaks: "exact-to-the-row",
        edits: &[(
            "crates/formats/src/unpack/items.rs",
            "(self.at, self.place) = (found.end, place);",
            "(self.at, self.place) = (found.end, if found.len() > 9 { Place::Outside } else { place });",
        )],
    },
    Mutant {
        name: "a batch of items is recovered without taking them apart",
        breaks: "same-batch-same-bytes",
        edits: &[(
            "crates/bridge/src/pipe/recover.rs",
            "let rules = Rules { unpacking: offer.unpacking(), begun };",
            "let rules = Rules { unpacking: domain::unpacking::Unpacking::default(), begun };",
        )],
    },
    Mutant {
        name: "a takeover drops the open batch",
        breaks: "offer-is-frozen",
        edits: &[(
            "crates/domain/src/lease.rs",
            "Lease { owner: owner.clone(), epoch: self.epoch.wrapping_add(1), updated_ms: now_ms, ..self.clone() }",
            "Lease { owner: owner.clone(), epoch: self.epoch.wrapping_add(1), updated_ms: now_ms, offer: None, ..self.clone() }",
        )],
    },
    Mutant {
        name: "a release forgets the open batch",
        breaks: "offer-is-frozen",
        edits: &[(
            "crates/domain/src/lease.rs",
            "Ok(Lease { owner: WorkerId::default(), updated_ms: now_ms, ..self.clone() })",
            "Ok(Lease { owner: WorkerId::default(), updated_ms: now_ms, offer: None, ..self.clone() })",
        )],
    },
    Mutant {
        name: "another batch takes the place of the open one",
        breaks: "one-open-batch",
        edits: &[
            (
                "crates/domain/src/lease.rs",
                "if let Some(open) = &self.offer {",
                "if let Some(open) = self.offer.as_ref().filter(|o| o.batch == offer.batch) {",
            ),
            (
                "crates/bridge/src/pipe/actor.rs",
                "work.recover().await?;\n        if let (Some(state),",
                "if let (Some(state),",
            ),
            ("crates/bridge/src/pipe/changes.rs", "Some((lease, None)) => {", "Some((lease, _)) => {"),
        ],
    },
    Mutant {
        name: "half of a batch is its last rows",
        breaks: "halves-are-prefixes",
        edits: &[
            (
                "crates/bridge/src/pipe/isolate.rs",
                "let (first, rest) = whole.split_at(rows / 2);",
                "let (rest, first) = whole.split_at(rows / 2);",
            ),
            (
                "crates/domain/src/lease.rs",
                "match first.as_ref().filter(|half| !is_prefix(half)) {",
                "match first.as_ref().filter(|half| !is_prefix(half) && half.rows == 0) {",
            ),
        ],
    },
    Mutant {
        name: "a batch that failed for another reason is halved",
        breaks: "halves-are-prefixes",
        edits: &[(
            "crates/bridge/src/pipe/actor/settle.rs",
            "let refused = cause == Cause::Rows && (whole || rows > 1);",
            "let refused = whole || rows > 1;",
        )],
    },
    Mutant {
        name: "a bad row is passed before it is in the quarantine",
        breaks: "quarantined-before-passed",
        edits: &[(
            "crates/bridge/src/pipe/actor/isolate.rs",
            "let kept = self.deps.quarantine.put(&row).await;",
            "let kept = self.deps.quarantine.put(&row).await.or(Ok::<Kept, Error>(Kept::Yes));",
        )],
    },
    Mutant {
        name: "a batch is served although its offer may not be written",
        breaks: "offered-before-first-byte",
        edits: &[(
            "crates/bridge/src/pipe/actor.rs",
            "if let Err(failed) = self.work()?.offer().await {",
            "if let Err(failed) = self.work()?.offer().await.or(Ok::<(), Error>(())) {",
        )],
    },
    Mutant {
        name: "an open batch changes its format",
        breaks: "shape-is-identity",
        edits: &[(
            "crates/bridge/src/pipe/actor.rs",
            "} else if open.shape.as_asked() != options.shape.as_asked() {",
            "} else if open.shape.as_str().is_empty() {",
        )],
    },
    Mutant {
        name: "wall clocks tell who is dead",
        breaks: "expiry-on-the-observers-clock",
        edits: &[
            (
                "crates/bridge/src/pipe/heartbeat.rs",
                "(me.heartbeat + 1, self.own().pipes.clone())",
                "(self.0.clock.now_ms() as u64, self.own().pipes.clone())",
            ),
            (
                "crates/bridge/src/pipe/members.rs",
                "        seen.watched - moved >= self.0.lease_duration\n",
                "        let since = |beat: u64| (self.0.clock.now_ms() as u64).saturating_sub(beat) as u128;\n        \
                 moved == Duration::MAX || seen.workers.get(worker_id).is_some_and(|(row, _)| since(row.heartbeat) > self.0.lease_duration.as_millis())\n",
            ),
        ],
    },
    Mutant {
        name: "a lease is taken after an old look at the workers",
        breaks: "expiry-on-the-observers-clock",
        edits: &[(
            "crates/bridge/src/pipe/balance.rs",
            "self.deps.members.observe(self.deps.store.workers().await?);",
            "self.deps.store.workers().await?;",
        )],
    },
    Mutant {
        name: "sequence numbers are compared as text",
        breaks: "checkpoint-moves-forward",
        edits: &[("crates/domain/src/sequence.rs", "compare_digits(&self.0, &other.0)", "self.0.cmp(&other.0)")],
    },
    Mutant {
        name: "a dead worker's batch is taken lease by lease",
        breaks: "recovery-as-a-unit",
        edits: &[(
            "crates/bridge/src/pipe/rows.rs",
            "all.into_iter().take_while(|l| batch(l) == first).take(LEASE_ROWS_PER_STATEMENT).collect()",
            "all.into_iter().take_while(|l| batch(l) == first).take(1).collect()",
        )],
    },
    Mutant {
        name: "a process that stood still ends its body",
        breaks: "a-zombie-serves-nothing",
        edits: &[(
            "crates/bridge/src/pipe/pull.rs",
            "let may = heartbeat.standing() == Some(*standing);",
            "let may = heartbeat.standing() == Some(*standing) || !self.stream.is_empty();",
        )],
    },
    Mutant {
        name: "a gap is passed over",
        breaks: "gap-is-an-error",
        edits: &[(
            "crates/bridge/src/pipe/reader.rs",
            "if self.last.is_some() && !self.unverified || !self.doubtful() {",
            "if !self.vanished {",
        )],
    },
    Mutant {
        name: "the row of the checkpoint is read again",
        breaks: "commit-equals-offer",
        edits: &[(
            "crates/bridge/src/pipe/reader.rs",
            "r.sequence_number == last.sequence.as_str() && r.sub_sequence <= last.sub",
            "r.sequence_number == last.sequence.as_str() && r.sub_sequence < last.sub",
        )],
    },
    Mutant {
        name: "a batch that is read again gets what came later, too",
        breaks: "same-batch-same-bytes",
        edits: &[
            (
                "crates/bridge/src/pipe/recover.rs",
                "let (rows, _) = rows.split_at(left);\n            left -= rows.len();",
                "left = left.saturating_sub(rows.len());",
            ),
            (
                "crates/bridge/src/pipe/recover.rs",
                "let limit = cursor.limit().min(left);",
                "let limit = cursor.limit();",
            ),
            (
                "crates/bridge/src/pipe/recover.rs",
                "Some(last) if last.is_at(through) => Ok(slices),",
                "Some(_) => Ok(slices),",
            ),
        ],
    },
    Mutant {
        name: "a shard is finished while its last records are in a batch that is not offered",
        breaks: "parents-before-children",
        edits: &[(
            "crates/bridge/src/pipe/work.rs",
            "if self.open.is_some() {\n            // Its shards look drained and are not.",
            "if self.pipe.is_empty() {\n            // Its shards look drained and are not.",
        )],
    },
    Mutant {
        name: "a bridge in another region takes the shards of a pipe",
        breaks: "one-stream-per-pipe",
        edits: &[(
            "crates/domain/src/lease.rs",
            "!self.arn.is_empty() && !other.arn.is_empty() && self.arn != other.arn",
            "!self.arn.is_empty() && !other.arn.is_empty() && self.arn.len() != other.arn.len()",
        )],
    },
    Mutant {
        name: "two views with different tables share a pipe",
        breaks: "one-target-per-pipe",
        edits: &[(
            "crates/domain/src/lease.rs",
            "!self.target.is_empty() && !other.target.is_empty() && self.target != other.target",
            "self.target.is_empty() && !other.target.is_empty() && self.target != other.target",
        )],
    },
    Mutant {
        name: "the end of a parent says where a child comes from",
        breaks: "lineage-from-list-shards",
        edits: &[(
            "crates/bridge/src/pipe/work.rs",
            "self.look_for(&children);",
            "self.add_missing(&children, &Checkpoint::TrimHorizon).await?;",
        )],
    },
    Mutant {
        name: "a shard of which nothing was read has lost nothing",
        breaks: "unread-within-retention",
        edits: &[(
            "crates/domain/src/lease.rs",
            "(None, Checkpoint::TrimHorizon) => caught_up_ms.max(self.began_ms(now_ms)),",
            "(None, Checkpoint::TrimHorizon) => now_ms,",
        )],
    },
    Mutant {
        name: "a child stands for what arrives since it was found",
        breaks: "unread-within-retention",
        edits: &[(
            "crates/domain/src/lineage.rs",
            "let since_ms = since(leases, &ancestors, subject);",
            "let since_ms = since(leases, &ancestors, subject).max(subject.now_ms);",
        )],
    },
    Mutant {
        name: "the retention is looked at once",
        breaks: "retention-is-followed",
        edits: &[(
            "crates/bridge/src/pipe/retention.rs",
            "let retention_ms = retention_ms(stream);",
            "let retention_ms = retention_ms(stream).max(known.kept.retention_ms);",
        )],
    },
    Mutant {
        name: "the local clock decides what is gone",
        breaks: "kinesis-time-decides",
        edits: &[(
            "crates/domain/src/ports.rs",
            "kinesis.now_ms().unwrap_or_else(|| clock.now_ms())",
            "kinesis.now_ms().map_or(0, |_| 0) + clock.now_ms()",
        )],
    },
    Mutant {
        name: "a copy of a view is taken for it",
        breaks: "only-a-refresh-confirms",
        edits: &[("crates/bridge/src/pipe/actor/destination.rs", "copy.running && pulls(", "copy.running && !pulls(")],
    },
    Mutant {
        name: "leases are not given back to who joins",
        breaks: "balance",
        edits: &[("crates/bridge/src/pipe/balance.rs", "if released == 0 {", "if released < usize::MAX {")],
    },
    Mutant {
        name: "a seat takes leases before others can see it",
        breaks: "a-zombie-serves-nothing",
        edits: &[(
            "crates/bridge/src/pipe/heartbeat.rs",
            "beats.wait_for(seen)",
            "beats.wait_for(|_| self.own().pipes.contains_key(&announced) || seen(&0))",
        )],
    },
    Mutant {
        name: "the views of one worker do not count each other",
        breaks: "a-view-is-a-worker",
        edits: &[(
            "crates/bridge/src/pipe/members.rs",
            "filter(|(owner, _)| owner != me)",
            "filter(|(owner, _)| split_owner(owner).0 != split_owner(me).0)",
        )],
    },
];
