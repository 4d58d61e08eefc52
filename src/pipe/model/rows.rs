//! Positions within a record: batches that end there, crashes, and views that take records apart in another way meanwhile.

use super::rules::{MEMORY, a_moment};
use super::world::{Ending, WIDE, World, options};
use crate::domain::batch::Limits;
use crate::domain::unpacking::{Split, Unpacking};
use crate::pipe::PullOptions;
use crate::unpack::tests::aggregate;

fn few(max_rows: usize, split: Split) -> PullOptions {
    let unpacking = Unpacking { split, ..Unpacking::default() };
    let plain = options(Limits { max_rows, ..WIDE });
    PullOptions { shape: format!("{} {unpacking}", plain.shape).trim_end().into(), unpacking, ..plain }
}

/// Each bridge serves one batch, which ends somewhere in a record, and dies before or after the insert; the next one begins with what it left.
#[tokio::test(start_paused = true)]
async fn exact_to_the_row() {
    let world = World::calm(2);
    for shard in world.kinesis.open_shards() {
        for rows in [1, 7, 3] {
            let user_records: Vec<_> =
                (0..rows).map(|n| (shard.clone(), format!("{shard}-{n}").into_bytes())).collect();
            world.kinesis.put_payload(&shard, &aggregate(&user_records), rows);
            world.kinesis.put(&shard, 1);
        }
    }
    let server = world.server();
    for (n, ending) in [Ending::BridgeCrash, Ending::BridgeCrashAfter, Ending::Success].into_iter().cycle().enumerate()
    {
        let process = world.process("worker", &server, MEMORY);
        let served = world.refresh(&process, &server, &few(1 + n % 4, Split::None), ending).await.unwrap();
        a_moment().await;
        drop(process);
        if world.settled().await {
            break;
        }
        assert!(n < 60, "{served:?} is served again and again");
    }
    world.judge().unwrap();
}

/// A record of five lines is begun as lines; the view is altered, and the rest of it still comes as lines, also by a bridge that recovers
/// a part of it. What follows is read as the view has it now.
#[tokio::test(start_paused = true)]
async fn a_record_goes_on_as_it_was_begun() {
    let world = World::calm(1);
    let (shard, server) = (world.kinesis.open_shards().remove(0), world.server());
    let process = world.process("worker", &server, MEMORY);
    world.kinesis.put_payload(&shard, b"a\nb\nc\nd\ne", 5);
    world.kinesis.put_payload(&shard, b"x\ny", 1);
    world.refresh(&process, &server, &few(2, Split::Lines), Ending::Success).await.unwrap();
    a_moment().await;
    let whole = few(2, Split::None);
    world.refresh(&process, &server, &whole, Ending::BridgeCrashAfter).await.unwrap();
    drop(process);
    let next = world.process("worker", &server, MEMORY);
    world.refresh(&next, &server, &whole, Ending::Success).await.unwrap();
    a_moment().await;
    let lease = world.lease(&shard).await;
    assert_eq!((lease.checkpoint.sub_sequence(), lease.unpacking.map(|u| u.split)), (3, Some(Split::Lines)));
    assert!(world.drain(&next, &server, &whole).await);
    assert_eq!(world.lease(&shard).await.unpacking, Some(Unpacking::default()));
    world.judge().unwrap();
}
