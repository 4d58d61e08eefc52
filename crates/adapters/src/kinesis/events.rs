//! The events of SubscribeToShard. The SDK takes the stream apart into messages; ours decodes those
//! that bring records, and the SDK all others, as if each were a stream of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_kinesis::config::interceptors::BeforeSerializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept};
use aws_sdk_kinesis::error::{BoxError, SdkError};
use aws_sdk_kinesis::operation::subscribe_to_shard::{SubscribeToShard, SubscribeToShardOutput};
use aws_sdk_kinesis::types::SubscribeToShardEventStream;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_smithy_eventstream::error::Error as FrameError;
use aws_smithy_eventstream::frame::{UnmarshallMessage, UnmarshalledMessage, write_message_to};
use aws_smithy_http::event_stream::Receiver;
use aws_smithy_runtime_api::client::interceptors::context::OutputOrError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_schema::protocol::SharedClientProtocol;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::event_stream::{Message, RawMessage};

use super::sdk::Sdk;
use super::wire::{Decoded, decode_json};

/// What went wrong while events came in.
type Failed = SdkError<SubscribeToShardEventStreamError, RawMessage>;

/// The messages of a response as they come in.
#[derive(Debug)]
pub(super) struct Messages {
    receiver: Receiver<Message, SubscribeToShardEventStreamError>,
    sdk: Sdk,
    protocol: SharedClientProtocol,
}

impl Messages {
    /// The next event with records or without; `None` when the response has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Decoded>, Failed> {
        while let Some(message) = self.receiver.recv().await? {
            let decoded = Some(&message).filter(|message| brings_records(message)).map(Message::payload);
            if let Some(decoded) = decoded.and_then(|payload| decode_json(payload)) {
                return Ok(Some(decoded));
            }
            let mut alone = self.alone(&message).map_err(SdkError::construction_failure)?;
            // Other events are unknown to this version of the SDK.
            if let Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) = alone.event_stream.recv().await? {
                return Decoded::of_event(event)
                    .map(Some)
                    .ok_or_else(|| SdkError::construction_failure("an event has more than 4 GiB"));
            }
        }
        Ok(None)
    }

    /// A response that consists of one message, as the SDK reads it.
    fn alone(&self, message: &Message) -> Result<SubscribeToShardOutput, String> {
        let (mut body, mut layer) = (Vec::new(), Layer::new("protocol"));
        layer.store_put(self.protocol.clone());
        write_message_to(message, &mut body).map_err(|error| error.to_string())?;
        let status = StatusCode::try_from(200).map_err(|error| error.to_string())?;
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        let output = read_by(&self.sdk, &mut response, &ConfigBag::of_layers(vec![layer]));
        let output = output.and_then(Result::ok).and_then(|output| output.downcast().ok());
        output.ok_or_else(|| "the SDK cannot read an event".to_owned())
    }
}

fn brings_records(message: &Message) -> bool {
    let event = message.headers().iter().find(|header| header.name().as_str() == ":event-type");
    let event = event.and_then(|header| header.value().as_string().ok());
    event.is_some_and(|event| event.as_str() == "SubscribeToShardEvent")
}

fn read_by(sdk: &Sdk, response: &mut HttpResponse, bag: &ConfigBag) -> Option<OutputOrError> {
    match sdk.deserializer() {
        Ok(deserializer) => deserializer.deserialize_streaming_with_config(response, bag),
        Err(none) => Some(Err(none)),
    }
}

/// Passes messages on as they come.
#[derive(Debug)]
struct AsTheyCome;

impl UnmarshallMessage for AsTheyCome {
    type Output = Message;
    type Error = SubscribeToShardEventStreamError;

    fn unmarshall(
        &self,
        message: &Message,
    ) -> Result<UnmarshalledMessage<Message, SubscribeToShardEventStreamError>, FrameError> {
        Ok(UnmarshalledMessage::Event(message.clone()))
    }
}

/// Takes the messages out of the response to one call. Given to the call as an interceptor.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    sdk: Sdk,
    taken: Arc<Mutex<Option<Messages>>>,
}

impl Direct {
    /// For one call.
    pub(super) fn new() -> Direct {
        Direct { sdk: Sdk::of(&SubscribeToShard::new()), taken: Arc::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Option<Messages>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was taken; `None` if the SDK has all of it.
    pub(super) fn take(&self) -> Option<Messages> {
        self.taken().take()
    }
}

impl Intercept for Direct {
    fn name(&self) -> &'static str {
        "Direct"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(SharedResponseDeserializer::new(self.clone()));
        Ok(())
    }
}

impl DeserializeResponse for Direct {
    fn deserialize_streaming_with_config(&self, response: &mut HttpResponse, bag: &ConfigBag) -> Option<OutputOrError> {
        let protocol = bag.load::<SharedClientProtocol>().cloned();
        if let Some(protocol) = protocol.filter(|_| response.status().is_success()) {
            let body = std::mem::replace(response.body_mut(), SdkBody::empty());
            let receiver = Receiver::new(AsTheyCome, body);
            *self.taken() = Some(Messages { receiver, sdk: self.sdk.clone(), protocol });
        }
        read_by(&self.sdk, response, bag)
    }

    fn deserialize_nonstreaming_with_config(&self, response: &HttpResponse, bag: &ConfigBag) -> OutputOrError {
        self.sdk.deserializer()?.deserialize_nonstreaming_with_config(response, bag)
    }
}
