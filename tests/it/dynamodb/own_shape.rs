//! `ministack`'s own streaming destination: records in the shape of DynamoDB Streams, with times in
//! whole seconds, from third-party code.

use fastrand::Rng;
use stack::kinesis_client;

use super::items::{self, Item, Key};
use super::writes::{self, Update};
use super::{client, copy, create_table, ministack};
use crate::common::seed;
use crate::engines::on_each_engine;
use crate::world::{block_on, bridge_in};

on_each_engine!(within_a_second_the_order_of_the_records_counts,);

const WRITES: u64 = 400;
/// Few, so that each is written many times within a second.
const ITEMS: u64 = 12;

fn within_a_second_the_order_of_the_records_counts() {
    let mut rng = Rng::with_seed(seed("own shape"));
    let name = "own_shape";
    let table = create_table(name, &[("owner", Key::S), ("at", Key::N)]);
    let endpoint = ministack().endpoint();
    let kinesis = block_on(kinesis_client(&endpoint));
    // One shard: each record gets a new partition key, so several shards would lose the order.
    block_on(stack::load::create_stream(&kinesis, name, 1)).expect("a stream");
    let summary = block_on(kinesis.describe_stream_summary().stream_name(name).send()).expect("a stream");
    let arn = summary.stream_description_summary.expect("a summary").stream_arn;
    let request = client().enable_kinesis_streaming_destination().table_name(name).stream_arn(arn);
    block_on(request.send()).expect("a destination");

    let here = [("AWS_ENDPOINT_URL", &*endpoint)];
    let bridge = bridge_in(name, &[], &here);
    let target = "default.own_shape";
    let write = |rng: &mut Rng| {
        let number = rng.u64(..ITEMS);
        let key: Item = items::key(table.keys, number);
        block_on(async {
            match rng.u8(..4) {
                0 => drop(writes::delete(&table, key).await),
                1 => drop(writes::update(&table, &Update::random(rng, &key)).await),
                _ => drop(writes::put(&table, &items::item(rng, table.keys, number)).await),
            }
        });
    };
    (0..WRITES / 2).for_each(|_| write(&mut rng));
    copy::apply_in(&here, &bridge, name, name, target, &[]);
    (0..WRITES / 2).for_each(|_| write(&mut rng));
    copy::assert_equal(name, target);
    copy::end(&bridge, &[target]);
}
