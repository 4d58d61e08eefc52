//! The dates of Kinesis' responses, as they come in.

use std::sync::Arc;
use std::time::Instant;

use aws_sdk_kinesis::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use aws_smithy_types::date_time::Format;

use domain::kinesis_time::KinesisTime;

/// Records the date of each response that is not an error: errors may come from something in
/// between.
#[derive(Clone, Debug)]
pub(super) struct Dates(Arc<KinesisTime>);

impl Dates {
    pub(super) fn new(time: Arc<KinesisTime>) -> Dates {
        Dates(time)
    }

    /// Notes the date of a response to a request that was sent then.
    pub(super) fn answered(&self, response: &HttpResponse, sent: Option<Instant>) {
        let date = response.headers().get("date").filter(|_| response.status().is_success());
        let date = date.and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
        if let Some(ms) = date.and_then(|date| date.to_millis().ok()) {
            let received = Instant::now();
            self.0.answered(ms, sent.unwrap_or(received), received);
        }
    }
}

/// When an attempt was sent.
#[derive(Debug)]
struct Sent(Instant);

impl Storable for Sent {
    type Storer = StoreReplace<Sent>;
}

impl Intercept for Dates {
    fn name(&self) -> &'static str {
        "Dates"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(Sent(Instant::now()));
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.answered(context.response(), bag.load::<Sent>().map(|sent| sent.0));
        Ok(())
    }
}
