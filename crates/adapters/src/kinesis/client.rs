//! The adapter from `KinesisApi` to aws-sdk-kinesis.

use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::StreamDescriptionSummary;
use prometheus::IntCounterVec;

use super::convert::{position, shard};
use super::dates::Dates;
use super::error::{Subject, checked, classify, counted};
use super::pages::{Pages, taking};
use super::shortcut::{Failed, Shortcut};
use super::subscriber::Subscriber;
use super::wire::Decoded;
use crate::aws::Access;
use domain::error::Error;
use domain::kinesis_time::KinesisTime;
use domain::limits::{
    GET_RECORDS_TIMEOUT, KINESIS_ATTEMPT_TIMEOUT, KINESIS_CALL_TIMEOUT, LIST_SHARDS_PAGE, MAX_SHARDS_PER_STREAM,
    MAX_STREAMS,
};
use domain::names::{ShardId, StreamName};
use domain::ports::{IteratorStart, KinesisApi, KinesisError, Page, Stream};
use domain::shard::Shard;

/// Kinesis in one account and region.
pub struct AwsKinesis {
    /// For calls that the SDK may retry by itself.
    pub(super) control: Client,
    /// For GetRecords: a reader does its own pacing and retries, so that throttling is seen and
    /// counted.
    data: Client,
    pages: Pages,
    shortcut: Shortcut,
    dates: Dates,
    /// For SubscribeToShard.
    pub(super) subscriber: Subscriber,
    pub(super) access: Access,
    /// Kinesis' clock.
    time: Arc<KinesisTime>,
    pub(super) errors: IntCounterVec,
}

impl AwsKinesis {
    /// Takes region, credentials, roles and endpoint from the environment. `errors` counts failed
    /// calls by `call` and `kind`.
    pub async fn from_environment(errors: IntCounterVec) -> Result<AwsKinesis, Error> {
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(KINESIS_CALL_TIMEOUT)
            .operation_attempt_timeout(KINESIS_ATTEMPT_TIMEOUT)
            .build();
        let access = Access::from_environment(timeouts).await?;
        let time = Arc::<KinesisTime>::default();
        let dates = Dates::new(time.clone());
        let config = Builder::from(access.sdk()).interceptor(dates.clone());
        // Judged by progress: the response must begin in time, and the SDK watches that it goes on.
        let progress = TimeoutConfig::builder()
            .operation_timeout(GET_RECORDS_TIMEOUT)
            .operation_attempt_timeout(GET_RECORDS_TIMEOUT)
            .read_timeout(KINESIS_ATTEMPT_TIMEOUT)
            .build();
        let data = config
            .clone()
            .http_client(access.http_client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(progress);
        // The variable of AWS's Java SDK.
        let json = std::env::var("CBOR_ENABLED").is_ok_and(|set| set.eq_ignore_ascii_case("false"));
        let (pages, shortcut) = (Pages::new(json, errors.clone()), Shortcut::default());
        let data = data.interceptor(pages.clone()).interceptor(shortcut.clone());
        Ok(AwsKinesis {
            control: Client::from_conf(config.clone().build()),
            data: Client::from_conf(data.build()),
            pages,
            shortcut,
            dates,
            subscriber: Subscriber::new(config, access.clone()),
            time,
            access,
            errors,
        })
    }

    async fn summary(&self, stream: &StreamName) -> Result<StreamDescriptionSummary, Error> {
        let sent = self.control.describe_stream_summary().stream_name(stream.as_str()).send();
        let output = checked!(self, "DescribeStreamSummary", stream, "", sent)?;
        let nothing = || Error::Unavailable(format!("DescribeStreamSummary of stream '{stream}' returned nothing"));
        output.stream_description_summary.ok_or_else(nothing)
    }

    /// One GetRecords call: its output with what was taken out of it.
    async fn ask(&self, iterator: &str, limit: usize) -> (Result<GetRecordsOutput, Failed>, Option<Decoded>) {
        let done = match self.shortcut.route() {
            Some(route) => self.pages.ask(&route, &self.dates, iterator, limit).await,
            None => {
                let limit = limit.try_into().unwrap_or(i32::MAX);
                taking(self.data.get_records().shard_iterator(iterator).limit(limit).send()).await
            }
        };
        if done.0.is_err() {
            self.shortcut.lose();
        }
        done
    }

    pub(super) fn subject<'a>(&'a self, call: &'static str, stream: &'a str, shard: &'a str) -> Subject<'a> {
        Subject { call, access: &self.access, stream, shard }
    }

    pub(super) fn count(&self, call: &str, error: KinesisError) -> KinesisError {
        counted(&self.errors, call, error)
    }
}

#[async_trait]
impl KinesisApi for AwsKinesis {
    fn region(&self) -> &str {
        self.access.region()
    }

