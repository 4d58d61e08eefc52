//! From an SDK error to what it means: one sentence for a person, or a signal for the reader.

use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use chrono::{DateTime, SecondsFormat};

use domain::error::Error;
use domain::ports::KinesisError;

/// Stands for the region when none is configured.
pub const NO_REGION: &str = "(none)";

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

/// What a call was about, for the sentence.
pub struct Subject<'a> {
    /// API name, as AWS spells it.
    pub call: &'static str,
    /// Region of the client.
    pub region: &'a str,
    /// Stream name; empty when the call is about none.
    pub stream: &'a str,
    /// Shard id; empty when the call is about none.
    pub shard: &'a str,
}

impl Subject<'_> {
    fn thing(&self) -> String {
        match (self.stream, self.shard) {
            ("", _) => format!("region {}", self.region),
            (stream, "") => format!("stream '{stream}' in region {}", self.region),
            (stream, shard) => format!("shard {shard} of stream '{stream}' in region {}", self.region),
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
    let SdkError::ServiceError(service) = &error else {
        return KinesisError::Other(not_reached(subject, &error));
    };
    let (code, message) = (service.err().code().unwrap_or("unknown"), service.err().message().unwrap_or(""));
    KinesisError::Other(match code {
        "ExpiredIteratorException" => return KinesisError::IteratorExpired,
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "KMSThrottlingException" => {
            return KinesisError::Throttled(format!(
                "{call} on {thing} is throttled ({code}): other consumers share its 5 calls and 2 MiB a second"
            ));
        }
        "ResourceInUseException" => return KinesisError::InUse(format!("{call} on {thing} has to wait: {message}")),
        "ResourceNotFoundException" => Error::NotFound(format!(
            "{thing} does not exist: check the name, the region (AWS_REGION) and the account ({call}: {message})"
        )),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException" => Error::AccessDenied(format!(
            "AWS does not accept the credentials for {thing} ({code}): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that the region is theirs"
        )),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => Error::AccessDenied(format!(
            "the AWS credentials for {thing} have expired ({code}): renew them, or use a role that renews itself"
        )),
        "AccessDeniedException" | "KMSAccessDeniedException" => Error::AccessDenied(format!(
            "AWS does not allow {call} on {thing} ({code}): the policy must allow kinesis:{call} ({message})"
        )),
        "InvalidArgumentException" | "ValidationException" => Error::BadRequest(match time_to_come(message) {
            Some(time) => format!(
                "{thing} cannot be read from {time} on, which is in the future: a pipe waits until then, or seek it to a time that has passed ({call})"
            ),
            None => format!("Kinesis refuses {call} on {thing}: {message}"),
        }),
        _ => Error::Unavailable(format!("{call} on {thing} failed with {code}: {message}")),
    })
}

/// The time that Kinesis refuses to begin at because it has not come yet.
fn time_to_come(message: &str) -> Option<String> {
    let (_, told) = message.split_once("cannot be greater than the currentTimestampInMillis")?;
    let (_, ms) = told.split_once("timestampInMillis: ")?;
    let ms = ms.split(',').next()?.trim().parse().ok()?;
    Some(DateTime::from_timestamp_millis(ms)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn not_reached<E, R>(subject: &Subject<'_>, error: &SdkError<E, R>) -> Error
where
    E: std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let (call, thing) = (subject.call, subject.thing());
    if subject.region == NO_REGION {
        // Whatever the SDK stumbles over first, nothing goes without a region.
        return Error::AccessDenied(format!("no AWS region is configured for {call}: set AWS_REGION"));
    }
    // The chain of causes holds what matters: refused, no such host, no credentials, no region.
    let causes = format!("{}", DisplayErrorContext(error));
    let lower = causes.to_lowercase();
    if lower.contains("credential") || lower.contains("identity") {
        return Error::AccessDenied(format!(
            "there are no AWS credentials for {thing}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
        ));
    }
    let why = match error {
        SdkError::TimeoutError(_) => "it timed out".to_string(),
        _ => innermost(error),
    };
    Error::Unavailable(format!("{call} on {thing} did not reach Kinesis: {why}"))
}

/// The last cause in the chain, which is the one that names the fault.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
