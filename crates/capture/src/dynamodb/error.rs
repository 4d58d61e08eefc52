//! From an SDK error to one sentence for a person.

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Says what a failed call about a table means, and what to do. Holds no credentials.
pub(super) fn explain<E, R>(call: &str, table: &str, region: Option<&str>, error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let Some(region) = region else {
        // Whatever the SDK stumbles over first, nothing goes without a region.
        return format!("no AWS region is configured for {call}: set AWS_REGION");
    };
    let thing = format!("DynamoDB table '{table}' in region {region}");
    let SdkError::ServiceError(service) = error else {
        // The chain of causes holds what matters: refused, no such host, no credentials.
        let causes = DisplayErrorContext(error).to_string();
        let lower = causes.to_lowercase();
        if lower.contains("credential") || lower.contains("identity") {
            return format!(
                "there are no AWS credentials for {thing}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
            );
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        return format!("{call} on {thing} did not reach DynamoDB: {cause}");
    };
    let (code, message) = (service.err().code().unwrap_or("unknown"), service.err().message().unwrap_or(""));
    match code {
        "ResourceNotFoundException" => format!(
            "{thing} does not exist: check the name, the region (AWS_REGION) and the account ({call}: {message})"
        ),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationTokenException" => format!(
            "AWS does not accept the credentials for {thing} ({code}): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that the region is theirs"
        ),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => format!(
            "the AWS credentials for {thing} have expired ({code}): renew them, or use a role that renews itself"
        ),
        "AccessDeniedException" => {
            format!("AWS does not allow {call} on {thing} ({code}): the policy must allow dynamodb:{call} ({message})")
        }
        _ => format!("{call} on {thing} failed with {code}: {message}"),
    }
}
