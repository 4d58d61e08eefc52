//! What a failed call to AWS means, whichever service it went to.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt::Debug;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::access::Access;
use super::chain::{find, innermost};
use super::clock;
use super::credentials::{Unobtained, are_refused};
use super::https::{Origin, Unreached};
use super::unobtained;
use domain::error::Error;
use domain::limits::QUOTED_ANSWER;

/// What some services answer when the time of a signature is not theirs.
const SIGNED_AT_ANOTHER_TIME: [&str; 2] = ["RequestExpired", "RequestTimeTooSkewed"];

/// A call, as its sentence names it.
pub struct Call<'a> {
    /// Of the client that made it.
    pub access: &'a Access,
    /// The service, as AWS writes it: `Kinesis` or `DynamoDB`. In lower case it is its prefix in
    /// policies.
    pub service: &'a str,
    /// The API's name, as AWS spells it.
    pub name: &'a str,
    /// What it was about, with its region.
    pub thing: &'a str,
}

/// Sorts a failed call by what all services agree on: one sentence that holds no credentials. If it
/// is about the credentials, they are read again for the next call.
pub fn failure<E, R>(call: &Call<'_>, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: Debug + 'static,
{
    let Call { access, name, thing, .. } = call;
    let response = error.raw_response().and_then(|raw| (raw as &dyn Any).downcast_ref::<HttpResponse>());
    // The body of a response that broke off is gone.
    let response = response.filter(|response| response.body().bytes().is_some());
    let told = match error {
        SdkError::ServiceError(answer) => answer.err().code().map(|code| (code, answer.err().message().unwrap_or(""))),
        _ => None,
    };
    let Some((code, message)) = told else {
        return response.map_or_else(|| unreached(call, error), |response| foreign(call, response));
    };
    match code {
        "ResourceNotFoundException" => Error::NotFound(format!(
            "{thing} does not exist: check the name, the region (AWS_REGION) and the account ({name}: {message})"
        )),
        "ExpiredTokenException" | "ExpiredToken" => {
            access.refused();
            Error::AccessDenied(format!(
                "the AWS credentials for {thing} have expired ({code}): renew them, or use a role"
            ))
        }
        code if are_refused(code) || SIGNED_AT_ANOTHER_TIME.contains(&code) => match clock::off_by(message, response) {
            Some(off) => Error::AccessDenied(format!(
                "AWS refuses {name} on {thing} because of this machine's clock, which is {off} ({code}): set the clock"
            )),
            None => {
                access.refused();
                Error::AccessDenied(format!(
                    "AWS does not accept the credentials for {thing} ({code}): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that they are \
                     for this region"
                ))
            }
        },
        "AccessDeniedException" | "KMSAccessDeniedException" => Error::AccessDenied(denied(call, code, message)),
        "KMSDisabledException" | "KMSInvalidStateException" | "KMSNotFoundException" | "KMSOptInRequired" => {
            Error::AccessDenied(format!("{name} on {thing} cannot use the stream's KMS key ({code}): {message}"))
        }
        _ => Error::Unavailable(format!("{name} on {thing} failed with {code}: {message}")),
    }
}

/// The action that AWS names is not always that of the call.
fn denied(call: &Call<'_>, code: &str, message: &str) -> String {
    let Call { service, name, thing, .. } = call;
    let told = message.split_once("not authorized to perform: ").and_then(|(_, rest)| rest.split(' ').next());
    let action = match (told, code) {
        (Some(action), _) => action.to_owned(),
        (None, "KMSAccessDeniedException") => "kms:Decrypt".into(),
        _ => format!("{}:{name}", service.to_ascii_lowercase()),
    };
    let place = if action.starts_with("kms:") { " on the KMS key of the stream" } else { "" };
    let must = match message.contains("explicit deny") {
        true => format!("a policy denies {action}{place} explicitly"),
        false => format!("the policy must allow {action}{place}"),
    };
    format!("AWS does not allow {name} on {thing} ({code}): {must} ({message})")
}

/// Something answered that does not speak as AWS does.
fn foreign(call: &Call<'_>, response: &HttpResponse) -> Error {
    let Call { service, name, thing, .. } = call;
    let host = response.extension::<Origin>().map_or("an unknown host", Origin::host);
    let body = response.body().bytes().unwrap_or_default();
    let first = String::from_utf8_lossy(&body[..body.len().min(QUOTED_ANSWER)]);
    let first: String = first.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let first = match first.trim() {
        "" => "an empty body".to_owned(),
        text => format!("'{text}'"),
    };
    Error::Unavailable(format!(
        "{name} on {thing} was answered by {host} with status {} and {first}, which {service} does not send: look for a proxy or gateway in \
         between, and at AWS_ENDPOINT_URL",
        response.status().as_u16()
    ))
}

fn unreached<E, R>(call: &Call<'_>, error: &SdkError<E, R>) -> Error
where
    E: StdError + 'static,
    R: Debug + 'static,
{
    let Call { service, name, thing, .. } = call;
    if let Some(Unobtained(why)) = find(error) {
        return unobtained::explain(thing, why);
    }
    let (place, why) = match (error, find::<Unreached>(error)) {
        (SdkError::TimeoutError(_), _) => (String::new(), "it timed out".to_owned()),
        (_, Some(unreached)) => (format!(" at {}", unreached.place()), unreached.why()),
        (_, None) => (String::new(), innermost(error)),
    };
    Error::Unavailable(format!("{name} on {thing} did not reach {service}{place}: {why}"))
}
