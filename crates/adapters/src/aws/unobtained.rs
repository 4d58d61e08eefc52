//! Why there are no credentials.

use std::error::Error as StdError;
use std::io;

use aws_config::meta::ProviderChainError;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_types::error::ErrorMetadata;

use super::chain::{find, innermost};
use super::https::Unreached;
use domain::error::Error;

/// What STS and the others answer when they cannot say now.
const PASSING: [&str; 8] = [
    "IDPCommunicationError",
    "InternalError",
    "InternalFailure",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// One sentence about credentials for `thing` that could not be obtained.
pub(super) fn explain(thing: &str, error: &CredentialsError) -> Error {
    if matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
        return Error::AccessDenied(none(thing, error));
    }
    if let Some(unreached) = find::<Unreached>(error) {
        let (place, why) = (unreached.place(), unreached.why());
        return Error::Unavailable(format!(
            "the AWS credentials for {thing} could not be obtained: {place} was not reached: {why}"
        ));
    }
    let (code, message) = match find::<ErrorMetadata>(error).and_then(|told| Some((told.code()?, told.message()?))) {
        Some((code, message)) => (code.to_owned(), message.to_owned()),
        None => match innermost(error) {
            // An error that the SDK knows: `InvalidIdentityTokenException: No OpenIDConnect …`.
            text if text.split(':').next().is_some_and(|code| code.ends_with("Exception")) => {
                let (code, message) = text.split_once(": ").unwrap_or((&text, ""));
                (code.to_owned(), message.to_owned())
            }
            text => return unusable(thing, error, &text),
        },
    };
    if PASSING.iter().any(|passing| code.starts_with(passing)) {
        return Error::Unavailable(format!(
            "the AWS credentials for {thing} could not be obtained ({code}): {message}"
        ));
    }
    Error::AccessDenied(format!("AWS gives no credentials for {thing} ({code}): {message}"))
}

/// Nothing is configured, or only the name of a profile.
fn none(thing: &str, error: &CredentialsError) -> String {
    let attempts = error.source().and_then(|source| source.downcast_ref::<ProviderChainError<CredentialsError>>());
    let attempts = attempts.map(ProviderChainError::attempts).unwrap_or_default();
    let profile = attempts.iter().map(|attempt| innermost(attempt.error())).find(|why| why.starts_with("profile `"));
    let files = "a profile of ~/.aws/config or ~/.aws/credentials";
    match (profile, std::env::var("AWS_PROFILE")) {
        (Some(why), _) => {
            format!("there are no AWS credentials for {thing}: {why}; AWS_PROFILE must name {files}")
        }
        (None, Ok(name)) if !name.is_empty() => format!(
            "there are no AWS credentials for {thing}: AWS_PROFILE is '{name}', which is not {files} that has any"
        ),
        _ => format!(
            "there are no AWS credentials for {thing}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
        ),
    }
}

/// They are configured, but not in a way that works.
fn unusable(thing: &str, error: &CredentialsError, why: &str) -> Error {
    let file = std::env::var("AWS_WEB_IDENTITY_TOKEN_FILE").ok().filter(|_| find::<io::Error>(error).is_some());
    let file = file.map(|file| format!("AWS_WEB_IDENTITY_TOKEN_FILE names '{file}': ")).unwrap_or_default();
    let why = why.trim();
    Error::AccessDenied(format!("the AWS credentials for {thing} cannot be obtained: {file}{why}"))
}
