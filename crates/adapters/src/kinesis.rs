//! Kinesis through the AWS SDK: calls in, domain types out.

mod client;
mod convert;
mod dates;
mod error;
mod fan_out;
mod subscriber;
mod time;

pub use client::AwsKinesis;
pub use time::KinesisTime;
