//! The reading tests once more, on a second Kinesis by other authors: small streams, a new one for
//! each test.
//!
//! It trims nothing (no gaps), and its iterators live for five minutes whatever the configuration,
//! so what depends on these is not run on it. It returns ChildShards at the end of a shard, which
//! the first does not.

use std::cell::Cell;
use std::sync::LazyLock;

use aws_sdk_kinesis::Client;
use stack::{KinesisLocal, kinesis_client};

use crate::world::{block_on, bridge_in, get};
use crate::{lineage, read, records};

thread_local! {
    static MEANT: Cell<bool> = const { Cell::new(false) };
}

static SECOND: LazyLock<KinesisLocal> = LazyLock::new(|| KinesisLocal::start().expect("the second Kinesis"));

/// Whether this thread's test runs on the second Kinesis.
pub fn is_meant() -> bool {
    MEANT.get()
}

/// Its URL.
pub fn endpoint() -> String {
    SECOND.endpoint()
}

/// A client for it.
pub fn client() -> &'static Client {
    static CLIENT: LazyLock<Client> = LazyLock::new(|| block_on(kinesis_client(&endpoint())));
    &CLIENT
}

/// Runs a test's body with it in place of the first. Each test has a thread of its own.
fn on_it(body: impl FnOnce()) {
    MEANT.set(true);
    body();
}

#[test]
fn the_records_of_a_key_keep_their_order_over_splits_and_merges() {
    on_it(|| read::order::over_splits_and_merges("second-order"));
}

#[test]
fn seek_to_the_end_of_a_shard_is_no_gap() {
    on_it(|| lineage::the_end_of_a_shard_is_no_gap("second-shard-ends"));
}

/// The first Kinesis rejects its own page tokens. This one allows at most 1,000 open shards, so the
/// test starts its own.
#[test]
fn more_shards_than_a_page_lists_are_all_found() {
    let own = KinesisLocal::start().expect("a Kinesis");
    let client = block_on(kinesis_client(&own.endpoint()));
    block_on(stack::load::create_stream(&client, "second-wide", 999)).expect("a stream");
    let shard = records::reshard::shard_id(7);
    let shards =
        block_on(client.list_shards().stream_name("second-wide").send()).expect("shards").shards.unwrap_or_default();
    let range = shards.iter().find(|s| s.shard_id == shard).and_then(|s| s.hash_key_range.as_ref()).expect("its range");
    let middle = range.starting_hash_key.parse::<u128>().expect("a hash key") + 1_000;
    let split = client.split_shard().stream_name("second-wide").shard_to_split(&shard);
    block_on(split.new_starting_hash_key(middle.to_string()).send()).expect("a split");
    block_on(stack::load::wait_active(&client, "second-wide")).expect("an active stream");
    let bridge = bridge_in("second_wide", &[], &[("AWS_ENDPOINT_URL", &own.endpoint())]);
    assert_eq!(get(&bridge, "/v1/streams/second-wide/shards").rows().len(), 1_001);
}

#[test]
fn everything_is_read_from_the_trim_horizon() {
    on_it(|| read::starts::everything("second-horizon"));
}

#[test]
fn latest_begins_at_the_first_pull() {
    on_it(|| read::starts::latest("second-latest"));
}

#[test]
fn a_time_is_a_start() {
    on_it(|| read::starts::at_a_time("second-start"));
}

#[test]
fn closed_shards_are_read_too() {
    on_it(|| records::reshard::closed_shards("second-closed"));
}

#[test]
fn a_time_range_begins_with_from_and_ends_before_to() {
    on_it(|| records::ranges::of_time("second-time"));
}

#[test]
fn a_sequence_range_holds_both_its_ends() {
    on_it(|| records::ranges::of_sequence_numbers("second-sequence"));
}
