//! Kinesis through the AWS SDK: calls in, domain types out.

mod client;
mod error;

pub use client::AwsKinesis;
