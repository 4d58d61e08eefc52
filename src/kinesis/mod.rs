//! Kinesis through the AWS SDK: calls in, domain types out.

mod client;
mod error;
mod fan_out;

pub use client::AwsKinesis;
