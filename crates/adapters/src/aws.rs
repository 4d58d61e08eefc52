//! What a failed call to AWS means, whichever service it went to.

use std::error::Error as StdError;
use std::fmt::Debug;

use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use domain::error::Error;

/// A call, as its sentence names it.
pub struct Call<'a> {
    /// The service, as AWS writes it: `Kinesis` or `DynamoDB`. In lower case it is its prefix in
    /// policies.
    pub service: &'a str,
    /// The API's name, as AWS spells it.
    pub name: &'a str,
    /// What it was about, with its region.
    pub thing: &'a str,
    /// The region; none when none is configured.
    pub region: Option<&'a str>,
}

/// Sorts a failed call by what all services agree on: one sentence that holds no credentials.
pub fn failure<E, R>(call: &Call<'_>, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: Debug + 'static,
{
    let Call { service, name, thing, .. } = call;
    let SdkError::ServiceError(answer) = error else { return unreached(call, error) };
    let (code, message) = (answer.err().code().unwrap_or("unknown"), answer.err().message().unwrap_or(""));
    match code {
        "ResourceNotFoundException" => Error::NotFound(format!(
            "{thing} does not exist: check the name, the region (AWS_REGION) and the account ({name}: {message})"
        )),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException" => Error::AccessDenied(format!(
            "AWS does not accept the credentials for {thing} ({code}): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that they are for \
             this region"
        )),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => Error::AccessDenied(format!(
            "the AWS credentials for {thing} have expired ({code}): renew them, or use a role"
        )),
        "AccessDeniedException" | "KMSAccessDeniedException" => Error::AccessDenied(format!(
            "AWS does not allow {name} on {thing} ({code}): the policy must allow {}:{name} ({message})",
            service.to_ascii_lowercase()
        )),
        _ => Error::Unavailable(format!("{name} on {thing} failed with {code}: {message}")),
    }
}

fn unreached<E, R>(call: &Call<'_>, error: &SdkError<E, R>) -> Error
where
    E: StdError + 'static,
    R: Debug + 'static,
{
    let Call { service, name, thing, region } = call;
    if region.is_none() {
        // Whatever the SDK stumbles over first, nothing works without a region.
        return Error::AccessDenied(format!("no AWS region is configured for {name}: set AWS_REGION"));
    }
    // The chain of causes holds what matters: refused, no such host, no credentials.
    let causes = DisplayErrorContext(error).to_string().to_lowercase();
    if causes.contains("credential") || causes.contains("identity") {
        return Error::AccessDenied(format!(
            "there are no AWS credentials for {thing}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
        ));
    }
    let why = match error {
        SdkError::TimeoutError(_) => "it timed out".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "it timed out".to_owned(),
        _ => innermost(error),
    };
    Error::Unavailable(format!("{name} on {thing} did not reach {service}: {why}"))
}

/// The last cause in the chain, which is the one that names the fault.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