    fn now_ms(&self) -> Option<i64> {
        self.time.at(Instant::now())
    }

    async fn streams(&self) -> Result<Vec<Stream>, Error> {
        let mut names: Vec<String> = Vec::new();
        loop {
            // By name, as the API has always supported; Kinesis emulators return no token.
            let call = self.control.list_streams().set_exclusive_start_stream_name(names.last().cloned());
            let page = checked!(self, "ListStreams", "", "", call.send())?;
            let none = page.stream_names.is_empty();
            names.extend(page.stream_names);
            if names.len() >= MAX_STREAMS || none || !page.has_more_streams {
                break;
            }
        }
        let mut streams = Vec::with_capacity(names.len());
        for name in names.into_iter().take(MAX_STREAMS).map(StreamName::from) {
            match self.stream(&name).await {
                Ok(stream) => streams.push(stream),
                // Deleted between the two calls.
                Err(Error::NotFound(_)) => {}
                // A policy may allow only some streams; the others still have a name.
                Err(Error::AccessDenied(_)) => streams.push(Stream {
                    name,
                    arn: String::new(),
                    created_ms: 0,
                    status: "ACCESS_DENIED".into(),
                    mode: String::new(),
                    open_shards: 0,
                    retention_hours: 0,
                }),
                Err(other) => return Err(other),
            }
        }
        Ok(streams)
    }

    async fn stream(&self, stream: &StreamName) -> Result<Stream, Error> {
        let summary = self.summary(stream).await?;
        Ok(Stream {
            name: summary.stream_name.into(),
            arn: summary.stream_arn,
            created_ms: summary.stream_creation_timestamp.to_millis().unwrap_or(0),
            status: summary.stream_status.as_str().to_string(),
            mode: summary
                .stream_mode_details
                .map_or_else(|| "PROVISIONED".into(), |m| m.stream_mode.as_str().to_string()),
            open_shards: summary.open_shard_count,
            retention_hours: summary.retention_period_hours,
        })
    }

    async fn shards(&self, stream: &StreamName) -> Result<Vec<Shard>, Error> {
        let mut shards: Vec<Shard> = Vec::new();
        let mut token: Option<String> = None;
        loop {
            // A request with a token must not name the stream.
            let call = match &token {
                Some(token) => self.control.list_shards().next_token(token),
                None => self.control.list_shards().stream_name(stream.as_str()),
            };
            let page = checked!(self, "ListShards", stream, "", call.max_results(LIST_SHARDS_PAGE).send())?;
            shards.extend(page.shards.unwrap_or_default().into_iter().map(shard));
            token = page.next_token;
            if token.is_none() {
                break;
            }
            if shards.len() >= MAX_SHARDS_PER_STREAM {
                return Err(Error::Unavailable(format!(
                    "stream '{stream}' has more than {MAX_SHARDS_PER_STREAM} shards, which is more than this bridge handles"
                )));
            }
        }
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(shards)
    }

    async fn iterator(
        &self,
        stream: &StreamName,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<String, KinesisError> {
        let call = self.control.get_shard_iterator().stream_name(stream.as_str()).shard_id(shard_id.as_str());
        let (kind, sequence, at) = position(start);
        let call = call.shard_iterator_type(kind).set_starting_sequence_number(sequence).set_timestamp(at);
        let output = checked!(self, "GetShardIterator", stream, shard_id, call.send())?;
        output.shard_iterator.ok_or_else(|| {
            KinesisError::Other(Error::Unavailable(format!(
                "GetShardIterator of shard {shard_id}, stream '{stream}', returned nothing"
            )))
        })
    }

    async fn records(
        &self,
        stream: &StreamName,
        shard_id: &ShardId,
        iterator: &str,
        limit: usize,
    ) -> Result<Page, KinesisError> {
        let in_json = self.pages.in_json();
        let (mut output, mut taken) = self.ask(iterator, limit).await;
        if output.is_err() && self.pages.in_json() && !in_json {
            (output, taken) = self.ask(iterator, limit).await;
        }
        let output = checked!(self, "GetRecords", stream, shard_id, ready(output))?;
        let page = taken.or_else(|| Decoded::of_page(output)).ok_or_else(|| {
            KinesisError::Other(Error::Unavailable(format!(
                "GetRecords of shard {shard_id}, stream '{stream}', returned more than 4 GiB"
            )))
        })?;
        Ok(Page {
            records: page.records,
            next: page.resume,
            millis_behind_latest: page.millis_behind_latest,
            children: page.children,
        })
    }
}
