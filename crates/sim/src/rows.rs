//! Positions within a record: batches that end there, crashes, and views that change how records
//! are unpacked meanwhile.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::rules::{MEMORY, a_moment};
use super::world::{Ending, WIDE, World, options};
use bridge::pipe::PullOptions;
use domain::batch::Limits;
use domain::shape::BatchShape;
use domain::unpacking::{Edition, Split, Unpacking};
use formats::encode::Format;
use testkit::aggregate::aggregate;

fn few(max_rows: usize, split: Split) -> PullOptions {
    by(max_rows, Unpacking { split, ..Unpacking::default() })
}

fn by(max_rows: usize, unpacking: Unpacking) -> PullOptions {
    let shape = BatchShape::new(Format::ArrowStream.name(), unpacking);
    PullOptions { shape, unpacking, ..options(Limits { max_rows, ..WIDE }) }
}

/// Each bridge serves one batch, which ends somewhere in a record, and dies before or after the
/// insert; the next one starts with what is left.
async fn served_in_pieces(split: Split, payload: fn(&str, u32) -> Vec<u8>) {
    let world = World::calm(2);
    for shard in world.kinesis.open_shards() {
        for rows in [1, 7, 3] {
            world.kinesis.put_payload(&shard, &payload(&shard, rows), rows);
            world.kinesis.put(&shard, 1);
        }
    }
    let server = world.server();
    for (n, ending) in [Ending::BridgeCrash, Ending::BridgeCrashAfter, Ending::Success].into_iter().cycle().enumerate()
    {
        let process = world.process("worker", &server, MEMORY);
        let served = world.refresh(&process, &server, &few(1 + n % 4, split), ending).await.unwrap();
        a_moment().await;
        drop(process);
        if world.settled().await {
            break;
        }
        assert!(n < 60, "{served:?} is served again and again");
    }
    world.judge().unwrap();
}

#[tokio::test(start_paused = true)]
async fn exact_to_the_row() {
    let user_records = |shard: &str, rows: u32| {
        aggregate(&(0..rows).map(|n| (shard.into(), format!("{shard}-{n}").into_bytes())).collect::<Vec<_>>())
    };
    served_in_pieces(Split::None, user_records).await;
}

#[tokio::test(start_paused = true)]
async fn exact_to_the_item() {
    let array = |_: &str, rows: u32| format!("[{}0]", "{}, ".repeat(rows as usize - 1)).into_bytes();
    served_in_pieces(Split::Json, array).await;
    let objects = |shard: &str, rows: u32| format!("{{\"s\":\"{shard}\"}}").repeat(rows as usize).into_bytes();
    served_in_pieces(Split::Json, objects).await;
    // Both are inside a user record of an aggregate.
    let inside = |shard: &str, rows: u32| match rows {
        1 => aggregate(&[(shard.into(), b"[[]]".to_vec())]),
        n => aggregate(&[(shard.into(), b"[1]".to_vec()), (shard.into(), "{}\n".repeat(n as usize - 1).into_bytes())]),
    };
    served_in_pieces(Split::Json, inside).await;
}

/// A bridge from before there were editions has left a checkpoint within a record, and a batch open
/// in the next one; both continue with the rows they had, and later records are unpacked the
/// current way.
#[tokio::test(start_paused = true)]
async fn an_upgrade_goes_on_with_the_rows_that_were() {
    let world = World::calm(1);
    let (shard, server) = (world.kinesis.open_shards().remove(0), world.server());
    // Lines for which the first bridge made rows of compressed bytes, because of a line end after
    // them.
    let two = gzip_and_a_line_end(b"a\nb\nc");
    let inside = |n: u32| aggregate(&(0..n).map(|_| ("k".into(), two.clone())).collect::<Vec<_>>());
    world.kinesis.put_payload(&shard, &inside(3), 3);
    world.kinesis.put_payload(&shard, &inside(2), 2);
    world.kinesis.put_payload(&shard, &inside(1), 3);
    let earlier = Unpacking { split: Split::Lines, edition: Edition::First, ..Unpacking::default() };
    let now = Unpacking { edition: Edition::Second, ..earlier };
    let process = world.process("worker", &server, MEMORY);
    world.refresh(&process, &server, &by(2, earlier), Ending::Success).await.unwrap();
    a_moment().await;
    world.refresh(&process, &server, &by(2, earlier), Ending::BridgeCrashAfter).await.unwrap();
    drop(process);
    let next = world.process("worker", &server, MEMORY);
    assert!(world.drain(&next, &server, &by(2, now)).await);
    world.judge().unwrap();
}

fn gzip_and_a_line_end(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(text).unwrap();
    [encoder.finish().unwrap(), b"\n".to_vec()].concat()
}

/// A record of five lines is started as lines; the view is altered, and the rest of it still comes
/// as lines, even from a bridge that recovers part of it. Later records are read as the view has it
/// now.
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
