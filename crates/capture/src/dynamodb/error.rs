//! From an SDK error to the program's own.

use adapters::aws::{Call, failure};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use domain::error::Error;

/// What a failed call about a table means, and what to do. Holds no credentials.
pub(super) fn explain<E, R>(call: &str, table: &str, region: Option<&str>, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let thing = format!("DynamoDB table '{table}' in region {}", region.unwrap_or_default());
    failure(&Call { service: "DynamoDB", name: call, thing: &thing, region }, error)
}
