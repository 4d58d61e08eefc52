//! Where our decoding replaces the SDK's: at the deserializer that it keeps for each call. Signing,
//! endpoints, connections, timeouts and errors stay the SDK's, and so does any response that ours
//! does not know.

use std::fmt::{Debug, Formatter, Result as Formatted};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_kinesis::config::interceptors::BeforeSerializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimePlugin};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
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

/// Takes a `T` out of the response to one call. Given to the call as an interceptor.
pub(super) struct Direct<T> {
    pub(super) sdk: Sdk,
    taken: Arc<Mutex<Option<T>>>,
}

impl<T> Direct<T> {
    /// For one call.
    pub(super) fn new(sdk: &Sdk) -> Direct<T> {
        Direct { sdk: sdk.clone(), taken: Arc::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Option<T>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was taken.
    pub(super) fn put(&self, taken: T) {
        *self.taken() = Some(taken);
    }

    /// What was taken; `None` if the SDK has all of it.
    pub(super) fn take(&self) -> Option<T> {
        self.taken().take()
    }
}

impl<T> Clone for Direct<T> {
    fn clone(&self) -> Direct<T> {
        Direct { sdk: self.sdk.clone(), taken: self.taken.clone() }
    }
}

impl<T> Debug for Direct<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        f.write_str("Direct")
    }
}

impl<T: Send + 'static> Intercept for Direct<T>
where
    Direct<T>: DeserializeResponse,
{
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
