//! From an SDK error to the program's own.

use adapters::aws::{Access, Call, failure};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use domain::error::Error;

/// What a failed call about a table means, and what to do. Holds no credentials.
pub(super) fn explain<E, R>(call: &str, table: &str, access: &Access, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let thing = format!("DynamoDB table '{table}' in region {}", access.region());
    failure(&Call { access, service: "DynamoDB", name: call, thing: &thing }, error)
}
