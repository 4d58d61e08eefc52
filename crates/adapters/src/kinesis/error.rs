//! From an SDK error to what it means: one sentence for the user, or a signal for the reader.

#[cfg(test)]
mod tests;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use chrono::{DateTime, SecondsFormat};
use prometheus::IntCounterVec;

use crate::aws::{Access, Call, failure};
use domain::error::Error;
use domain::ports::KinesisError;

/// Shorthand for `classify` + `count` on every call.
macro_rules! checked {
    ($self:ident, $call:literal, $stream:expr, $shard:expr, $sent:expr) => {
        match $sent.await {
            Ok(output) => Ok(output),
            Err(error) => Err($self.count($call, classify(&$self.subject($call, $stream, $shard), error))),
        }
    };
}
pub(super) use checked;

/// Counts a failed call.
pub(super) fn counted(errors: &IntCounterVec, call: &str, error: KinesisError) -> KinesisError {
    let kind = match &error {
        KinesisError::IteratorExpired => "iterator_expired",
        KinesisError::Throttled(_) | KinesisError::LimitExceeded(_) => "throttled",
        KinesisError::InUse(_) => "in_use",
        KinesisError::NoConsumer(_) => "no_consumer",
        KinesisError::Other(error) => error.code(),
    };
    errors.with_label_values(&[call, kind]).inc();
    error
}

/// What a call was about, for the sentence.
pub struct Subject<'a> {
    /// API name, as AWS spells it.
    pub call: &'static str,
    /// Of the client.
    pub access: &'a Access,
    /// Stream name; empty when the call is about none.
    pub stream: &'a str,
    /// Shard id; empty when the call is about none.
    pub shard: &'a str,
}

impl Subject<'_> {
    fn thing(&self) -> String {
        let region = self.access.region();
        match (self.stream, self.shard) {
            ("", _) => format!("region {region}"),
            (stream, "") => format!("stream '{stream}' in region {region}"),
            (stream, shard) => format!("shard {shard} of stream '{stream}' in region {region}"),
        }
    }
}

/// Sorts a failed call. The SDK's own text is passed on only where it says more than we can, and
/// never holds credentials.
pub fn classify<E, R>(subject: &Subject<'_>, error: SdkError<E, R>) -> KinesisError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let (call, thing) = (subject.call, subject.thing());
    if let SdkError::ServiceError(service) = &error {
        let (code, message) = (service.err().code().unwrap_or("unknown"), service.err().message().unwrap_or(""));
        match code {
            "ExpiredIteratorException" => return KinesisError::IteratorExpired,
            "ProvisionedThroughputExceededException" | "ThrottlingException" | "KMSThrottlingException" => {
                return KinesisError::Throttled(format!(
                    "{call} on {thing} is throttled ({code}): {}",
                    limit_of(call, code)
                ));
            }
            "LimitExceededException" => {
                return KinesisError::LimitExceeded(format!(
                    "{call} on {thing} exceeds AWS's limit of such calls, and is repeated ({code}): {message}"
                ));
            }
            "ResourceInUseException" => {
                return KinesisError::InUse(format!("{call} on {thing} has to wait: {message}"));
            }
            "InvalidArgumentException" | "ValidationException" => {
                return KinesisError::Other(Error::BadRequest(match time_to_come(message) {
                    Some(time) => format!(
                        "{thing} cannot be read from {time} on, which is in the future: a pipe waits until then, unless you seek it to a time \
                         in the past ({call})"
                    ),
                    None => format!("Kinesis refuses {call} on {thing}: {message}"),
                }));
            }
            _ => {}
        }
    }
    let call = Call { access: subject.access, service: "Kinesis", name: call, thing: &thing };
    KinesisError::Other(failure(&call, &error))
}

/// What is used up when a call is throttled.
fn limit_of(call: &str, code: &str) -> &'static str {
    match (code, call) {
        ("KMSThrottlingException", _) => {
            "KMS limits the requests per second, and the stream's key is in KMS; ask AWS for a higher quota"
        }
        (_, "GetRecords") => "other consumers share its 5 calls and 2 MiB per second",
        _ => "AWS's limit of calls per second is reached",
    }
}

/// The time that Kinesis refuses to begin at because it has not come yet.
fn time_to_come(message: &str) -> Option<String> {
    let (_, told) = message.split_once("cannot be greater than the currentTimestampInMillis")?;
    let (_, ms) = told.split_once("timestampInMillis: ")?;
    let ms = ms.split(',').next()?.trim().parse().ok()?;
    Some(DateTime::from_timestamp_millis(ms)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}
