//! The adapter from `FanOutApi` to aws-sdk-kinesis.

use async_trait::async_trait;
use aws_sdk_kinesis::types::{ConsumerStatus, StartingPosition};
use prometheus::IntCounterVec;

use super::client::AwsKinesis;
use super::convert::position;
use super::error::{Subject, checked, classify, counted};
use super::events::{Direct, Messages};
use super::wire::Decoded;
use crate::aws::Access;
use domain::error::Error;
use domain::limits::MAX_CONSUMERS_PER_STREAM;
use domain::names::{ShardId, StreamName};
use domain::ports::{Consumer, Event, FanOutApi, IteratorStart, KinesisError, Stream, Subscription};
use domain::sequence::SequenceNumber;

#[async_trait]
impl FanOutApi for AwsKinesis {
    async fn consumer(&self, stream: &Stream, name: &str) -> Result<Option<Consumer>, Error> {
        let call = self.control.describe_stream_consumer().stream_arn(&stream.arn).consumer_name(name);
        let found = match checked!(self, "DescribeStreamConsumer", &stream.name, "", call.send()) {
            Err(KinesisError::Other(Error::NotFound(_))) => return Ok(None),
            answered => answered?.consumer_description,
        };
        Ok(found.map(|c| Consumer { arn: c.consumer_arn, active: c.consumer_status == ConsumerStatus::Active }))
    }

    async fn register(&self, stream: &Stream, name: &str) -> Result<(), Error> {
        let call = self.control.register_stream_consumer().stream_arn(&stream.arn).consumer_name(name);
        match checked!(self, "RegisterStreamConsumer", &stream.name, "", call.send()) {
            // Another worker of the pipe was faster.
            Ok(_) | Err(KinesisError::InUse(_)) => Ok(()),
            Err(KinesisError::LimitExceeded(_)) => Err(Error::BadRequest(format!(
                "stream '{}' cannot have another consumer (LimitExceededException), so '{name}' cannot be registered: a stream may have \
                 {MAX_CONSUMERS_PER_STREAM}, at most 5 of them in creation at a time; deregister one, or read with mode=polling",
                stream.name
            ))),
            Err(other) => Err(other.into()),
        }
    }

    async fn deregister(&self, stream: &Stream, name: &str) -> Result<(), Error> {
        let call = self.control.deregister_stream_consumer().stream_arn(&stream.arn).consumer_name(name);
        match checked!(self, "DeregisterStreamConsumer", &stream.name, "", call.send()) {
            Ok(_) | Err(KinesisError::Other(Error::NotFound(_))) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    async fn subscribe(
        &self,
        stream: &StreamName,
        consumer_arn: &str,
        shard_id: &ShardId,
        start: &IteratorStart,
    ) -> Result<Box<dyn Subscription>, KinesisError> {
        let position = starting_position(start).map_err(KinesisError::Other)?;
        let call = self.subscriber.client().subscribe_to_shard().consumer_arn(consumer_arn).shard_id(shard_id.as_str());
        let direct = Direct::new();
        let sent = call.starting_position(position).customize().interceptor(direct.clone()).send();
        let sent = checked!(self, "SubscribeToShard", stream, shard_id, sent);
        let messages = || {
            direct.take().ok_or_else(|| KinesisError::Other(Error::Internal("SubscribeToShard has no events".into())))
        };
        match sent.and_then(|_| messages()) {
            Ok(messages) => Ok(Box::new(AwsSubscription {
                messages,
                access: self.access.clone(),
                stream: stream.clone(),
                shard_id: shard_id.clone(),
                errors: self.errors.clone(),
            })),
            Err(KinesisError::Other(Error::NotFound(why))) => Err(KinesisError::NoConsumer(format!(
                "the consumer {consumer_arn} is no longer registered, or its shard is gone ({why})"
            ))),
            Err(other) => Err(other),
        }
    }

    fn distrust_connections(&self) {
        self.subscriber.renew();
    }
}

fn starting_position(start: &IteratorStart) -> Result<StartingPosition, Error> {
    let (kind, sequence, at) = position(start);
    let position = StartingPosition::builder().r#type(kind).set_sequence_number(sequence).set_timestamp(at);
    position.build().map_err(|e| Error::Internal(format!("the position to subscribe at is incomplete: {e}")))
}

/// The SubscribeToShard response as it comes in.
struct AwsSubscription {
    messages: Messages,
    access: Access,
    stream: StreamName,
    shard_id: ShardId,
    errors: IntCounterVec,
}

#[async_trait]
impl Subscription for AwsSubscription {
    async fn next(&mut self) -> Result<Option<Event>, KinesisError> {
        match self.messages.next().await {
            Ok(Some(event)) => self.event(event).map(Some).map_err(KinesisError::Other),
            Ok(None) => Ok(None),
            Err(error) => {
                let (call, stream, shard) = ("SubscribeToShard", self.stream.as_str(), self.shard_id.as_str());
                let error = classify(&Subject { call, access: &self.access, stream, shard }, error);
                Err(counted(&self.errors, call, error))
            }
        }
    }
}

impl AwsSubscription {
    fn event(&self, event: Decoded) -> Result<Event, Error> {
        // AWS omits the number at the end. Emulators report children as soon as the shard is
        // closed; then an event without records is the end.
        let resume = event.resume.unwrap_or_default();
        let ended = resume.is_empty() || !event.children.is_empty() && event.records.is_empty();
        let continuation = match ended {
            true => None,
            false => Some(SequenceNumber::parse(&resume).ok_or_else(|| {
                Error::Unavailable(format!(
                    "an event of SubscribeToShard of shard {}, stream '{}', continues at a position that is not a decimal number",
                    self.shard_id, self.stream
                ))
            })?),
        };
        Ok(Event {
            records: event.records,
            continuation,
            millis_behind_latest: event.millis_behind_latest,
            children: event.children,
        })
    }
}
