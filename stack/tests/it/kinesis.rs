use std::collections::BTreeSet;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{ConsumerStatus, ShardIteratorType, StartingPosition};
use stack::load::{create_stream, order, put_orders, put_records};
use stack::{Kinesis, KinesisOptions, kinesis_client};

#[tokio::test]
async fn what_was_put_is_read_back() {
    let kinesis = Kinesis::start(&KinesisOptions::default()).expect("Kinesis");
    let client = kinesis_client(&kinesis.endpoint()).await;
    create_stream(&client, "orders", 4).await.expect("a stream");
    let stats = put_orders(&client, "orders", 5, 1234).await.expect("orders");
    assert_eq!((stats.records, stats.calls, stats.retried), (1234, 3, 0));
    let got: BTreeSet<String> = read_all(&client, "orders").await.into_iter().collect();
    let want: BTreeSet<String> = (5..5 + 1234).map(order).collect();
    assert!(got == want, "{} of {} records came back", got.len(), want.len());
}

#[tokio::test]
async fn the_largest_call_is_taken_whole() {
    let kinesis = Kinesis::start(&KinesisOptions::default()).expect("Kinesis");
    let client = kinesis_client(&kinesis.endpoint()).await;
    create_stream(&client, "large", 2).await.expect("a stream");
    // AWS has accepted 10 MiB since 2025; the emulator's own check still says 5 MiB, including
    // keys.
    let mebibyte = vec![b'x'; 1024 * 1024 - 10];
    let records = (0..5).map(|number| (format!("key-{number}"), mebibyte.clone()));
    let stats = put_records(&client, "large", records).await.expect("5 MiB in one call");
    assert_eq!((stats.records, stats.calls), (5, 1));
}

#[tokio::test]
async fn a_state_folder_keeps_records_over_a_kill() {
    let dir = crate::folder();
    let options = KinesisOptions { state_dir: Some(dir.path().to_path_buf()), ..KinesisOptions::default() };
    let kinesis = Kinesis::start(&options).expect("Kinesis");
    let endpoint = kinesis.endpoint();
    let client = kinesis_client(&endpoint).await;
    create_stream(&client, "kept", 1).await.expect("a stream");
    put_orders(&client, "kept", 0, 10).await.expect("orders");
    kinesis.restart().expect("a restart");
    assert_eq!(kinesis.endpoint(), endpoint);
    assert_eq!(read_all(&client, "kept").await.len(), 10);
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_told() {
    let kinesis = Kinesis::start(&KinesisOptions::default()).expect("Kinesis");
    let client = kinesis_client(&kinesis.endpoint()).await;
    create_stream(&client, "pushed", 1).await.expect("a stream");
    put_orders(&client, "pushed", 0, 5).await.expect("orders");
    let consumer = consumer(&client, "pushed").await;
    let mut all = subscribe(&client, &consumer, ShardIteratorType::TrimHorizon, None).await;
    let (texts, numbers) = pushed(&mut all, 5).await;
    assert_eq!(texts, (0..5).map(order).collect::<Vec<_>>());
    let mut at = subscribe(&client, &consumer, ShardIteratorType::AtSequenceNumber, Some(&numbers[3])).await;
    assert_eq!(pushed(&mut at, 2).await.1, numbers[3..]);
    let mut after = subscribe(&client, &consumer, ShardIteratorType::AfterSequenceNumber, Some(&numbers[3])).await;
    assert_eq!(pushed(&mut after, 1).await.1, numbers[4..]);
    let mut latest = subscribe(&client, &consumer, ShardIteratorType::Latest, None).await;
    assert_eq!(pushed(&mut latest, 0).await.1, [""; 0]);
    // All of them continue.
    put_orders(&client, "pushed", 5, 1).await.expect("an order");
    for events in [&mut all, &mut at, &mut after, &mut latest] {
        assert_eq!(pushed(events, 1).await.0, [order(5)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_readers_and_writers_do_not_lock_each_other_out() {
    const ORDERS: u64 = 4_000;
    let kinesis = Kinesis::start(&KinesisOptions::default()).expect("Kinesis");
    let client = kinesis_client(&kinesis.endpoint()).await;
    create_stream(&client, "busy", 1).await.expect("a stream");
    let consumer = consumer(&client, "busy").await;
    let subscribers: Vec<_> = (0..4)
        .map(|_| {
            let (client, consumer) = (client.clone(), consumer.clone());
            tokio::spawn(async move {
                let mut events = subscribe(&client, &consumer, ShardIteratorType::TrimHorizon, None).await;
                pushed(&mut events, ORDERS as usize).await.0.len()
            })
        })
        .collect();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for call in 0..ORDERS / 4 / 20 {
                    put_orders(&client, "busy", writer * 1_000 + call * 20, 20).await.expect("orders");
                    read_all(&client, "busy").await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    for subscriber in subscribers {
        assert_eq!(subscriber.await.expect("a subscriber"), ORDERS as usize);
    }
}

type Events = SubscribeToShardOutput;

/// Registers a consumer and waits until it is active.
async fn consumer(client: &Client, stream: &str) -> String {
    let summary = client.describe_stream_summary().stream_name(stream).send().await.expect("a stream");
    let arn = summary.stream_description_summary.expect("a summary").stream_arn;
    client.register_stream_consumer().stream_arn(&arn).consumer_name("reader").send().await.expect("a consumer");
    loop {
        let described = client.describe_stream_consumer().stream_arn(&arn).consumer_name("reader").send().await;
        let consumer = described.expect("a consumer").consumer_description.expect("a description");
        if consumer.consumer_status == ConsumerStatus::Active {
            return consumer.consumer_arn;
        }
    }
}

async fn subscribe(client: &Client, consumer: &str, from: ShardIteratorType, number: Option<&str>) -> Events {
    let position = StartingPosition::builder().r#type(from).set_sequence_number(number.map(String::from));
    let call = client.subscribe_to_shard().consumer_arn(consumer).shard_id("shardId-000000000000");
    call.starting_position(position.build().expect("a position")).send().await.expect("a subscription")
}

/// Reads one event, and more until there are this many records: their data and sequence numbers.
async fn pushed(events: &mut Events, enough: usize) -> (Vec<String>, Vec<String>) {
    let (mut texts, mut numbers) = (Vec::new(), Vec::new());
    loop {
        let event = events.event_stream.recv().await.expect("an event").expect("no end");
        let event = event.as_subscribe_to_shard_event().expect("records");
        for record in event.records() {
            texts.push(String::from_utf8(record.data().as_ref().to_vec()).expect("text"));
            numbers.push(record.sequence_number().to_owned());
        }
        if texts.len() >= enough {
            return (texts, numbers);
        }
    }
}

async fn read_all(client: &Client, stream: &str) -> Vec<String> {
    let shards = client.list_shards().stream_name(stream).send().await.expect("shards");
    let mut records = Vec::new();
    for shard in shards.shards() {
        let first = client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(shard.shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut next = first.send().await.expect("an iterator").shard_iterator;
        while let Some(iterator) = next {
            let page = client.get_records().shard_iterator(iterator).send().await.expect("records");
            let texts =
                page.records().iter().map(|record| String::from_utf8(record.data().as_ref().to_vec()).expect("text"));
            records.extend(texts);
            next = (!page.records().is_empty()).then_some(page.next_shard_iterator).flatten();
        }
    }
    records
}
