//! The streams of pipes: whether AWS lets this bridge read them.

use std::collections::BTreeMap;

use adapters::clickhouse::PullingView;
use adapters::kinesis::AwsKinesis;
use bridge::pipe::consumer_name;
use domain::error::Error;
use domain::finding::Finding;
use domain::names::StreamName;
use domain::ports::{FanOutApi, IteratorStart, KinesisApi};

use super::Only;

/// A finding for each stream, and for each pipe that reads by enhanced fan-out.
pub async fn of(kinesis: &AwsKinesis, views: &[&PullingView], only: Only<'_>) -> Vec<Finding> {
    // With the pipes that read it by enhanced fan-out.
    let mut streams: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    if let Some(stream) = only.stream {
        streams.entry(stream.to_owned()).or_default();
    }
    for (pipe, stream, pushed) in views.iter().flat_map(|view| view.streams()).filter(|(pipe, ..)| only.wants(pipe)) {
        let pipes = streams.entry(stream).or_default();
        if pushed && !pipes.contains(&pipe) {
            pipes.push(pipe);
        }
    }
    let mut findings = Vec::new();
    for (stream, pushed) in streams {
        let name = StreamName::from(stream.as_str());
        findings.push(Finding::of(format!("stream '{stream}'"), readable(kinesis, &name).await));
        for pipe in pushed {
            findings
                .push(Finding::of(format!("enhanced fan-out of pipe '{pipe}'"), pushable(kinesis, &name, pipe).await));
        }
    }
    findings
}

async fn readable(kinesis: &AwsKinesis, stream: &StreamName) -> Result<String, Error> {
    let found = kinesis.stream(stream).await?;
    let shards = kinesis.shards(stream).await?;
    let none = || Error::NotFound(format!("stream '{stream}' has no shards yet"));
    let first = shards.first().ok_or_else(none)?;
    let iterator = kinesis.iterator(stream, &first.id, &IteratorStart::Latest).await?;
    kinesis.records(stream, &first.id, &iterator, 1).await?;
    Ok(format!(
        "{}, {}, {} open shards, {} h of retention, readable",
        found.status, found.mode, found.open_shards, found.retention_hours
    ))
}

/// Kinesis has no DryRun: of the rights for fan-out only those are tried that change nothing.
async fn pushable(kinesis: &AwsKinesis, stream: &StreamName, pipe: &str) -> Result<String, Error> {
    let found = kinesis.stream(stream).await?;
    let name = consumer_name(pipe);
    let untried = "SubscribeToShard and DeregisterStreamConsumer are not tried, since they would take effect";
    match kinesis.consumer(&found, &name).await? {
        Some(consumer) => {
            // Registering what is registered already changes nothing.
            kinesis.register(&found, &name).await?;
            let state = if consumer.active { "active" } else { "not active yet" };
            Ok(format!("consumer '{name}' is {state}, and may be registered; {untried}"))
        }
        None => Ok(format!(
            "consumer '{name}' is not registered; the first pull does that. RegisterStreamConsumer, {untried}"
        )),
    }
}
