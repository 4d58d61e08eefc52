//! Where our decoding replaces the SDK's: at the deserializer that it keeps for each call. Signing,
//! endpoints, connections, timeouts and errors stay the SDK's, and so does any response that ours
//! does not know. `pages` does it for GetRecords, `events` for SubscribeToShard.

use aws_sdk_kinesis::config::RuntimePlugin;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::ser_de::SharedResponseDeserializer;
use aws_smithy_types::config_bag::{FrozenLayer, Layer};

/// The SDK's own way to read the responses of one kind of call.
#[derive(Clone, Debug)]
pub(super) struct Sdk(FrozenLayer);

impl Sdk {
    /// Of this operation.
    pub(super) fn of(operation: &impl RuntimePlugin) -> Sdk {
        Sdk(operation.config().unwrap_or_else(|| Layer::new("none").freeze()))
    }

    /// Its deserializer.
    pub(super) fn deserializer(&self) -> Result<&SharedResponseDeserializer, OrchestratorError<BoxedError>> {
        self.0
            .load::<SharedResponseDeserializer>()
            .ok_or_else(|| OrchestratorError::other("the SDK has no deserializer for the response"))
    }
}

/// The error of an operation, as the SDK passes it on.
type BoxedError = aws_smithy_runtime_api::client::interceptors::context::Error;
