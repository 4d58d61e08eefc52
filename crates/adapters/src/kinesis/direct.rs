//! Where our decoding replaces the SDK's: at the deserializer that it keeps for each call. Signing,
//! endpoints, connections, timeouts and errors stay the SDK's, and so does any response that ours
//! does not know.

use std::fmt::{Debug, Formatter, Result as Formatted};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_kinesis::config::interceptors::BeforeSerializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimePlugin};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsOutput};
use aws_smithy_runtime_api::client::interceptors::context::{Output, OutputOrError};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::config_bag::{FrozenLayer, Layer};

use super::wire::{Decoded, decode_json};

/// Makes [`Direct`]s.
#[derive(Debug)]
pub(super) struct Decoding(FrozenLayer);

impl Decoding {
    /// Asks the SDK for its own deserializer.
    pub(super) fn new() -> Decoding {
        Decoding(GetRecords::new().config().unwrap_or_else(|| Layer::new("GetRecords").freeze()))
    }

    /// For one call.
    pub(super) fn one(&self) -> Direct {
        Direct { sdk: self.0.clone(), decoded: Arc::default() }
    }
}

/// Decodes the response of one GetRecords call.
#[derive(Clone)]
pub(super) struct Direct {
    sdk: FrozenLayer,
    decoded: Arc<Mutex<Option<Decoded>>>,
}

impl Direct {
    fn decoded(&self) -> MutexGuard<'_, Option<Decoded>> {
        self.decoded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was decoded; `None` if the SDK decoded it.
    pub(super) fn take(&self) -> Option<Decoded> {
        self.decoded().take()
    }
}

impl Debug for Direct {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        f.write_str("Direct")
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
        if self.sdk.load::<SharedResponseDeserializer>().is_some() {
            bag.interceptor_state().store_put(SharedResponseDeserializer::new(self.clone()));
        }
        Ok(())
    }
}

impl DeserializeResponse for Direct {
    fn deserialize_nonstreaming_with_config(&self, response: &HttpResponse, bag: &ConfigBag) -> OutputOrError {
        let body = response.body().bytes().filter(|_| response.status().is_success());
        let empty = || GetRecordsOutput::builder().set_records(Some(Vec::new())).build().ok();
        if let Some((decoded, empty)) = body.and_then(decode_json).zip(empty()) {
            *self.decoded() = Some(decoded);
            return Ok(Output::erase(empty));
        }
        match self.sdk.load::<SharedResponseDeserializer>() {
            Some(sdk) => sdk.deserialize_nonstreaming_with_config(response, bag),
            None => Err(OrchestratorError::other("the SDK has no deserializer for GetRecords")),
        }
    }
}
