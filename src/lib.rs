#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! clickhouse-kinesis-bridge: Amazon Kinesis for ClickHouse, driven by SQL.
//!
//! # The way of a record
//!
//! stream → [`kinesis`] (a GetRecords answer through [`read::cursor`], or an event of a subscription) → `pipe::reader` → [`unpack`] (rows) → `pipe::buffer` (one a shard) → `pipe::shards` (freezes a
//! [`domain::batch`]) → `pipe::work` (offers it in the lease rows) → [`encode`] (bytes) → [`http`] (to the view's `url()`) → ClickHouse inserts →
//! `pipe::actor` (the refresh's end is known) → `pipe::work` (commits).
//!
//! # What lives where
//!
//! | module | what |
//! |---|---|
//! | [`domain`] | decisions: positions, leases, batches, ranges; no async, no clock, no IO |
//! | [`ports`] | the traits between decisions and the world |
//! | [`limits`] | every limit, with its source |
//! | [`kinesis`], [`clickhouse`], [`state`] | adapters to the AWS SDK, ClickHouse, and where leases are kept |
//! | [`dynamodb`] | an adapter to the AWS SDK, for the commands that look at tables |
//! | [`unmarshal`] | change events of DynamoDB: from a payload to columns |
//! | [`encode`] | records and rows to Arrow, JSON and Parquet |
//! | [`unpack`] | what is in a Kinesis record: aggregates, compressed payloads, several rows |
//! | [`read`] | going through shards: cursor, bounded reads, the memory budget |
//! | [`pipe`] | a pipe at work: readers, buffers, the open batch, its settlement |
//! | [`http`] | requests, answers, connections |
//! | [`sql`] | the files under `sql/`, rendered with quoting |
//! | [`generate`] | `sql pipe` and `sql dynamodb`: statements, from a sample of the stream |
//! | [`verify`] | `dynamodb verify`: whether a table in ClickHouse has the items of one in DynamoDB |
//! | [`config`], [`metrics`], [`serve`], [`check`] | flags, figures, and the two commands that put the parts together |
//!
//! Dependencies point down only; `tests/it/layers.rs` fails on one that does not.
//!
//! # Invariants
//!
//! Each has its name at the code that upholds it, and a test of that name (`pipe::model` runs all of them together, from seeds: test
//! `every_record_arrives_exactly_once_whatever_happens`). In the order of the pull protocol:
//!
//! * **head-has-no-effect**: HEAD reads and writes nothing (`http::server`; test `head_has_no_effect`).
//! * **get-moves-no-checkpoint**: a GET never commits, whatever comes of it (`pipe::actor`; test `get_moves_no_checkpoint`).
//! * **offered-before-first-byte**: a batch stands in all its lease rows before any of it is sent (`pipe::actor`; test
//!   `offered_before_first_byte`).
//! * **offer-is-frozen**: an offered range ends in a commit, or a person gives it up; no other one takes its place but a half of its own
//!   (`domain::lease`; test `offer_is_frozen`).
//! * **halves-are-prefixes**: only a batch of which ClickHouse said that its rows were refused is replaced, in all its lease rows at once, by a batch of its
//!   first rows (`domain::lease`, `domain::batch`, `pipe::isolate`; tests `halves_are_prefixes`, `only_what_clickhouse_refuses_because_of_its_rows_is_halved`).
//! * **quarantined-before-passed**: a row that cannot be inserted is in the quarantine before a checkpoint passes it (`pipe::actor`; test
//!   `quarantined_before_passed`).
//! * **same-batch-same-bytes**: the bytes are a function of ranges and format, by whichever process (`encode`; test `same_batch_same_bytes`).
//! * **one-open-batch**: while a batch is open, a pipe makes no other one (`pipe::work`; test `one_open_batch`).
//! * **held-back-end**: WAIT VIEW is issued before the end of the body is sent, and only a batch that was sent whole is committed
//!   (`http::handlers`; test `held_back_end`).
//! * **only-a-refresh-confirms**: a pull that names a view comes from its running refresh, and only that refresh's success commits
//!   (`pipe::view`; test `only_a_refresh_confirms`, and with `SYSTEM STOP VIEW` `a_stop_in_the_middle_of_the_insert_commits_nothing`).
//! * **started-after-the-commit**: the bridge starts a view's next refresh only when the end of the last one is known and its batch committed, and
//!   never that of a view that is stopped or fails (`pipe::view`; tests `started_after_the_commit`, `a_view_that_must_not_run_now_is_not_started`).
//! * **commit-equals-offer**: a commit moves the checkpoints to exactly the end of the offer, in one write (`domain::lease`, `pipe::work`; test
//!   `commit_equals_offer`).
//! * **exact-to-the-row**: a position within a record goes on right behind its row, in the way in which the record was begun (`unpack`,
//!   `pipe::reader`, `pipe::recover`; test `exact_to_the_row`).
//! * **stale-epoch-is-fenced**: a worker whose owner or epoch is not the row's changes nothing (`domain::lease`; tests
//!   `stale_epoch_is_fenced`, `a_worker_that_was_replaced_commits_nothing`).
//! * **checkpoint-moves-forward**: only `seek` moves it back (`domain::lease`; test `checkpoint_moves_forward`).
//! * **recovery-as-a-unit**: an open batch of a dead worker is settled as that batch, all its shards together (`pipe::work`, `pipe::leases`;
//!   tests `recovery_as_a_unit`, `a_batch_in_two_living_hands_gets_into_one`).
//! * **one-block**: a batch stays under ClickHouse's insert-block thresholds (`limits`, `domain::batch`; tests `one_block`,
//!   `limits_stay_under_the_insert_thresholds`).
//! * **gap-is-an-error**: a position that has left the retention stops its shard until `seek`, also under a running reader (`pipe::reader`,
//!   `pipe::recover`; tests `gap_is_an_error`, `a_gap_under_a_running_reader_is_an_error`, `a_gap_behind_a_slow_reader_is_an_error`,
//!   `a_gap_is_an_error_under_fan_out_too`).
//! * **unread-within-retention**: a position that has read nothing yet stands for what arrives since it began, a child's since its parents were closed;
//!   when that may have left the retention, it is a gap (`domain::lease`, `domain::lineage`, `pipe::reader`; tests `unread_within_retention`,
//!   `a_child_that_was_not_read_in_time_is_a_gap`).
//! * **retention-is-followed**: whether records may be gone is decided with the retention as it is then, and with what a shorter one took before
//!   (`domain::retention`, `pipe::retention`; tests `retention_is_followed`, `a_raised_retention_is_not_a_gap`).
//! * **kinesis-time-decides**: what decides about records is the time of Kinesis' answers; a time in the future is never (`domain::time`, `kinesis`, `ports`;
//!   tests `kinesis_time_decides`, `a_time_in_the_future_counts_as_never`, `latest_is_kinesis_now`).
//! * **parents-before-children**: a shard is read when its parents are committed to their end (`domain::shard`, `pipe::shards`; test
//!   `parents_before_children`).
//! * **children-from-trim-horizon**: a shard that is found later begins at its oldest record (`pipe::work`; test `children_from_trim_horizon`).
//! * **lineage-from-list-shards**: which shards a child came from is what ListShards says; the end of a parent is only a reason to ask
//!   (`pipe::lineage`; test `lineage_from_list_shards`).
//! * **one-stream-per-pipe**: leases of a stream in another account or region are not taken, and not changed (`pipe::identity`,
//!   `pipe::leases`; test `one_stream_per_pipe`).
//! * **one-target-per-pipe**: while a view feeds one table, no view with another one is given a row of the pipe (`pipe::identity`; test
//!   `one_target_per_pipe`).
//! * **shape-is-identity**: an open batch is served in the format it was offered in, or not at all (`pipe::actor`, `pipe::work`; test
//!   `shape_is_identity`).
//! * **a-zombie-serves-nothing**: a process whose heartbeat did not arrive for the lease duration sends no end of a body, and looks at the rows
//!   before it serves again (`pipe::heartbeat`, `pipe::pull`; test `a_zombie_serves_nothing`).
//! * **expiry-on-the-observers-clock**: a worker is dead when its counter stood still for the lease duration on one's own monotonic clock, while
//!   one could look (`pipe::members`; test `expiry_on_the_observers_clock`).

pub mod check;
pub mod clickhouse;
pub mod config;
pub mod domain;
pub mod dynamodb;
pub mod encode;
pub mod generate;
pub mod http;
pub mod kinesis;
pub mod limits;
pub mod metrics;
pub mod pipe;
pub mod ports;
pub mod read;
pub mod serve;
pub mod sql;
pub mod state;
pub mod unmarshal;
pub mod unpack;
pub mod verify;

// The contract suite of the state stores is compiled here and as part of the integration tests, under one name.
#[cfg(test)]
extern crate self as bridge;
