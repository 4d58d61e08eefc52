//! What all clients of AWS share: region, credentials, certificates, and what a failed call means.

mod access;
mod chain;
mod clock;
mod credentials;
mod failure;
mod https;
mod unobtained;

pub use access::Access;
#[cfg(test)]
pub(crate) use access::tests::{answering, nowhere};
pub(crate) use clock::ahead;
pub use failure::{Call, failure};
