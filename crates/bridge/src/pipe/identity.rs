//! What identifies a pipe beyond its name: one stream of one account and region
//! (**one-stream-per-pipe**).

use domain::arn::Arn;
use domain::error::Error;
use domain::lease::{Identity, Lease};
use domain::names::PipeName;
use domain::ports::Stream;

/// The error for a pipe name used with two streams.
pub fn another_stream(pipe: &PipeName, wanted: &str, has: &str) -> Error {
    Error::BadRequest(format!(
        "pipe '{pipe}' reads stream '{has}', not '{wanted}': a pipe belongs to one stream, so use another pipe name"
    ))
}

/// Checks that a pipe's rows belong to `stream`, not to one of the same name in another account or
/// region.
pub fn one_stream<'a>(
    pipe: &PipeName,
    rows: impl IntoIterator<Item = &'a Lease>,
    stream: &Stream,
) -> Result<(), Error> {
    let identity = stream.identity();
    match rows.into_iter().find(|lease| lease.stream != stream.name || lease.identity.is_elsewhere(&identity)) {
        None => Ok(()),
        Some(lease) if lease.stream != stream.name => Err(another_stream(pipe, &stream.name, &lease.stream)),
        Some(lease) => Err(elsewhere(pipe, &lease.identity, &identity)),
    }
}

/// The error for a pipe name used with two streams of the same name.
pub(super) fn elsewhere(pipe: &PipeName, has: &Identity, here: &Identity) -> Error {
    Error::BadRequest(format!(
        "pipe '{pipe}' reads stream {}, and this bridge, in another account or region, would read {}: a pipe belongs to one stream, so use \
         another pipe name here",
        has.arn, here.arn
    ))
}

/// The region in an ARN; empty if there is none.
pub(super) fn region(arn: &str) -> &str {
    Arn::parse(arn).map_or("", |arn| arn.region)
}
